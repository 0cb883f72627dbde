//! What each step may change, and nothing else may: the model's word, and how it is held against what is on disk.

use super::oracle::Rule;
use super::picture::{EventRow, JobRow, Picture};
use super::sim::{Schedule, Sim};
use super::steps::{CatchUp, Op, Plan, ended};
use crate::error::Kind;
use crate::queue::{JobState, Outcome};
use chrono::{DateTime, Duration, Utc};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// A process that ended this often while a job ran gives the job up.
const MOST_INTERRUPTIONS: u32 = 10;
/// A slot this late was not missed.
const PROMPT: Duration = Duration::seconds(60);

pub enum Predicted {
    /// Nothing changes. Without a kind, any will do.
    Refused(Option<Kind>),
    Done(Expected),
}

/// The state after a step.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The jobs there were, as they must be now.
    pub jobs: BTreeMap<i64, JobRow>,
    /// Where a time is left to chance within bounds.
    pub run_at: BTreeMap<i64, RangeInclusive<i64>>,
    /// The jobs that must have come.
    pub new: Vec<NewRow>,
    pub schedules: BTreeMap<&'static str, Schedule>,
    pub facts: Vec<(i64, &'static str)>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NewRow {
    pub tag: Option<String>,
    pub event: Option<String>,
    pub slot: Option<i64>,
    pub priority: i32,
    pub key: Option<String>,
    pub run_at: i64,
    pub max_attempts: u32,
}

impl NewRow {
    fn of(plan: &Plan, slot: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Self {
        Self {
            tag: Some(plan.id.to_owned()),
            event: Some(plan.id.to_owned()),
            slot: slot.map(|slot| slot.timestamp_micros()),
            priority: plan.priority,
            key: plan.key.map(str::to_owned),
            run_at: now.timestamp_micros(),
            max_attempts: plan.max_retries + 1,
        }
    }
}

impl Sim {
    pub(super) fn predict(&self, op: &Op, after: &Picture) -> Predicted {
        let now = self.world.now();
        let mut expected = Expected {
            jobs: self.before.jobs.clone(),
            run_at: BTreeMap::new(),
            new: Vec::new(),
            schedules: self.schedules.clone(),
            facts: Vec::new(),
        };
        let refused = |kind| Predicted::Refused(Some(kind));
        match op {
            Op::Enqueue(spec) => expected.new.push(NewRow {
                tag: Some(spec.tag.clone()),
                event: None,
                slot: None,
                priority: spec.priority,
                key: spec.key.map(str::to_owned),
                run_at: spec.run_at.unwrap_or(now).timestamp_micros(),
                max_attempts: spec.max_attempts,
            }),
            Op::Claim(most) => self.predict_claim(*most, now, after, &mut expected),
            Op::Finish(which, outcome) => {
                let seq = self.before.seq(self.held[*which].id.uuid());
                self.predict_finish(seq, outcome, now, &mut expected);
            }
            Op::LateFinish(_) => return refused(Kind::Conflict),
            Op::Cancel(seq) => {
                let Some(job) = expected.jobs.get_mut(seq) else { return refused(Kind::NotFound) };
                match job.state {
                    JobState::Ready => {
                        job.state = JobState::Cancelled;
                        expected.facts.push((*seq, "job.cancelled"));
                    }
                    JobState::Running => job.cancelling = true,
                    JobState::Succeeded | JobState::Dead | JobState::Cancelled => return refused(Kind::Conflict),
                }
            }
            Op::ReleaseOwn => self.predict_release(now, &mut expected),
            Op::Upsert(plan) => put(&mut expected.schedules, plan, now),
            Op::Touch(id) => {
                if let Some(schedule) = self.schedules.get(id) {
                    if expired(&schedule.plan, schedule.plan.status.unwrap_or(schedule.status), now) {
                        return refused(Kind::Invalid { field: "expires_at".into() });
                    }
                    put(&mut expected.schedules, &schedule.plan, now);
                }
            }
            Op::Pause(id) | Op::Resume(id) => {
                let Some(schedule) = expected.schedules.get_mut(id) else { return refused(Kind::NotFound) };
                let status = if matches!(op, Op::Pause(_)) { "paused" } else { "active" };
                if expired(&schedule.plan, status, now) {
                    return refused(Kind::Invalid { field: "expires_at".into() });
                }
                set_status(schedule, status, now);
            }
            Op::Delete(id) => {
                if expected.schedules.remove(id).is_none() {
                    return refused(Kind::NotFound);
                }
            }
            Op::Trigger(id) => {
                let Some(schedule) = self.schedules.get(id) else { return refused(Kind::NotFound) };
                if schedule.status == "expired" {
                    return refused(Kind::Conflict);
                }
                expected.new.push(NewRow::of(&schedule.plan, None, now));
            }
            Op::Tick => tick(&mut expected, now),
            Op::Advance(_) | Op::Restart => {}
        }
        Predicted::Done(expected)
    }

