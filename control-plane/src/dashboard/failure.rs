//! How the dashboard says that something did not work: a page for a page, a line in the widget for a widget, a toast for a
//! button. Handlers only answer with the error; it is drawn here, where the kind of request is known.

use crate::error::{Error, Kind};
use crate::http::{CspNonce, TenantContext, problem};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Redirect, Response};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use nexaas_dashboard::Template as _;
use nexaas_dashboard::layout::{Bare, Brand, MessagePage, Toast, Tone};
use nexaas_dashboard::widgets::{self, Failed};
use std::sync::Arc;

const HX_REQUEST: HeaderName = HeaderName::from_static("hx-request");
const HX_REDIRECT: HeaderName = HeaderName::from_static("hx-redirect");

/// What a handler answers when it cannot do what was asked.
#[derive(Debug)]
pub enum Failure {
    Error(Error),
    /// Nobody has registered yet.
    NoCompany,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// The error on its way to [`draw`].
#[derive(Debug, Clone)]
struct Undrawn(Arc<Failure>);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Error(error) => problem::status(&error.kind),
            Self::NoCompany => StatusCode::UNAUTHORIZED,
        };
        let mut response = status.into_response();
        response.extensions_mut().insert(Undrawn(Arc::new(self)));
        response
    }
}

pub async fn not_found() -> Failure {
    Error::new(Kind::NotFound, "There is no such page").into()
}

/// What the request was for, which decides the form of a refusal.
#[derive(Debug, Clone)]
struct Asked {
    path: String,
    page: bool,
    htmx: bool,
    json: bool,
    stream: bool,
    partial: bool,
    nonce: String,
    name: String,
}

impl Asked {
    fn of(request: &Request) -> Self {
        let path = request.uri().path().to_owned();
        let accept = request.headers().get(http::header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let tenant = request.extensions().get::<TenantContext>();
        Self {
            page: *request.method() == Method::GET && !path.starts_with("/-/"),
            htmx: request.headers().contains_key(HX_REQUEST),
            json: accept.contains("application/json"),
            stream: path.starts_with("/-/stream/"),
            partial: path.starts_with("/-/partial/"),
            nonce: request.extensions().get::<CspNonce>().map(|n| n.as_str().to_owned()).unwrap_or_default(),
            name: tenant.map(|t| t.tenant.display_name.clone()).unwrap_or_default(),
            path,
        }
    }
}

/// Draws the error of a response that carries one.
pub async fn draw(request: Request, next: Next) -> Response {
    let asked = Asked::of(&request);
    let mut response = next.run(request).await;
    if let Some(Undrawn(failure)) = response.extensions_mut().remove::<Undrawn>() {
        return failed(&failure, &asked);
    }
    // Pages and fragments are personal; assets say otherwise themselves.
    response.headers_mut().entry(http::header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn failed(failure: &Failure, asked: &Asked) -> Response {
    let error = match failure {
        Failure::NoCompany => return redirect("/register".to_owned(), asked),
        Failure::Error(error) if error.kind == Kind::Unauthenticated && !asked.json && !asked.stream => {
            return redirect(login_url(asked), asked);
        }
        Failure::Error(error) => error,
    };
    problem::log(error);
    let mut response = if asked.json || asked.stream {
        axum::Json(serde_json::json!({"detail": error.public()})).into_response()
    } else if asked.partial {
        let inside = widgets::html(&Failed { text: said(error), url: asked.path.clone() });
        let mut response = Html(inside.0).into_response();
        // htmx swaps in what succeeded; the fragment itself says what did not.
        *response.status_mut() = StatusCode::OK;
        return response;
    } else if asked.htmx {
        return toast(Tone::Bad, "That did not work", said(error));
    } else {
        Html(page(error, asked)).into_response()
    };
    problem::decorate(&error.kind, &mut response);
    response
}

/// An error in words for the person who looks at a client's page.
pub fn said(error: &Error) -> String {
    match &error.kind {
        Kind::Unavailable { what: "runner" } => {
            "The workspace is starting or cannot be reached. It is looked after.".to_owned()
        }
        Kind::Timeout { what: "runner" } => "The workspace took too long to answer.".to_owned(),
        _ => error.public().to_owned(),
    }
}

fn page(error: &Error, asked: &Asked) -> String {
    let (title, lead, refresh_s) = match &error.kind {
        Kind::NotFound => ("Not found", said(error), None),
        Kind::Forbidden => ("Not allowed", said(error), None),
        Kind::Unavailable { .. } | Kind::Timeout { .. } => ("One moment", said(error), Some(3)),
        _ => ("That did not work", said(error), None),
    };
    let page = Bare {
        title: title.to_owned(),
        nonce: asked.nonce.clone(),
        brand: Brand { name: asked.name.clone(), href: "/".to_owned(), ..Brand::default() },
        lead,
    };
    let message = MessagePage {
        page,
        icon: "info".to_owned(),
        detail: String::new(),
        href: if asked.page && asked.path != "/" && refresh_s.is_none() { "/".to_owned() } else { String::new() },
        link: "Go to the start page".to_owned(),
        refresh_s: refresh_s.filter(|_| asked.page),
    };
    message.render().unwrap_or_else(|_| title.to_owned())
}

fn login_url(asked: &Asked) -> String {
    if !asked.page || asked.path == "/" {
        return "/login".to_owned();
    }
    let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("next", &asked.path).finish();
    format!("/login?{query}")
}

/// A page leads there; a fragment asks htmx to load it as a whole page.
fn redirect(target: String, asked: &Asked) -> Response {
    if asked.htmx || asked.json || asked.stream {
        let mut response = StatusCode::UNAUTHORIZED.into_response();
        if let Ok(value) = HeaderValue::from_str(&target) {
            response.headers_mut().insert(HX_REDIRECT, value);
        }
        return response;
    }
    Redirect::to(&target).into_response()
}

/// A short message in the corner. It answers a button, so it is drawn even when the news is bad.
pub fn toast(tone: Tone, title: &str, text: String) -> Response {
    toast_with_link(tone, title, text, String::new(), String::new())
}

pub fn toast_with_link(tone: Tone, title: &str, text: String, href: String, link: String) -> Response {
    let toast = Toast { tone, title: title.to_owned(), text, href, link };
    Html(widgets::html(&toast).0).into_response()
}
