//! The examination of the whole database: in idle time, at most daily, on a reader, given up as soon as something happens. Its
//! result is kept, so that a restart does not forget damage.

use crate::error::{EngineError, Result};
use crate::ops::reading::Integrity;
use crate::store::{Store, from_micros, to_micros};
use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio_util::sync::CancellationToken;

const NAME: &str = "integrity";
const BETWEEN: TimeDelta = TimeDelta::hours(24);
/// Damaged places that are told.
const MOST_FAULTS: u32 = 5;
/// Steps of SQLite between two looks at the token.
const STEPS: i32 = 1000;

pub(in crate::ops) fn latest(connection: &Connection) -> Result<Option<Integrity>> {
    let row: Option<(String, i64)> = connection
        .prepare_cached("SELECT value, at FROM ops_facts WHERE name = ?1")?
        .query_row([NAME], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(row.map(|(fault, at)| Integrity { at: from_micros(at), fault: (!fault.is_empty()).then_some(fault) }))
}

pub(in crate::ops) fn is_due(latest: Option<&Integrity>, now: DateTime<Utc>) -> bool {
    // A clock that was set back makes the latest one lie in the future.
    latest.is_none_or(|latest| now - latest.at >= BETWEEN || latest.at > now)
}

/// Examines; `None` if `stop` came first.
pub(in crate::ops) async fn examine(
    store: &Store,
    now: DateTime<Utc>,
    stop: &CancellationToken,
) -> Result<Option<Integrity>> {
    let asked = stop.clone();
    let examined = store
        .read(move |c| {
            let token = asked.clone();
            c.progress_handler(STEPS, Some(move || token.is_cancelled()))?;
            let outcome = quick_check(c);
            c.progress_handler(0, None::<fn() -> bool>)?;
            match outcome {
                Err(_) if asked.is_cancelled() => Ok(None),
                outcome => outcome.map(Some),
            }
        })
        .await;
    let fault = match examined {
        Ok(None) => return Ok(None),
        Ok(Some(fault)) => fault,
        // So damaged that the examination itself breaks off.
        Err(error) if is_damage(&error) => Some(error.chain()),
        Err(error) => return Err(error),
    };
    let integrity = Integrity { at: now, fault };
    let text = integrity.fault.clone().unwrap_or_default();
    store
        .write(move |tx| {
            Ok(tx.execute(
                "INSERT INTO ops_facts (name, value, at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value, at = excluded.at",
                params![NAME, text, to_micros(now)],
            )?)
        })
        .await?;
    Ok(Some(integrity))
}

fn quick_check(connection: &Connection) -> Result<Option<String>> {
    let mut statement = connection.prepare(&format!("PRAGMA quick_check({MOST_FAULTS})"))?;
    let lines: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let text = lines.join("; ");
    Ok((text != "ok").then_some(text))
}

fn is_damage(error: &EngineError) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<rusqlite::Error>())
        .and_then(rusqlite::Error::sqlite_error_code)
        .is_some_and(|code| matches!(code, DatabaseCorrupt | NotADatabase))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Rig, utc};

    #[test]
    fn it_is_due_daily_and_after_the_clock_was_set_back() {
        let at = utc("2026-01-02T00:00:00Z");
        let latest = Integrity { at, fault: None };
        assert!(is_due(None, at));
        for (hours, due) in [(0, false), (23, false), (24, true), (-1, true)] {
            assert_eq!(is_due(Some(&latest), at + TimeDelta::hours(hours)), due, "{hours}");
        }
    }

    #[tokio::test]
    async fn a_sound_database_passes_and_the_result_is_kept() {
        let rig = Rig::new().await;
        let passed = examine(&rig.store, rig.now(), &CancellationToken::new()).await.unwrap().unwrap();
        assert_eq!(passed, Integrity { at: rig.now(), fault: None });
        assert_eq!(rig.store.read(latest).await.unwrap(), Some(passed));
    }

    #[tokio::test]
    async fn it_can_be_given_up() {
        let rig = Rig::new().await;
        rig.store
            .write(|tx| {
                Ok(tx.execute_batch(
                    "CREATE TABLE big (x); WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
                     INSERT INTO big SELECT randomblob(100) FROM n",
                )?)
            })
            .await
            .unwrap();
        let stop = CancellationToken::new();
        stop.cancel();
        assert_eq!(examine(&rig.store, rig.now(), &stop).await.unwrap(), None);
        assert_eq!(rig.store.read(latest).await.unwrap(), None, "nothing is known");
        let again = examine(&rig.store, rig.now(), &CancellationToken::new()).await.unwrap();
        assert!(again.is_some(), "the reader is as good as before");
    }

    #[tokio::test]
    async fn damage_is_found_and_named() {
        let rig = Rig::new().await;
        rig.store
            .write(|tx| {
                Ok(tx.execute_batch(
                    "CREATE TABLE t (x CHECK (x > 0)); PRAGMA ignore_check_constraints = ON; INSERT INTO t VALUES (-1)",
                )?)
            })
            .await
            .unwrap();
        let found = examine(&rig.store, rig.now(), &CancellationToken::new()).await.unwrap().unwrap();
        assert!(found.fault.is_some_and(|fault| fault.contains("CHECK constraint failed in t")));
    }
}
