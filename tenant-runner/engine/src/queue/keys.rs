//! Concurrency keys: how many jobs of a key run, how many may, and how often one may start. Pure: no clock and no database.
//!
//! Always true here: a job starts only if its key admits it; a key with nothing in it and nothing special about it is
//! forgotten.

use super::job::Rate;
use crate::store::{from_micros, to_micros};
use chrono::{DateTime, Utc};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// What is set for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub concurrency: u32,
    pub rate: Option<Rate>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { concurrency: 1, rate: None }
    }
}

#[derive(Debug, Default)]
pub(super) struct Key {
    pub limits: Limits,
    pub running: u32,
    /// Due jobs that wait for room.
    pub parked: u32,
    /// The last starts, oldest first, in microseconds; as many as the rate counts. None are kept without a rate.
    pub starts: VecDeque<i64>,
}

/// Whether a job of a key may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Now,
    /// When its rate allows the next one.
    At(DateTime<Utc>),
    /// When one that runs has ended.
    Full,
}

impl Key {
    pub fn admission(&self, now: DateTime<Utc>) -> Admission {
        if self.running >= self.limits.concurrency {
            return Admission::Full;
        }
        let Some(rate) = self.limits.rate else { return Admission::Now };
        let Some(oldest) = self.starts.len().checked_sub(rate.count as usize).and_then(|at| self.starts.get(at)) else {
            return Admission::Now;
        };
        let next = from_micros(oldest.saturating_add(i64::try_from(rate.period.as_micros()).unwrap_or(i64::MAX)));
        if next <= now { Admission::Now } else { Admission::At(next) }
    }

    /// How many more may start at `now`.
    fn room(&self, now: DateTime<Utc>) -> u32 {
        let free = self.limits.concurrency.saturating_sub(self.running);
        let Some(rate) = self.limits.rate else { return free };
        let since = to_micros(now) - i64::try_from(rate.period.as_micros()).unwrap_or(i64::MAX);
        let recent = self.starts.iter().filter(|start| **start > since).count();
        free.min(rate.count.saturating_sub(recent as u32))
    }

    fn started(&mut self, at: i64) {
        self.running += 1;
        if let Some(rate) = self.limits.rate {
            self.starts.push_back(at);
            let excess = self.starts.len().saturating_sub(rate.count as usize);
            self.starts.drain(..excess);
        }
    }

    fn is_forgettable(&self) -> bool {
        self.running == 0 && self.parked == 0 && self.limits == Limits::default()
    }
}

/// A key with parked jobs, and how many of them it has room for.
pub(super) type Awake = (Arc<str>, u32);

#[derive(Debug, Default)]
pub(super) struct Keys {
    all: HashMap<Arc<str>, Key>,
    /// Keys with parked jobs for which something has changed.
    stirred: HashSet<Arc<str>>,
    /// Keys with parked jobs that wait for their rate.
    paced: HashSet<Arc<str>>,
    /// Keys whose starts are not stored yet.
    dirty: HashSet<Arc<str>>,
}

impl Keys {
    pub fn get(&self, name: &str) -> Option<&Key> {
        self.all.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Key)> {
        self.all.iter()
    }

    /// Keys to be stored, with what is to be stored; each is told once.
    pub fn take_dirty(&mut self) -> Vec<(Arc<str>, Limits, Vec<i64>)> {
        let names = std::mem::take(&mut self.dirty);
        let row = |name: Arc<str>| match self.all.get(&name) {
            Some(key) => (name, key.limits, key.starts.iter().copied().collect()),
            None => (name, Limits::default(), Vec::new()),
        };
        names.into_iter().map(row).collect()
    }

    /// Notes again a start that is not in the stored row yet.
    pub fn replay_start(&mut self, name: &Arc<str>, at: i64) {
        self.entry(name).starts.push_back(at);
        self.dirty.insert(name.clone());
    }

