//! The floor: the rows that the engine wrote in a run, written again by a bare loop. One thread, one connection, as many
//! jobs in each commit as the engine had on average; no channels, no tasks, no JSON, nobody who waits for an answer.
//!
//! It is as good as SQLite gets with these rows: the file is made by the engine's own migrations, the connection has the
//! pragmas that the engine's writer was found to have, the statements set the same columns under the same indices and checks
//! (`tests::the_floor_leaves_the_rows_that_the_engine_leaves` compares them), and the packed facts are as many and as long.

use super::ours::Shape;
use crate::rig::{Folder, Rig, job};
use nexaas_test_system::Result;
use rusqlite::{CachedStatement, Connection, params};
use std::path::Path;
use std::time::Instant;
use uuid::Uuid;

/// What the engine's writer sets, apart from the level of durability.
const PRAGMAS: [&str; 5] = ["synchronous", "foreign_keys", "journal_size_limit", "cache_size", "temp_store"];
/// A bare loop has no helper that brings the log back; it does so itself as often as the engine's helper is called.
const AUTOCHECKPOINT: i64 = 4000;

const INSERT: &str =
    "INSERT INTO jobs (seq, id, event_id, slot, depth, action_type, action_config, payload, description, agent,
     priority, concurrency_key, state, parked, run_at, attempt, max_attempts, round_attempts, backoff_ms,
     retry_delays_ms, timeout_ms, chain, attempt_id, boot_id, fence, traceparent, created_at, started_at)
 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?17, ?18, ?19, ?20, ?21,
     ?22, ?23, ?24, ?25, ?26, ?27)";
const CANDIDATES: &str =
    "SELECT seq, id, fence, attempt, attempt_id, max_attempts, round_attempts, action_type, action_config, payload,
            event_id, slot, depth, agent, concurrency_key, timeout_ms, traceparent, backoff_ms, retry_delays_ms, chain,
            created_at
     FROM jobs WHERE state = 'ready' AND parked = 0 AND priority = ?1 AND run_at <= ?2 ORDER BY run_at, seq";
const TAKE: &str =
    "UPDATE jobs SET state = 'running', boot_id = ?2, fence = ?3, started_at = ?4, attempt = ?5, attempt_id = ?6
     WHERE seq = ?1";
const FINISH: &str =
    "UPDATE jobs SET state = ?4, boot_id = NULL, cancelling = 0, result = ?5, error = ?6, finished_at = ?7
     WHERE seq = ?1 AND state = 'running' AND boot_id = ?2 AND fence = ?3";
const PACK: &str = "INSERT INTO bus_packs (last_seq, first_seq, created_at, facts) VALUES (?1, ?2, ?3, ?4)";
const TOTALS: &str =
    "UPDATE queue_totals SET succeeded = ?1, dead = ?2, cancelled = ?3, running_from = ?4, last_seq = ?5";

#[derive(Debug, Clone, Copy)]
pub struct Floor {
    pub jobs_per_s: f64,
    pub synchronous: i64,
}

/// Writes what `shape` wrote, on a new file in `dir`.
pub async fn run(dir: &Path, shape: Shape) -> Result<Floor> {
    let folder = Folder::new(dir)?;
    let pragmas = make(&folder).await?;
    let database = folder.database();
    tokio::task::spawn_blocking(move || write(&database, &pragmas, shape)).await?
}

/// Makes the file as the engine does, and reads how its writer is set.
async fn make(folder: &Folder) -> Result<Vec<(&'static str, i64)>> {
    let rig = Rig::open(&folder.database()).await?;
    let pragmas = rig
        .store
        .write(|tx| {
            let read = |name| Ok((name, tx.pragma_query_value(None, name, |row| row.get(0))?));
            PRAGMAS.into_iter().map(read).collect::<std::result::Result<Vec<_>, nexaas_engine::EngineError>>()
        })
        .await?;
    rig.close().await?;
    Ok(pragmas)
}

