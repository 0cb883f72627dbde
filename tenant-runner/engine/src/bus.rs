//! What happened, for whoever watches: stored in the transaction of the fact itself, delivered after its commit, replayed to
//! whoever comes later.
//!
//! Always true here: sequence numbers rise in the order of commits and are never given twice; a subscriber sees every stored
//! event after its starting point, once, in order; a slow subscriber costs nothing but its own delay. The facts of one commit
//! are packed into few rows, so that a busy queue does not write a row for each.

use crate::error::{EngineError, Result};
use crate::store::{Companion, Signal, Store, from_micros, to_micros};
use chrono::{DateTime, Utc};
use futures::Stream;
use nexaas_common::clock::SharedClock;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Rows read at once for one subscriber.
const PAGE: u32 = 4;
/// Facts that share a row, at most.
const PACK: usize = 256;
/// Bytes of text kept for the next transaction.
const MOST_KEPT: usize = 256 * 1024;
/// Events of one answer.
const MOST_LISTED: u32 = 1000;

/// Something that happened, as it is delivered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BusEvent {
    pub seq: u64,
    #[serde(rename = "type")]
    pub kind: String,
    pub source: String,
    pub data: Value,
    pub created_at: DateTime<Utc>,
}

/// Something that just happened, to be published.
#[derive(Debug, Clone)]
pub struct Fact {
    pub kind: &'static str,
    pub source: String,
    pub data: Value,
}

impl Fact {
    pub fn new(kind: &'static str, source: impl Into<String>, data: Value) -> Self {
        Self { kind, source: source.into(), data }
    }
}

/// A fact as it is written, one per line of a pack.
#[derive(Serialize)]
struct Line<'a, T> {
    seq: u64,
    #[serde(rename = "type")]
    kind: &'a str,
    source: &'a str,
    data: &'a T,
    at: i64,
}

/// A fact as it is read back. Nothing is copied until it is known to be wanted.
#[derive(Deserialize)]
struct Stored<'a> {
    seq: u64,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
    at: i64,
}

impl<'a> Stored<'a> {
    fn read(line: &'a str) -> Result<Self> {
        serde_json::from_str(line).map_err(EngineError::internal)
    }

    fn event(self) -> Result<BusEvent> {
        Ok(BusEvent {
            seq: self.seq,
            kind: self.kind.into_owned(),
            source: self.source.into_owned(),
            data: serde_json::from_str(self.data.get()).map_err(EngineError::internal)?,
            created_at: from_micros(self.at),
        })
    }
}

/// Clones share one bus.
#[derive(Debug, Clone)]
pub struct Bus {
    store: Store,
    clock: SharedClock,
    published: Signal,
    packer: Arc<Packer>,
}

impl Bus {
    pub async fn open(store: Store, clock: SharedClock) -> Result<Self> {
        let last: Option<u64> = store
            .read(|c| {
                Ok(c.query_row("SELECT last_seq FROM bus_packs ORDER BY last_seq DESC LIMIT 1", [], |r| r.get(0))
                    .optional()?)
            })
            .await?;
        let published = store.signal();
        let last = last.unwrap_or(0);
        let state = Packed { given: last, on_disk: last, lines: Vec::new(), text: Vec::new() };
        let packer = Arc::new(Packer { state: Mutex::new(state), published: published.clone() });
        store.join(packer.clone());
        Ok(Self { store, clock, published, packer })
    }

    /// Publishes inside a write: the event is stored if, and only if, that write is.
    pub fn publish(&self, _tx: &Connection, fact: &Fact) -> Result<u64> {
        self.note(fact.kind, &fact.source, &fact.data)
    }

    /// `publish` for data that has a type of its own.
    pub(crate) fn note<T: Serialize>(&self, kind: &'static str, source: &str, data: &T) -> Result<u64> {
        self.note_at(self.clock.now(), kind, source, data)
    }

    /// `note` for whoever has just asked the clock.
    pub(crate) fn note_at<T: Serialize>(
        &self,
        at: DateTime<Utc>,
        kind: &'static str,
        source: &str,
        data: &T,
    ) -> Result<u64> {
        let at = to_micros(at);
        let mut state = self.packer.lock();
        let (seq, before) = (state.given + 1, state.text.len());
        if let Err(error) = serde_json::to_writer(&mut state.text, &Line { seq, kind, source, data, at }) {
            state.text.truncate(before);
            return Err(EngineError::internal(error));
        }
        state.text.push(b'\n');
        let end = state.text.len();
        state.given = seq;
        state.lines.push(Noted { seq, at, end });
        Ok(seq)
    }

    /// Publishes something that has no other write.
    pub async fn announce(&self, fact: Fact) -> Result<u64> {
        let bus = self.clone();
        self.store.write(move |tx| bus.publish(tx, &fact)).await
    }

    /// Wakes when anything was published.
    pub fn listen(&self) -> watch::Receiver<u64> {
        self.published.listen()
    }

