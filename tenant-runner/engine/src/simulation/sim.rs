//! One run: steps, the model's word on each, and what is on disk afterwards.

use super::check::Predicted;
use super::faults::Point;
use super::picture::Picture;
use super::rng::Rng;
use super::steps::{CHANGES, Op, Plan, Spec, ended};
use super::world::World;
use crate::action::ActionType;
use crate::error::Kind;
use crate::event::EventFilter;
use crate::queue::{Claimed, JobId, NewJob, Outcome};
use crate::testing::utc;
use chrono::{DateTime, Duration, Utc};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Enough for any backlog: what is not through by then is stuck.
const ROUNDS: usize = 400;

/// A schedule as the model knows it.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub plan: Plan,
    pub status: &'static str,
    pub next: Option<DateTime<Utc>>,
    /// Slots that have their job already.
    pub filled: BTreeSet<DateTime<Utc>>,
}

#[derive(Debug, Default, Clone)]
pub struct Figures {
    pub steps: u64,
    pub claims: u64,
    pub slots: u64,
    /// Crashes by kind of write and point.
    pub crashes: BTreeMap<(&'static str, Point), u64>,
}

impl Figures {
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.claims += other.claims;
        self.slots += other.slots;
        for (at, count) in &other.crashes {
            *self.crashes.entry(*at).or_default() += count;
        }
    }
}

/// What a step answered.
#[derive(Debug)]
pub enum Reply {
    Nothing,
    Job(JobId),
    Jobs(Vec<Claimed>),
    Fired(u64),
    Released(u64),
}

pub struct Sim {
    seed: u64,
    pub(super) rng: Rng,
    pub(super) world: World,
    pub(super) before: Picture,
    pub(super) schedules: BTreeMap<&'static str, Schedule>,
    pub(super) held: Vec<Claimed>,
    /// Leases that are over; none may ever finish anything.
    pub(super) stale: Vec<Claimed>,
    pub(super) tags: u64,
    /// Facts about jobs that the bus must tell, by job.
    pub(super) owed: BTreeMap<(Uuid, &'static str), i64>,
    /// How many jobs each slot of each schedule must have, over the whole run.
    pub(super) slots: BTreeMap<(String, i64), u64>,
    /// The wait before the second attempt of jobs that were put on the queue, in seconds.
    pub(super) backoffs: BTreeMap<i64, u64>,
    /// Every event that the listener heard.
    told: Vec<(u64, String)>,
    /// The attempt each job was handed out under, by its number.
    pub(super) attempts: BTreeMap<(i64, u32), Uuid>,
    pub(super) figures: Figures,
    trace: Vec<String>,
    crashes: bool,
}

/// Says how to replay a run that failed.
impl Drop for Sim {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let last = self.trace.len().saturating_sub(25);
        eprintln!("the last steps of seed {}:", self.seed);
        for line in &self.trace[last..] {
            eprintln!("  {line}");
        }
        eprintln!(
            "seed {} failed after {} steps; replay it with NEXAAS_SIM_SEED={} cargo nextest run -p nexaas-engine simulation --no-capture",
            self.seed, self.figures.steps, self.seed
        );
    }
}

impl Sim {
    pub async fn run(seed: u64, steps: usize) -> Figures {
        let mut rng = Rng::new(seed);
        let now = utc(CHANGES[rng.below(CHANGES.len())]) - Duration::seconds(rng.range(0, 150_000));
        let world = World::new(now);
        let mut sim = Self {
            seed,
            rng,
            world,
            before: Picture::default(),
            schedules: BTreeMap::new(),
            held: Vec::new(),
            stale: Vec::new(),
            tags: 0,
            owed: BTreeMap::new(),
            slots: BTreeMap::new(),
            backoffs: BTreeMap::new(),
            told: Vec::new(),
            attempts: BTreeMap::new(),
            figures: Figures::default(),
            trace: Vec::new(),
            crashes: true,
        };
        sim.world.start().await.unwrap();
        for _ in 0..steps {
            sim.step().await;
        }
        sim.quiesce().await;
        sim.figures.clone()
    }

    async fn step(&mut self) {
        let op = self.choose();
        self.act(op).await;
        if self.rng.chance(1, 8) {
            self.check_views().await;
        }
    }

    async fn act(&mut self, op: Op) {
        self.figures.steps += 1;
        self.trace.push(format!("{} {op:?}", self.world.now().format("%d %H:%M:%S")));
        match op {
            Op::Advance(by) => return self.world.clock.advance(by),
            Op::Restart => return self.restart().await,
            _ => {}
        }
        self.arm(6);
        let reply = self.perform(&op).await;
        let crashed = self.strike(op.kind());
        if let Some(point) = crashed {
            let error = reply.as_ref().expect_err("the process has ended, and yet it answered");
            assert_eq!(error.kind, Kind::Unavailable);
            self.trace.push(format!("  crash {point:?}"));
            self.world.stop();
        }
        let after = self.world.picture();
        match crashed {
            Some(Point::BeforeCommit) => assert_eq!(self.before, after, "what was not committed is on disk"),
            Some(Point::AfterCommit) => self.check(&op, None, after),
            None => self.check(&op, Some(reply), after),
        }
        match crashed {
            Some(_) => self.restart().await,
            None => self.check_facts().await,
        }
    }

