//! The OpenAPI 3.1 description of this API. Paths, parameters and bodies are described beside their handlers and answers in
//! `shapes.rs`; who may call and how a refusal looks comes from the table of routes itself.
//!
//! Always true: the document describes exactly the rows of the table (a test compares both), and answers have the shapes it
//! promises (a test calls every row).

pub mod ops;
pub mod shapes;

use super::guard::Access;
use super::routes;
use axum::Json;
use axum::http::Method;
use serde_json::{Value, json};
use std::sync::LazyLock;
use utoipa::OpenApi as _;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Nexaas runner", description = "One client's workspace: its agents, schedules, queue, chats and health."),
    modifiers(&Security),
    components(schemas(shapes::Problem)),
    paths(
        document,
        super::health::show,
        super::metrics::show,
        super::auth::register,
        super::auth::login,
        super::auth::me,
        super::auth::logout,
        super::workspace::show,
        super::mcp_catalog::list,
        super::agents::tree,
        super::agents::show,
        super::skills::list,
        super::skills::show,
        super::skills::execute,
        super::registries::list,
        super::registries::show,
        super::events::list,
        super::events::upsert,
        super::stream::events,
        super::events::show,
        super::events::patch,
        super::events::delete,
        super::events::trigger,
        super::events::pause,
        super::events::resume,
        super::queue::view,
        super::queue::enqueue,
        super::queue::list,
        super::queue::retry_dead,
        super::queue::keys,
        super::queue::key,
        super::queue::set_key,
        super::queue::show,
        super::queue::cancel,
        super::queue::retry,
        super::queue::attempts,
        super::output::show,
        super::bus::past,
        super::chat::socket,
        super::chat::sessions,
        super::chat::session,
        super::usage::report,
        ops::health,
        ops::alerts,
        ops::acknowledge,
        ops::silence_alert,
        ops::unsilence_alert,
        ops::silences,
        ops::silence,
        ops::end_silence,
        ops::checks,
        ops::snapshots,
        ops::remedies,
        ops::heal,
        super::hooks::receive,
    )
)]
struct Described;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Default::default);
        let header = |name: &str| SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(name)));
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        components.add_security_scheme("hook_token", header("X-Webhook-Token"));
        components.add_security_scheme(
            "hook_token_in_query",
            SecurityScheme::ApiKey(ApiKey::Query(ApiKeyValue::new("token"))),
        );
        components.add_security_scheme("standard_webhooks", header("webhook-signature"));
        components.add_security_scheme("github", header("X-Hub-Signature-256"));
    }
}

/// The document, with what the table says of each row.
pub fn whole() -> &'static Value {
    static WHOLE: LazyLock<Value> = LazyLock::new(|| {
        let mut document = serde_json::to_value(Described::openapi()).unwrap_or_default();
        for route in routes::table() {
            let method = route.method.as_str().to_ascii_lowercase();
            let Some(operation) = document["paths"][route.path].get_mut(&method).and_then(Value::as_object_mut) else {
                continue;
            };
            operation.insert("security".to_owned(), security(route.access));
            let refusals = refusals(&route, operation.contains_key("requestBody"));
            if let Some(responses) = operation.entry("responses").or_insert_with(|| json!({})).as_object_mut() {
                for (status, text) in refusals {
                    responses.entry(status).or_insert_with(|| refusal(text));
                }
            }
        }
        document
    });
    &WHOLE
}

fn security(access: Access) -> Value {
    match access {
        Access::Public => json!([]),
        Access::Caller | Access::Admin => json!([{"bearer": []}]),
        Access::Signed => json!([{"bearer": []}, {"hook_token": []}, {"hook_token_in_query": []},
                                 {"standard_webhooks": []}, {"github": []}]),
    }
}

/// The refusals a row may answer besides those its handler is described with.
fn refusals(route: &routes::Route, body: bool) -> Vec<(&'static str, &'static str)> {
    let mut all = vec![
        ("500", "A defect; the log has the details"),
        ("503", "The runner starts, stops, or cannot use its database; try again"),
        ("504", "No answer in time; what was started goes on"),
    ];
    if route.access != Access::Public {
        all.push(("401", "No valid credentials"));
    }
    if route.access == Access::Admin {
        all.push(("403", "This needs an admin"));
    }
    if route.path.contains('{') {
        all.push(("404", "Nothing of that name"));
    }
    if body || matches!(route.method, Method::POST | Method::PATCH | Method::PUT) {
        all.push(("409", "The state does not allow it"));
        all.push(("413", "The body is larger than this path takes"));
        all.push(("415", "The content type is not one this path takes"));
    }
    all.push(("422", "Bad input; `field` names it"));
    all
}

fn refusal(text: &str) -> Value {
    json!({
        "description": text,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    })
}

/// This document.
#[utoipa::path(get, path = "/api/openapi.json", tag = "meta", responses((status = 200, body = Object, description = "OpenAPI 3.1")))]
pub async fn document() -> Json<&'static Value> {
    Json(whole())
}
