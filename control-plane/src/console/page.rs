//! What every console page needs: its nonce, its caller, the frame around it; and errors as pages.

use crate::domain::operator::Principal;
use crate::edge::pages::Message;
use crate::error::{Error, Kind};
use crate::http::auth::Caller;
use crate::http::{CspNonce, problem};
use axum::extract::{Form, FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use nexaas_dashboard::Template;
use nexaas_dashboard::layout::{Bare, Brand, NavGroup, NavItem, Person, Shell};
use serde::de::DeserializeOwned;

/// The result of a page's handler.
pub type Result<T = Response, E = PageError> = std::result::Result<T, E>;

/// An error on its way to a person.
#[derive(Debug)]
pub struct PageError(pub Error);

impl From<Error> for PageError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        problem::log(&self.0);
        let (title, icon) = match &self.0.kind {
            Kind::NotFound => ("Not found", "search"),
            Kind::Forbidden => ("Not allowed", "lock"),
            Kind::Conflict | Kind::PreconditionFailed => ("It changed meanwhile", "refresh-cw"),
            Kind::RateLimited { .. } => ("Slow down a little", "clock"),
            Kind::Unavailable { .. } | Kind::Timeout { .. } | Kind::Exhausted { .. } => ("Not just now", "clock"),
            Kind::Invalid { .. } => ("That cannot be done", "info"),
            Kind::Unauthenticated => ("Log in first", "lock"),
            Kind::Internal => ("Something went wrong", "triangle-alert"),
        };
        let message = Message {
            status: problem::status(&self.0.kind),
            title,
            detail: self.0.public().to_owned(),
            icon,
            link: Some(("/".to_owned(), "To the tenants")),
            soon: false,
        };
        let mut response = message.page();
        problem::decorate(&self.0.kind, &mut response);
        response
    }
}

/// The page being made.
#[derive(Debug, Clone)]
pub struct Page {
    nonce: String,
    caller: Option<Principal>,
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = std::convert::Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, Self::Rejection> {
        Ok(Self {
            nonce: parts.extensions.get::<CspNonce>().map(|n| n.0.clone()).unwrap_or_default(),
            caller: parts.extensions.get::<Caller>().map(|c| c.0.clone()),
        })
    }
}

impl Page {
    pub fn may_change(&self) -> bool {
        self.caller.as_ref().is_some_and(|c| c.role >= crate::domain::operator::Role::Operator)
    }

    fn brand() -> Brand {
        Brand { name: "Nexaas".to_owned(), detail: "Console".to_owned(), href: "/".to_owned(), product: true }
    }

    pub fn bare(&self, title: &str, lead: &str) -> Bare {
        Bare { title: title.to_owned(), nonce: self.nonce.clone(), brand: Self::brand(), lead: lead.to_owned() }
    }

    pub fn shell(&self, title: &str) -> Shell {
        let item = |label: &str, href: &str, icon: &str, active: bool| NavItem {
            label: label.to_owned(),
            href: href.to_owned(),
            icon: icon.to_owned(),
            active,
            ..NavItem::default()
        };
        let nav = vec![
            NavGroup { label: String::new(), items: vec![item("Tenants", "/", "building", true)] },
            NavGroup {
                label: "Reference".to_owned(),
                items: vec![item("API description", "/api/v1/openapi.json", "code", false)],
            },
        ];
        Shell {
            title: title.to_owned(),
            nonce: self.nonce.clone(),
            brand: Self::brand(),
            nav,
            person: self.caller.as_ref().map(|c| Person {
                name: c.username.clone(),
                detail: c.role.as_str().to_owned(),
                logout_href: "/logout".to_owned(),
            }),
            ..Shell::default()
        }
    }
}

/// A page below the list.
pub fn below(mut shell: Shell, label: &str, href: String) -> Shell {
    shell.crumb = Some((label.to_owned(), href));
    shell
}

pub fn html(status: StatusCode, template: &impl Template) -> Result {
    let text = template.render().map_err(Error::internal)?;
    let mut response = (status, text).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    Ok(response)
}

/// A form as a browser posts it. Fields are text; what they mean is judged by the handler, so that nothing typed is lost.
#[derive(Debug)]
pub struct Posted<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Posted<T> {
    type Rejection = PageError;
    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let right_type = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.split(';').next().unwrap_or_default().trim() == "application/x-www-form-urlencoded");
        if !right_type {
            return Err(Error::invalid("Content-Type", "must be application/x-www-form-urlencoded").into());
        }
        match Form::<T>::from_request(request, state).await {
            Ok(Form(value)) => Ok(Self(value)),
            Err(rejection) => Err(Error::invalid("form", format!("is refused: {}", rejection.body_text())).into()),
        }
    }
}
