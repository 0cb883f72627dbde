//! What may happen, and how likely it is.

use super::firing::Wanted;
use super::oracle::Rule;
use super::rng::Rng;
use super::sim::Sim;
use crate::queue::{JobState, Outcome};
use chrono::{DateTime, Duration, DurationRound as _, Utc};
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
/// The last ones wait for facts on the bus, most of the time.
const SCHEDULES: &[&str] = &["s0", "s1", "s2", "s3", "w0", "w1"];

const OVERLAPS: &[&str] = &["allow", "allow", "queue", "skip", "cancel_previous"];

/// What schedules wait for on the bus.
const WANTED: &[&[&str]] =
    &[&["job.failed"], &["job.dead", "job.cancelled"], &["job.succeeded"], &["job.*"], &["event.fired"], &["event.*"]];

const UNIQUES: &[&str] = &["u0", "u1"];

/// So many starts in so many seconds.
pub type Rate = (usize, i64);

/// A job to be queued.
#[derive(Debug, Clone)]
pub struct Spec {
    pub tag: String,
    pub priority: i32,
    pub key: Option<&'static str>,
    pub limit: Option<usize>,
    pub rate: Option<Rate>,
    /// For so many seconds, or as long as the job lives.
    pub unique: Option<(&'static str, Option<i64>)>,
    pub run_at: Option<DateTime<Utc>>,
    pub max_attempts: u32,
    /// The waits between attempts, in seconds.
    pub waits: Vec<u64>,
    /// Without any, the first one, in seconds; it doubles.
    pub base_s: u64,
    pub then: Vec<Spec>,
    pub on_failure: Vec<Spec>,
}

impl Spec {
    /// As the API has it.
    pub fn json(&self) -> Value {
        let mut json = json!({
            "action_type": "script", "action_config": {"command": "true"}, "description": self.tag, "priority": self.priority,
            "concurrency_key": self.key, "concurrency_limit": self.limit, "run_at": self.run_at,
            "rate_limit": self.rate.map(|(count, seconds)| json!({"count": count, "per_s": seconds})),
            "unique_key": self.unique.map(|(key, _)| key), "unique_for_s": self.unique.and_then(|(_, period)| period),
            "max_retries": self.max_attempts - 1,
            "then": self.then.iter().map(Self::json).collect::<Vec<_>>(),
            "on_failure": self.on_failure.iter().map(Self::json).collect::<Vec<_>>(),
        });
        if self.waits.is_empty() {
            json["retry_backoff_minutes"] = json!(self.base_s as f64 / 60.0);
        } else {
            json["retry_delays_s"] = json!(self.waits);
        }
        json
    }

    /// The wait after failed attempt `attempt` of a round, in microseconds: at least and at most.
    pub fn wait(&self, attempt: u32) -> (u64, u64) {
        const DAY: u64 = 24 * 3_600_000_000;
        match self.waits.last() {
            None => {
                let plain = (self.base_s * 1_000_000).saturating_mul(1 << (attempt - 1)).min(DAY);
                (plain, (plain + plain / 5 + 1).min(DAY))
            }
            Some(last) => {
                let wait = self.waits.get(attempt as usize - 1).unwrap_or(last) * 1_000_000;
                (wait, wait)
            }
        }
    }
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
    /// Its jobs are spread over so many seconds.
    pub jitter_s: i64,
    /// So many jobs in a row that fail for good pause it.
    pub pause_after: Option<u32>,
    pub overlap: &'static str,
    pub starts: Option<DateTime<Utc>>,
    pub expires: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CatchUp {
    Skip,
    Latest,
    All(usize),
}

impl Plan {
    /// The concurrency key of its jobs: those that must not run side by side have one of their own.
    pub fn key(&self) -> Option<String> {
        let own = matches!(self.overlap, "queue" | "cancel_previous").then(|| format!("event:{}", self.id));
        self.key.map(str::to_owned).or(own)
    }

