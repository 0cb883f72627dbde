//! What keeps a remedy that does not help from being taken again and again: after `MOST` runs within `WINDOW` the breaker
//! opens. While it is open, one run is tried per `COOL_DOWN`; once its trouble is gone, it closes.

use crate::error::{EngineError, Result};
use crate::store::{from_micros, to_micros};
use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, params};
use std::collections::BTreeMap;

pub(super) const MOST: usize = 3;
pub(super) const WINDOW: TimeDelta = TimeDelta::minutes(10);
pub(super) const COOL_DOWN: TimeDelta = TimeDelta::minutes(60);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Breaker {
    /// At most `MOST`, oldest first.
    runs: Vec<DateTime<Utc>>,
    opened_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Run,
    /// Not before this time.
    Open {
        until: DateTime<Utc>,
    },
}

impl Breaker {
    /// Whether the remedy may be taken now; if so, it counts as taken.
    pub fn ask(&mut self, now: DateTime<Utc>) -> Answer {
        // What lies in the future was noted before the clock was set back.
        self.runs.retain(|at| *at <= now && now - *at < WINDOW);
        self.opened_at = self.opened_at.map(|at| at.min(now));
        match self.opened_at {
            Some(at) if now - at < COOL_DOWN => return Answer::Open { until: at + COOL_DOWN },
            Some(_) => self.opened_at = Some(now),
            None if self.runs.len() >= MOST => {
                self.opened_at = Some(now);
                return Answer::Open { until: now + COOL_DOWN };
            }
            None => {}
        }
        self.runs.push(now);
        if self.runs.len() > MOST {
            self.runs.remove(0);
        }
        Answer::Run
    }

    pub fn is_open(&self) -> bool {
        self.opened_at.is_some()
    }

    /// The trouble is not there at this moment. Whether it stays away shows after a while.
    pub fn calm(&mut self, now: DateTime<Utc>) {
        let latest = self.runs.last().copied().max(self.opened_at);
        if latest.is_none_or(|at| now - at >= WINDOW || at > now) {
            *self = Self::default();
        }
    }
}

pub(super) fn load(connection: &Connection) -> Result<BTreeMap<String, Breaker>> {
    let mut statement = connection.prepare("SELECT remedy, runs, opened_at FROM ops_breakers")?;
    let mut rows = statement.query([])?;
    let mut breakers = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let runs: Vec<i64> = serde_json::from_str(&row.get::<_, String>(1)?).map_err(EngineError::internal)?;
        let breaker = Breaker {
            runs: runs.into_iter().map(from_micros).collect(),
            opened_at: row.get::<_, Option<i64>>(2)?.map(from_micros),
        };
        breakers.insert(row.get(0)?, breaker);
    }
    Ok(breakers)
}

pub(super) fn save(tx: &Connection, remedy: &str, breaker: &Breaker) -> Result<()> {
    if *breaker == Breaker::default() {
        tx.prepare_cached("DELETE FROM ops_breakers WHERE remedy = ?1")?.execute([remedy])?;
        return Ok(());
    }
    let runs: Vec<i64> = breaker.runs.iter().copied().map(to_micros).collect();
    let runs = serde_json::to_string(&runs).map_err(EngineError::internal)?;
    tx.prepare_cached(
        "INSERT INTO ops_breakers (remedy, runs, opened_at) VALUES (?1, ?2, ?3)
         ON CONFLICT (remedy) DO UPDATE SET runs = excluded.runs, opened_at = excluded.opened_at",
    )?
    .execute(params![remedy, runs, breaker.opened_at.map(to_micros)])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Rig, utc};

    fn at(minutes: i64) -> DateTime<Utc> {
        utc("2026-01-01T00:00:00Z") + TimeDelta::minutes(minutes)
    }

    #[test]
    fn three_runs_within_ten_minutes_open_it() {
        let mut breaker = Breaker::default();
        for minute in [0, 4, 9] {
            assert_eq!(breaker.ask(at(minute)), Answer::Run, "{minute}");
        }
        assert_eq!(breaker.ask(at(9)), Answer::Open { until: at(69) });
        assert_eq!(breaker.ask(at(68)), Answer::Open { until: at(69) });
        assert_eq!(breaker.ask(at(69)), Answer::Run, "one more is tried");
        assert_eq!(breaker.ask(at(70)), Answer::Open { until: at(129) }, "and only one");
    }

    #[test]
    fn runs_that_are_far_apart_leave_it_closed() {
        let mut breaker = Breaker::default();
        for minute in (0..100).step_by(5) {
            assert_eq!(breaker.ask(at(minute)), Answer::Run, "{minute}");
        }
    }

    #[test]
    fn it_closes_when_its_trouble_stays_away() {
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            breaker.ask(at(0));
        }
        breaker.calm(at(9));
        assert!(breaker.is_open(), "too early to tell");
        breaker.calm(at(10));
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_keep_it_open_for_longer() {
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            breaker.ask(at(600));
        }
        assert_eq!(breaker.ask(at(0)), Answer::Open { until: at(60) });
        breaker.calm(at(0));
        assert_eq!(breaker.ask(at(60)), Answer::Run);
    }

    #[tokio::test]
    async fn it_survives_a_restart() {
        let rig = Rig::new().await;
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            breaker.ask(rig.now());
        }
        let stored = breaker.clone();
        rig.store.write(move |tx| save(tx, "vacuum", &stored)).await.unwrap();
        let rig = rig.restart().await;
        assert_eq!(rig.store.read(load).await.unwrap(), BTreeMap::from([("vacuum".to_owned(), breaker)]));
        rig.store.write(|tx| save(tx, "vacuum", &Breaker::default())).await.unwrap();
        assert!(rig.store.read(load).await.unwrap().is_empty());
    }
}
