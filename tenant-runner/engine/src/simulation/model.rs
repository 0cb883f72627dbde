//! What the engine must remember, as plainly as it can be said.

use super::firing::Occasion;
use super::oracle::Rule;
use super::picture::JobRow;
use super::steps::{CatchUp, Plan, Spec, ended};
use crate::queue::JobState;
use chrono::{DateTime, Duration, Utc};
use std::collections::BTreeMap;

/// A slot this late was not missed.
const PROMPT: Duration = Duration::seconds(60);

#[derive(Debug, Clone, Default)]
pub struct Model {
    pub jobs: BTreeMap<i64, JobRow>,
    pub schedules: BTreeMap<&'static str, Schedule>,
    pub keys: BTreeMap<String, Key>,
    pub uniques: BTreeMap<&'static str, Standing>,
    /// The results of steps that are done, by the job's number and their own.
    pub steps: BTreeMap<(i64, u32), String>,
    /// Facts on the bus that were answered, and whether a job came of each.
    pub answers: BTreeMap<(u64, &'static str), bool>,
    /// Facts up to this one were looked at.
    pub looked: u64,
    /// Of the step in hand: the jobs that must have come, and what the bus must tell about those there were.
    pub new: Vec<NewRow>,
    pub facts: Vec<(i64, &'static str)>,
    /// The schedules that are paused, because too many of their jobs failed.
    pub paused: Vec<&'static str>,
    /// The occasions, slots most of them, that schedules leave out.
    pub skipped: Vec<(&'static str, Option<DateTime<Utc>>)>,
}

/// A schedule.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub plan: Plan,
    pub status: &'static str,
    pub next: Option<DateTime<Utc>>,
    /// How many of its jobs in a row failed for good.
    pub failures: u32,
    /// Slots that were seen to, and whether a job came of each.
    pub filled: BTreeMap<DateTime<Utc>, bool>,
    /// Of one that waits for facts: it does so since this one was told.
    pub watch_from: u64,
}

/// A concurrency key.
#[derive(Debug, Clone)]
pub struct Key {
    pub limit: usize,
    /// So many starts in so many microseconds.
    pub rate: Option<(usize, i64)>,
    /// As many as the rate counts, oldest first.
    pub starts: Vec<i64>,
}

impl Default for Key {
    fn default() -> Self {
        Self { limit: 1, rate: None, starts: Vec::new() }
    }
}

/// The job that stands for a unique key.
#[derive(Debug, Clone)]
pub struct Standing {
    pub tag: String,
    pub until: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NewRow {
    pub tag: String,
    pub event: Option<String>,
    pub slot: Option<i64>,
    /// What it answers on the bus.
    pub fact: Option<u64>,
    pub depth: u32,
    pub priority: i32,
    pub key: Option<String>,
    pub run_at: i64,
    /// It may be due so much later, in microseconds.
    pub spread: i64,
    pub max_attempts: u32,
    /// It began at once.
    pub held: bool,
    /// Another came after it in the same step: it is over, or is asked to stop.
    pub cancelled: bool,
}

impl NewRow {
    pub fn of_spec(spec: &Spec, parent: Option<&JobRow>, now: DateTime<Utc>) -> Self {
        Self {
            tag: spec.tag.clone(),
            event: parent.and_then(|parent| parent.event.clone()),
            slot: None,
            fact: None,
            depth: parent.map_or(0, |parent| parent.depth + 1),
            priority: spec.priority,
            key: spec.key.map(str::to_owned),
            run_at: spec.run_at.unwrap_or(now).timestamp_micros(),
            spread: 0,
            max_attempts: spec.max_attempts,
            held: false,
            cancelled: false,
        }
    }

    pub fn of_plan(plan: &Plan, occasion: Occasion, now: DateTime<Utc>) -> Self {
        let Occasion { slot, fact, depth } = occasion;
        Self {
            tag: plan.id.to_owned(),
            event: Some(plan.id.to_owned()),
            slot: slot.map(|slot| slot.timestamp_micros()),
            fact,
            depth,
            priority: plan.priority,
            key: plan.key(),
            run_at: slot.filter(|_| plan.jitter_s > 0).unwrap_or(now).timestamp_micros(),
            spread: slot.map_or(0, |_| plan.jitter_s * 1_000_000),
            max_attempts: plan.max_retries + 1,
            held: false,
            cancelled: false,
        }
    }
}

impl Model {
    /// Whether a job stands for the unique key now; its tag.
    pub fn standing(&self, key: &str, now: DateTime<Utc>) -> Option<&str> {
        let standing = self.uniques.get(key)?;
        let stands = match standing.until {
            Some(until) => until > now.timestamp_micros(),
            None => {
                self.new.iter().any(|new| new.tag == standing.tag)
                    || self.jobs.values().any(|job| job.tag == standing.tag && !ended(job.state))
            }
        };
        stands.then_some(standing.tag.as_str())
    }

    /// What a job that comes along sets for its key and its unique key.
    pub fn note(&mut self, spec: &Spec, now: DateTime<Utc>) {
        if let Some(name) = spec.key
            && (spec.limit.is_some() || spec.rate.is_some())
        {
            let key = self.keys.entry(name.to_owned()).or_default();
            key.limit = spec.limit.unwrap_or(key.limit);
            key.rate = spec.rate.map(micros).or(key.rate);
        }
        if let Some((key, period)) = spec.unique {
            let until = period.map(|seconds| (now + Duration::seconds(seconds)).timestamp_micros());
            self.uniques.insert(key, Standing { tag: spec.tag.clone(), until });
        }
    }

    pub fn running(&self, key: &str) -> usize {
        let held = self.new.iter().filter(|new| new.held && new.key.as_deref() == Some(key)).count();
        held + self.jobs.values().filter(|job| job.boot.is_some() && job.key.as_deref() == Some(key)).count()
    }

    /// Whether one more job of the key may start.
    pub fn admits(&self, name: &str, now: DateTime<Utc>) -> bool {
        let usual = Key::default();
        let key = self.keys.get(name).unwrap_or(&usual);
        let paced = key.rate.is_some_and(|(count, period)| {
            let oldest = key.starts.len().checked_sub(count).map(|at| key.starts[at]);
            oldest.is_some_and(|oldest| oldest + period > now.timestamp_micros())
        });
        self.running(name) < key.limit && !paced
    }

    /// Notes a start for the key's rate.
    pub fn started(&mut self, name: &str, now: DateTime<Utc>) {
        if let Some(key) = self.keys.get_mut(name)
            && let Some((count, _)) = key.rate
        {
            key.starts.push(now.timestamp_micros());
            key.starts.drain(..key.starts.len().saturating_sub(count));
        }
    }

    pub fn set_key(&mut self, name: &str, limit: usize, rate: Option<(usize, i64)>) {
        let key = self.keys.entry(name.to_owned()).or_default();
        (key.limit, key.rate) = (limit, rate.map(micros));
        if rate.is_none() {
            key.starts.clear();
        }
    }

    /// A schedule that is sent: what stays the same keeps its place in time.
    pub fn put(&mut self, plan: &Plan, now: DateTime<Utc>) {
        let before = self.schedules.remove(plan.id);
        let same =
            before.as_ref().is_some_and(|b| (b.plan.condition(), b.plan.starts) == (plan.condition(), plan.starts));
        let status = plan.status.unwrap_or_else(|| before.as_ref().filter(|_| same).map_or("active", |b| b.status));
        let mut schedule = Schedule {
            plan: plan.clone(),
            status: before.as_ref().map_or("", |b| b.status),
            failures: before.as_ref().map_or(0, |b| b.failures),
            next: before.as_ref().filter(|_| same).and_then(|b| b.next),
            watch_from: before.as_ref().map_or(0, |b| b.watch_from),
            filled: before.map(|b| b.filled).unwrap_or_default(),
        };
        schedule.set_status(status, now);
        self.schedules.insert(plan.id, schedule);
    }

    /// A look at what is due: the slots of each schedule that are to be seen to.
    pub fn tick(&mut self, now: DateTime<Utc>) -> Vec<(&'static str, DateTime<Utc>)> {
        let mut slots = Vec::new();
        for (id, schedule) in &mut self.schedules {
            let open = matches!(schedule.status, "active" | "paused");
            if open && schedule.plan.expires.is_some_and(|at| at <= now) {
                (schedule.status, schedule.next) = ("expired", None);
            }
            let Some(next) = schedule.next.filter(|next| *next <= now) else { continue };
            let due = schedule.plan.rule.due(next, now);
            let most = match schedule.plan.catch_up {
                CatchUp::Skip | CatchUp::Latest => 1,
                CatchUp::All(max) => max,
            };
            for slot in &due[due.len().saturating_sub(most)..] {
                let missed = schedule.plan.catch_up == CatchUp::Skip && now - *slot > PROMPT;
                if !missed && !schedule.filled.contains_key(slot) {
                    slots.push((*id, *slot));
                }
            }
            if matches!(schedule.plan.rule, Rule::Once { .. }) {
                (schedule.status, schedule.next) = ("completed", None);
            } else {
                schedule.next = schedule.plan.rule.after(now, next);
            }
        }
        slots
    }

    /// Whoever runs the job goes on after the last step that is done.
    pub fn step(&mut self, seq: i64, result: &str) {
        let done = self.steps.range((seq, 0)..=(seq, u32::MAX)).count() as u32;
        self.steps.insert((seq, done), result.to_owned());
    }

    /// Whether a job of the schedule is not over.
    pub fn lives(&self, id: &str) -> bool {
        let of = |event: &Option<String>| event.as_deref() == Some(id);
        self.new.iter().any(|new| of(&new.event) && (new.held || !new.cancelled))
            || self.jobs.values().any(|job| of(&job.event) && !ended(job.state))
    }

    /// Ends a job that waits, and asks one that runs to stop. False, if it is over.
    pub fn cancel(&mut self, seq: i64) -> bool {
        let Some(job) = self.jobs.get_mut(&seq) else { return false };
        match job.state {
            JobState::Ready => {
                job.state = JobState::Cancelled;
                self.facts.push((seq, "job.cancelled"));
            }
            JobState::Running => job.cancelling = true,
            JobState::Succeeded | JobState::Dead | JobState::Cancelled => return false,
        }
        true
    }

    /// The same for whatever lives of a schedule.
    pub fn cancel_all(&mut self, id: &str) {
        let of = |event: &Option<String>| event.as_deref() == Some(id);
        let jobs: Vec<i64> = self.jobs.iter().filter(|(_, job)| of(&job.event)).map(|(seq, _)| *seq).collect();
        for seq in jobs {
            self.cancel(seq);
        }
        self.new.iter_mut().filter(|new| of(&new.event)).for_each(|new| new.cancelled = true);
    }
}

impl Schedule {
    pub fn set_status(&mut self, status: &'static str, now: DateTime<Utc>) {
        // Whoever sets it going again gives it a fresh start.
        if status == "active" && self.status != "active" {
            self.failures = 0;
        }
        self.status = status;
        self.next = match status {
            "active" => self.next.or_else(|| self.plan.rule.first(now, self.plan.starts)),
            _ => None,
        };
    }

    /// Whether it could not be active any more.
    pub fn is_past(&self, now: DateTime<Utc>) -> bool {
        self.plan.expires.is_some_and(|at| at <= now)
    }
}

fn micros((count, seconds): (usize, i64)) -> (usize, i64) {
    (count, seconds * 1_000_000)
}
