//! A database as the first released schema left it, with jobs in every state, made by its own migrations.

use crate::receiver::Receiver;
use rusqlite::{Connection, params};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use uuid::Uuid;

macro_rules! released {
    ($($number:literal $name:literal;)*) => {
        &[$(($number, $name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/engine/migrations/", $name, ".sql")))),*]
    };
}

/// Never edited; so they are what made the databases that are out there.
const RELEASED: &[(u32, &str, &str)] = released! {
    1 "001_bus";
    2 "002_events";
    3 "003_jobs";
    4 "004_ops";
    10 "010_workspace";
    11 "011_users";
    12 "012_usage";
    13 "013_chat";
    14 "014_workspace_good";
};

pub const FINISHED: usize = 9_000;
pub const LATER: usize = 4_000;
pub const DUE: usize = 30;
pub const RUNNING: usize = 6;
pub const FACTS: usize = 8_000;
pub const EVENTS: usize = 50;
pub const SLOTS: usize = 3_000;
pub const USAGE: usize = 500;

/// What a job holds that no migration may change.
pub type Row = (String, i64, i64, Option<String>, Option<String>, Option<i64>, u32);

pub struct Old {
    /// Jobs that nobody touches: finished ones and ones of a far future, by id.
    pub untouched: BTreeMap<String, Row>,
    /// Jobs that were running when the process ended, with the key that their effect carries.
    pub running: BTreeMap<String, String>,
    pub due: Vec<String>,
}

/// The rows that `Row` is made of.
pub const ROWS: &str =
    "SELECT lower(hex(id)), state, run_at, created_at, result, error, finished_at, attempt FROM jobs";

pub fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<(String, Row)> {
    Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?)))
}

pub fn make(path: &Path, receiver: &Receiver) -> Old {
    let mut connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection
        .execute_batch(
            "CREATE TABLE migrations (
                number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL
             ) STRICT",
        )
        .unwrap();
    let tx = connection.transaction().unwrap();
    let now = nexaas_common::clock::SystemClock::shared().now().timestamp_micros();
    for (number, name, sql) in RELEASED {
        tx.execute_batch(sql).unwrap();
        let checksum = hex::encode(Sha256::digest(sql));
        tx.execute("INSERT INTO migrations VALUES (?1, ?2, ?3, ?4)", params![number, name, checksum, now]).unwrap();
    }
    let mut jobs = Jobs { tx: &tx, now, action: receiver.action(json!({"work": "{{job.id}}"})).to_string() };
    let mut old = Old { untouched: BTreeMap::new(), running: BTreeMap::new(), due: Vec::new() };
    for number in 0..FINISHED {
        jobs.finished(number);
    }
    for _ in 0..LATER {
        jobs.waiting(now + 365 * 24 * 3600 * 1_000_000);
    }
    old.untouched = tx.prepare(ROWS).unwrap().query_map([], row).unwrap().collect::<Result<_, _>>().unwrap();
    for _ in 0..DUE {
        old.due.push(jobs.waiting(now));
    }
    for _ in 0..RUNNING {
        let (job, attempt) = jobs.running();
        old.running.insert(job, attempt);
    }
    others(&tx, now);
    tx.commit().unwrap();
    old
}

struct Jobs<'a> {
    tx: &'a Connection,
    now: i64,
    action: String,
}

impl Jobs<'_> {
    fn insert(&mut self, state: &str, run_at: i64) -> (Uuid, i64) {
        let id = Uuid::now_v7();
        let ended = !matches!(state, "ready" | "running");
        let running = state == "running";
        self.tx
            .prepare_cached(
                "INSERT INTO jobs (id, action_type, action_config, payload, priority, state, run_at, attempt, max_attempts, backoff_s,
                                   attempt_id, boot_id, fence, result, error, created_at, started_at, finished_at)
                 VALUES (?1, 'webhook', ?2, '{\"a\":1}', 5, ?3, ?4, ?5, 3, 60, ?6, ?7, ?5, ?8, ?9, ?10, ?11, ?12)",
            )
            .unwrap()
            .execute(params![
                id.as_bytes(),
                self.action,
                state,
                run_at,
                u32::from(state != "ready"),
                running.then(|| Uuid::now_v7().into_bytes()),
                running.then(|| Uuid::now_v7().into_bytes()),
                (state == "succeeded").then(|| format!("the result of {id}")),
                (state == "dead").then(|| format!("the error of {id}")),
                self.now - 10_000_000,
                (ended || running).then_some(self.now - 5_000_000),
                ended.then_some(self.now - 4_000_000),
            ])
            .unwrap();
        (id, self.tx.last_insert_rowid())
    }

    fn finished(&mut self, number: usize) {
        let (state, outcome) = [("succeeded", "succeeded"), ("dead", "failed"), ("cancelled", "cancelled")][number % 3];
        let (_, seq) = self.insert(state, self.now - 9_000_000);
        self.tx
            .prepare_cached("INSERT INTO attempts VALUES (?1, 1, ?2, ?3, 'said something', ?4, ?4 + 1000)")
            .unwrap()
            .execute(params![seq, Uuid::now_v7().as_bytes(), outcome, self.now - 5_000_000])
            .unwrap();
    }

    fn waiting(&mut self, run_at: i64) -> String {
        self.insert("ready", run_at).0.to_string()
    }

    fn running(&mut self) -> (String, String) {
        let (id, seq) = self.insert("running", self.now - 9_000_000);
        let attempt: [u8; 16] =
            self.tx.query_row("SELECT attempt_id FROM jobs WHERE seq = ?1", [seq], |row| row.get(0)).unwrap();
        (id.to_string(), Uuid::from_bytes(attempt).to_string())
    }
}

fn others(tx: &Connection, now: i64) {
    for number in 0..FACTS {
        tx.prepare_cached("INSERT INTO bus_events VALUES (?1, 'job.done', 'job', ?2, ?3)")
            .unwrap()
            .execute(params![number + 1, json!({"number": number, "text": "it's \"fine\""}).to_string(), now])
            .unwrap();
    }
    for number in 0..EVENTS {
        tx.prepare_cached(
            "INSERT INTO events (id, type, condition_type, condition_expr, next_eval_at, action_type, action_config, status,
                                 priority, max_retries, retry_backoff_minutes, created_at, updated_at, run_count)
             VALUES (?1, 'old', 'interval', '86400', ?2, 'script', '{\"command\":\"true\"}', 'active', 5, 3, 5.0, ?3, ?3, 7)",
        )
        .unwrap()
        .execute(params![format!("event-{number}"), now + 3_600_000_000, now])
        .unwrap();
    }
    for number in 0..SLOTS {
        tx.prepare_cached("INSERT INTO slots VALUES (?1, ?2, ?3)")
            .unwrap()
            .execute(params![
                format!("event-{}", number % EVENTS),
                now - number as i64 * 1_000_000,
                Uuid::now_v7().as_bytes()
            ])
            .unwrap();
    }
    for _ in 0..USAGE {
        tx.prepare_cached(
            "INSERT INTO usage (at, source, backend, model, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens,
                                cost_nano_usd, outcome) VALUES (?1, 'chat', 'offline', 'm', 1, 2, 3, 4, 5, 'ok')",
        )
        .unwrap()
        .execute([now])
        .unwrap();
    }
}