    /// Which jobs were taken is read from the disk; that they were the right ones is what is checked.
    fn predict_claim(&self, most: usize, now: DateTime<Utc>, after: &Picture, expected: &mut Expected) {
        let boot = self.world.boot();
        let mut taken = Vec::new();
        for (seq, job) in &mut expected.jobs {
            let Some(found) = after.jobs.get(seq).filter(|found| found.fence != job.fence) else { continue };
            assert_eq!(job.state, JobState::Ready, "job {seq} was taken while it was {:?}", job.state);
            assert!(job.run_at <= now.timestamp_micros(), "job {seq} was taken before it is due");
            taken.push((job.priority, job.run_at, *seq, job.key.clone()));
            job.state = JobState::Running;
            job.boot = Some(boot);
            job.fence += 1;
            if job.attempt_id.is_none() {
                job.attempt += 1;
                job.attempt_id = found.attempt_id;
            }
            expected.facts.push((*seq, "job.started"));
        }
        assert!(taken.len() <= most, "{} jobs were taken where {most} were asked for", taken.len());
        let running = |key: &str| {
            expected.jobs.values().filter(|job| job.boot.is_some() && job.key.as_deref() == Some(key)).count()
        };
        for (_, _, seq, key) in &taken {
            if let Some(key) = key {
                assert!(running(key) <= self.limit(key), "job {seq} was taken although {key} is full");
            }
        }
        for (seq, job) in &self.before.jobs {
            let waits = job.state == JobState::Ready && job.run_at <= now.timestamp_micros();
            if !waits || taken.iter().any(|(.., taken, _)| taken == seq) {
                continue;
            }
            let blocked = job.key.as_ref().is_some_and(|key| running(key) >= self.limit(key));
            assert!(blocked || taken.len() == most, "job {seq} is due and free, and was left although there was room");
            for (priority, run_at, other, key) in &taken {
                let rivals = !blocked || *key == job.key;
                assert!(
                    !rivals || (*priority, *run_at, *other) < (job.priority, job.run_at, *seq),
                    "job {other} was taken before job {seq}, which was first"
                );
            }
        }
    }

    /// How many jobs of a key may run at once.
    fn limit(&self, _key: &str) -> usize {
        1
    }

    fn predict_finish(&self, seq: i64, outcome: &Outcome, now: DateTime<Utc>, expected: &mut Expected) {
        let job = expected.jobs.get_mut(&seq).unwrap();
        let base = self.backoffs[&seq];
        let (state, fact) = match outcome {
            Outcome::Succeeded(_) => (JobState::Succeeded, "job.succeeded"),
            Outcome::Cancelled => (JobState::Cancelled, "job.cancelled"),
            Outcome::Failed { .. } if job.cancelling => (JobState::Cancelled, "job.cancelled"),
            Outcome::Failed { permanent: true, .. } => (JobState::Dead, "job.dead"),
            Outcome::Failed { .. } if job.attempt >= job.max_attempts => (JobState::Dead, "job.dead"),
            Outcome::Failed { .. } => (JobState::Ready, "job.failed"),
        };
        job.state = state;
        job.boot = None;
        job.cancelling = false;
        job.interruptions = 0;
        job.attempt_id = None;
        expected.facts.push((seq, fact));
        if state == JobState::Ready {
            let day = 24 * 3600;
            let wait = base.saturating_mul(1 << (job.attempt - 1)).min(day);
            let (least, most) = (wait, wait);
            let at = |seconds: u64| (now + Duration::seconds(seconds as i64)).timestamp_micros();
            expected.run_at.insert(seq, at(least)..=at(most));
        }
        if state == JobState::Dead
            && let Some(schedule) = job.event.as_deref().and_then(|id| expected.schedules.get_mut(id))
            && schedule.status == "completed"
        {
            schedule.status = "failed";
        }
    }

