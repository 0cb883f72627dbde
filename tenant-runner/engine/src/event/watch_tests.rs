//! Events that wait for facts, with the task that follows the bus running beside each test.

use super::tests::{event, with};
use super::*;
use crate::bus::BusEvent;
use crate::queue::{Claimed, Outcome};
use crate::testing::{Rig, failed};
use futures::StreamExt as _;
use serde_json::json;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Runs `test` while events answer facts.
async fn beside<T>(rig: &Rig, test: impl Future<Output = T>) -> T {
    let following = super::watch::run(rig.events.clone(), CancellationToken::new());
    tokio::select! {
        () = following => unreachable!("it ends only when it is told to"),
        done = tokio::time::timeout(Duration::from_secs(60), test) => done.unwrap(),
    }
}

/// The first fact of this kind about this event after `seq`.
async fn told(rig: &Rig, seq: u64, kind: &str, id: &str) -> BusEvent {
    let facts =
        rig.bus.subscribe(Some(seq)).filter(|fact| std::future::ready(fact.kind == kind && fact.data["id"] == id));
    Box::pin(facts).next().await.unwrap()
}

fn on(id: &str, condition: Value) -> Value {
    with(event(id, "bus", ""), json!({"condition_expr": condition, "max_retries": 0}))
}

fn plain(id: &str) -> Value {
    with(event(id, "webhook", ""), json!({"max_retries": 0}))
}

/// Fires `id` and lets its job fail for good; answers the job.
async fn fail(rig: &Rig, id: &str) -> Claimed {
    rig.events.trigger(id).await.unwrap();
    let job = rig.claim(1).await.remove(0);
    rig.queue.finish(&job, failed()).await.unwrap();
    job
}

/// What `ids` have fired so far, once everything told until now was looked at.
async fn fired(rig: &Rig, ids: &[&str]) -> usize {
    rig.events.upsert(on("sentinel", json!("test.asked"))).await.unwrap();
    let asked = rig.bus.announce(Fact::new("test.asked", "test", json!({}))).await.unwrap();
    // Facts are answered in their order.
    let end = told(rig, asked, "event.fired", "sentinel").await.seq;
    let facts = rig.bus.subscribe(Some(0)).take_while(move |fact| std::future::ready(fact.seq < end));
    facts
        .filter(|fact| std::future::ready(fact.kind == "event.fired" && ids.iter().any(|id| fact.data["id"] == *id)))
        .count()
        .await
}

#[tokio::test]
async fn an_event_answers_a_fact_that_fits_with_the_fact_as_what_came_along() {
    let rig = Rig::new().await;
    rig.events.upsert(plain("report")).await.unwrap();
    rig.events.upsert(plain("other")).await.unwrap();
    rig.events.upsert(on("mend", json!({"on": "job.dead", "match": {"event_id": "report"}}))).await.unwrap();
    beside(&rig, async {
        fail(&rig, "other").await;
        let cause = fail(&rig, "report").await;
        told(&rig, 0, "event.fired", "mend").await;
        assert_eq!(fired(&rig, &["mend"]).await, 1);
        let job = rig.claim(10).await.into_iter().find(|job| job.event_id.as_deref() == Some("mend")).unwrap();
        let payload = job.payload.unwrap();
        assert_eq!((&payload["type"], &payload["data"]["event_id"]), (&json!("job.dead"), &json!("report")));
        assert_eq!(payload["data"]["job_id"], json!(cause.id));
        assert_eq!(job.depth, 1);
    })
    .await;
}

#[tokio::test]
async fn what_was_told_before_an_event_began_to_wait_is_not_its_concern() {
    let rig = Rig::new().await;
    rig.events.upsert(plain("report")).await.unwrap();
    fail(&rig, "report").await;
    rig.events.upsert(on("mend", json!("job.dead"))).await.unwrap();
    beside(&rig, async { assert_eq!(fired(&rig, &["mend"]).await, 0) }).await;
    rig.events.pause("mend").await.unwrap();
    fail(&rig, "report").await;
    rig.events.resume("mend").await.unwrap();
    beside(&rig, async {
        assert_eq!(fired(&rig, &["mend"]).await, 0);
        fail(&rig, "report").await;
        assert_eq!(fired(&rig, &["mend"]).await, 1);
    })
    .await;
}

