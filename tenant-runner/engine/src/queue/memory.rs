//! What the queue knows without asking the database: what runs, how many wait, which keys are busy, how jobs have ended.
//!
//! Always true here: what it says about a transaction in the making is what that transaction has done; after a write was undone
//! it reads itself anew before it is asked again; the workers hear of a job only when its claim is on disk.

use super::handoff::Handoff;
use super::job::{Claimed, JobId, Rate, uuid};
use super::keys::{Keys, Limits};
use crate::error::Result;
use crate::store::{Companion, Signal, to_micros};
use chrono::{DateTime, Utc};
use nexaas_common::clock::SharedClock;
use rusqlite::{Connection, params};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How a job can have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Final {
    Succeeded,
    Dead,
    Cancelled,
}

/// Jobs that have ended since the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    pub succeeded: i64,
    pub dead: i64,
    pub cancelled: i64,
}

impl Totals {
    fn add(&mut self, ended: Final, change: i64) {
        match ended {
            Final::Succeeded => self.succeeded += change,
            Final::Dead => self.dead += change,
            Final::Cancelled => self.cancelled += change,
        }
    }
}

/// What is to be done once the transaction is on disk.
#[derive(Debug)]
pub(super) enum Note {
    /// The workers get this job; its room is taken.
    Start(Box<Claimed>),
    /// Whoever claimed this job directly can be asked to stop it.
    Enter(JobId, CancellationToken),
    Leave(JobId),
    Cancel(JobId),
    /// So many more (or fewer) jobs have ended this way.
    Ended(Final, i64),
    /// A job of this key, whose starts are counted, started at this time.
    Paced(Arc<str>, i64),
    /// Starts of this key are counted no more, and those before mean nothing.
    Unpaced(Arc<str>),
}

#[derive(Debug, Clone)]
pub(super) struct RunningJob {
    pub id: JobId,
    pub started_at: i64,
    pub key: Option<Arc<str>>,
}

#[derive(Debug)]
pub(super) struct State {
    /// Whether the rest can be believed; if not, it is read from the database first.
    trusted: bool,
    /// Of this queue's opening on.
    pub next_seq: i64,
    /// Waiting jobs, parked ones included.
    pub ready: i64,
    /// A job that is due waits in the table although nothing blocks it, or may do so.
    pub backlog: bool,
    pub running: BTreeMap<i64, RunningJob>,
    /// No running job has a lower seq.
    low: i64,
    pub keys: Keys,
    pub notes: Vec<Note>,
    /// Of what is on disk.
    totals: Totals,
    sealed: (i64, i64),
}

impl State {
    pub fn enter(&mut self, seq: i64, job: RunningJob) {
        self.low = self.low.min(seq);
        if let Some(key) = &job.key {
            self.keys.started(key, job.started_at);
            if self.keys.get(key).is_some_and(|key| key.limits.rate.is_some()) {
                self.notes.push(Note::Paced(key.clone(), job.started_at));
            }
        }
        self.running.insert(seq, job);
    }

    /// Changes what a key allows, in memory and in its row.
    pub fn set_limits(&mut self, tx: &Connection, name: &Arc<str>, limits: Limits, now: DateTime<Utc>) -> Result<()> {
        self.keys.set(name, limits);
        if limits.rate.is_none() {
            self.notes.push(Note::Unpaced(name.clone()));
        }
        save_limits(tx, name, &limits, to_micros(now))
    }

    pub fn leave(&mut self, seq: i64) {
        if let Some(job) = self.running.remove(&seq) {
            if let Some(key) = &job.key {
                self.keys.ended(key);
            }
            self.notes.push(Note::Leave(job.id));
        }
    }
}

#[derive(Debug)]
pub(super) struct Memory {
    state: Mutex<State>,
    tokens: Mutex<HashMap<JobId, CancellationToken>>,
    pub handoff: Arc<Handoff>,
    clock: SharedClock,
    ready: Signal,
}

