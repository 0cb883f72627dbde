//! What is on disk, read past the engine: the checker compares one picture with the next.

use crate::queue::JobState;
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::path::Path;
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    pub id: Uuid,
    pub event: Option<String>,
    pub slot: Option<i64>,
    pub tag: String,
    pub priority: i32,
    pub key: Option<String>,
    pub state: JobState,
    pub run_at: i64,
    pub attempt: u32,
    pub max_attempts: u32,
    /// How many attempts a round has.
    pub round: u32,
    /// How many jobs led to it.
    pub depth: u32,
    pub attempt_id: Option<Uuid>,
    pub interruptions: u32,
    pub boot: Option<Uuid>,
    pub fence: i64,
    pub cancelling: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct EventRow {
    pub status: String,
    pub next: Option<i64>,
    /// How many of its jobs in a row failed for good.
    pub failures: u32,
}

/// What is set for a concurrency key, and its last starts.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyRow {
    pub limit: usize,
    /// So many starts in so many microseconds.
    pub rate: Option<(usize, i64)>,
}

/// The tables at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Picture {
    pub jobs: BTreeMap<i64, JobRow>,
    /// When each that is dead ended.
    pub dead: BTreeMap<i64, i64>,
    pub events: BTreeMap<String, EventRow>,
    /// Keys that differ from the usual.
    pub keys: BTreeMap<String, KeyRow>,
    /// The slots that were seen to, and the job of each, if one came of it.
    pub slots: BTreeMap<(String, i64), Option<Uuid>>,
    /// The facts that were answered, and the job of each, if one came of it.
    pub answers: BTreeMap<(u64, String), Option<Uuid>>,
    /// What steps of jobs have finished: their results, by the job's number and their own.
    pub steps: BTreeMap<(i64, u32), String>,
    /// Up to which fact all were looked at.
    pub place: u64,
    /// The last fact that was told.
    pub told: u64,
}

impl Picture {
    /// The fact that a job answers.
    pub fn fact(&self, id: Uuid) -> Option<u64> {
        self.answers.iter().find(|(_, job)| **job == Some(id)).map(|((seq, _), _)| *seq)
    }

    /// The sequence number of a job.
    pub fn seq(&self, id: Uuid) -> i64 {
        self.jobs.iter().find(|(_, job)| job.id == id).map(|(seq, _)| *seq).unwrap()
    }
}

/// Looks at the file from outside, as another process would.
#[derive(Debug)]
pub struct Camera(Connection);

impl Camera {
    pub fn open(path: &Path) -> Self {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
        Self(connection)
    }

    pub fn take(&self) -> Picture {
        self.0.execute_batch("BEGIN").unwrap();
        let picture = Picture {
            jobs: self.jobs(),
            dead: self.dead(),
            events: self.events(),
            keys: self.keys(),
            slots: self.slots(),
            answers: self.answers(),
            steps: self.steps(),
            place: self.0.query_row("SELECT seq FROM event_cursor", [], |row| row.get(0)).unwrap(),
            told: self.last_seq(),
        };
        self.0.execute_batch("COMMIT").unwrap();
        picture
    }

    /// The number of the last event on the bus.
    pub fn last_seq(&self) -> u64 {
        self.0.query_row("SELECT coalesce(max(last_seq), 0) FROM bus_packs", [], |row| row.get(0)).unwrap()
    }

    fn jobs(&self) -> BTreeMap<i64, JobRow> {
        let mut statement = self
            .0
            .prepare_cached(
                "SELECT seq, id, event_id, slot, description, priority, concurrency_key, state, run_at, attempt, max_attempts,
                        attempt_id, interruptions, boot_id, fence, cancelling, round_attempts, depth FROM jobs",
            )
            .unwrap();
        let rows = statement.query_map([], |row| {
            let job = JobRow {
                id: Uuid::from_bytes(row.get(1)?),
                event: row.get(2)?,
                slot: row.get(3)?,
                tag: row.get(4)?,
                priority: row.get(5)?,
                key: row.get(6)?,
                state: row.get(7)?,
                run_at: row.get(8)?,
                attempt: row.get(9)?,
                max_attempts: row.get(10)?,
                attempt_id: row.get::<_, Option<[u8; 16]>>(11)?.map(Uuid::from_bytes),
                interruptions: row.get(12)?,
                boot: row.get::<_, Option<[u8; 16]>>(13)?.map(Uuid::from_bytes),
                fence: row.get(14)?,
                cancelling: row.get(15)?,
                round: row.get(16)?,
                depth: row.get(17)?,
            };
            Ok((row.get(0)?, job))
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    fn dead(&self) -> BTreeMap<i64, i64> {
        let mut statement = self.0.prepare_cached("SELECT seq, finished_at FROM jobs WHERE state = 'dead'").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.unwrap().map(Result::unwrap).collect()
    }

    fn events(&self) -> BTreeMap<String, EventRow> {
        let mut statement =
            self.0.prepare_cached("SELECT id, status, next_eval_at, failures_in_row FROM events").unwrap();
        let rows = statement.query_map([], |row| {
            let event = EventRow { status: row.get(1)?, next: row.get(2)?, failures: row.get(3)? };
            Ok((row.get(0)?, event))
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    fn keys(&self) -> BTreeMap<String, KeyRow> {
        let mut statement =
            self.0.prepare_cached("SELECT key, concurrency, rate_count, rate_period FROM queue_keys").unwrap();
        let rows = statement.query_map([], |row| {
            let rate = row.get::<_, Option<usize>>(2)?.zip(row.get::<_, Option<i64>>(3)?);
            Ok((row.get(0)?, KeyRow { limit: row.get(1)?, rate }))
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    fn steps(&self) -> BTreeMap<(i64, u32), String> {
        let mut statement = self.0.prepare_cached("SELECT job_seq, number, result FROM job_steps").unwrap();
        let rows = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)));
        rows.unwrap().map(Result::unwrap).collect()
    }

    fn answers(&self) -> BTreeMap<(u64, String), Option<Uuid>> {
        let mut statement = self.0.prepare_cached("SELECT seq, event_id, job_id FROM event_facts").unwrap();
        let rows = statement.query_map([], |row| {
            let job = row.get::<_, Option<[u8; 16]>>(2)?.map(Uuid::from_bytes);
            Ok(((row.get(0)?, row.get(1)?), job))
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    fn slots(&self) -> BTreeMap<(String, i64), Option<Uuid>> {
        let mut statement = self
            .0
            .prepare_cached("SELECT e.id, s.slot, s.job_id FROM slots s JOIN events e ON e.number = s.event")
            .unwrap();
        let rows = statement.query_map([], |row| {
            let job = row.get::<_, Option<[u8; 16]>>(2)?.map(Uuid::from_bytes);
            Ok(((row.get(0)?, row.get(1)?), job))
        });
        rows.unwrap().map(Result::unwrap).collect()
    }
}
