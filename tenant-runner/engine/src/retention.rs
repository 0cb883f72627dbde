//! Every table has an end: rows beyond an age, a number or a weight (`bytes`) are removed, a few at a time, so that nobody
//! waits for it, and the space goes back to the file system.
//! A pass follows activity, at most once an hour; an engine in which nothing happens is left alone.

mod bytes;
#[cfg(test)]
mod tests;

use crate::bus::Bus;
use crate::error::Result;
use crate::store::{Store, to_micros};
use chrono::{DateTime, Duration, Utc};
use nexaas_common::clock::SharedClock;
use nexaas_common::task::{OnExit, Supervisor};
use rusqlite::named_params;
use tokio_util::sync::CancellationToken;

const BETWEEN_PASSES: std::time::Duration = std::time::Duration::from_secs(3600);
/// Rows removed per write.
const AT_ONCE: i64 = 500;
/// Free pages given back to the file system per write.
const PAGES_AT_ONCE: u32 = 500;

/// What one table keeps.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    pub table: &'static str,
    /// Removes up to `:at_once` rows that are older than `:before` or beyond the newest `:rows`.
    pub sql: &'static str,
    pub rows: i64,
    pub age: Duration,
}

/// The retention of the core's tables. Others are appended where their tables are made.
pub const CORE: &[Keep] = &[
    crate::hooks::KEEP,
    crate::intake::KEEP,
    Keep {
        table: "bus_packs",
        // Some rows hold many events: the number kept is of events.
        sql: "DELETE FROM bus_packs WHERE last_seq IN (
                  SELECT last_seq FROM bus_packs
                  WHERE created_at < :before OR last_seq <= (SELECT max(last_seq) FROM bus_packs) - :rows
                  ORDER BY last_seq LIMIT :at_once)",
        rows: 50_000,
        age: Duration::days(14),
    },
    Keep {
        table: "unique_jobs",
        sql: "DELETE FROM unique_jobs WHERE key IN (
                  SELECT key FROM unique_jobs u
                  WHERE created_at < :before AND coalesce(expires_at, 0) < :before AND :rows >= 0
                      AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.seq = u.job_seq AND j.finished_at IS NULL)
                  ORDER BY created_at LIMIT :at_once)",
        rows: 0,
        age: Duration::days(1),
    },
    Keep {
        table: "jobs",
        sql: "DELETE FROM jobs WHERE seq IN (
                  SELECT seq FROM jobs WHERE finished_at IS NOT NULL AND (
                      finished_at < :before OR finished_at <= (
                          SELECT finished_at FROM jobs WHERE finished_at IS NOT NULL
                          ORDER BY finished_at DESC LIMIT 1 OFFSET :rows))
                  ORDER BY finished_at LIMIT :at_once)",
        rows: 20_000,
        age: Duration::days(30),
    },
    Keep {
        table: "slots",
        // The slot of a `once` event stays as long as the event, or sending it again would run it again.
        sql: "DELETE FROM slots WHERE (slot, event) IN (
                  SELECT s.slot, s.event FROM slots s LEFT JOIN events e ON e.number = s.event
                  WHERE e.condition_type IS NOT 'once' AND s.slot <= max(:before - 1, coalesce(
                      (SELECT slot FROM slots ORDER BY slot DESC LIMIT 1 OFFSET :rows), :before - 1))
                  ORDER BY s.slot LIMIT :at_once)",
        rows: 100_000,
        age: Duration::days(7),
    },
    Keep {
        table: "alerts",
        sql: "DELETE FROM alerts WHERE id IN (
                  SELECT id FROM alerts WHERE resolved_at IS NOT NULL AND (
                      created_at < :before OR created_at <= (
                          SELECT created_at FROM alerts ORDER BY created_at DESC LIMIT 1 OFFSET :rows))
                  ORDER BY created_at LIMIT :at_once)",
        rows: 1_000,
        age: Duration::days(90),
    },
];

pub(crate) fn start(store: Store, bus: &Bus, clock: SharedClock, rules: Vec<Keep>, supervisor: &Supervisor) {
    let pass = move || {
        let (store, rules, now) = (store.clone(), rules.clone(), clock.now());
        async move { full_pass(&store, &rules, now).await }
    };
    after_activity("retention", bus, supervisor, pass);
}

/// Lets `pass` remove what has passed its time: at the start and after activity, at most once an hour.
pub(crate) fn after_activity<P, F>(name: &'static str, bus: &Bus, supervisor: &Supervisor, pass: P)
where
    P: Fn() -> F + Send + 'static,
    F: Future<Output = Result<u64>> + Send,
{
    let mut happened = bus.listen();
    supervisor.spawn(name, OnExit::Shutdown, move |token: CancellationToken| async move {
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                removed = pass() => match removed {
                    Ok(0) => {}
                    Ok(count) => tracing::info!(name, count, "removed what has passed its time"),
                    Err(error) => tracing::error!(name, error = error.chain(), "what is old could not be removed"),
                }
            }
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(BETWEEN_PASSES) => {}
            }
            tokio::select! {
                () = token.cancelled() => return,
                Ok(()) = happened.changed() => {}
            }
        }
    });
}

/// As `pass`, with as many rows as fit into what tables may weigh.
pub async fn full_pass(store: &Store, rules: &[Keep], now: DateTime<Utc>) -> Result<u64> {
    let owned = rules.to_vec();
    let fitting = store.read(move |c| bytes::fit(c, &owned, bytes::LIMITS)).await?;
    pass(store, &fitting, now).await
}

/// Removes everything the rules no longer keep at `now`; answers how many rows that was.
pub async fn pass(store: &Store, rules: &[Keep], now: DateTime<Utc>) -> Result<u64> {
    let mut removed = 0;
    for rule in rules {
        loop {
            let rule = *rule;
            let rows = store.write(move |tx| remove(tx, &rule, now)).await?;
            removed += rows;
            if rows < AT_ONCE as u64 {
                break;
            }
        }
    }
    if removed > 0 {
        give_back(store).await?;
    }
    Ok(removed)
}

/// Gives free pages back to the file system, a few at a time; answers how many that were.
pub async fn give_back(store: &Store) -> Result<u64> {
    let mut given = 0;
    loop {
        let pages = store.write(vacuum_step).await?;
        given += pages;
        if pages < u64::from(PAGES_AT_ONCE) {
            return Ok(given);
        }
    }
}

/// The pragma answers a row per page and does no more than it is stepped for.
fn vacuum_step(tx: &rusqlite::Connection) -> Result<u64> {
    let mut statement = tx.prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))?;
    let mut rows = statement.query([])?;
    let mut pages = 0;
    while rows.next()?.is_some() {
        pages += 1;
    }
    Ok(pages)
}

fn remove(tx: &rusqlite::Connection, rule: &Keep, now: DateTime<Utc>) -> Result<u64> {
    let rows = tx.prepare_cached(rule.sql)?.execute(named_params! {
        ":before": to_micros(now - rule.age), ":rows": rule.rows, ":at_once": AT_ONCE,
    })?;
    Ok(rows as u64)
}
