//! What may happen, and how likely it is.

use super::oracle::Rule;
use super::rng::Rng;
use super::sim::Sim;
use crate::queue::{JobState, Outcome};
use chrono::{DateTime, Duration, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

pub const ZONES: &[Tz] = &[
    Tz::UTC,
    Tz::Europe__Berlin,
    Tz::America__New_York,
    Tz::America__St_Johns,
    Tz::Australia__Lord_Howe,
    Tz::Pacific__Chatham,
    Tz::Asia__Kolkata,
];

/// Moments at which one of these zones changes its clocks, both ways.
pub const CHANGES: &[&str] = &[
    "2026-03-08T07:00:00Z",
    "2026-03-29T01:00:00Z",
    "2026-04-04T15:00:00Z",
    "2026-09-26T14:00:00Z",
    "2026-10-03T15:30:00Z",
    "2026-10-25T01:00:00Z",
    "2026-11-01T04:30:00Z",
    "2026-11-01T06:00:00Z",
];

pub const KEYS: &[&str] = &["k0", "k1", "k2"];
const SCHEDULES: &[&str] = &["s0", "s1", "s2", "s3", "s4"];

/// A job to be queued.
#[derive(Debug, Clone)]
pub struct Spec {
    pub tag: String,
    pub priority: i32,
    pub key: Option<&'static str>,
    pub run_at: Option<DateTime<Utc>>,
    pub max_attempts: u32,
    pub backoff_s: u64,
}

/// What a schedule is to become.
#[derive(Debug, Clone)]
pub struct Plan {
    pub id: &'static str,
    pub rule: Rule,
    pub catch_up: CatchUp,
    pub status: Option<&'static str>,
    pub priority: i32,
    pub key: Option<&'static str>,
    pub max_retries: u32,
    pub backoff_minutes: u32,
    pub expires: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CatchUp {
    Skip,
    Latest,
    All(usize),
}

impl Plan {
    /// Its condition, as it is sent.
    pub fn condition(&self) -> (&'static str, Value) {
        let (condition, mut expression) = self.rule.condition();
        if condition != "webhook" {
            expression["catch_up"] = match self.catch_up {
                CatchUp::Skip => json!("skip"),
                CatchUp::Latest => json!("latest"),
                CatchUp::All(max) => json!({"all": max}),
            };
        }
        (condition, expression)
    }

    pub fn json(&self) -> Value {
        let (condition, expression) = self.condition();
        json!({
            "id": self.id, "type": "simulated", "condition_type": condition, "condition_expr": expression,
            "action_type": "script", "action_config": {"command": "true"}, "status": self.status, "priority": self.priority,
            "concurrency_key": self.key, "max_retries": self.max_retries, "retry_backoff_minutes": self.backoff_minutes,
            "expires_at": self.expires, "description": self.id,
        })
    }
}

#[derive(Debug, Clone)]
pub enum Op {
    Enqueue(Spec),
    Claim(usize),
    /// By position among the leases that are held.
    Finish(usize, Outcome),
    /// By position among the leases that are over.
    LateFinish(usize),
    /// By sequence number.
    Cancel(i64),
    ReleaseOwn,
    Upsert(Box<Plan>),
    /// The same once more: nothing changes.
    Touch(&'static str),
    Pause(&'static str),
    Resume(&'static str),
    Delete(&'static str),
    Trigger(&'static str),
    Tick,
    Advance(Duration),
    Restart,
}

impl Op {
    /// Its name in the table of writes that were crashed at.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Enqueue(_) => "enqueue",
            Self::Claim(_) => "claim",
            Self::Finish(_, Outcome::Succeeded(_)) => "finish: success",
            Self::Finish(_, Outcome::Failed { .. }) => "finish: failure",
            Self::Finish(_, Outcome::Cancelled) => "finish: cancelled",
            Self::LateFinish(_) => "late finish",
            Self::Cancel(_) => "cancel",
            Self::ReleaseOwn => "release",
            Self::Upsert(_) => "upsert",
            Self::Touch(_) => "touch",
            Self::Pause(_) => "pause",
            Self::Resume(_) => "resume",
            Self::Delete(_) => "delete",
            Self::Trigger(_) => "trigger",
            Self::Tick => "tick",
            Self::Advance(_) => "advance",
            Self::Restart => "start",
        }
    }
}

impl Sim {
    pub(super) fn choose(&mut self) -> Op {
        let live: Vec<i64> =
            self.before.jobs.iter().filter(|(_, job)| !ended(job.state)).map(|(seq, _)| *seq).collect();
        loop {
            let id = *self.rng.pick(SCHEDULES);
            return match self.rng.below(100) {
                0..14 => Op::Enqueue(self.spec()),
                14..28 => Op::Claim(1 + self.rng.below(4)),
                28..44 if !self.held.is_empty() => Op::Finish(self.rng.below(self.held.len()), outcome(&mut self.rng)),
                44..48 if !self.stale.is_empty() => Op::LateFinish(self.rng.below(self.stale.len())),
                48..52 if !live.is_empty() => Op::Cancel(*self.rng.pick(&live)),
                52 if !self.before.jobs.is_empty() => Op::Cancel(self.rng.range(1, 2 + self.before.jobs.len() as i64)),
                53 => Op::ReleaseOwn,
                54..61 => Op::Upsert(Box::new(self.plan(id))),
                61..63 => Op::Touch(id),
                63 => Op::Pause(id),
                64..66 => Op::Resume(id),
                66 => Op::Delete(id),
                67..69 => Op::Trigger(id),
                69..81 => Op::Tick,
                81..97 => Op::Advance(self.leap()),
                97 => Op::Restart,
                _ => continue,
            };
        }
    }

    fn spec(&mut self) -> Spec {
        self.tags += 1;
        let rng = &mut self.rng;
        Spec {
            tag: format!("j{}", self.tags),
            priority: rng.range(1, 4) as i32,
            key: rng.chance(1, 2).then(|| *rng.pick(KEYS)),
            run_at: rng.chance(1, 3).then(|| self.world.now() + Duration::seconds(rng.range(-3600, 90_000))),
            max_attempts: rng.range(1, 4) as u32,
            backoff_s: *rng.pick(&[0, 1, 30, 600, 50_000]),
        }
    }

    fn plan(&mut self, id: &'static str) -> Plan {
        let now = self.world.now();
        let rng = &mut self.rng;
        let zone = *rng.pick(ZONES);
        let whole_hours = if zone == Tz::Australia__Lord_Howe { Tz::Europe__Berlin } else { zone };
        // The small hours, where clocks are changed, more often than others.
        let hour = if rng.chance(2, 3) { rng.range(0, 4) } else { rng.range(0, 24) } as u32;
        let rule = match rng.below(10) {
            0..3 => Rule::Daily { hour, minute: *rng.pick(&[0, 15, 30, 59]), zone },
            3 => Rule::Hourly { minute: rng.range(0, 60) as u32, zone: whole_hours },
            4..6 => Rule::Quarters { minutes: *rng.pick(&[15, 30]), zone },
            6 => Rule::Weekly { day: rng.range(0, 7) as u32, hour, zone },
            7 => Rule::Every { seconds: *rng.pick(&[60, 600, 5000, 86_400]) },
            8 => Rule::Once { at: now + Duration::seconds(rng.range(-3600, 90_000)) },
            _ => Rule::Asked,
        };
        Plan {
            id,
            rule,
            catch_up: *rng.pick(&[CatchUp::Skip, CatchUp::Latest, CatchUp::All(1), CatchUp::All(3), CatchUp::All(20)]),
            status: rng.chance(1, 8).then_some("paused"),
            priority: rng.range(1, 4) as i32,
            key: rng.chance(1, 3).then(|| *rng.pick(KEYS)),
            max_retries: rng.range(0, 3) as u32,
            backoff_minutes: *rng.pick(&[0, 1, 10]),
            expires: rng.chance(1, 6).then(|| now + Duration::seconds(rng.range(60, 200_000))),
        }
    }

    /// How far the clock moves: to just about the next thing that is due, by seconds, hours or days, or backwards.
    fn leap(&mut self) -> Duration {
        let now = self.world.now();
        let next = self.before.events.values().filter_map(|event| event.next).min();
        match self.rng.below(12) {
            0..3 if next.is_some_and(|next| next > now.timestamp_micros()) => {
                Duration::microseconds(next.unwrap_or_default() - now.timestamp_micros())
                    + *self.rng.pick(&[Duration::zero(), Duration::microseconds(-1), Duration::seconds(30)])
            }
            0..5 => Duration::seconds(self.rng.range(1, 120)),
            5..8 => Duration::seconds(self.rng.range(600, 10_000)),
            8..10 => Duration::seconds(self.rng.range(10_000, 100_000)),
            10 => Duration::seconds(self.rng.range(100_000, 400_000)),
            _ => -Duration::seconds(self.rng.range(1, 12_000)),
        }
    }
}

fn outcome(rng: &mut Rng) -> Outcome {
    match rng.below(10) {
        0..5 => Outcome::Succeeded("done".into()),
        5..8 => Outcome::Failed { error: "no".into(), permanent: false, retry_after: None },
        8 => Outcome::Failed { error: "never".into(), permanent: true, retry_after: None },
        _ => Outcome::Cancelled,
    }
}

pub(super) fn ended(state: JobState) -> bool {
    matches!(state, JobState::Succeeded | JobState::Dead | JobState::Cancelled)
}
