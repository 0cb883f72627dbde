use super::{CORE, Keep, pass};
use crate::queue::Outcome;
use crate::testing::{Rig, job};

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
