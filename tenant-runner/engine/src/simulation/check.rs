//! What each step may change, and nothing else may: the model's word, and how it is held against what is on disk.

use super::firing::Occasion;
use super::model::{Model, NewRow, Schedule, Standing};
use super::picture::{EventRow, JobRow, KeyRow, Picture};
use super::sim::{Sim, skipped};
use super::steps::{Op, Spec, ended};
use crate::error::Kind;
use crate::queue::{JobState, Outcome};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A process that ended this often while a job ran gives the job up.
const MOST_INTERRUPTIONS: u32 = 10;

/// What a step must answer.
#[derive(Debug)]
pub enum Answer {
    Done,
    /// The job of this tag.
    Job(String),
    /// So many jobs came back.
    Retried(u64),
}

/// Refused: nothing changes.
pub type Predicted = Result<Answer, Kind>;

impl Sim {
    /// Moves the model on by `op`. Who was taken, where that is a choice, is read from the disk; that it was right is checked.
    pub(super) fn predict(&mut self, model: &mut Model, op: &Op, after: &Picture) -> Vec<Predicted> {
        match op {
            Op::Together(ops) => ops.iter().map(|op| self.predict_one(model, op, after)).collect(),
            Op::EnqueueMany(specs) => {
                let now = self.world.now();
                specs.iter().map(|spec| Ok(Answer::Job(self.enqueue(model, spec, None, after, now)))).collect()
            }
            op => vec![self.predict_one(model, op, after)],
        }
    }

    fn predict_one(&mut self, model: &mut Model, op: &Op, after: &Picture) -> Predicted {
        let now = self.world.now();
        match op {
            Op::Enqueue(spec) => return Ok(Answer::Job(self.enqueue(model, spec, None, after, now))),
            Op::Claim(most) => self.claim(model, *most, after, now),
            Op::Feed => self.claim(model, self.room, after, now),
            Op::Finish(which, outcome) => {
                let seq = self.before.seq(self.held[*which].id.uuid());
                self.finish(model, seq, outcome, after, now);
            }
            Op::Step(which, result) => model.step(self.before.seq(self.held[*which].id.uuid()), result),
            Op::LateFinish(_) | Op::LateStep(_) => return Err(Kind::Conflict),
            Op::Cancel(seq) => {
                if !model.jobs.contains_key(seq) {
                    return Err(Kind::NotFound);
                }
                if !model.cancel(*seq) {
                    return Err(Kind::Conflict);
                }
            }
            Op::Retry(seq) => {
                let Some(job) = model.jobs.get(seq) else { return Err(Kind::NotFound) };
                if !matches!(job.state, JobState::Dead | JobState::Cancelled) {
                    return Err(Kind::Conflict);
                }
                if !self.retry(model, *seq, now) {
                    return Err(Kind::Conflict);
                }
            }
            Op::RetryDead => {
                // The longest dead first; a job for whose unique key another stands is left out.
                let mut dead: Vec<_> = self.before.dead.iter().map(|(seq, at)| (*at, *seq)).collect();
                dead.sort_unstable();
                let retried = dead.into_iter().filter(|(_, seq)| self.retry(model, *seq, now)).count();
                return Ok(Answer::Retried(retried as u64));
            }
            Op::SetKey(key, limit, rate) => model.set_key(key, *limit, *rate),
            Op::ReleaseOwn => self.release(model, after, now),
            Op::PutBack(which) => {
                let seq = self.before.seq(self.held[*which].id.uuid());
                self.give_back(model, seq, true, after, now);
            }
            Op::Upsert(plan) => model.put(plan, now),
            Op::Touch(id) => {
                if let Some(schedule) = self.model.schedules.get(id) {
                    if schedule.is_past(now) && schedule.plan.status.unwrap_or(schedule.status) == "active" {
                        return Err(Kind::Invalid { field: "expires_at".into() });
                    }
                    model.put(&schedule.plan, now);
                }
            }
            Op::Pause(id) | Op::Resume(id) => {
                let Some(schedule) = model.schedules.get_mut(id) else { return Err(Kind::NotFound) };
                let status = if matches!(op, Op::Pause(_)) { "paused" } else { "active" };
                if schedule.is_past(now) && status == "active" {
                    return Err(Kind::Invalid { field: "expires_at".into() });
                }
                schedule.set_status(status, now);
            }
            Op::Halt(id) => {
                let Some(schedule) = model.schedules.get_mut(id) else { return Err(Kind::NotFound) };
                if !matches!(schedule.status, "active" | "paused") {
                    return Err(Kind::Conflict);
                }
                schedule.set_status("paused", now);
            }
            Op::GoOn(id) => {
                let Some(schedule) = model.schedules.get_mut(id) else { return Err(Kind::NotFound) };
                match schedule.status {
                    "active" => {}
                    "paused" | "failed" if schedule.is_past(now) => {
                        return Err(Kind::Invalid { field: "expires_at".into() });
                    }
                    "paused" | "failed" => schedule.set_status("active", now),
                    _ => return Err(Kind::Conflict),
                }
            }
            Op::Delete(id) => drop(model.schedules.remove(id).ok_or(Kind::NotFound)?),
            Op::Trigger(id) => {
                let Some(schedule) = model.schedules.get(id) else { return Err(Kind::NotFound) };
                if schedule.status == "expired" {
                    return Err(Kind::Conflict);
                }
                if !self.fire(model, id, Occasion::default(), after, now) {
                    return Err(Kind::Conflict);
                }
                return Ok(Answer::Job((*id).to_owned()));
            }
            Op::Tick => self.tick(model, after, now),
            Op::Follow => self.follow(model, self.until, after, now),
            Op::EnqueueMany(_) | Op::Together(_) | Op::Room(_) | Op::Advance(_) | Op::Restart => {}
        }
        Ok(Answer::Done)
    }