    /// The sequence number of the last event that is on disk; 0, if there was none yet.
    pub fn last_seq(&self) -> u64 {
        self.packer.lock().on_disk
    }

    /// Everything after `after_seq`, then whatever happens, until the stream is dropped. Without `after_seq`, only what
    /// happens from now on. The stream ends when the database cannot be read; resume from the last event seen.
    pub fn subscribe(&self, after_seq: Option<u64>) -> impl Stream<Item = BusEvent> + Send + use<> {
        let after = after_seq.unwrap_or_else(|| self.last_seq());
        let subscriber =
            Subscriber { store: self.store.clone(), published: self.published.listen(), after, page: VecDeque::new() };
        futures::stream::unfold(subscriber, |mut subscriber| async move {
            let event = subscriber.next().await?;
            Some((event, subscriber))
        })
    }

    /// Past events before `before_seq` (the newest, without one), newest first. `kinds` are whole types or begin with one and
    /// end in `.*`; none means all. At most 1000, and only what happened from `since` on; what matches rarely is looked for in
    /// all that is kept otherwise.
    pub async fn history(
        &self,
        before_seq: Option<u64>,
        since: Option<DateTime<Utc>>,
        limit: u32,
        kinds: Vec<String>,
    ) -> Result<Vec<BusEvent>> {
        let before = before_seq.unwrap_or(i64::MAX as u64).min(i64::MAX as u64);
        let limit = limit.clamp(1, MOST_LISTED) as usize;
        let since = since.map_or(i64::MIN, to_micros);
        self.store.read(move |c| past(c, before, since, limit, &kinds)).await
    }
}

/// Whether `kind` is one of `wanted`: `job.failed`, or `job.*` for all of a family. None wanted means all.
pub fn kind_matches(kind: &str, wanted: &[String]) -> bool {
    wanted.is_empty()
        || wanted.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(family) => kind.starts_with(family),
            None => kind == pattern,
        })
}

/// The facts of the transaction that is being made.
#[derive(Debug)]
struct Packer {
    state: Mutex<Packed>,
    published: Signal,
}

#[derive(Debug)]
struct Packed {
    /// The last number given, also to what was undone.
    given: u64,
    on_disk: u64,
    lines: Vec<Noted>,
    /// The lines, each with its end of line.
    text: Vec<u8>,
}

#[derive(Debug)]
struct Noted {
    seq: u64,
    at: i64,
    /// Where its line ends in the text.
    end: usize,
}

impl Packed {
    fn truncate(&mut self, lines: usize) {
        self.lines.truncate(lines);
        self.text.truncate(self.lines.last().map_or(0, |last| last.end));
    }
}

impl Packer {
    fn lock(&self) -> MutexGuard<'_, Packed> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Companion for Packer {
    fn mark(&self) -> usize {
        self.lock().lines.len()
    }

    fn rewind(&self, mark: usize) {
        self.lock().truncate(mark);
    }