    /// Has the next commit end the process, once in `of`.
    fn arm(&mut self, of: u64) {
        let point = *self.rng.pick(&[Point::BeforeCommit, Point::AfterCommit]);
        let armed = self.rng.chance(1, of) && self.crashes;
        self.world.reaper.arm(armed.then_some(point));
    }

    fn strike(&mut self, kind: &'static str) -> Option<Point> {
        let struck = self.world.reaper.struck();
        self.world.reaper.arm(None);
        if let Some(point) = struck {
            *self.figures.crashes.entry((kind, point)).or_default() += 1;
        }
        struck
    }

    async fn perform(&self, op: &Op) -> Result<Reply, crate::EngineError> {
        let engine = self.world.engine();
        let (queue, events) = (&engine.queue, &engine.events);
        Ok(match op {
            Op::Enqueue(spec) => Reply::Job(queue.enqueue(new_job(spec)).await?),
            Op::Claim(most) => Reply::Jobs(queue.claim(*most).await?.jobs),
            Op::Finish(which, outcome) => {
                queue.finish(&self.held[*which], outcome.clone()).await?;
                Reply::Nothing
            }
            Op::LateFinish(which) => {
                queue.finish(&self.stale[*which], Outcome::Succeeded("late".into())).await?;
                Reply::Nothing
            }
            Op::Cancel(seq) => {
                let id = self.before.jobs.get(seq).map_or_else(JobId::generate, |job| JobId::from_uuid(job.id));
                queue.cancel(id).await?;
                Reply::Nothing
            }
            Op::ReleaseOwn => Reply::Released(queue.release_own(std::collections::HashSet::new()).await?),
            Op::Upsert(plan) => {
                events.upsert(plan.json()).await?;
                Reply::Nothing
            }
            Op::Touch(id) => {
                if let Some(schedule) = self.schedules.get(id) {
                    events.upsert(schedule.plan.json()).await?;
                }
                Reply::Nothing
            }
            Op::Pause(id) => {
                events.patch(id, json!({"status": "paused"})).await?;
                Reply::Nothing
            }
            Op::Resume(id) => {
                events.patch(id, json!({"status": "active"})).await?;
                Reply::Nothing
            }
            Op::Delete(id) => {
                events.delete(id).await?;
                Reply::Nothing
            }
            Op::Trigger(id) => Reply::Job(events.trigger(id).await?),
            Op::Tick => Reply::Fired(events.tick().await?.fired),
            Op::Advance(_) | Op::Restart => Reply::Nothing,
        })
    }

    /// Another start on the same files; it may itself be ended at its first commit.
    async fn restart(&mut self) {
        self.world.stop();
        self.stale.append(&mut self.held);
        loop {
            self.arm(4);
            let started = self.world.start().await;
            let crashed = self.strike("start");
            if crashed.is_some() {
                started.expect_err("the process has ended, and yet it started");
                self.trace.push(format!("  crash {crashed:?} while starting"));
                self.world.stop();
            } else {
                started.unwrap();
            }
            let after = self.world.picture();
            match crashed {
                Some(Point::BeforeCommit) => assert_eq!(self.before, after, "what was not committed is on disk"),
                Some(Point::AfterCommit) | None => self.check_recovery(after),
            }
            if crashed.is_none() {
                break;
            }
        }
        self.check_facts().await;
    }

    fn check(&mut self, op: &Op, reply: Option<Result<Reply, crate::EngineError>>, after: Picture) {
        match self.predict(op, &after) {
            Predicted::Refused(kind) => {
                assert_eq!(self.before, after, "what is refused changes something");
                if let Some(reply) = reply {
                    let error = reply.map(|reply| format!("{reply:?}")).expect_err("this is to be refused");
                    assert!(kind.is_none_or(|kind| error.kind == kind), "refused for another reason: {error}");
                }
            }
            Predicted::Done(expected) => {
                let was = running(&self.before);
                let new = self.agree(expected, after);
                self.reply(op, reply.map(|reply| reply.expect("this is to be accepted")), &new, was);
            }
        }
    }