#[tokio::test]
async fn facts_told_while_the_process_was_down_are_answered_once_however_often_it_starts() {
    let mut rig = Rig::new().await;
    rig.events.upsert(plain("report")).await.unwrap();
    rig.events.upsert(on("mend", json!({"on": "job.dead", "match": {"event_id": "report"}}))).await.unwrap();
    for _ in 0..3 {
        fail(&rig, "report").await;
    }
    for round in 0..3 {
        rig = rig.restart().await;
        // As if it had died before the place was stored.
        rig.store.write(|tx| Ok(tx.execute("UPDATE event_cursor SET seq = 0", [])?)).await.unwrap();
        assert_eq!(beside(&rig, fired(&rig, &["mend"])).await, 3, "start {round}");
    }
}

#[tokio::test]
async fn facts_of_another_event_on_the_bus_are_left_out_also_when_that_one_is_paused_or_deleted_later() {
    let rig = Rig::new().await;
    rig.events.upsert(on("one", json!("job.dead"))).await.unwrap();
    rig.events.upsert(on("two", json!("job.*"))).await.unwrap();
    rig.events.pause("one").await.unwrap();
    fail(&rig, "one").await;
    assert_eq!(beside(&rig, fired(&rig, &["two"])).await, 0);
    rig.events.delete("one").await.unwrap();
    assert_eq!(beside(&rig, fired(&rig, &["two"])).await, 0, "what was looked at once is not looked at again");
}

#[tokio::test]
async fn an_event_answers_neither_its_own_jobs_nor_those_of_others_that_look_on() {
    let rig = Rig::new().await;
    rig.events.upsert(plain("report")).await.unwrap();
    for id in ["one", "two"] {
        rig.events.upsert(on(id, json!("job.*"))).await.unwrap();
    }
    rig.events.upsert(on("named", json!({"on": "job.dead", "match": {"event_id": "one"}}))).await.unwrap();
    beside(&rig, async {
        fail(&rig, "report").await;
        // Queued, started, dead: each is answered by both.
        assert_eq!(fired(&rig, &["one", "two"]).await, 6);
        while let Some(job) = rig.claim(1).await.pop() {
            let outcome =
                if job.event_id.as_deref() == Some("one") { failed() } else { Outcome::Succeeded(String::new()) };
            rig.queue.finish(&job, outcome).await.unwrap();
        }
        assert_eq!(fired(&rig, &["one", "two"]).await, 6, "nothing new");
        assert_eq!(fired(&rig, &["named"]).await, 3, "whoever names the event sees its jobs");
    })
    .await;
}

#[tokio::test]
async fn a_circle_ends_with_a_paused_event_and_a_reason() {
    let rig = Rig::new().await;
    for (id, other) in [("a", "b"), ("b", "a")] {
        rig.events.upsert(on(id, json!({"on": "job.succeeded", "match": {"event_id": other}}))).await.unwrap();
    }
    rig.events.trigger("a").await.unwrap();
    beside(&rig, async {
        let paused = async {
            let facts = rig.bus.subscribe(Some(0)).filter(|fact| std::future::ready(fact.kind == "event.paused"));
            Box::pin(facts).next().await.unwrap()
        };
        let work = async {
            let mut ready = rig.queue.ready().listen();
            loop {
                rig.run_all().await;
                ready.changed().await.unwrap();
            }
        };
        let paused: BusEvent = tokio::select! {
            fact = paused => fact,
            () = work => unreachable!(),
        };
        let id = paused.data["id"].as_str().unwrap();
        let event = rig.events.get(id).await.unwrap();
        assert_eq!(event.status, EventStatus::Paused);
        assert!(event.paused_reason.unwrap().contains("circle"));
        let runs = rig.events.get("a").await.unwrap().run_count + rig.events.get("b").await.unwrap().run_count;
        assert_eq!(runs, 33, "depths 0 to 32");
    })
    .await;
}
