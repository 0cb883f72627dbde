//! Rows put straight into the table, before the engine opens its file: a past and a future that would take hours to live.

use crate::rig::{Instantly, Rig, job};
use nexaas_engine::{EngineError, Store};
use nexaas_test_system::Result;
use std::path::Path;
use std::sync::Arc;

/// Rows of one write.
const CHUNK: u64 = 20_000;

/// How many of each to plant.
#[derive(Debug, Clone, Copy, Default)]
pub struct Planted {
    pub finished: u64,
    /// Due in a day.
    pub future: u64,
}

/// Plants copies of a job that really was finished, and of one that really waits.
pub async fn plant(database: &Path, planted: Planted) -> Result<()> {
    let rig = Rig::open(database).await?;
    rig.queue.enqueue(job()).await?;
    let day = chrono::Duration::days(1);
    let _workers = rig.work(1, Arc::new(Instantly));
    rig.succeeded(1).await?;
    rig.queue.enqueue(nexaas_engine::queue::NewJob { run_at: Some(rig.clock.now() + day), ..job() }).await?;
    let store = rig.store.clone();
    rig.close().await?;
    copy(&store, "succeeded", planted.finished).await?;
    copy(&store, "ready", planted.future).await
}

/// Copies the newest job of `state`, `count` times. Times and ids rise with the rows, as those of real jobs do; what has
/// ended did so a millisecond after the one before it.
async fn copy(store: &Store, state: &'static str, count: u64) -> Result<()> {
    let (mut done, mut shown) = (0, 0);
    while done < count {
        let chunk = CHUNK.min(count - done);
        store
            .write(move |tx| {
                let columns: Vec<String> = tx
                    .prepare("SELECT name FROM pragma_table_info('jobs') WHERE name NOT IN ('seq', 'id')")?
                    .query_map([], |row| row.get(0))?
                    .collect::<rusqlite::Result<_>>()?;
                let values: Vec<String> = columns
                    .iter()
                    .map(|column| match column.as_str() {
                        "created_at" | "started_at" | "finished_at" => {
                            format!("model.{column} - ({} - n.value) * 1000", count - done)
                        }
                        "run_at" => format!("model.run_at + (n.value + {done}) * iif(model.state = 'ready', 1000, 0)"),
                        other => format!("model.{other}"),
                    })
                    .collect();
                let sql = format!(
                    "WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < {chunk}),
                          top AS MATERIALIZED (SELECT max(seq) AS seq FROM jobs),
                          model AS MATERIALIZED (SELECT * FROM jobs WHERE state = '{state}' ORDER BY seq DESC LIMIT 1)
                     INSERT INTO jobs (seq, id, {})
                     SELECT top.seq + n.value, CAST(unhex(printf('%016x', top.seq + n.value)) || randomblob(8) AS BLOB), {}
                     FROM n, top, model",
                    columns.join(", "),
                    values.join(", ")
                );
                tx.execute(&sql, [])?;
                Ok::<_, EngineError>(())
            })
            .await?;
        done += chunk;
        if done - shown >= 200_000 {
            shown = done;
            eprintln!("  {done} of {count} jobs planted");
        }
    }
    Ok(())
}