    pub fn forget_starts(&mut self, name: &str) {
        if let Some(key) = self.all.get_mut(name) {
            key.starts.clear();
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    pub fn entry(&mut self, name: &Arc<str>) -> &mut Key {
        self.all.entry(name.clone()).or_default()
    }

    pub fn admission(&self, name: &str, now: DateTime<Utc>) -> Admission {
        self.all.get(name).map_or(Admission::Now, |key| key.admission(now))
    }

    pub fn started(&mut self, name: &Arc<str>, at: i64) {
        let key = self.entry(name);
        key.started(at);
        if key.limits.rate.is_some() {
            self.dirty.insert(name.clone());
        }
    }

    pub fn ended(&mut self, name: &Arc<str>) {
        let key = self.entry(name);
        key.running = key.running.saturating_sub(1);
        self.stir(name);
    }

    pub fn parked(&mut self, name: &Arc<str>, change: i64) {
        let key = self.entry(name);
        key.parked = u32::try_from(i64::from(key.parked) + change).unwrap_or(0);
        self.stir(name);
    }

    pub fn set(&mut self, name: &Arc<str>, limits: Limits) {
        let key = self.entry(name);
        if key.limits != limits {
            key.limits = limits;
            if limits.rate.is_none() {
                key.starts.clear();
            } else if !key.starts.is_empty() {
                self.dirty.insert(name.clone());
            }
            self.stir(name);
        }
    }

    /// Has the key looked at by the next `awake`, or forgets it when there is nothing to remember.
    pub fn stir(&mut self, name: &Arc<str>) {
        let Some(key) = self.all.get(name) else { return };
        if key.parked > 0 {
            self.stirred.insert(name.clone());
        } else if key.is_forgettable() {
            self.all.remove(name);
            self.stirred.remove(name);
            self.paced.remove(name);
        }
    }

    /// Keys that have parked jobs and room for so many of them; and when the next one of the others will, by its rate.
    pub fn awake(&mut self, now: DateTime<Utc>) -> (Vec<Awake>, Option<DateTime<Utc>>) {
        let names: Vec<_> = self.stirred.drain().chain(self.paced.drain()).collect();
        let (mut awake, mut next) = (Vec::new(), None);
        for name in names {
            let Some(key) = self.all.get(&name).filter(|key| key.parked > 0) else { continue };
            match key.admission(now) {
                Admission::Now => {
                    awake.push((name.clone(), key.room(now).min(key.parked)));
                    // More may wait than there is room for.
                    if key.limits.rate.is_some() {
                        self.paced.insert(name);
                    }
                }
                Admission::At(at) => {
                    next = Some(next.map_or(at, |known: DateTime<Utc>| known.min(at)));
                    self.paced.insert(name);
                }
                Admission::Full => {}
            }
        }
        awake.sort_unstable();
        (awake, next)
    }

    /// When the next parked job may start because of its key's rate.
    pub fn next_start(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.stirred
            .iter()
            .chain(&self.paced)
            .filter_map(|name| self.all.get(name).filter(|key| key.parked > 0))
            .filter_map(|key| match key.admission(now) {
                Admission::At(at) => Some(at),
                Admission::Now | Admission::Full => None,
            })
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(second: i64) -> DateTime<Utc> {
        from_micros(second * 1_000_000)
    }

    #[test]
    fn a_key_admits_as_many_as_its_limit() {
        let mut keys = Keys::default();
        let name: Arc<str> = "k".into();
        assert_eq!(keys.admission("k", at(0)), Admission::Now);
        keys.started(&name, 0);
        assert_eq!(keys.admission("k", at(0)), Admission::Full);
        keys.set(&name, Limits { concurrency: 2, rate: None });
        assert_eq!(keys.admission("k", at(0)), Admission::Now);
    }

    #[test]
    fn a_rate_counts_any_stretch_of_its_period() {
        let mut keys = Keys::default();
        let name: Arc<str> = "k".into();
        let rate = Rate { count: 2, period: Duration::from_secs(10) };
        keys.set(&name, Limits { concurrency: 100, rate: Some(rate) });
        keys.started(&name, 0);
        keys.started(&name, 9_000_000);
        assert_eq!(keys.admission("k", at(9)), Admission::At(at(10)));
        keys.started(&name, 10_000_000);
        assert_eq!(keys.admission("k", at(10)), Admission::At(at(19)));
    }

    #[test]
    fn a_key_with_parked_jobs_wakes_when_one_ends() {
        let mut keys = Keys::default();
        let name: Arc<str> = "k".into();
        keys.started(&name, 0);
        keys.parked(&name, 3);
        assert_eq!(keys.awake(at(0)), (vec![], None));
        keys.ended(&name);
        assert_eq!(keys.awake(at(0)), (vec![(name.clone(), 1)], None));
        keys.parked(&name, -3);
        assert!(keys.get("k").is_none(), "nothing is left to remember");
    }
}
