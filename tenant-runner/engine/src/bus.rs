//! What happened, for whoever watches: stored in the transaction of the fact itself, delivered after its commit, replayed to
//! whoever comes later.
//!
//! Always true here: sequence numbers rise in the order of commits and are never given twice; a subscriber sees every stored
//! event after its starting point, once, in order; a slow subscriber costs nothing but its own delay.

use crate::error::{EngineError, Result};
use crate::store::{Signal, Store, from_micros, to_micros};
use chrono::{DateTime, Utc};
use futures::Stream;
use nexaas_common::clock::SharedClock;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// Events read at once for one subscriber.
const PAGE: u32 = 256;

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

/// Clones share one bus.
#[derive(Debug, Clone)]
pub struct Bus {
    store: Store,
    clock: SharedClock,
    published: Signal,
    last_seq: Arc<AtomicU64>,
}

impl Bus {
    pub async fn open(store: Store, clock: SharedClock) -> Result<Self> {
        let last: Option<u64> = store
            .read(|c| {
                Ok(c.query_row("SELECT seq FROM bus_events ORDER BY seq DESC LIMIT 1", [], |r| r.get(0)).optional()?)
            })
            .await?;
        let published = store.signal();
        Ok(Self { store, clock, published, last_seq: Arc::new(AtomicU64::new(last.unwrap_or(0))) })
    }

    /// Publishes inside a write: the event is stored if, and only if, that write is.
    pub fn publish(&self, tx: &Connection, fact: &Fact) -> Result<u64> {
        let seq = self.last_seq.fetch_add(1, Ordering::AcqRel) + 1;
        tx.prepare_cached("INSERT INTO bus_events (seq, type, source, data, created_at) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![seq, fact.kind, fact.source, fact.data.to_string(), to_micros(self.clock.now())])?;
        self.published.raise();
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

    /// Everything after `after_seq`, then whatever happens, until the stream is dropped. Without `after_seq`, only what
    /// happens from now on. The stream ends when the database cannot be read; resume from the last event seen.
    pub fn subscribe(&self, after_seq: Option<u64>) -> impl Stream<Item = BusEvent> + Send + use<> {
        let after = after_seq.unwrap_or_else(|| self.last_seq.load(Ordering::Acquire));
        let subscriber =
            Subscriber { store: self.store.clone(), published: self.published.listen(), after, page: VecDeque::new() };
        futures::stream::unfold(subscriber, |mut subscriber| async move {
            let event = subscriber.next().await?;
            Some((event, subscriber))
        })
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
    let mut statement = connection.prepare_cached(
        "SELECT seq, type, source, data, created_at FROM bus_events WHERE seq > ?1 ORDER BY seq LIMIT ?2",
    )?;
    let mut rows = statement.query(params![after, PAGE])?;
    let mut page = VecDeque::new();
    while let Some(row) = rows.next()? {
        let data: String = row.get(3)?;
        page.push_back(BusEvent {
            seq: row.get(0)?,
            kind: row.get(1)?,
            source: row.get(2)?,
            data: serde_json::from_str(&data).map_err(EngineError::internal)?,
            created_at: from_micros(row.get(4)?),
        });
    }
    Ok(page)
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
    async fn numbers_rise_over_restarts() {
        let rig = Rig::new().await;
        let before = rig.bus.announce(fact(1)).await.unwrap();
        let rig = rig.restart().await;
        assert!(rig.bus.announce(fact(2)).await.unwrap() > before);
    }
}