impl Memory {
    pub fn new(clock: SharedClock, ready: Signal) -> Self {
        let state = State {
            trusted: false,
            next_seq: 1,
            ready: 0,
            backlog: true,
            running: BTreeMap::new(),
            low: 0,
            keys: Keys::default(),
            notes: Vec::new(),
            totals: Totals::default(),
            sealed: (0, 0),
        };
        Self { state: Mutex::new(state), tokens: Mutex::default(), handoff: Arc::default(), clock, ready }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<JobId, CancellationToken>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is stored apart from the jobs. Once, at the opening.
    pub fn open(&self, c: &Connection) -> Result<()> {
        let mut state = self.lock();
        let (totals, low, last) =
            c.query_row("SELECT succeeded, dead, cancelled, running_from, last_seq FROM queue_totals", [], |row| {
                let totals = Totals { succeeded: row.get(0)?, dead: row.get(1)?, cancelled: row.get(2)? };
                Ok((totals, row.get::<_, i64>(3)?, row.get::<_, i64>(4)?))
            })?;
        let highest: Option<i64> = c.query_row("SELECT max(seq) FROM jobs", [], |row| row.get(0))?;
        let last = last.max(highest.unwrap_or(0));
        (state.totals, state.low, state.next_seq, state.sealed) = (totals, low, last + 1, (low, last));
        state.read(c)
    }

    /// The state as the transaction `tx` has it so far.
    pub fn within(&self, tx: &Connection) -> Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        if !state.trusted {
            state.read(tx)?;
        }
        Ok(state)
    }

    /// What has been committed, for whoever only looks.
    pub fn glance(&self) -> (i64, usize, Totals) {
        let state = self.lock();
        (state.ready, state.running.len(), state.totals)
    }

    pub fn running_since(&self, since: DateTime<Utc>) -> Vec<JobId> {
        let since = to_micros(since);
        self.lock().running.values().filter(|job| job.started_at < since).map(|job| job.id).collect()
    }

    pub fn key_names(&self) -> Vec<(Arc<str>, Limits, u32, u32)> {
        let state = self.lock();
        let mut keys: Vec<_> =
            state.keys.iter().map(|(name, key)| (name.clone(), key.limits, key.running, key.parked)).collect();
        keys.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        keys
    }
}

impl State {
    /// Reads from the database whatever may have been changed by what was undone.
    fn read(&mut self, c: &Connection) -> Result<()> {
        self.running.clear();
        self.keys.clear();
        read_limits(c, &mut self.keys)?;
        // What was started in this transaction and is kept is not in the stored rows yet.
        for note in &self.notes {
            match note {
                Note::Paced(name, at) => self.keys.replay_start(name, *at),
                Note::Unpaced(name) => self.keys.forget_starts(name),
                Note::Start(_) | Note::Enter(..) | Note::Leave(_) | Note::Cancel(_) | Note::Ended(..) => {}
            }
        }
        let mut statement = c.prepare_cached(
            "SELECT seq, id, started_at, concurrency_key FROM jobs WHERE seq >= ?1 AND state = 'running'",
        )?;
        let mut rows = statement.query([self.low])?;
        while let Some(row) = rows.next()? {
            let key: Option<Arc<str>> = row.get::<_, Option<String>>(3)?.map(Into::into);
            if let Some(key) = &key {
                self.keys.entry(key).running += 1;
            }
            let job = RunningJob { id: JobId::from_uuid(uuid(row, 1)?), started_at: row.get(2)?, key };
            self.running.insert(row.get(0)?, job);
        }
        let mut statement =
            c.prepare_cached("SELECT concurrency_key, count(*) FROM jobs WHERE parked = 1 GROUP BY concurrency_key")?;
        let mut rows = statement.query([])?;
        let mut parked = 0;
        while let Some(row) = rows.next()? {
            let count: i64 = row.get(1)?;
            parked += count;
            self.keys.parked(&row.get::<_, String>(0)?.into(), count);
        }
        let unparked: i64 = c
            .prepare_cached("SELECT count(*) FROM jobs WHERE state = 'ready' AND parked = 0")?
            .query_row([], |row| row.get(0))?;
        self.ready = parked + unparked;
        self.backlog = true;
        self.trusted = true;
        Ok(())
    }
}

fn read_limits(c: &Connection, keys: &mut Keys) -> Result<()> {
    let mut statement = c.prepare_cached("SELECT key, concurrency, rate_count, rate_period, starts FROM queue_keys")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let period: Option<u64> = row.get(3)?;
        let rate = row
            .get::<_, Option<u32>>(2)?
            .zip(period)
            .map(|(count, micros)| Rate { count, period: Duration::from_micros(micros) });
        let starts: String = row.get(4)?;
        let key = keys.entry(&row.get::<_, String>(0)?.into());
        key.limits = Limits { concurrency: row.get(1)?, rate };
        key.starts = serde_json::from_str(&starts).map_err(crate::EngineError::internal)?;
    }
    Ok(())
}