    /// What was running goes back, under the attempt it has.
    fn predict_release(&self, now: DateTime<Utc>, expected: &mut Expected) {
        for (seq, job) in &mut expected.jobs {
            if job.state != JobState::Running {
                continue;
            }
            job.boot = None;
            if job.cancelling {
                job.state = JobState::Cancelled;
                job.cancelling = false;
                expected.facts.push((*seq, "job.cancelled"));
            } else if job.interruptions + 1 >= MOST_INTERRUPTIONS {
                job.state = JobState::Dead;
                expected.facts.push((*seq, "job.dead"));
            } else {
                job.state = JobState::Ready;
                job.interruptions += 1;
                job.run_at = now.timestamp_micros();
            }
        }
    }

    pub(super) fn check_recovery(&mut self, after: Picture) {
        let mut expected = Expected {
            jobs: self.before.jobs.clone(),
            run_at: BTreeMap::new(),
            new: Vec::new(),
            schedules: self.schedules.clone(),
            facts: Vec::new(),
        };
        self.predict_release(self.world.now(), &mut expected);
        self.agree(expected, after);
    }

    /// Holds the expectation against the disk; answers the jobs that have come.
    pub(super) fn agree(&mut self, expected: Expected, after: Picture) -> Vec<i64> {
        for (seq, wanted) in &expected.jobs {
            let found = after.jobs.get(seq).unwrap_or_else(|| panic!("job {seq} is lost; it was {wanted:?}"));
            let mut wanted = wanted.clone();
            if let Some(range) = expected.run_at.get(seq) {
                assert!(range.contains(&found.run_at), "job {seq} waits until {}, not within {range:?}", found.run_at);
                wanted.run_at = found.run_at;
            }
            if ended(found.state) {
                (wanted.attempt_id, wanted.interruptions) = (found.attempt_id, found.interruptions);
            }
            assert_eq!(wanted, *found, "job {seq} is not what it should be");
        }
        let last = self.before.jobs.keys().next_back().copied().unwrap_or(0);
        let new: Vec<i64> = after.jobs.keys().filter(|seq| !expected.jobs.contains_key(seq)).copied().collect();
        assert!(new.iter().all(|seq| *seq > last), "a sequence number was given again");
        let mut came: Vec<_> = new.iter().map(|seq| new_row(&after.jobs[seq])).collect();
        let mut wanted = expected.new.clone();
        came.sort();
        wanted.sort();
        assert_eq!(wanted, came, "the jobs that came are not those that were due");
        let events = expected.schedules.iter().map(|(id, schedule)| {
            let next = schedule.next.map(|at| at.timestamp_micros());
            ((*id).to_owned(), EventRow { status: schedule.status.to_owned(), next })
        });
        assert_eq!(events.collect::<BTreeMap<_, _>>(), after.events, "the schedules are not what they should be");
        let slots: Vec<_> = expected
            .schedules
            .iter()
            .flat_map(|(id, s)| s.filled.iter().map(|slot| ((*id).to_owned(), slot.timestamp_micros())))
            .collect();
        assert_eq!(slots, after.slots.keys().cloned().collect::<Vec<_>>(), "slots that are marked as filled");
        // The ledger of the whole run.
        for row in &wanted {
            if let (Some(event), Some(slot)) = (&row.event, row.slot) {
                *self.slots.entry((event.clone(), slot)).or_default() += 1;
                self.figures.slots += 1;
            }
        }
        for (seq, fact) in &expected.facts {
            *self.owed.entry((after.jobs[seq].id, *fact)).or_default() += 1;
        }
        for seq in &new {
            if let Some(schedule) = after.jobs[seq].event.as_deref().and_then(|id| expected.schedules.get(id)) {
                self.backoffs.insert(*seq, u64::from(schedule.plan.backoff_minutes) * 60);
            }
            *self.owed.entry((after.jobs[seq].id, "job.queued")).or_default() += 1;
        }
        self.schedules = expected.schedules;
        self.before = after;
        self.invariants();
        new
    }

