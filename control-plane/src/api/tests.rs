use super::view::TenantView;
use super::{TABLE, openapi};
use crate::edge::route::tests::tenant;
use crate::http::PublicUrl;
use crate::http::auth::SharedAuthenticator;
use crate::http::routes::tests::{ByName, assert_matrix};
use crate::http::routes::{Access, Audience, build};
use std::collections::BTreeSet;
use std::sync::Arc;
use utoipa::OpenApi as _;

/// What each role may do, written down a second time: a route that is new or whose role changed must be decided here too.
const DECIDED: &[(&str, &str)] = &[
    ("GET /api/v1/openapi.json", "anybody"),
    ("GET /api/v1/me", "viewer"),
    ("GET /api/v1/templates", "viewer"),
    ("GET /api/v1/tenants", "viewer"),
    ("POST /api/v1/tenants", "operator"),
    ("GET /api/v1/tenants/{slug}", "viewer"),
    ("DELETE /api/v1/tenants/{slug}", "operator"),
    ("POST /api/v1/tenants/{slug}/suspend", "operator"),
    ("POST /api/v1/tenants/{slug}/resume", "operator"),
    ("GET /api/v1/tenants/{slug}/operations", "viewer"),
    ("GET /api/v1/tenants/{slug}/events", "viewer"),
    ("GET /api/v1/tenants/{slug}/logs", "operator"),
    ("GET /api/v1/tenants/{slug}/secrets", "operator"),
    ("PUT /api/v1/tenants/{slug}/secrets/{name}", "operator"),
    ("DELETE /api/v1/tenants/{slug}/secrets/{name}", "operator"),
    ("POST /api/v1/tenants/{slug}/api-key", "operator"),
    ("GET /api/v1/operations/{id}", "viewer"),
    ("GET /api/v1/operations/{id}/stream", "viewer"),
    ("GET /api/v1/tokens", "viewer"),
    ("POST /api/v1/tokens", "viewer"),
    ("DELETE /api/v1/tokens/{id}", "viewer"),
    ("GET /api/v1/operators", "owner"),
    ("POST /api/v1/operators", "owner"),
    ("POST /api/v1/operators/{username}/reset-password", "owner"),
];

#[test]
fn every_route_has_a_decided_role() {
    let declared: BTreeSet<(String, String)> = TABLE
        .iter()
        .map(|spec| {
            let who = match spec.access {
                Access::Public => "anybody",
                Access::AtLeast(role) => role.as_str(),
            };
            (format!("{} {}", spec.method, spec.path), who.to_owned())
        })
        .collect();
    let decided: BTreeSet<(String, String)> = DECIDED.iter().map(|(r, w)| ((*r).to_owned(), (*w).to_owned())).collect();
    assert_eq!(declared, decided);
}

#[tokio::test]
async fn every_route_lets_in_exactly_its_roles() {
    assert_matrix(TABLE, Audience::Program).await;
}

#[test]
fn the_document_describes_exactly_the_routes_there_are() {
    let document = serde_json::to_value(openapi::Document::openapi()).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            described.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let declared: BTreeSet<String> = TABLE.iter().map(|spec| format!("{} {}", spec.method, spec.path)).collect();
    assert_eq!(described, declared);
}

#[test]
fn every_reference_in_the_document_leads_somewhere() {
    let document = serde_json::to_value(openapi::Document::openapi()).unwrap();
    let text = document.to_string();
    for name in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
    }
}

#[test]
fn a_tenant_is_shown_in_its_promised_form() {
    let public =
        PublicUrl { scheme: "http".into(), base_domain: "localhost".into(), port: Some(8080), cookie_secure: true };
    insta::assert_json_snapshot!(TenantView::new(&tenant("acme"), &public), { ".id" => "[id]" });
}

#[test]
fn the_etag_changes_with_the_state_and_carries_the_generation() {
    let public =
        PublicUrl { scheme: "http".into(), base_domain: "localhost".into(), port: Some(8080), cookie_secure: true };
    let mut t = tenant("acme");
    let first = TenantView::new(&t, &public).etag();
    assert!(first.starts_with("\"g1."), "{first}");
    t.conditions[1].message = "Still there".into();
    assert_ne!(first, TenantView::new(&t, &public).etag());
}

#[test]
fn the_table_builds_although_paths_are_shared_between_methods() {
    let authenticator: SharedAuthenticator = Arc::new(ByName);
    let router = build(TABLE, &authenticator, Audience::Program, true, |spec| (spec.handler)());
    drop(router.method_not_allowed_fallback(super::wrong_method));
}