    /// Answers the tag of the job that is queued, or of the one that stands for its unique key.
    fn enqueue(
        &mut self,
        model: &mut Model,
        spec: &Spec,
        parent: Option<&JobRow>,
        after: &Picture,
        now: DateTime<Utc>,
    ) -> String {
        self.specs.insert(spec.tag.clone(), spec.clone());
        if let Some((key, _)) = spec.unique
            && let Some(tag) = model.standing(key, now)
        {
            return tag.to_owned();
        }
        model.note(spec, now);
        self.come(model, NewRow::of_spec(spec, parent, now), after, now);
        spec.tag.clone()
    }

    /// A job comes. Whether it was held at once is read from the disk; it must have been allowed.
    pub(super) fn come(&self, model: &mut Model, mut new: NewRow, after: &Picture, now: DateTime<Utc>) {
        let born = |seq: &i64| !self.before.jobs.contains_key(seq);
        let same = |row: &JobRow| row.tag == new.tag && row.slot == new.slot && after.fact(row.id) == new.fact;
        let found = after.jobs.iter().find(|(seq, row)| born(seq) && same(row));
        new.held = found.is_some_and(|(_, row)| row.boot.is_some());
        // When a job that is spread is due is read from the disk, too.
        if let Some((seq, row)) = found.filter(|_| new.spread > 0) {
            let bounds = new.run_at..=new.run_at + new.spread;
            assert!(bounds.contains(&row.run_at), "job {seq} is due at {}, not within {bounds:?}", row.run_at);
            (new.run_at, new.spread) = (row.run_at, 0);
        }
        if new.held {
            assert!(new.run_at <= now.timestamp_micros(), "{} began before it is due", new.tag);
            assert!(self.room > model.new.iter().filter(|new| new.held).count(), "no worker had room for {}", new.tag);
            if let Some(key) = &new.key {
                assert!(model.admits(key, now), "{} began although {key} admits none", new.tag);
                model.started(key, now);
            }
        }
        model.new.push(new);
    }

