use crate::support::World;
use chrono::Duration;
use nexaas_common::secret::SecretString;
use nexaas_engine::users::NewUser;
use nexaas_engine::{Kind, Registration, Settings};

fn new(username: &str, password: &str, company: Option<&str>) -> NewUser {
    NewUser {
        company_name: company.map(str::to_owned),
        username: username.to_owned(),
        password: SecretString::from(password),
        remote_address: Some("192.0.2.7".to_owned()),
    }
}

fn password(text: &str) -> SecretString {
    SecretString::from(text)
}

#[tokio::test]
async fn the_first_makes_the_company_and_is_admin_and_the_next_are_members() {
    let world = World::new(&[]).await;
    let users = world.engine.users();
    let before = users.status().await.unwrap();
    assert!(!before.has_company && before.registration_open);
    let error = users.register(new("ann", "long enough", None)).await.unwrap_err();
    assert_eq!(error.field(), Some("company_name"));
    let ann = users.register(new("ann", "long enough", Some("Acme"))).await.unwrap();
    assert_eq!((ann.user.role.as_str(), ann.user.company.as_str()), ("admin", "Acme"));
    let bob = users.register(new("bob", "long enough", Some("Other"))).await.unwrap();
    assert_eq!((bob.user.role.as_str(), bob.user.company_id == ann.user.company_id), ("member", true));
    assert_eq!(users.register(new("ANN", "long enough", None)).await.unwrap_err().kind, Kind::Conflict);
    assert_eq!(users.authenticate(&bob.token).await.unwrap(), bob.user);
    assert_eq!(users.status().await.unwrap().company.as_deref(), Some("Acme"));
    world.stop().await;
}

#[tokio::test]
async fn what_is_too_short_or_strange_is_refused_by_its_field() {
    let world = World::new(&[]).await;
    let users = world.engine.users();
    let error = users.register(new("ann", "short", Some("Acme"))).await.unwrap_err();
    assert_eq!(error.public(), "password must have at least 8 characters");
    for name in ["", "a", "a b", "x\u{0}y", "<script>", &"x".repeat(65)] {
        assert_eq!(
            users.register(new(name, "long enough", Some("Acme"))).await.unwrap_err().field(),
            Some("username"),
            "{name}"
        );
    }
    assert!(!users.status().await.unwrap().has_company);
    world.stop().await;
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_name_get_the_same_answer() {
    let world = World::new(&[]).await;
    let users = world.engine.users();
    users.register(new("ann", "long enough", Some("Acme"))).await.unwrap();
    let wrong = users.login("ann", password("not this one"), None).await.unwrap_err();
    let unknown = users.login("nobody", password("not this one"), None).await.unwrap_err();
    assert_eq!((wrong.kind.clone(), wrong.public()), (unknown.kind.clone(), unknown.public()));
    assert_eq!((wrong.kind.clone(), wrong.public()), (Kind::Unauthenticated, "Invalid credentials"));
    let session = users.login(" Ann ", password("long enough"), None).await.unwrap();
    assert_eq!(users.authenticate(&session.token).await.unwrap().username, "ann");
    world.stop().await;
}

#[tokio::test]
async fn a_token_ends_with_logout_with_time_and_outside_its_tenant() {
    let world = World::new(&[]).await;
    let users = world.engine.users();
    let session = users.register(new("ann", "long enough", Some("Acme"))).await.unwrap();
    users.logout(&session.user).await.unwrap();
    assert_eq!(users.authenticate(&session.token).await.unwrap_err().kind, Kind::Unauthenticated);
    let again = users.login("ann", password("long enough"), None).await.unwrap();
    users.authenticate(&again.token).await.unwrap();
    // The key is the database's, so the token outlives the process, but not a change of tenant.
    let world = world.restarted(|_| {}).await;
    world.engine.users().authenticate(&again.token).await.unwrap();
    let world = world.restarted(|c| c.tenant = "tenant-b".into()).await;
    assert_eq!(world.engine.users().authenticate(&again.token).await.unwrap_err().kind, Kind::Unauthenticated);
    let world = world.restarted(|_| {}).await;
    world.clock.advance(Duration::hours(12));
    assert_eq!(world.engine.users().authenticate(&again.token).await.unwrap_err().kind, Kind::Unauthenticated);
    world.stop().await;
}

#[tokio::test]
async fn registration_follows_the_policy_except_for_the_first() {
    let world = World::new(&[]).await;
    let users = world.engine.users();
    world.engine.configure(Settings { registration: Registration::Closed, ..Settings::default() });
    users.register(new("ann", "long enough", Some("Acme"))).await.unwrap();
    for policy in [Registration::Closed, Registration::Invite] {
        world.engine.configure(Settings { registration: policy, ..Settings::default() });
        assert!(!users.status().await.unwrap().registration_open);
        assert_eq!(users.register(new("bob", "long enough", None)).await.unwrap_err().kind, Kind::Forbidden);
    }
    world.stop().await;
}

#[tokio::test]
async fn guessing_is_slowed_down_per_account_and_the_right_password_waits_too() {
    let world = World::new(&[]).await;
    let users = world.engine.users();
    users.register(new("ann", "long enough", Some("Acme"))).await.unwrap();
    for _ in 0..10 {
        users.login("ann", password("a wrong guess"), None).await.unwrap_err();
    }
    let limited = users.login("ann", password("long enough"), None).await.unwrap_err();
    assert!(matches!(limited.kind, Kind::RateLimited { retry_after_s: 1..=300 }), "{limited:?}");
    world.clock.advance(Duration::minutes(5));
    users.login("ann", password("long enough"), None).await.unwrap();
    world.stop().await;
}