    /// What holds after every step, whatever it was.
    fn invariants(&mut self) {
        let mut running = BTreeMap::<&str, usize>::new();
        for (seq, job) in &self.before.jobs {
            assert!(job.attempt <= job.max_attempts, "job {seq} was tried too often");
            if job.boot.is_some() {
                if let Some(key) = &job.key {
                    *running.entry(key).or_default() += 1;
                }
                let id = job.attempt_id.unwrap();
                let first = *self.attempts.entry((*seq, job.attempt)).or_insert(id);
                assert_eq!(first, id, "attempt {} of job {seq} was given two ids", job.attempt);
            }
        }
        for (key, count) in running {
            assert!(count <= self.limit(key), "{count} jobs of {key} run");
        }
    }

    /// Over the whole run: every slot that was due has exactly one job, and there is no job for any other.
    pub(super) fn check_slots(&self) {
        let mut found = BTreeMap::new();
        for job in self.before.jobs.values() {
            if let (Some(event), Some(slot)) = (&job.event, job.slot) {
                *found.entry((event.clone(), slot)).or_default() += 1;
            }
        }
        assert_eq!(self.slots, found, "slots and jobs do not match");
    }
}

fn new_row(row: &JobRow) -> NewRow {
    assert_eq!((row.state, row.attempt, row.fence, row.boot), (JobState::Ready, 0, 0, None));
    NewRow {
        tag: row.tag.clone(),
        event: row.event.clone(),
        slot: row.slot,
        priority: row.priority,
        key: row.key.clone(),
        run_at: row.run_at,
        max_attempts: row.max_attempts,
    }
}

fn expired(plan: &Plan, status: &str, now: DateTime<Utc>) -> bool {
    status == "active" && plan.expires.is_some_and(|at| at <= now)
}

/// A schedule that is sent: what stays the same keeps its place in time.
fn put(schedules: &mut BTreeMap<&'static str, Schedule>, plan: &Plan, now: DateTime<Utc>) {
    let before = schedules.remove(plan.id);
    let same = before.as_ref().is_some_and(|b| b.plan.condition() == plan.condition());
    let status = plan.status.unwrap_or_else(|| before.as_ref().filter(|_| same).map_or("active", |b| b.status));
    let mut schedule = Schedule {
        plan: plan.clone(),
        status: "",
        next: before.as_ref().filter(|_| same).and_then(|b| b.next),
        filled: before.map(|b| b.filled).unwrap_or_default(),
    };
    set_status(&mut schedule, status, now);
    schedules.insert(plan.id, schedule);
}

fn set_status(schedule: &mut Schedule, status: &'static str, now: DateTime<Utc>) {
    schedule.status = status;
    schedule.next = match status {
        "active" => schedule.next.or_else(|| schedule.plan.rule.first(now)),
        _ => None,
    };
}

/// A look at what is due.
fn tick(expected: &mut Expected, now: DateTime<Utc>) {
    for schedule in expected.schedules.values_mut() {
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
            if !missed && schedule.filled.insert(*slot) {
                expected.new.push(NewRow::of(&schedule.plan, Some(*slot), now));
            }
        }
        schedule.next = match schedule.plan.rule {
            Rule::Once { .. } => None,
            _ => schedule.plan.rule.after(now, next),
        };
        if matches!(schedule.plan.rule, Rule::Once { .. }) {
            schedule.status = "completed";
        }
    }
}
