//! The use cases over a real database.

use crate::domain::operator::{Principal, Role};
use crate::error::Kind;
use crate::orchestrator::fake::FakeBackend;
use crate::service::{CreateTenant, PageRequest};
use crate::testing::{Plane, TestDb, operator};
use chrono::Duration;
use nexaas_common::secret::{ExposeSecret as _, SecretString};
use std::net::{IpAddr, Ipv4Addr};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn named(slug: &str) -> CreateTenant {
    CreateTenant { slug: slug.into(), ..CreateTenant::default() }
}

#[tokio::test]
async fn bad_input_is_refused_by_field_and_stores_nothing() {
    let (db, world) = (TestDb::new().await, FakeBackend::default());
    let plane = Plane::start(&db, &world).await;
    let tenants = &plane.services.tenants;
    let by = operator(Role::Operator);
    let hostile = ["$(id)", "a;id", "`id`", "a|b", "../x", "a'b", "a\"b", "a\nb", "a\0b", "console", "xn--a", ""];
    for text in hostile {
        let refused = tenants.create(&by, named(text), None).await.unwrap_err();
        assert_eq!(refused.kind, Kind::Invalid { field: "slug".into() }, "{text:?}");
        let template = CreateTenant { template: Some(format!("{text}x/..")), ..named("acme") };
        let refused = tenants.create(&by, template, None).await.unwrap_err();
        assert_eq!(refused.kind, Kind::Invalid { field: "template".into() }, "{text:?}");
        let key = if text == "console" || text == "xn--a" { "a b" } else { text };
        if !["$(id)", "a;id", "`id`", "a|b", "../x", "a'b", "a\"b"].contains(&key) {
            assert!(tenants.create(&by, named("acme"), Some(key)).await.is_err(), "{key:?}");
        }
        assert!(
            tenants.set_secret(&by, &"acme".parse().unwrap(), text, SecretString::from("v".to_owned())).await.is_err()
        );
        assert!(tenants.list(PageRequest { cursor: Some(format!("{text}!")), limit: 1 }).await.is_err());
    }
    for (request, field) in [
        (CreateTenant { memory_mb: Some(1), ..named("acme") }, "memory_mb"),
        (CreateTenant { cpu_millis: Some(1), ..named("acme") }, "cpu_millis"),
        (CreateTenant { display_name: Some("a\u{7}b".into()), ..named("acme") }, "display_name"),
        (CreateTenant { backend: Some(crate::domain::tenant::BackendKind::Docker), ..named("acme") }, "backend"),
    ] {
        let refused = tenants.create(&by, request, None).await.unwrap_err();
        assert_eq!(refused.kind, Kind::Invalid { field: field.into() });
    }
    assert!(tenants.all().await.unwrap().is_empty());
    plane.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_name_is_taken_once_a_key_repeats_its_answer_and_a_viewer_may_only_look() {
    let (db, world) = (TestDb::new().await, FakeBackend::default());
    let plane = Plane::start(&db, &world).await;
    let tenants = &plane.services.tenants;
    let by = operator(Role::Operator);
    let refused = tenants.create(&operator(Role::Viewer), named("acme"), None).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Forbidden);
    let (first, operation) = tenants.create(&by, named("acme"), Some("k1")).await.unwrap();
    let (again, same) = tenants.create(&by, named("acme"), Some("k1")).await.unwrap();
    assert_eq!((first.id, operation.id), (again.id, same.id));
    let other = tenants.create(&by, named("other"), Some("k1")).await.unwrap_err();
    assert_eq!(other.kind, Kind::Invalid { field: "Idempotency-Key".into() });
    let taken = tenants.create(&by, named("acme"), None).await.unwrap_err();
    assert_eq!(taken.kind, Kind::Conflict);
    assert!(taken.public().contains("slug 'acme' is taken"), "{}", taken.public());
    for name in ["bravo", "charlie"] {
        tenants.create(&by, named(name), None).await.unwrap();
    }
    let page = tenants.list(PageRequest { cursor: None, limit: 2 }).await.unwrap();
    assert_eq!(page.items.iter().map(|t| t.slug.as_str()).collect::<Vec<_>>(), ["acme", "bravo"]);
    let rest = tenants.list(PageRequest { cursor: page.next_cursor, limit: 2 }).await.unwrap();
    assert_eq!(rest.items.iter().map(|t| t.slug.as_str()).collect::<Vec<_>>(), ["charlie"]);
    assert_eq!(rest.next_cursor, None);
    plane.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn the_audit_chain_shows_a_changed_row() {
    let (db, world) = (TestDb::new().await, FakeBackend::default());
    let plane = Plane::start(&db, &world).await;
    for name in ["acme", "bravo", "charlie"] {
        plane.create(name).await;
    }
    assert_eq!(plane.store.verify_audit().await.unwrap(), None);
    let rows = plane.store.audit_rows(10).await.unwrap();
    assert_eq!((rows.len(), rows[0].action.as_str(), rows[0].actor.as_str()), (3, "tenant.create", "ada"));
    sqlx::query("UPDATE audit SET actor = 'eve' WHERE seq = 2").execute(plane.store.pool()).await.unwrap();
    assert_eq!(plane.store.verify_audit().await.unwrap(), Some(2));
    sqlx::query("DELETE FROM audit WHERE seq = 2").execute(plane.store.pool()).await.unwrap();
    assert_eq!(plane.store.verify_audit().await.unwrap(), Some(2));
    plane.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn operators_log_in_and_a_session_ends_with_logout_or_a_new_password() {
    let (db, world) = (TestDb::new().await, FakeBackend::default());
    let plane = Plane::start(&db, &world).await;
    let operators = &plane.services.operators;
    let password = operators.bootstrap("owner").await.unwrap().unwrap();
    assert!(operators.bootstrap("second").await.unwrap().is_none(), "only the first is made this way");
    let (_, phc) = plane.store.operator_by_name("owner").await.unwrap().unwrap();
    assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");

    let session = operators.login("owner", &password, HERE).await.unwrap();
    let owner = operators.authenticate_session(session.token.expose_secret()).await.unwrap();
    assert_eq!((owner.username.as_str(), owner.role), ("owner", Role::Owner));
    operators.logout(&owner).await.unwrap();
    let ended = operators.authenticate_session(session.token.expose_secret()).await.unwrap_err();
    assert_eq!(ended.kind, Kind::Unauthenticated);

    let session = operators.login("owner", &password, HERE).await.unwrap();
    let renewed = operators.reset_password(&owner, "owner").await.unwrap();
    assert!(operators.authenticate_session(session.token.expose_secret()).await.is_err());
    assert!(operators.login("owner", &password, HERE).await.is_err());
    operators.login("owner", &renewed, HERE).await.unwrap();
    plane.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn forged_sessions_are_refused() {
    let (db, world) = (TestDb::new().await, FakeBackend::default());
    let plane = Plane::start(&db, &world).await;
    let operators = &plane.services.operators;
    let password = operators.bootstrap("owner").await.unwrap().unwrap();
    let good = operators.login("owner", &password, HERE).await.unwrap().token;
    let good = good.expose_secret();
    let parts: Vec<&str> = good.split('.').collect();
    use base64::Engine as _;
    let none = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
    let other_audience = String::from_utf8(payload).unwrap().replace("\"console\"", "\"tenant\"");
    let claims: serde_json::Value = serde_json::from_str(&other_audience).unwrap();
    let sign = |key: &[u8]| {
        let key = jsonwebtoken::EncodingKey::from_secret(key);
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
    };
    for forged in [
        format!("{none}.{}.", parts[1]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{good}x"),
        sign(&[9; 32]),
        sign(b"another key"),
        String::new(),
        "a.b.c".to_owned(),
    ] {
        assert!(operators.authenticate_session(&forged).await.is_err(), "{forged}");
    }
    operators.authenticate_session(good).await.unwrap();
    plane.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn guessing_is_limited_by_account_from_any_address() {
    let (db, world) = (TestDb::new().await, FakeBackend::default());
    let plane = Plane::start(&db, &world).await;
    let operators = &plane.services.operators;
    operators.bootstrap("owner").await.unwrap();
    let wrong = SecretString::from("wrong".to_owned());
    for name in ["owner", "nobody"] {
        let mut limited = false;
        for n in 0..40_u8 {
            let from = IpAddr::V4(Ipv4Addr::new(10, 0, 0, n));
            match operators.login(name, &wrong, from).await.unwrap_err().kind {
                Kind::Unauthenticated => {}
                Kind::RateLimited { retry_after_s } => {
                    assert!(retry_after_s > 0);
                    limited = true;
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(limited, "{name}");
    }
    plane.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_token_gives_no_more_than_asked_and_ends_when_revoked() {
    let (db, world) = (TestDb::new().await, FakeBackend::default());
    let plane = Plane::start(&db, &world).await;
    let operators = &plane.services.operators;
    let password = operators.bootstrap("owner").await.unwrap().unwrap();
    let session = operators.login("owner", &password, HERE).await.unwrap();
    let owner: Principal = operators.authenticate_session(session.token.expose_secret()).await.unwrap();
    let (text, token) = operators.create_token(&owner, "ci", Role::Viewer, Duration::days(1)).await.unwrap();
    let as_token = operators.authenticate_token(text.expose_secret()).await.unwrap();
    assert_eq!(as_token.role, Role::Viewer);
    let more = operators.create_token(&as_token, "more", Role::Owner, Duration::days(1)).await.unwrap_err();
    assert_eq!(more.kind, Kind::Forbidden);
    assert!(operators.create_token(&owner, "ever", Role::Viewer, Duration::days(400)).await.is_err());
    operators.revoke_token(&owner, token.id).await.unwrap();
    assert!(operators.authenticate_token(text.expose_secret()).await.is_err());
    assert!(operators.authenticate_token("nxl_guess").await.is_err());
    let local = operators.new_local_token();
    assert_eq!(operators.authenticate_token(local.expose_secret()).await.unwrap().role, Role::Owner);
    plane.stop().await;
    db.finish().await;
}
