//! Routes are declared in a table: method, path, who may, handler. The router is built from the table and from nothing else, so
//! a route without a declared role cannot exist, and tests can walk every route.

use super::auth::{Caller, SharedAuthenticator, authenticate};
use crate::domain::operator::Role;
use crate::error::Error;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::MethodRouter;
use http::{HeaderValue, Method, StatusCode};

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody, without credentials.
    Public,
    /// An operator of at least this role.
    AtLeast(Role),
}

/// What an unauthenticated caller gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// A 401 problem document.
    Program,
    /// A person: pages lead to the sign-in form and back.
    Browser,
}

/// One declared route over the state `S`.
pub struct RouteSpec<S> {
    pub method: Method,
    pub path: &'static str,
    pub access: Access,
    pub handler: fn() -> MethodRouter<S>,
}

impl<S> std::fmt::Debug for RouteSpec<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {:?}", self.method, self.path, self.access)
    }
}

/// Declares one route.
pub const fn route<S>(
    method: Method,
    path: &'static str,
    access: Access,
    handler: fn() -> MethodRouter<S>,
) -> RouteSpec<S> {
    RouteSpec { method, path, access, handler }
}

#[derive(Debug, Clone)]
struct Guard {
    authenticator: SharedAuthenticator,
    access: Access,
    audience: Audience,
    secure: bool,
}

/// Builds the router of `table`. `handler_of` is the table's own handler, or a stand-in where a test asks only who may pass.
pub fn build<S>(
    table: &[RouteSpec<S>],
    authenticator: &SharedAuthenticator,
    audience: Audience,
    secure: bool,
    handler_of: impl Fn(&RouteSpec<S>) -> MethodRouter<S>,
) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    table.iter().fold(Router::new(), |router, spec| {
        let guard = Guard { authenticator: authenticator.clone(), access: spec.access, audience, secure };
        router.route(spec.path, handler_of(spec).layer(middleware::from_fn_with_state(guard, check)))
    })
}

async fn check(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let Access::AtLeast(minimum) = guard.access else { return next.run(request).await };
    match authenticate(guard.authenticator.as_ref(), request.headers(), guard.secure).await {
        Ok(principal) if principal.role >= minimum => {
            tracing::Span::current().record("operator", principal.username.as_str());
            request.extensions_mut().insert(Caller(principal));
            next.run(request).await
        }
        Ok(principal) => Error::forbidden(format!(
            "This needs the role '{}'; you have '{}'",
            minimum.as_str(),
            principal.role.as_str()
        ))
        .into_response(),
        Err(error) if guard.audience == Audience::Browser && error.kind == crate::error::Kind::Unauthenticated => {
            to_sign_in(&request)
        }
        Err(error) => error.into_response(),
    }
}

/// A page leads to the sign-in form and back to itself; a fragment asks htmx to load the form as a whole page.
fn to_sign_in(request: &Request) -> Response {
    let page = request.method() == Method::GET && !request.uri().path().starts_with("/-/");
    let target = if page && request.uri().path() != "/" {
        let query =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("next", request.uri().path()).finish();
        format!("/login?{query}")
    } else {
        "/login".to_owned()
    };
    if request.headers().contains_key("hx-request") {
        let mut response = StatusCode::UNAUTHORIZED.into_response();
        if let Ok(value) = HeaderValue::from_str(&target) {
            response.headers_mut().insert("hx-redirect", value);
        }
        return response;
    }
    Redirect::to(&target).into_response()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::OperatorId;
    use crate::domain::operator::{Principal, Via};
    use crate::error::Result;
    use crate::http::auth::Authenticator;
    use axum::body::Body;
    use axum::routing::on;
    use tower::ServiceExt as _;

    /// Takes the role's name for the credential.
    #[derive(Debug)]
    pub(crate) struct ByName;

    fn principal(name: &str, via: Via) -> Result<Principal> {
        let role = match name {
            "viewer" => Role::Viewer,
            "operator" => Role::Operator,
            "owner" => Role::Owner,
            _ => return Err(Error::unauthenticated("unknown")),
        };
        Ok(Principal { operator_id: OperatorId::generate(), username: name.to_owned(), role, via })
    }

    #[async_trait::async_trait]
    impl Authenticator for ByName {
        async fn session(&self, token: &str) -> Result<Principal> {
            principal(token, Via::Session)
        }
        async fn token(&self, token: &str) -> Result<Principal> {
            principal(token, Via::Token)
        }
    }

    /// Calls every route of `table` as nobody and as each role, and checks that exactly those get through whom the table names.
    pub(crate) async fn assert_matrix<S>(table: &[RouteSpec<S>], audience: Audience) {
        // The same table over stand-ins: what is asked is who gets past the guard, not what a handler then does.
        let table: Vec<RouteSpec<()>> =
            table.iter().map(|s| route(s.method.clone(), s.path, s.access, axum::routing::MethodRouter::new)).collect();
        let app: Router =
            build(&table, &(std::sync::Arc::new(ByName) as SharedAuthenticator), audience, true, |spec| {
                let filter = axum::routing::MethodFilter::try_from(spec.method.clone()).unwrap();
                on(filter, || async { StatusCode::IM_A_TEAPOT })
            });
        for spec in &table {
            let path = spec.path.replace("{slug}", "acme").replace("{id}", "x").replace("{name}", "x");
            let path = path.replace("{*", "").replace(['{', '}'], "");
            for role in [None, Some(Role::Viewer), Some(Role::Operator), Some(Role::Owner)] {
                for by_cookie in [false, true] {
                    let mut request = Request::builder().method(spec.method.clone()).uri(&path);
                    if let Some(role) = role {
                        request = if by_cookie {
                            request.header("cookie", format!("__Host-nexaas_console={}", role.as_str()))
                        } else {
                            request.header("authorization", format!("Bearer {}", role.as_str()))
                        };
                    }
                    let status = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status();
                    let reached = status == StatusCode::IM_A_TEAPOT;
                    let may = match spec.access {
                        Access::Public => true,
                        Access::AtLeast(minimum) => role.is_some_and(|r| r >= minimum),
                    };
                    assert_eq!(reached, may, "{spec:?} as {role:?}: {status}");
                    if !may {
                        let expected: &[StatusCode] = match (role, audience) {
                            (Some(_), _) => &[StatusCode::FORBIDDEN],
                            (None, Audience::Program) => &[StatusCode::UNAUTHORIZED],
                            (None, Audience::Browser) => &[StatusCode::SEE_OTHER],
                        };
                        assert!(expected.contains(&status), "{spec:?} as {role:?}: {status}");
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn a_bad_token_is_not_rescued_by_a_good_cookie() {
        let table = [route(Method::GET, "/x", Access::AtLeast(Role::Viewer), || {
            axum::routing::get(|Caller(p): Caller| async move { p.username })
        })];
        let app: Router =
            build(&table, &(std::sync::Arc::new(ByName) as SharedAuthenticator), Audience::Program, true, |s| {
                (s.handler)()
            })
            .with_state(());
        let request = Request::get("/x")
            .header("cookie", "__Host-nexaas_console=owner")
            .header("authorization", "Bearer nobody")
            .body(Body::empty())
            .unwrap();
        assert_eq!(app.oneshot(request).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    }
}