fn write(database: &Path, pragmas: &[(&'static str, i64)], shape: Shape) -> Result<Floor> {
    let connection = Connection::open(database)?;
    connection.set_prepared_statement_cache_capacity(128);
    for (name, value) in pragmas {
        connection.pragma_update(None, name, value)?;
    }
    connection.pragma_update(None, "wal_autocheckpoint", AUTOCHECKPOINT)?;
    let synchronous = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    let journal: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if (synchronous, journal.as_str()) != (2, "wal") {
        return Err(format!("the floor is not durable: synchronous {synchronous}, journal mode {journal}").into());
    }
    let mut lap = Lap::new(&connection, shape);
    let started = Instant::now();
    while lap.finished < shape.jobs {
        lap.commit()?;
    }
    Ok(Floor { jobs_per_s: shape.jobs as f64 / started.elapsed().as_secs_f64(), synchronous })
}

struct Lap<'a> {
    connection: &'a Connection,
    shape: Shape,
    boot: Uuid,
    config: String,
    per_commit: u64,
    /// Stored so far; also the last `seq`.
    inserted: u64,
    held: u64,
    finished: u64,
    packed: u64,
    facts: u64,
    running: Vec<u64>,
    text: String,
}

impl<'a> Lap<'a> {
    fn new(connection: &'a Connection, shape: Shape) -> Self {
        Self {
            connection,
            shape,
            boot: Uuid::now_v7(),
            config: job().action_config.to_string(),
            per_commit: (shape.jobs_per_commit().round() as u64).max(1),
            inserted: 0,
            held: 0,
            finished: 0,
            packed: 0,
            facts: 0,
            running: Vec::new(),
            text: "x".repeat((shape.pack_bytes / shape.packs.max(1)) as usize),
        }
    }

    /// One transaction: the jobs of the last one end, those it left waiting are claimed, new ones come.
    fn commit(&mut self) -> Result<()> {
        let run = |sql| self.connection.prepare_cached(sql)?.execute([]);
        run("BEGIN IMMEDIATE")?;
        let ending = std::mem::take(&mut self.running);
        // Each statement is looked up once in a commit.
        let mut finish = self.connection.prepare_cached(FINISH)?;
        for seq in &ending {
            finish.execute(params![seq, self.boot.as_bytes(), 1, "succeeded", "", None::<&str>, micros()])?;
        }
        self.finished += ending.len() as u64;
        self.claim()?;
        let most = self.shape.jobs.min(self.inserted + self.per_commit);
        let mut insert = self.connection.prepare_cached(INSERT)?;
        while self.inserted < most {
            self.insert(&mut insert)?;
        }
        self.pack()?;
        self.connection.prepare_cached(TOTALS)?.execute(params![
            self.finished,
            0,
            0,
            self.finished + 1,
            self.inserted
        ])?;
        run("COMMIT")?;
        Ok(())
    }

    fn claim(&mut self) -> Result<()> {
        if self.held == self.inserted {
            return Ok(());
        }
        let now = micros();
        let mut found = Vec::new();
        let mut statement = self.connection.prepare_cached(CANDIDATES)?;
        let mut rows = statement.query(params![5, now])?;
        while let Some(row) = rows.next()? {
            found.push(row.get::<_, u64>(0)?);
        }
        let mut take = self.connection.prepare_cached(TAKE)?;
        for seq in &found {
            take.execute(params![seq, self.boot.as_bytes(), 1, now, 1, Uuid::now_v7().as_bytes()])?;
        }
        self.held += found.len() as u64;
        self.running.extend(found);
        Ok(())
    }

    fn insert(&mut self, statement: &mut CachedStatement<'_>) -> Result<()> {
        self.inserted += 1;
        let (now, seq) = (micros(), self.inserted);
        // As large a share is held at once as the engine held.
        let at_once =
            seq * self.shape.held_at_once / self.shape.jobs > (seq - 1) * self.shape.held_at_once / self.shape.jobs;
        let (id, attempt) = (Uuid::now_v7(), Uuid::now_v7());
        statement.execute(params![
            seq,
            id.as_bytes(),
            None::<&str>,
            None::<i64>,
            0,
            "script",
            self.config,
            None::<&str>,
            None::<&str>,
            None::<&str>,
            5,
            None::<&str>,
            if at_once { "running" } else { "ready" },
            false,
            now,
            i64::from(at_once),
            1,
            60_000,
            None::<&str>,
            None::<i64>,
            None::<&str>,
            at_once.then_some(attempt.as_bytes()),
            at_once.then_some(self.boot.as_bytes()),
            i64::from(at_once),
            None::<&str>,
            now,
            at_once.then_some(now),
        ])?;
        if at_once {
            self.held += 1;
            self.running.push(seq);
        }
        Ok(())
    }

    /// As many rows of facts, for the jobs so far, as the engine had.
    fn pack(&mut self) -> Result<()> {
        let wanted = self.shape.packs * self.finished.max(self.inserted) / self.shape.jobs.max(1);
        while self.packed < wanted {
            self.packed += 1;
            let first = self.facts + 1;
            self.facts += (3 * self.shape.jobs / self.shape.packs.max(1)).max(1);
            self.connection.prepare_cached(PACK)?.execute(params![self.facts, first, micros(), self.text])?;
        }
        Ok(())
    }
}

fn micros() -> i64 {
    use nexaas_common::clock::Clock as _;
    nexaas_common::clock::SystemClock.now().timestamp_micros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::ours::{self, Load, Regime};
    use rusqlite::types::Type;

    /// What a finished job's row looks like: each column's type, and its length where that is fixed by what it holds.
    fn row(database: &Path) -> Vec<(String, Type)> {
        let connection = Connection::open(database).unwrap();
        let mut statement = connection.prepare("SELECT * FROM jobs ORDER BY seq LIMIT 1").unwrap();
        let names: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
        let types = statement
            .query_row([], |row| Ok((0..names.len()).map(|n| row.get_ref(n).unwrap().data_type()).collect::<Vec<_>>()))
            .unwrap();
        names.into_iter().zip(types).collect()
    }

    fn count(database: &Path, what: &str) -> u64 {
        Connection::open(database).unwrap().query_row(what, [], |row| row.get(0)).unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_floor_leaves_the_rows_that_the_engine_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let (engine, bare) = (Folder::new(dir.path()).unwrap(), Folder::new(dir.path()).unwrap());
        let load = Load { jobs: 500, producers: 8, workers: 4 };
        let shape = ours::run_on(&engine.database(), Regime::Flow, load).await.unwrap();
        let pragmas = make(&bare).await.unwrap();
        write(&bare.database(), &pragmas, shape).unwrap();
        assert_eq!(row(&engine.database()), row(&bare.database()));
        for what in [
            "SELECT count(*) FROM jobs WHERE state = 'succeeded' AND attempt = 1 AND fence = 1 AND boot_id IS NULL",
            "SELECT count(*) FROM attempts",
            "SELECT count(*) FROM bus_packs",
            "SELECT succeeded FROM queue_totals",
        ] {
            assert_eq!(count(&engine.database(), what), count(&bare.database(), what), "{what}");
        }
    }
}