impl Companion for Memory {
    fn mark(&self) -> usize {
        self.lock().notes.len()
    }

    fn rewind(&self, mark: usize) {
        let mut state = self.lock();
        if state.notes.len() > mark {
            let undone = state.notes.split_off(mark);
            self.give_room_back(&undone);
        }
        state.trusted = false;
    }

    fn seal(&self, tx: &Connection) -> Result<()> {
        let mut state = self.within(tx)?;
        let mut totals = state.totals;
        for note in &state.notes {
            if let Note::Ended(ended, change) = note {
                totals.add(*ended, *change);
            }
        }
        let last = state.next_seq - 1;
        let low = state.running.first_key_value().map_or(last + 1, |(seq, _)| *seq);
        if totals != state.totals || (low, last) != state.sealed {
            tx.prepare_cached(
                "UPDATE queue_totals SET succeeded = ?1, dead = ?2, cancelled = ?3, running_from = ?4, last_seq = ?5",
            )?
            .execute(params![totals.succeeded, totals.dead, totals.cancelled, low, last])?;
        }
        let now = to_micros(self.clock.now());
        for (name, limits, starts) in state.keys.take_dirty() {
            save(tx, &name, &limits, &starts, now)?;
        }
        Ok(())
    }

    fn settle(&self, kept: bool) {
        let mut state = self.lock();
        let notes = std::mem::take(&mut state.notes);
        if !kept {
            state.trusted = false;
            self.give_room_back(&notes);
            return;
        }
        let mut tokens = self.tokens();
        let mut starting = Vec::new();
        for note in notes {
            match note {
                Note::Start(job) => {
                    tokens.insert(job.id, job.cancel.clone());
                    starting.push(*job);
                }
                Note::Enter(id, token) => {
                    tokens.insert(id, token);
                }
                Note::Leave(id) => {
                    tokens.remove(&id);
                }
                Note::Cancel(id) => {
                    if let Some(token) = tokens.get(&id) {
                        token.cancel();
                    }
                }
                Note::Ended(ended, change) => state.totals.add(ended, change),
                Note::Paced(..) | Note::Unpaced(_) => {}
            }
        }
        let last = state.next_seq - 1;
        let low = state.running.first_key_value().map_or(last + 1, |(seq, _)| *seq);
        (state.low, state.sealed) = (low, (low, last));
        self.handoff.set_backlog(state.backlog);
        metrics::gauge!("nexaas_queue_depth").set(state.ready as f64);
        drop((tokens, state));
        if !starting.is_empty() {
            self.handoff.give(starting.into_iter());
        }
    }
}

impl Memory {
    fn give_room_back(&self, undone: &[Note]) {
        let starts = undone.iter().filter(|note| matches!(note, Note::Start(_))).count();
        self.handoff.change_room(starts as i64);
        // What was to start waits in the table again.
        self.ready.raise();
    }
}

fn save(tx: &Connection, name: &str, limits: &Limits, starts: &[i64], now: i64) -> Result<()> {
    save_limits(tx, name, limits, now)?;
    let starts = serde_json::to_string(starts).map_err(crate::EngineError::internal)?;
    tx.prepare_cached("UPDATE queue_keys SET starts = ?2 WHERE key = ?1")?.execute(params![name, starts])?;
    Ok(())
}

/// Leaves the stored starts alone: those of this transaction are stored at its end, and are noted until then.
fn save_limits(tx: &Connection, name: &str, limits: &Limits, now: i64) -> Result<()> {
    if *limits == Limits::default() {
        tx.prepare_cached("DELETE FROM queue_keys WHERE key = ?1")?.execute([name])?;
        return Ok(());
    }
    let period = limits.rate.map(|rate| i64::try_from(rate.period.as_micros()).unwrap_or(i64::MAX));
    tx.prepare_cached(
        "INSERT INTO queue_keys (key, concurrency, rate_count, rate_period, used_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (key) DO UPDATE SET concurrency = ?2, rate_count = ?3, rate_period = ?4, used_at = ?5,
             starts = iif(?3 IS NULL, '[]', starts)",
    )?
    .execute(params![name, limits.concurrency, limits.rate.map(|rate| rate.count), period, now])?;
    Ok(())
}