    /// What was answered is what was stored; leases change hands.
    fn reply(&mut self, op: &Op, reply: Option<Reply>, new: &[i64], was_running: usize) {
        if let Op::Enqueue(spec) = op {
            self.backoffs.insert(new[0], spec.backoff_s);
        }
        match (op, reply) {
            (Op::Enqueue(_) | Op::Trigger(_), Some(Reply::Job(id))) => {
                assert_eq!(self.before.jobs[&new[0]].id, id.uuid(), "the answer names another job");
            }
            (Op::Claim(_), Some(Reply::Jobs(jobs))) => {
                for job in &jobs {
                    let row = &self.before.jobs[&self.before.seq(job.id.uuid())];
                    assert_eq!((row.id, row.fence, row.attempt), (job.id.uuid(), job.lease.fence, job.attempt));
                    assert_eq!(row.attempt_id, Some(job.attempt_id.uuid()), "the attempt is not on disk");
                }
                let taken = running(&self.before) - was_running;
                assert_eq!(taken, jobs.len(), "a job was taken and not handed out");
                self.figures.claims += jobs.len() as u64;
                self.held.extend(jobs);
            }
            (Op::Tick, Some(Reply::Fired(fired))) => assert_eq!(fired, new.len() as u64),
            (Op::Finish(which, _), _) => {
                let over = self.held.swap_remove(*which);
                self.stale.push(over);
            }
            (Op::ReleaseOwn, reply) => {
                if let Some(Reply::Released(released)) = reply {
                    assert_eq!(released as usize, was_running - running(&self.before));
                }
                self.stale.append(&mut self.held);
            }
            _ => {}
        }
    }

    /// The bus tells what happened to jobs: each once, in order, in the same transaction.
    async fn check_facts(&mut self) {
        let last = self.world.last_seq();
        for event in self.world.listen(last).await {
            let job = event.data["job_id"].as_str().and_then(|id| Uuid::parse_str(id).ok());
            if let Some(kind) = FACTS.iter().find(|kind| **kind == event.kind) {
                *self.owed.entry((job.unwrap(), *kind)).or_default() -= 1;
            }
            self.told.push((event.seq, event.kind));
        }
        self.owed.retain(|_, count| *count != 0);
        assert!(self.owed.is_empty(), "told too rarely (1) or too often (-1): {:?}", self.owed);
    }

    /// What is shown agrees with what is stored.
    async fn check_views(&mut self) {
        let counts = self.world.engine().queue.view().await.unwrap().counts;
        let count = |state: &str| self.before.jobs.values().filter(|job| job.state.as_str() == state).count() as u64;
        assert_eq!(
            (counts.queued, counts.running, counts.completed, counts.failed),
            (count("ready"), count("running"), count("succeeded"), count("dead")),
            "the totals are not what the rows say"
        );
        let listed = self.world.engine().events.list(EventFilter::default()).await.unwrap();
        assert_eq!(listed.len(), self.before.events.len());
    }

    /// Stops planning, then runs everything that is left, however late: nothing may stay behind.
    async fn quiesce(&mut self) {
        self.crashes = false;
        self.act(Op::Advance(Duration::days(1))).await;
        self.act(Op::Tick).await;
        for id in self.schedules.keys().copied().collect::<Vec<_>>() {
            self.act(Op::Delete(id)).await;
        }
        for round in 0.. {
            assert!(round < ROUNDS, "jobs are stuck: {:#?}", self.before.jobs.values().find(|job| !ended(job.state)));
            if self.before.jobs.values().all(|job| ended(job.state)) {
                break;
            }
            self.act(Op::Claim(8)).await;
            while !self.held.is_empty() {
                self.act(Op::Finish(0, Outcome::Succeeded("at last".into()))).await;
            }
            self.act(Op::Advance(Duration::hours(6))).await;
        }
        self.check_views().await;
        self.world.engine().store.check().await.unwrap();
        self.check_slots();
        // Whoever comes last is told everything, in the same order.
        self.world.heard = 0;
        self.world.stop();
        self.world.start().await.unwrap();
        let last = self.world.last_seq();
        let again: Vec<_> = self.world.listen(last).await.into_iter().map(|event| (event.seq, event.kind)).collect();
        assert_eq!(again, self.told, "a late subscriber is told something else");
    }
}

fn running(picture: &Picture) -> usize {
    picture.jobs.values().filter(|job| job.boot.is_some()).count()
}

/// The facts about jobs that are counted.
pub const FACTS: &[&str] = &["job.queued", "job.started", "job.succeeded", "job.failed", "job.dead", "job.cancelled"];

fn new_job(spec: &Spec) -> NewJob {
    NewJob {
        description: Some(spec.tag.clone()),
        priority: spec.priority,
        concurrency_key: spec.key.map(str::to_owned),
        run_at: spec.run_at,
        max_attempts: spec.max_attempts,
        retry: crate::queue::Retry::Listed(
            (0..8).map(|n| crate::queue::retry_delay(std::time::Duration::from_secs(spec.backoff_s), n + 1)).collect(),
        ),
        ..NewJob::new(ActionType::Script, json!({"command": "true"}))
    }
}
