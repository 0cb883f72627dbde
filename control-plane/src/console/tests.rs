use super::TABLE;
use crate::http::routes::tests::assert_matrix;
use crate::http::routes::{Access, Audience};

/// Written down a second time on purpose: a new page must be decided here too.
const DECIDED: &[(&str, &str)] = &[
    ("GET /login", "anybody"),
    ("POST /login", "anybody"),
    ("POST /logout", "viewer"),
    ("GET /", "viewer"),
    ("GET /tenants/new", "operator"),
    ("POST /tenants", "operator"),
    ("GET /tenants/{slug}", "viewer"),
    ("GET /tenants/{slug}/logs", "operator"),
    ("POST /tenants/{slug}/resume", "operator"),
    ("GET /tenants/{slug}/suspend", "operator"),
    ("POST /tenants/{slug}/suspend", "operator"),
    ("GET /tenants/{slug}/delete", "operator"),
    ("POST /tenants/{slug}/delete", "operator"),
    ("POST /tenants/{slug}/secrets", "operator"),
    ("POST /tenants/{slug}/secrets/{name}/delete", "operator"),
    ("GET /-/partial/tenants", "viewer"),
    ("GET /-/partial/tenants/{slug}/logs", "operator"),
    ("GET /-/stream/tenants", "viewer"),
    ("GET /-/stream/tenants/{slug}", "viewer"),
];

#[test]
fn every_page_has_a_decided_role() {
    let declared: Vec<(String, &str)> = TABLE
        .iter()
        .map(|spec| {
            let who = match spec.access {
                Access::Public => "anybody",
                Access::AtLeast(role) => role.as_str(),
            };
            (format!("{} {}", spec.method, spec.path), who)
        })
        .collect();
    let decided: Vec<(String, &str)> = DECIDED.iter().map(|(r, w)| ((*r).to_owned(), *w)).collect();
    assert_eq!(declared, decided);
}

#[tokio::test]
async fn every_page_lets_in_exactly_its_roles() {
    assert_matrix(TABLE, Audience::Browser).await;
}