    fn claim(&self, model: &mut Model, most: usize, after: &Picture, now: DateTime<Utc>) {
        let due = |job: &JobRow| job.state == JobState::Ready && job.run_at <= now.timestamp_micros();
        let order = |seq: i64, job: &JobRow| (job.priority, job.run_at, seq);
        let taken_on_disk = |seq: &i64, job: &JobRow| after.jobs.get(seq).is_some_and(|found| found.fence != job.fence);
        let mut taken: Vec<_> =
            model.jobs.iter().filter(|(seq, job)| taken_on_disk(seq, job)).map(|(seq, job)| order(*seq, job)).collect();
        taken.sort_unstable();
        assert!(taken.len() <= most, "{} jobs were taken where {most} were asked for", taken.len());
        for (.., seq) in &taken {
            let job = &model.jobs[seq];
            assert_eq!(job.state, JobState::Ready, "job {seq} was taken while it was {:?}", job.state);
            assert!(due(job), "job {seq} was taken before it is due");
            if let Some(key) = job.key.clone() {
                assert!(model.admits(&key, now), "job {seq} was taken although {key} admits none");
                model.started(&key, now);
            }
            let job = model.jobs.get_mut(seq).unwrap();
            job.state = JobState::Running;
            job.boot = Some(self.world.boot());
            job.fence += 1;
            if job.attempt_id.is_none() {
                job.attempt += 1;
                job.attempt_id = after.jobs[seq].attempt_id;
            }
            model.facts.push((*seq, "job.started"));
        }
        for (seq, job) in model.jobs.iter().filter(|(_, job)| due(job)) {
            let blocked = job.key.as_ref().is_some_and(|key| !model.admits(key, now));
            assert!(blocked || taken.len() == most, "job {seq} is due and free, and was left although there was room");
            for other in &taken {
                let rivals = !blocked || model.jobs[&other.2].key == job.key;
                assert!(
                    !rivals || *other < order(*seq, job),
                    "job {} was taken before job {seq}, which was first",
                    other.2
                );
            }
        }
    }

    fn finish(&mut self, model: &mut Model, seq: i64, outcome: &Outcome, after: &Picture, now: DateTime<Utc>) {
        let job = model.jobs.get_mut(&seq).unwrap();
        let spec = self.specs.get(&job.tag).cloned();
        let (state, fact) = match outcome {
            Outcome::Succeeded(_) => (JobState::Succeeded, "job.succeeded"),
            Outcome::Cancelled => (JobState::Cancelled, "job.cancelled"),
            Outcome::Failed { .. } if job.cancelling => (JobState::Cancelled, "job.cancelled"),
            Outcome::Failed { permanent: true, .. } => (JobState::Dead, "job.dead"),
            Outcome::Failed { .. } if job.attempt >= job.max_attempts => (JobState::Dead, "job.dead"),
            Outcome::Failed { .. } => (JobState::Ready, "job.failed"),
        };
        if state == JobState::Ready {
            let attempt = job.attempt - (job.max_attempts - job.round);
            let (least, most) = spec.as_ref().map_or((0, 0), |spec| spec.wait(attempt));
            let at = |micros: u64| now.timestamp_micros() + micros as i64;
            // A wait that grows is lengthened by up to a fifth: by how much is read from the disk.
            let found = after.jobs[&seq].run_at;
            let spread = (at(least)..=at(most)).contains(&found);
            job.run_at = if spread { found } else { at(least) };
            job.attempt_id = None;
        }
        (job.state, job.boot, job.cancelling, job.interruptions) = (state, None, false, 0);
        model.facts.push((seq, fact));
        let job = job.clone();
        if state == JobState::Dead {
            self.died(model, &job, after, now);
        }
        if state == JobState::Succeeded {
            if let Some(schedule) = job.event.as_deref().and_then(|id| model.schedules.get_mut(id)) {
                schedule.failures = 0;
            }
            for spec in spec.map(|spec| spec.then).unwrap_or_default() {
                self.enqueue(model, &spec, Some(&job), after, now);
            }
        }
    }

    /// Whether the job may come back: not while another stands for its unique key.
    fn retry(&self, model: &mut Model, seq: i64, now: DateTime<Utc>) -> bool {
        let tag = model.jobs[&seq].tag.clone();
        if let Some((key, _)) = self.specs.get(&tag).and_then(|spec| spec.unique) {
            if model.standing(key, now).is_some_and(|standing| standing != tag) {
                return false;
            }
            model.uniques.insert(key, Standing { tag, until: None });
        }
        let job = model.jobs.get_mut(&seq).unwrap();
        job.state = JobState::Ready;
        job.run_at = now.timestamp_micros();
        job.max_attempts = job.attempt + job.round;
        (job.attempt_id, job.interruptions) = (None, 0);
        model.facts.push((seq, "job.retried"));
        true
    }

    pub(super) fn check_recovery(&mut self, after: Picture) {
        let mut model = self.model.clone();
        self.release(&mut model, &after, self.world.now());
        self.agree(model, after);
    }

