use super::*;
use crate::error::Kind;
use crate::queue::JobState;
use crate::testing::Rig;
use nexaas_common::secret::{ExposeSecret as _, SecretString};
use serde_json::json;
use std::collections::HashMap;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn hooks(rig: &Rig) -> Hooks {
    Hooks::new(rig.store.clone(), rig.events.clone(), rig.clock.clone())
}

fn event(id: &str, metadata: serde_json::Value) -> serde_json::Value {
    json!({"id": id, "type": "t", "condition_type": "webhook", "action_type": "script",
           "action_config": {"command": "true"}, "metadata": metadata})
}

fn call(event: &str, id: Option<&str>) -> Call {
    Call { event_id: event.into(), id: id.map(Into::into), payload: Some(json!({"n": 1})) }
}

#[tokio::test]
async fn a_call_fires_once_also_over_a_restart() {
    let rig = Rig::new().await;
    rig.events.upsert(event("e", json!({}))).await.unwrap();
    rig.events.upsert(event("f", json!({}))).await.unwrap();
    let Delivered::Fired(job) = hooks(&rig).deliver(call("e", Some("1"))).await.unwrap() else { panic!() };
    assert_eq!(hooks(&rig).deliver(call("e", Some("1"))).await.unwrap(), Delivered::Repeated(job));
    assert!(matches!(hooks(&rig).deliver(call("f", Some("1"))).await.unwrap(), Delivered::Fired(_)), "another event's");
    let rig = rig.restart().await;
    assert_eq!(hooks(&rig).deliver(call("e", Some("1"))).await.unwrap(), Delivered::Repeated(job));
    assert_eq!(rig.queue.get(job).await.unwrap().state, JobState::Ready);
    assert_eq!(rig.queue.view().await.unwrap().counts.queued, 2);
}

#[tokio::test]
async fn a_call_whose_job_was_not_stored_may_come_again() {
    let rig = Rig::new().await;
    rig.events.upsert(event("e", json!({}))).await.unwrap();
    rig.events.patch("e", json!({"status": "paused"})).await.unwrap();
    let refused = hooks(&rig).deliver(call("e", Some("1"))).await.unwrap_err();
    assert_eq!(refused.kind, Kind::NotFound, "a paused event waits for nothing");
    rig.events.patch("e", json!({"status": "active"})).await.unwrap();
    assert!(matches!(hooks(&rig).deliver(call("e", Some("1"))).await.unwrap(), Delivered::Fired(_)));
}

#[tokio::test]
async fn a_call_without_an_id_cannot_be_told_from_its_repetition() {
    let rig = Rig::new().await;
    rig.events.upsert(event("e", json!({}))).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(hooks(&rig).deliver(call("e", None)).await.unwrap(), Delivered::Fired(_)));
    }
}

#[tokio::test]
async fn calls_are_forgotten_after_their_time() {
    let rig = Rig::new().await;
    rig.events.upsert(event("e", json!({}))).await.unwrap();
    hooks(&rig).deliver(call("e", Some("1"))).await.unwrap();
    assert_eq!(crate::retention::pass(&rig.store, &[KEEP], rig.now()).await.unwrap(), 0);
    let later = rig.now() + Duration::days(31);
    assert_eq!(crate::retention::pass(&rig.store, &[KEEP], later).await.unwrap(), 1);
}

#[tokio::test]
async fn too_many_calls_of_one_event_are_put_off() {
    let rig = Rig::new().await;
    rig.events.upsert(event("e", json!({}))).await.unwrap();
    let hooks = hooks(&rig);
    let mut refused = None;
    for _ in 0..=200 {
        if let Err(error) = hooks.deliver(call("e", Some("same"))).await {
            refused = Some(error.kind);
        }
    }
    assert_eq!(refused, Some(Kind::RateLimited { retry_after_s: 1 }));
}

#[tokio::test]
async fn a_weak_or_misspelt_key_is_refused_by_its_name() {
    let rig = Rig::new().await;
    for (metadata, field) in [
        (json!({"token": "short"}), "metadata.token"),
        (json!({"token": &TOKEN[1..]}), "metadata.token"),
        (json!({"token": format!("{TOKEN} ")}), "metadata.token"),
        (json!({"token": 5}), "metadata.token"),
        (json!({"token": "${}"}), "metadata.token"),
        (json!({"token": "[redacted]"}), "metadata.token"),
        (json!({"secret": "whsec_YWJj"}), "metadata.secret"),
        (json!({"github_secret": "hunter2"}), "metadata.github_secret"),
    ] {
        let error = rig.events.upsert(event("e", metadata.clone())).await.unwrap_err();
        assert_eq!(error.field(), Some(field), "{metadata}");
        assert!(!error.public().contains("hunter2"), "{}", error.public());
    }
    let mut cron = event("e", json!({"token": "short"}));
    cron["condition_type"] = json!("cron");
    cron["condition_expr"] = json!("0 9 * * *");
    rig.events.upsert(cron).await.unwrap();
    let turned = rig.events.patch("e", json!({"condition_type": "webhook"})).await.unwrap_err();
    assert_eq!(turned.field(), Some("metadata.token"));
}

#[tokio::test]
async fn a_key_is_shown_to_nobody_and_survives_being_sent_back() {
    let rig = Rig::new().await;
    let metadata = json!({"token": TOKEN, "secret": "${SIGNING}", "github_secret": "0123456789abcdefg", "team": "tea"});
    rig.events.upsert(event("e", metadata)).await.unwrap();
    let shown = json!(rig.events.get("e").await.unwrap());
    assert_eq!(
        shown["metadata"],
        json!({"token": "[redacted]", "secret": "${SIGNING}", "github_secret": "[redacted]", "team": "tea"})
    );
    let mut back = shown.clone();
    back["metadata"]["team"] = json!("coffee");
    rig.events.upsert(back).await.unwrap();
    rig.events.patch("e", json!({"description": "d"})).await.unwrap();

    let stored = rig.events.get("e").await.unwrap().metadata.unwrap();
    assert_eq!(stored["team"], "coffee");
    assert!(!stored.to_string().contains(TOKEN), "a token is stored as its hash");
    let secrets = HashMap::from([("SIGNING".to_owned(), SecretString::from("whsec_x"))]);
    let keys = Keys::of(Some(&stored), &secrets);
    assert!(keys.token.unwrap().is(TOKEN));
    assert!(!keys.token.unwrap().is(&TOKEN[1..]));
    assert_eq!(keys.signing.unwrap().expose_secret(), "whsec_x");
    assert_eq!(keys.github.unwrap().expose_secret(), "0123456789abcdefg");
}

#[test]
fn a_reference_to_nothing_is_no_key() {
    let secrets = HashMap::from([("EMPTY".to_owned(), SecretString::from(""))]);
    for metadata in [json!({"token": "${NONE}"}), json!({"token": "${EMPTY}"}), json!({"token": ""}), json!({})] {
        let keys = Keys::of(Some(&metadata), &secrets);
        assert!(keys.token.is_none() && keys.signing.is_none() && keys.github.is_none(), "{metadata}");
    }
}
