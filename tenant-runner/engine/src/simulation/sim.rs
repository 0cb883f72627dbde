//! One run: steps, the model's word on each, and what is on disk afterwards.

use super::check::Answer;
use super::faults;
use super::figures::Figures;
use super::model::Model;
use super::picture::Picture;
use super::rng::Rng;
use super::steps::{CHANGES, Op, Spec, ended, outcome};
use super::world::World;
use crate::bus::BusEvent;
use crate::error::{EngineError, Kind};
use crate::event::{EventFilter, watch};
use crate::queue::{Claimed, JobId, NewJob, Outcome, Rate};
use crate::store::Point;
use crate::testing::utc;
use chrono::Duration;
use futures::future::LocalBoxFuture;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use uuid::Uuid;

/// Enough for any backlog: what is not through by then is stuck.
const ROUNDS: usize = 400;
/// The facts about jobs that are counted.
const FACTS: &[&str] = &[
    "job.queued",
    "job.started",
    "job.succeeded",
    "job.failed",
    "job.dead",
    "job.cancelled",
    "job.retried",
    "event.fired",
    "event.skipped",
    "event.paused",
];

/// What a step answered.
#[derive(Debug)]
pub enum Reply {
    Nothing,
    Job(JobId),
    /// Of leases that were handed out.
    Taken(Vec<Claimed>),
    Fired(u64),
    Retried(u64),
    Released(u64),
}

type Replies = Vec<Result<Reply, EngineError>>;