    /// Holds the model against the disk; from then on both are what is.
    pub(super) fn agree(&mut self, mut model: Model, after: Picture) -> Vec<i64> {
        for (seq, wanted) in &model.jobs {
            let found = after.jobs.get(seq).unwrap_or_else(|| panic!("job {seq} is lost; it was {wanted:?}"));
            let mut wanted = wanted.clone();
            if ended(found.state) {
                (wanted.attempt_id, wanted.interruptions) = (found.attempt_id, found.interruptions);
            }
            assert_eq!(wanted, *found, "job {seq} is not what it should be");
        }
        let last = self.before.jobs.keys().next_back().copied().unwrap_or(0);
        let new: Vec<i64> = after.jobs.keys().filter(|seq| !model.jobs.contains_key(seq)).copied().collect();
        assert!(new.iter().all(|seq| *seq > last), "a sequence number was given again");
        let mut came: Vec<_> = new.iter().map(|seq| self.new_row(&after.jobs[seq], &after)).collect();
        came.sort();
        model.new.sort();
        assert_eq!(model.new, came, "the jobs that came are not those that were due");
        let events = model.schedules.iter().map(|(id, schedule)| {
            let next = schedule.next.map(|at| at.timestamp_micros());
            ((*id).to_owned(), EventRow { status: schedule.status.to_owned(), next, failures: schedule.failures })
        });
        assert_eq!(events.collect::<BTreeMap<_, _>>(), after.events, "the schedules are not what they should be");
        let slots = model.schedules.iter();
        let slots = slots.flat_map(|(id, s)| s.filled.iter().map(|(at, job)| (*id, at.timestamp_micros(), *job)));
        let found = after.slots.iter().map(|((id, at), job)| (id.as_str(), *at, job.is_some()));
        assert!(slots.eq(found), "other slots are seen to than should be, or with another outcome");
        let answers = model.answers.iter().map(|((seq, id), job)| (*seq, *id, *job));
        let found = after.answers.iter().map(|((seq, id), job)| (*seq, id.as_str(), job.is_some()));
        assert!(answers.eq(found), "other facts are answered than should be, or otherwise");
        for (id, schedule) in &mut model.schedules {
            let waited = self.model.schedules.get(id).and_then(Schedule::wanted);
            if schedule.wanted() != waited {
                schedule.watch_from = after.told;
            }
        }
        assert_eq!(model.steps, after.steps, "other steps are done than should be");
        let keys = model.keys.iter().filter(|(_, key)| (key.limit, key.rate) != (1, None));
        let keys = keys.map(|(name, key)| (name.clone(), KeyRow { limit: key.limit, rate: key.rate }));
        assert_eq!(keys.collect::<BTreeMap<_, _>>(), after.keys, "the keys' limits are not what was set");
        // The ledgers of the whole run.
        for row in &model.new {
            if let (Some(event), Some(slot)) = (&row.event, row.slot) {
                *self.slots.entry((event.clone(), slot)).or_default() += 1;
                self.figures.slots += 1;
            }
        }
        let born = new.iter().flat_map(|seq| {
            let row = &after.jobs[seq];
            let started = row.boot.map(|_| "job.started");
            let cancelled = (row.state == JobState::Cancelled).then_some("job.cancelled");
            // What carries the name of a schedule came of it.
            let fired = row.event.as_ref().filter(|id| **id == row.tag).map(|_| "event.fired");
            let facts = ["job.queued"].into_iter().chain(started).chain(cancelled).chain(fired);
            facts.map(|fact| (*seq, fact))
        });
        for (seq, fact) in model.facts.drain(..).chain(born) {
            *self.owed.entry((after.jobs[&seq].id.to_string(), fact)).or_default() += 1;
        }
        for id in model.paused.drain(..) {
            self.figures.paused += 1;
            *self.owed.entry((skipped(&json!(id), &Value::Null), "event.paused")).or_default() += 1;
        }
        for (id, slot) in model.skipped.drain(..) {
            self.figures.left_out += 1;
            *self.owed.entry((skipped(&json!(id), &json!(slot)), "event.skipped")).or_default() += 1;
        }
        model.new.clear();
        model.jobs = after.jobs.clone();
        self.model = model;
        self.before = after;
        self.invariants();
        new
    }