    fn seal(&self, tx: &Connection) -> Result<()> {
        let state = self.lock();
        let mut begin = 0;
        for pack in state.lines.chunks(PACK) {
            let (Some(first), Some(last)) = (pack.first(), pack.last()) else { continue };
            let facts = state.text.get(begin..last.end - 1).map_or(Ok(""), str::from_utf8);
            tx.prepare_cached(
                "INSERT INTO bus_packs (last_seq, first_seq, created_at, facts) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![last.seq, first.seq, last.at, facts.map_err(EngineError::internal)?])?;
            begin = last.end;
        }
        Ok(())
    }

    fn settle(&self, kept: bool) {
        let mut state = self.lock();
        if kept && let Some(last) = state.lines.last() {
            state.on_disk = last.seq;
            self.published.raise();
        }
        state.truncate(0);
        // What one large transaction needed is not kept.
        state.text.shrink_to(MOST_KEPT);
    }
}

struct Subscriber {
    store: Store,
    published: watch::Receiver<u64>,
    after: u64,
    page: VecDeque<BusEvent>,
}

impl Subscriber {
    async fn next(&mut self) -> Option<BusEvent> {
        loop {
            if let Some(event) = self.page.pop_front() {
                self.after = event.seq;
                return Some(event);
            }
            // Marked as seen before reading, so that what is published meanwhile wakes the wait below.
            self.published.borrow_and_update();
            let after = self.after;
            match self.store.read(move |c| page(c, after)).await {
                Ok(page) if page.is_empty() => self.published.changed().await.ok()?,
                Ok(page) => self.page = page,
                Err(error) => {
                    tracing::error!(error = error.chain(), "a subscriber of the bus is cut off");
                    return None;
                }
            }
        }
    }
}

fn page(connection: &Connection, after: u64) -> Result<VecDeque<BusEvent>> {
    let mut statement =
        connection.prepare_cached("SELECT facts FROM bus_packs WHERE last_seq > ?1 ORDER BY last_seq LIMIT ?2")?;
    let mut rows = statement.query(params![after.min(i64::MAX as u64), PAGE])?;
    let mut page = VecDeque::new();
    while let Some(row) = rows.next()? {
        let facts = row.get_ref(0)?.as_str().map_err(EngineError::internal)?;
        for line in facts.lines() {
            let stored = Stored::read(line)?;
            if stored.seq > after {
                page.push_back(stored.event()?);
            }
        }
    }
    Ok(page)
}

/// Rows looked at for one answer of `history`.
const MOST_LOOKED_AT: usize = 5000;

fn past(connection: &Connection, before: u64, since: i64, limit: usize, kinds: &[String]) -> Result<Vec<BusEvent>> {
    // Begins with the row that holds `before`, if there is one.
    let mut statement = connection.prepare_cached(
        "SELECT facts, created_at FROM bus_packs
         WHERE last_seq <= coalesce((SELECT min(last_seq) FROM bus_packs WHERE last_seq >= ?1), ?1) ORDER BY last_seq DESC",
    )?;
    let mut rows = statement.query([before])?;
    let (mut found, mut seen) = (Vec::new(), 0);
    while found.len() < limit
        && seen < MOST_LOOKED_AT
        && let Some(row) = rows.next()?
    {
        seen += 1;
        // A row bears the time of its last fact.
        if row.get::<_, i64>(1)? < since {
            break;
        }
        let facts = row.get_ref(0)?.as_str().map_err(EngineError::internal)?;
        for line in facts.lines().rev() {
            let stored = Stored::read(line)?;
            let wanted = stored.seq < before && stored.at >= since && kind_matches(&stored.kind, kinds);
            if wanted && found.len() < limit {
                found.push(stored.event()?);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rig;
    use futures::StreamExt as _;
    use serde_json::json;

    fn fact(n: u64) -> Fact {
        Fact::new("workspace.changed", "test", json!({"n": n}))
    }

    #[tokio::test]
    async fn a_subscriber_gets_what_was_and_then_what_comes_without_a_gap() {
        let rig = Rig::new().await;
        for n in 0..300 {
            rig.bus.announce(fact(n)).await.unwrap();
        }
        let stream =
            rig.bus.subscribe(Some(0)).take(600).map(|event| event.data["n"].as_u64().unwrap()).collect::<Vec<_>>();
        let publish = async {
            for n in 300..600 {
                rig.bus.announce(fact(n)).await.unwrap();
            }
        };
        let (seen, ()) = tokio::join!(stream, publish);
        assert_eq!(seen, (0..600).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn without_a_starting_point_only_what_follows_is_seen() {
        let rig = Rig::new().await;
        rig.bus.announce(fact(1)).await.unwrap();
        let mut stream = Box::pin(rig.bus.subscribe(None));
        rig.bus.announce(fact(2)).await.unwrap();
        assert_eq!(stream.next().await.unwrap().data["n"], 2);
    }

    #[tokio::test]
    async fn an_undone_fact_is_not_told_and_its_number_is_not_given_again() {
        let rig = Rig::new().await;
        let bus = rig.bus.clone();
        rig.store
            .write(move |tx| {
                bus.publish(tx, &fact(1))?;
                Err::<(), _>(EngineError::conflict("undone"))
            })
            .await
            .unwrap_err();
        let seq = rig.bus.announce(fact(2)).await.unwrap();
        assert_eq!(seq, 2);
        let mut told = Box::pin(rig.bus.subscribe(Some(0)));
        assert_eq!(told.next().await.unwrap().data["n"], 2);
    }

    #[tokio::test]
    async fn the_past_goes_no_further_back_than_is_asked_for() {
        let rig = Rig::new().await;
        for n in 0..3 {
            rig.bus.announce(fact(n)).await.unwrap();
            rig.bus.announce(Fact::new("job.queued", "test", json!({}))).await.unwrap();
            rig.advance(10);
        }
        let past = async |since: Option<DateTime<Utc>>, limit: u32, kinds: &[&str]| {
            let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
            let found = rig.bus.history(None, since, limit, kinds).await.unwrap();
            found.into_iter().map(|event| event.seq).collect::<Vec<_>>()
        };
        let ago = |seconds| Some(rig.now() - chrono::Duration::seconds(seconds));
        assert_eq!(past(None, 10, &["workspace.*"]).await, [5, 3, 1]);
        assert_eq!(past(ago(20), 10, &["workspace.*"]).await, [5, 3], "the moment itself counts");
        assert_eq!(past(ago(19), 10, &[]).await, [6, 5]);
        assert_eq!(past(ago(30), 4, &[]).await, [6, 5, 4, 3]);
    }

    #[tokio::test]
    async fn numbers_rise_over_restarts() {
        let rig = Rig::new().await;
        let before = rig.bus.announce(fact(1)).await.unwrap();
        let rig = rig.restart().await;
        assert!(rig.bus.announce(fact(2)).await.unwrap() > before);
    }
}