pub struct Sim {
    seed: u64,
    pub(super) rng: Rng,
    pub(super) world: World,
    pub(super) before: Picture,
    pub(super) model: Model,
    pub(super) held: Vec<Claimed>,
    /// Leases that are over; none may ever finish anything.
    pub(super) stale: Vec<Claimed>,
    /// How many jobs the workers would take when the step began.
    pub(super) room: usize,
    pub(super) tags: u64,
    /// Every job that was ever asked for, by its tag.
    pub(super) specs: BTreeMap<String, Spec>,
    /// Facts that the bus must tell, by job, or by schedule and slot that was left out.
    pub(super) owed: BTreeMap<(String, &'static str), i64>,
    /// How many jobs each slot of each schedule must have, over the whole run.
    pub(super) slots: BTreeMap<(String, i64), u64>,
    /// Every event that the listener heard.
    pub(super) told: Vec<BusEvent>,
    /// The fact up to which the step in hand looked at the bus, if it did.
    pub(super) until: u64,
    /// The attempt each job was handed out under, by its number.
    pub(super) attempts: BTreeMap<(i64, u32), Uuid>,
    pub(super) figures: Figures,
    trace: Vec<String>,
    crashes: bool,
    /// Most jobs fail.
    pub(super) gloomy: bool,
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
        let gloomy = rng.chance(1, 4);
        let world = World::new(now);
        let mut sim = Self {
            seed,
            rng,
            world,
            before: Picture::default(),
            model: Model::default(),
            held: Vec::new(),
            stale: Vec::new(),
            room: 0,
            tags: 0,
            specs: BTreeMap::new(),
            owed: BTreeMap::new(),
            slots: BTreeMap::new(),
            told: Vec::new(),
            until: 0,
            attempts: BTreeMap::new(),
            figures: Figures::default(),
            trace: Vec::new(),
            crashes: true,
            gloomy,
        };
        sim.world.start().await.unwrap();
        for _ in 0..steps {
            sim.step().await;
        }
        sim.quiesce().await;
        sim.figures.answers = sim.model.answers.len() as u64;
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
            Op::Room(by) => return self.world.engine().queue.handoff().change_room(by),
            Op::Restart => return self.restart().await,
            _ => {}
        }
        self.room = usize::try_from(self.world.engine().queue.handoff().room()).unwrap();
        let point = self.point(if matches!(op, Op::Follow) { 4 } else { 8 });
        let replies = match &op {
            Op::Together(ops) => self.perform_together(ops, point).await,
            Op::EnqueueMany(specs) => {
                self.world.reaper.arm(point, 0);
                self.enqueue_many(specs).await
            }
            op => {
                self.world.reaper.arm(point, 0);
                vec![self.perform(op).await]
            }
        };
        let crashed = self.strike(op.kind());
        if let Some(point) = crashed {
            for reply in &replies {
                let error = reply.as_ref().expect_err("the process has ended, and yet it answered");
                assert!(matches!(error.kind, Kind::Unavailable), "{error}");
            }
            self.trace.push(format!("  crash {point:?}"));
            self.world.stop();
        }
        let after = self.world.picture();
        match crashed {
            Some(Point::BeforeCommit) => assert_eq!(self.before, after, "what was not committed is on disk"),
            Some(Point::AfterCommit) => self.check(&op, None, after),
            None => self.check(&op, Some(replies), after),
        }
        match crashed {
            Some(_) => self.restart().await,
            None => {
                self.receive().await;
                self.check_leases();
                self.check_facts().await;
            }
        }
    }

    /// Where the next commit is to end the process, once in `of`.
    fn point(&mut self, of: u64) -> Option<Point> {
        let point = *self.rng.pick(&[Point::BeforeCommit, Point::AfterCommit]);
        (self.rng.chance(1, of) && self.crashes).then_some(point)
    }

    fn strike(&mut self, kind: &'static str) -> Option<Point> {
        let struck = self.world.reaper.struck();
        self.world.reaper.arm(None, 0);
        if let Some(point) = struck {
            *self.figures.crashes.entry((kind, faults::name(point))).or_default() += 1;
        }
        struck
    }

    /// The workers receive what they were given.
    async fn receive(&mut self) {
        let handoff = self.world.engine().queue.handoff().clone();
        while handoff.waiting() > 0 {
            let job = handoff.next().await.unwrap();
            self.figures.claims += 1;
            self.held.push(job);
        }
    }

    /// Keeps the writer busy until all of `ops` wait for it, so that they share a commit.
    async fn perform_together(&self, ops: &[Op], point: Option<Point>) -> Replies {
        let (entered, begun) = std::sync::mpsc::channel();
        let (leave, go_on) = std::sync::mpsc::channel::<()>();
        let mut gate = Box::pin(self.world.engine().store.write(move |_| {
            entered.send(()).unwrap();
            go_on.recv().unwrap();
            Ok(())
        }));
        assert!(futures::poll!(&mut gate).is_pending());
        begun.recv().unwrap();
        // The commit of the gate itself passes.
        self.world.reaper.arm(point, 1);
        let mut waiting: Vec<LocalBoxFuture<'_, _>> = Vec::new();
        for op in ops {
            let mut answer: LocalBoxFuture<'_, _> = Box::pin(self.perform(op));
            assert!(futures::poll!(&mut answer).is_pending(), "{op:?} did not wait for the writer");
            waiting.push(answer);
        }
        leave.send(()).unwrap();
        gate.await.unwrap();
        futures::future::join_all(waiting).await
    }

    async fn enqueue_many(&self, specs: &[Spec]) -> Replies {
        let jobs = specs.iter().map(|spec| self.job(spec)).collect();
        match self.world.engine().queue.enqueue_many(jobs).await {
            Ok(done) => done.into_iter().map(|done| Ok(Reply::Job(done.id))).collect(),
            Err(error) => vec![Err(error)],
        }
    }

    fn job(&self, spec: &Spec) -> NewJob {
        NewJob::from_json(&spec.json(), self.world.now()).unwrap()
    }

    async fn perform(&self, op: &Op) -> Result<Reply, EngineError> {
        let engine = self.world.engine();
        let (queue, events) = (&engine.queue, &engine.events);
        let id_of = |seq: &i64| self.before.jobs.get(seq).map_or_else(JobId::generate, |job| JobId::from_uuid(job.id));
        match op {
            Op::Enqueue(spec) => return Ok(Reply::Job(queue.enqueue(self.job(spec)).await?)),
            Op::Claim(most) => return Ok(Reply::Taken(queue.claim(*most).await?.jobs)),
            Op::Trigger(id) => return Ok(Reply::Job(events.trigger(id).await?)),
            Op::Tick => return Ok(Reply::Fired(events.tick().await?.fired)),
            Op::ReleaseOwn => return Ok(Reply::Released(queue.release_own().await?)),
            Op::RetryDead => return Ok(Reply::Retried(queue.retry_dead(1000).await?)),
            Op::Feed => drop(queue.feed().await?),
            Op::Finish(which, outcome) => queue.finish(&self.held[*which], outcome.clone()).await?,
            Op::Step(which, result) => {
                let job = &self.held[*which];
                let done = queue.steps(job.id).await?.len() as u32;
                queue.save_step(job, done, "step", result).await?;
            }
            Op::LateStep(which) => queue.save_step(&self.stale[*which], 0, "step", "late").await?,
            Op::LateFinish(which) => queue.finish(&self.stale[*which], Outcome::Succeeded("late".into())).await?,
            Op::Cancel(seq) => queue.cancel(id_of(seq)).await?,
            Op::Retry(seq) => queue.retry(id_of(seq)).await?,
            Op::SetKey(key, limit, rate) => {
                let seconds = |count: &i64| std::time::Duration::from_secs(*count as u64);
                let rate = rate.map(|(count, period)| Rate { count: count as u32, period: seconds(&period) });
                queue.set_key(key, *limit as u32, rate).await?;
            }
            Op::PutBack(which) => drop(queue.put_back(HashSet::from([self.held[*which].id])).await?),
            Op::Upsert(plan) => drop(events.upsert(plan.json()).await?),
            Op::Touch(id) => {
                if let Some(schedule) = self.model.schedules.get(id) {
                    events.upsert(schedule.plan.json()).await?;
                }
            }
            Op::Pause(id) => drop(events.patch(id, json!({"status": "paused"})).await?),
            Op::Resume(id) => drop(events.patch(id, json!({"status": "active"})).await?),
            Op::Follow => watch::look(events).await?,
            Op::Halt(id) => drop(events.pause(id).await?),
            Op::GoOn(id) => drop(events.resume(id).await?),
            Op::Delete(id) => events.delete(id).await?,
            Op::EnqueueMany(_) | Op::Together(_) | Op::Room(_) | Op::Advance(_) | Op::Restart => {}
        }
        Ok(Reply::Nothing)
    }

    /// Another start on the same files; it may itself be ended at its first commit.
    async fn restart(&mut self) {
        self.world.stop();
        self.stale.append(&mut self.held);
        loop {
            let point = self.point(4);
            self.world.reaper.arm(point, 0);
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

    fn check(&mut self, op: &Op, replies: Option<Replies>, after: Picture) {
        // A process that ended may have got through part of it.
        self.until = if replies.is_some() { self.before.told } else { after.place };
        let mut model = self.model.clone();
        let predicted = self.predict(&mut model, op, &after);
        let was_running = running(&self.before);
        let new = self.agree(model, after);
        // What was finished is over, whether or not it was answered.
        let ops = match op {
            Op::Together(ops) => ops.as_slice(),
            op => std::slice::from_ref(op),
        };
        let mut over: Vec<usize> = ops
            .iter()
            .filter_map(|op| match op {
                Op::Finish(which, _) | Op::PutBack(which) => Some(*which),
                _ => None,
            })
            .collect();
        over.sort_unstable();
        for which in over.into_iter().rev() {
            let job = self.held.remove(which);
            self.stale.push(job);
        }
        if matches!(op, Op::ReleaseOwn) {
            self.stale.append(&mut self.held);
        }
        let Some(replies) = replies else { return };
        assert_eq!(predicted.len(), replies.len());
        for (predicted, reply) in predicted.into_iter().zip(replies) {
            match (predicted, reply) {
                (Err(kind), reply) => {
                    let error = reply.map(|reply| format!("{reply:?}")).expect_err("this is to be refused");
                    assert_eq!(error.kind, kind, "refused for another reason: {error}");
                }
                (Ok(answer), reply) => {
                    let reply = reply.unwrap_or_else(|error| panic!("this is to be accepted: {error}"));
                    self.answered(&answer, reply, &new, was_running);
                }
            }
        }
    }

    /// What was answered is what was stored; leases change hands.
    fn answered(&mut self, answer: &Answer, reply: Reply, new: &[i64], was_running: usize) {
        match (answer, reply) {
            (Answer::Job(tag), Reply::Job(id)) => {
                let tagged = |seq: &&i64| self.before.jobs[seq].tag == *tag;
                let job = new.iter().find(tagged).map(|seq| &self.before.jobs[seq]);
                let job = job.or_else(|| self.before.jobs.values().find(|job| job.tag == *tag)).unwrap();
                assert_eq!(job.id, id.uuid(), "the answer names another job than {tag}");
            }
            (Answer::Done, Reply::Taken(jobs)) => {
                self.figures.claims += jobs.len() as u64;
                self.held.extend(jobs);
            }
            (Answer::Done, Reply::Fired(fired)) => assert_eq!(fired, new.len() as u64),
            (Answer::Retried(wanted), Reply::Retried(count)) => assert_eq!(*wanted, count),
            (Answer::Done, Reply::Released(count)) => assert_eq!(count, was_running as u64),
            (Answer::Done, Reply::Nothing) => {}
            (answer, reply) => panic!("{answer:?} was to be answered, not {reply:?}"),
        }
    }

    /// The bus tells what happened to jobs: each once, in order, in the same transaction.
    async fn check_facts(&mut self) {
        let last = self.world.last_seq();
        for event in self.world.listen(last).await {
            if let Some(kind) = FACTS.iter().find(|kind| **kind == event.kind) {
                let of = match event.data["job_id"].as_str() {
                    Some(job) => job.to_owned(),
                    None => skipped(&event.data["id"], &event.data["slot"]),
                };
                *self.owed.entry((of, *kind)).or_default() -= 1;
            }
            self.told.push(event);
        }
        self.owed.retain(|_, count| *count != 0);
        assert!(self.owed.is_empty(), "told too rarely (1) or too often (-1): {:?}", self.owed);
    }

    /// What is shown agrees with what is stored.
    async fn check_views(&mut self) {
        let queue = &self.world.engine().queue;
        let counts = queue.view().await.unwrap().counts;
        let count = |state: &str| self.before.jobs.values().filter(|job| job.state.as_str() == state).count() as u64;
        assert_eq!(
            (counts.queued, counts.running, counts.completed, counts.failed, counts.cancelled),
            (count("ready"), count("running"), count("succeeded"), count("dead"), count("cancelled")),
            "the totals are not what the rows say"
        );
        for key in queue.keys() {
            let of_key = self.before.jobs.values().filter(|job| job.key.as_deref() == Some(&key.key));
            assert_eq!(
                key.running as usize,
                of_key.filter(|job| job.boot.is_some()).count(),
                "jobs of {} that run",
                key.key
            );
        }
        let listed = self.world.engine().events.list(EventFilter::default()).await.unwrap();
        assert_eq!(listed.len(), self.before.events.len());
    }

    /// Stops planning, then runs everything that is left, however late: nothing may stay behind.
    async fn quiesce(&mut self) {
        self.crashes = false;
        self.restart().await;
        self.act(Op::Advance(Duration::days(1))).await;
        self.act(Op::Tick).await;
        self.act(Op::Follow).await;
        if self.gloomy {
            self.act(Op::Claim(16)).await;
            while !self.held.is_empty() {
                let outcome = outcome(&mut self.rng, true);
                self.act(Op::Finish(0, outcome)).await;
            }
        }
        for id in self.model.schedules.keys().copied().collect::<Vec<_>>() {
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
        let told: Vec<_> = self.told.iter().map(|event| (event.seq, event.kind.clone())).collect();
        assert_eq!(again, told, "a late subscriber is told something else");
    }
}

/// How a slot that was left out is named among the facts that are owed.
pub(super) fn skipped(id: &Value, slot: &Value) -> String {
    format!("{id} {slot}")
}

fn running(picture: &Picture) -> usize {
    picture.jobs.values().filter(|job| job.boot.is_some()).count()
}