    fn new_row(&self, row: &JobRow, after: &Picture) -> NewRow {
        let held = row.boot.is_some();
        let boot = held.then(|| self.world.boot());
        assert_eq!((row.attempt, row.fence, row.boot), (u32::from(held), i64::from(held), boot));
        assert_eq!(row.round, row.max_attempts);
        NewRow {
            tag: row.tag.clone(),
            event: row.event.clone(),
            slot: row.slot,
            fact: after.fact(row.id),
            depth: row.depth,
            priority: row.priority,
            key: row.key.clone(),
            run_at: row.run_at,
            spread: 0,
            max_attempts: row.max_attempts,
            held,
            cancelled: row.cancelling || row.state == JobState::Cancelled,
        }
    }

    /// What holds after every step, whatever it was.
    fn invariants(&mut self) {
        for (seq, job) in &self.before.jobs {
            assert!(job.attempt <= job.max_attempts, "job {seq} was tried too often");
            if job.boot.is_some() {
                let id = job.attempt_id.unwrap();
                let first = *self.attempts.entry((*seq, job.attempt)).or_insert(id);
                assert_eq!(first, id, "attempt {} of job {seq} was given two ids", job.attempt);
            }
        }
        let mut unique = BTreeSet::new();
        for job in self.before.jobs.values().filter(|job| !ended(job.state)) {
            if let Some((key, None)) = self.specs.get(&job.tag).and_then(|spec| spec.unique) {
                assert!(unique.insert(key), "two live jobs stand for {key}");
            }
        }
    }

    /// Every job that runs has exactly one lease, which is the one in hand.
    pub(super) fn check_leases(&self) {
        let mut held: Vec<_> = self.held.iter().map(|job| (job.id.uuid(), job.lease.fence, job.attempt)).collect();
        let running = self.before.jobs.values().filter(|job| job.boot.is_some());
        let mut running: Vec<_> = running.map(|job| (job.id, job.fence, job.attempt)).collect();
        held.sort_unstable();
        running.sort_unstable();
        assert_eq!(held, running, "leases that are held, and jobs that run");
        for job in &self.held {
            let row = &self.before.jobs[&self.before.seq(job.id.uuid())];
            assert_eq!(row.attempt_id, Some(job.attempt_id.uuid()), "the attempt is not on disk");
            assert_eq!(job.cancel.is_cancelled(), row.cancelling, "job {} is asked to stop, or is not", job.id);
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

    /// What was running goes back, under the attempt it has.
    fn release(&mut self, model: &mut Model, after: &Picture, now: DateTime<Utc>) {
        let running = model.jobs.iter().filter(|(_, job)| job.state == JobState::Running).map(|(seq, _)| *seq);
        for seq in running.collect::<Vec<_>>() {
            self.give_back(model, seq, false, after, now);
        }
    }

    fn give_back(&mut self, model: &mut Model, seq: i64, unbegun: bool, after: &Picture, now: DateTime<Utc>) {
        let job = model.jobs.get_mut(&seq).unwrap();
        job.boot = None;
        if job.cancelling {
            job.state = JobState::Cancelled;
            job.cancelling = false;
            model.facts.push((seq, "job.cancelled"));
        } else if !unbegun && job.interruptions + 1 >= MOST_INTERRUPTIONS {
            job.state = JobState::Dead;
            model.facts.push((seq, "job.dead"));
            let job = job.clone();
            self.died(model, &job, after, now);
        } else {
            job.state = JobState::Ready;
            job.interruptions += u32::from(!unbegun);
            job.run_at = now.timestamp_micros();
        }
    }

    /// What the end of a dead job means for its schedule and for those that follow it.
    fn died(&mut self, model: &mut Model, job: &JobRow, after: &Picture, now: DateTime<Utc>) {
        if let Some(schedule) = job.event.as_deref().and_then(|id| model.schedules.get_mut(id)) {
            schedule.failures += 1;
            let most = schedule.plan.pause_after.unwrap_or(u32::MAX);
            match schedule.status {
                "completed" => schedule.status = "failed",
                "active" if schedule.failures >= most => {
                    schedule.set_status("paused", now);
                    model.paused.push(schedule.plan.id);
                }
                _ => {}
            }
        }
        for spec in self.specs.get(&job.tag).map(|spec| spec.on_failure.clone()).unwrap_or_default() {
            self.enqueue(model, &spec, Some(job), after, now);
        }
    }
}
