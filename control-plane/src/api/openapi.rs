//! The OpenAPI 3.1 description, generated from the handlers.

use axum::response::{IntoResponse as _, Response};
use utoipa::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};

#[derive(OpenApi)]
#[openapi(
    info(title = "Nexaas", description = "One isolated workspace per client: create them, follow them, hand them their keys."),
    modifiers(&Security),
    security(("token" = []), ("session" = [])),
    paths(
        document,
        super::credentials::me,
        super::tenants::templates,
        super::tenants::list,
        super::tenants::create,
        super::tenants::show,
        super::tenants::delete,
        super::tenants::suspend,
        super::tenants::resume,
        super::tenants::operations,
        super::tenants::events,
        super::tenants::logs,
        super::credentials::secret_names,
        super::credentials::set_secret,
        super::credentials::delete_secret,
        super::credentials::rotate_api_key,
        super::operations::show,
        super::operations::stream,
        super::credentials::list_tokens,
        super::credentials::create_token,
        super::credentials::revoke_token,
        super::operators::list,
        super::operators::create,
        super::operators::reset_password,
    )
)]
pub struct Document;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        let cookie = crate::http::cookies::PanelCookie::Console.name(true);
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(cookie))));
    }
}

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "meta", security(()), responses((status = 200, description = "OpenAPI 3.1")))]
pub async fn document() -> Response {
    axum::Json(Document::openapi()).into_response()
}