    /// Its condition, as it is sent.
    pub fn condition(&self) -> (&'static str, Value) {
        let (condition, mut expression) = self.rule.condition();
        if !matches!(condition, "webhook" | "bus") {
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
            "concurrency_key": self.key, "max_retries": self.max_retries, "retry_backoff_minutes": 0, "jitter_s": self.jitter_s, "overlap": self.overlap,
            "pause_after_failures": self.pause_after, "starts_at": self.starts, "expires_at": self.expires, "description": self.id,
        })
    }
}

#[derive(Debug, Clone)]
pub enum Op {
    Enqueue(Box<Spec>),
    EnqueueMany(Vec<Spec>),
    /// Writes that reach the disk in one commit.
    Together(Vec<Op>),
    Claim(usize),
    /// The workers have room for so many more.
    Room(i64),
    /// The workers are given what there is room for.
    Feed,
    /// By position among the leases that are held.
    Finish(usize, Outcome),
    /// By position among the leases that are held: another step of the job is done, with this result.
    Step(usize, String),
    /// By position among the leases that are over.
    LateFinish(usize),
    LateStep(usize),
    /// By sequence number.
    Cancel(i64),
    /// By sequence number.
    Retry(i64),
    RetryDead,
    SetKey(&'static str, usize, Option<Rate>),
    ReleaseOwn,
    /// By position among the leases that are held: it was handed out too early.
    PutBack(usize),
    Upsert(Box<Plan>),
    /// The same once more: nothing changes.
    Touch(&'static str),
    Pause(&'static str),
    Resume(&'static str),
    /// As `Pause` and `Resume`, by the calls made for it.
    Halt(&'static str),
    GoOn(&'static str),
    Delete(&'static str),
    Trigger(&'static str),
    Tick,
    /// Those that wait for facts look at what was told.
    Follow,
    Advance(Duration),
    Restart,
}

/// The kinds of steps that are always refused: alone they never come to a commit.
pub const REFUSED: &[&str] = &["late step", "late finish"];

/// The kinds of steps that write.
pub const WRITES: &[&str] = &[
    "start",
    "enqueue",
    "enqueue many",
    "together",
    "claim",
    "feed",
    "finish: success",
    "finish: failure",
    "finish: cancelled",
    "step",
    "cancel",
    "retry",
    "retry dead",
    "set key",
    "release",
    "upsert",
    "touch",
    "pause",
    "resume",
    "delete",
    "trigger",
    "tick",
    "follow",
];

impl Op {
    /// Its name in the table of writes that were crashed at.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Enqueue(_) => "enqueue",
            Self::EnqueueMany(_) => "enqueue many",
            Self::Together(_) => "together",
            Self::Room(_) => "room",
            Self::Feed => "feed",
            Self::Claim(_) => "claim",
            Self::Finish(_, Outcome::Succeeded(_)) => "finish: success",
            Self::Finish(_, Outcome::Failed { .. }) => "finish: failure",
            Self::Finish(_, Outcome::Cancelled) => "finish: cancelled",
            Self::LateFinish(_) => "late finish",
            Self::Step(..) => "step",
            Self::LateStep(_) => "late step",
            Self::Cancel(_) => "cancel",
            Self::Retry(_) => "retry",
            Self::RetryDead => "retry dead",
            Self::SetKey(..) => "set key",
            Self::ReleaseOwn => "release",
            Self::PutBack(_) => "put back",
            Self::Upsert(_) => "upsert",
            Self::Touch(_) => "touch",
            Self::Pause(_) => "pause",
            Self::Resume(_) => "resume",
            Self::Halt(_) => "halt",
            Self::GoOn(_) => "go on",
            Self::Delete(_) => "delete",
            Self::Trigger(_) => "trigger",
            Self::Tick => "tick",
            Self::Follow => "follow",
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
                0..10 => Op::Enqueue(Box::new(self.spec(2))),
                10 => Op::EnqueueMany((0..self.rng.range(1, 4)).map(|_| self.spec(1)).collect()),
                11..16 => self.together(&live),
                16..28 => Op::Claim(1 + self.rng.below(4)),
                28 => Op::Room(self.rng.range(1, 3)),
                29..31 => Op::Feed,
                31..46 if !self.held.is_empty() => Op::Finish(self.one_held(), outcome(&mut self.rng, self.gloomy)),
                90..92 if !self.held.is_empty() => {
                    self.tags += 1;
                    Op::Step(self.rng.below(self.held.len()), format!("r{}", self.tags))
                }
                46 if !self.stale.is_empty() && self.rng.chance(1, 2) => Op::LateStep(self.rng.below(self.stale.len())),
                46..49 if !self.stale.is_empty() => Op::LateFinish(self.rng.below(self.stale.len())),
                49..52 if !live.is_empty() => Op::Cancel(*self.rng.pick(&live)),
                52 => Op::Cancel(self.any_job()),
                53..55 => Op::Retry(self.any_job()),
                55 => Op::RetryDead,
                56 => self.set_key(),
                57 if self.rng.chance(1, 2) => Op::ReleaseOwn,
                57 if !self.held.is_empty() => Op::PutBack(self.rng.below(self.held.len())),
                58..64 => Op::Upsert(Box::new(self.plan(id))),
                64 => Op::Touch(id),
                65 => Op::Pause(id),
                66 => Op::Resume(id),
                67 if self.rng.chance(1, 3) => Op::Halt(id),
                67 => Op::GoOn(id),
                68 => Op::Delete(id),
                69 => Op::Trigger(id),
                70..81 => Op::Tick,
                81..92 => Op::Advance(self.leap()),
                92..98 => Op::Follow,
                98 => Op::Restart,
                _ => continue,
            };
        }
    }

    /// In gloom rather a job of a schedule.
    fn one_held(&mut self) -> usize {
        let of_schedule = self.held.iter().position(|job| job.event_id.is_some()).filter(|_| self.gloomy);
        of_schedule.unwrap_or_else(|| self.rng.below(self.held.len()))
    }

    fn any_job(&mut self) -> i64 {
        self.rng.range(1, 2 + self.before.jobs.keys().next_back().copied().unwrap_or(0))
    }

    fn set_key(&mut self) -> Op {
        let key = *self.rng.pick(KEYS);
        let rate = self.rng.chance(1, 3).then(|| (self.rng.range(1, 4) as usize, *self.rng.pick(&[10, 600, 20_000])));
        Op::SetKey(key, 1 + self.rng.below(3), rate)
    }

    /// Some writes that do not depend on one another's answers, a refused one among them as likely as not.
    fn together(&mut self, live: &[i64]) -> Op {
        let mut ops = Vec::new();
        let mut free: Vec<usize> = (0..self.held.len()).collect();
        for _ in 0..self.rng.range(2, 6) {
            let op = match self.rng.below(10) {
                0..4 => Op::Enqueue(Box::new(self.spec(1))),
                4..6 if !free.is_empty() => {
                    let at = self.rng.below(free.len());
                    Op::Finish(free.swap_remove(at), outcome(&mut self.rng, self.gloomy))
                }
                6 if !self.stale.is_empty() => Op::LateFinish(self.rng.below(self.stale.len())),
                7 if !live.is_empty() => Op::Cancel(*self.rng.pick(live)),
                8 => Op::Retry(self.any_job()),
                9 => self.set_key(),
                _ => Op::Claim(1 + self.rng.below(2)),
            };
            ops.push(op);
        }
        // At most one claim, and before what it might take, or nobody could tell who took what.
        let claim = ops.iter().find(|op| matches!(op, Op::Claim(_))).cloned();
        ops.retain(|op| !matches!(op, Op::Claim(_)));
        ops.splice(0..0, claim);
        Op::Together(ops)
    }

    fn spec(&mut self, generations: u32) -> Spec {
        self.tags += 1;
        let now = self.world.now();
        let tag = format!("j{}", self.tags);
        let followers = |sim: &mut Self, of: u64| {
            let some = generations > 0 && sim.rng.chance(1, of);
            let mut specs = if some { vec![sim.spec(generations - 1)] } else { Vec::new() };
            // What follows is read when its time comes, and may come twice.
            specs.iter_mut().for_each(|spec| (spec.unique, spec.run_at) = (None, None));
            specs
        };
        let (then, on_failure) = (followers(self, 5), followers(self, 4));
        let rng = &mut self.rng;
        let key = rng.chance(1, 2).then(|| *rng.pick(KEYS));
        Spec {
            tag,
            priority: rng.range(1, 4) as i32,
            key,
            limit: (key.is_some() && rng.chance(1, 8)).then(|| rng.range(1, 4) as usize),
            rate: (key.is_some() && rng.chance(1, 10))
                .then(|| (rng.range(1, 4) as usize, *rng.pick(&[10, 600, 20_000]))),
            unique: rng
                .chance(1, 6)
                .then(|| (*rng.pick(UNIQUES), rng.chance(1, 2).then(|| *rng.pick(&[60, 5000, 90_000])))),
            run_at: rng.chance(1, 3).then(|| now + Duration::seconds(rng.range(-3600, 90_000))),
            max_attempts: rng.range(1, 4) as u32,
            base_s: *rng.pick(&[0, 30, 600, 50_000]),
            waits: rng.pick(&[vec![], vec![], vec![0], vec![1, 600, 50_000]]).clone(),
            then,
            on_failure,
        }
    }

    fn plan(&mut self, id: &'static str) -> Plan {
        let now = self.world.now();
        let rng = &mut self.rng;
        let zone = *rng.pick(ZONES);
        let whole_hours = if zone == Tz::Australia__Lord_Howe { Tz::Europe__Berlin } else { zone };
        // The small hours, where clocks are changed, more often than others.
        let hour = if rng.chance(2, 3) { rng.range(0, 4) } else { rng.range(0, 24) } as u32;
        let rule = match rng.below(11) {
            _ if id.starts_with('w') && rng.chance(3, 4) => Rule::Fact(wanted(rng)),
            0..3 => Rule::Daily { hour, minute: *rng.pick(&[0, 15, 30, 59]), zone },
            3 => Rule::Hourly { minute: rng.range(0, 60) as u32, zone: whole_hours },
            4..6 => Rule::Quarters { minutes: *rng.pick(&[15, 30]), zone },
            6 => Rule::Weekly { day: rng.range(0, 7) as u32, hour, zone },
            7 => Rule::Every { seconds: *rng.pick(&[60, 600, 5000, 86_400]) },
            8 => Rule::Once { at: now + Duration::seconds(rng.range(-3600, 90_000)) },
            9 => Rule::Fact(wanted(rng)),
            _ => Rule::Asked,
        };
        let overlap = *rng.pick(OVERLAPS);
        // It must begin before it ends, and before its one moment.
        let expires = rng.chance(1, 6).then(|| now + Duration::seconds(rng.range(60, 200_000)));
        let once = if let Rule::Once { at } = &rule { Some(*at) } else { None };
        let starts = rng.chance(1, 4).then(|| now + Duration::seconds(rng.range(-20_000, 60_000)));
        // Often at a quarter of an hour, where slots are.
        let quarter = |at: DateTime<Utc>| at.duration_trunc(Duration::minutes(15)).unwrap_or(at);
        let starts = starts.map(|at| if rng.chance(1, 2) { quarter(at) } else { at });
        let starts = starts.filter(|at| expires.is_none_or(|end| *at < end) && once.is_none_or(|once| *at <= once));
        Plan {
            id,
            rule,
            catch_up: *rng.pick(&[CatchUp::Skip, CatchUp::Latest, CatchUp::All(1), CatchUp::All(3), CatchUp::All(20)]),
            status: rng.chance(1, 8).then_some("paused"),
            priority: rng.range(1, 4) as i32,
            key: rng.chance(1, 3).then(|| *rng.pick(KEYS)),
            max_retries: rng.range(0, 3) as u32,
            jitter_s: if rng.chance(1, 4) { 300 } else { 0 },
            overlap,
            pause_after: rng.chance(if self.gloomy { 2 } else { 1 }, 3).then(|| rng.range(1, 4) as u32),
            starts,
            expires,
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

fn wanted(rng: &mut Rng) -> Wanted {
    let some = |rng: &mut Rng| json!(rng.pick(SCHEDULES));
    let member = match rng.below(5) {
        0 => Some(("event_id", vec![some(rng)])),
        1 => Some(("event_id", vec![some(rng), some(rng)])),
        2 => Some(("attempt", vec![json!(rng.range(1, 3))])),
        _ => None,
    };
    let kinds = *rng.pick(WANTED);
    Wanted { kinds, member }
}

/// `gloomy`: most fail for good, so that schedules pause.
pub(super) fn outcome(rng: &mut Rng, gloomy: bool) -> Outcome {
    let (good, again) = if gloomy { (2, 2) } else { (5, 8) };
    match rng.below(10) {
        9 => Outcome::Cancelled,
        n if n < good => Outcome::Succeeded("done".into()),
        n if n < again => Outcome::failed("no"),
        _ => Outcome::Failed { error: "never".into(), permanent: true, retry_after: None },
    }
}

pub(super) fn ended(state: JobState) -> bool {
    matches!(state, JobState::Succeeded | JobState::Dead | JobState::Cancelled)
}
