use super::{CORE, Keep, pass};
use crate::event::EventStatus;
use crate::queue::Outcome;
use crate::testing::{Rig, job};
use serde_json::json;

#[tokio::test]
async fn retention_removes_what_is_old_and_keeps_what_runs() {
    let rig = Rig::new().await;
    rig.queue.enqueue(job()).await.unwrap();
    let done = rig.claim(1).await.remove(0);
    rig.queue.finish(&done, Outcome::Succeeded(String::new())).await.unwrap();
    let waiting = rig.queue.enqueue(job()).await.unwrap();
    rig.advance(40 * 24 * 3600);
    let now = rig.now();
    assert!(pass(&rig.store, CORE, now).await.unwrap() > 0);
    assert_eq!(rig.queue.get(done.id).await.unwrap_err().kind, crate::error::Kind::NotFound);
    rig.queue.get(waiting).await.unwrap();
    assert_eq!(pass(&rig.store, CORE, now).await.unwrap(), 0);
}

#[tokio::test]
async fn retention_keeps_no_more_rows_than_it_may() {
    let rig = Rig::new().await;
    for _ in 0..7 {
        rig.queue.enqueue(job()).await.unwrap();
        rig.advance(1);
    }
    rig.run_all().await;
    let rules: Vec<_> = CORE.iter().map(|rule| Keep { rows: 3, ..*rule }).collect();
    let now = rig.now();
    pass(&rig.store, &rules, now).await.unwrap();
    let counts = rig
        .store
        .read(|c| {
            Ok(c.query_row("SELECT sum(last_seq - first_seq + 1) FROM bus_packs", [], |row| row.get::<_, i64>(0))?)
        })
        .await
        .unwrap();
    assert_eq!(counts, 3);
}

#[tokio::test]
async fn a_slot_passes_with_its_time_unless_it_is_the_only_one_of_an_event() {
    let rig = Rig::new().await;
    for (id, condition, expression) in
        [("often", "interval", "60"), ("gone", "interval", "60"), ("once", "once", "2026-01-01T00:01:00Z")]
    {
        let event = json!({"id": id, "type": "t", "condition_type": condition, "condition_expr": expression,
            "action_type": "script", "action_config": {"command": "true"}});
        rig.events.upsert(event).await.unwrap();
    }
    rig.advance(60);
    assert_eq!(rig.events.tick().await.unwrap().fired, 3);
    rig.events.delete("gone").await.unwrap();
    rig.advance(8 * 24 * 3600);
    pass(&rig.store, CORE, rig.now()).await.unwrap();
    let left = rig
        .store
        .read(|c| {
            let mut statement =
                c.prepare("SELECT e.id FROM slots s LEFT JOIN events e ON e.number = s.event ORDER BY e.id")?;
            let rows = statement.query_map([], |row| row.get::<_, Option<String>>(0))?;
            Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
        })
        .await
        .unwrap();
    assert_eq!(left, [Some("once".to_owned())]);
    assert_eq!(rig.events.get("once").await.unwrap().status, EventStatus::Completed);
}

#[tokio::test]
async fn of_many_slots_the_last_ones_stay() {
    let rig = Rig::new().await;
    let event = json!({"id": "often", "type": "t", "condition_type": "interval", "condition_expr": "60",
        "action_type": "script", "action_config": {"command": "true"}});
    rig.events.upsert(event).await.unwrap();
    for _ in 0..7 {
        rig.advance(60);
        assert_eq!(rig.events.tick().await.unwrap().fired, 1);
    }
    let rules: Vec<_> = CORE.iter().map(|rule| Keep { rows: 3, ..*rule }).collect();
    pass(&rig.store, &rules, rig.now()).await.unwrap();
    let left = rig
        .store
        .read(|c| {
            Ok(c.query_row("SELECT count(*), max(slot) FROM slots", [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })?)
        })
        .await
        .unwrap();
    assert_eq!(left, (3, rig.now().timestamp_micros()));
}
