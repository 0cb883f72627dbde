use super::*;
use crate::action::{ActionType, Actions, AgentActions, RunContext, SystemNames};
use crate::config::EngineConfig;
use crate::error::Result;
use crate::queue::{JobState, NewJob};
use crate::testing::{Rig, job};
use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use futures::StreamExt as _;
use serde_json::json;
use tokio::sync::Barrier;

/// A skill that panics, and a chat that answers only while as many others do.
#[derive(Debug)]
struct Peculiar(Arc<Barrier>);

#[async_trait]
impl AgentActions for Peculiar {
    async fn run_skill(&self, _: &str, _: &str, _: Option<&str>, _: RunContext) -> Result<String> {
        panic!("a defect")
    }
    async fn agent_chat(&self, _: &str, _: &str, _: RunContext) -> Result<String> {
        self.0.wait().await;
        Ok("together".to_owned())
    }
}

fn start(rig: &Rig, size: usize, together: usize, supervisor: &Supervisor) -> Workers {
    let config = EngineConfig::new("standalone", rig.path().join("nexaas.db"), rig.path());
    let agents = Arc::new(Peculiar(Arc::new(Barrier::new(together))));
    let settings = Arc::new(ArcSwapOption::empty());
    let actions = Actions::new(&config, settings, agents, Arc::new(SystemNames), rig.clock.clone()).unwrap();
    Workers::start(size, rig.queue.clone(), Arc::new(actions), rig.clock.clone(), supervisor)
}

async fn ends(rig: &Rig, kind: &str, count: usize) {
    let told = rig.bus.subscribe(Some(0)).filter(|event| std::future::ready(event.kind == kind));
    told.take(count).collect::<Vec<_>>().await;
}

#[tokio::test]
async fn a_panic_is_a_failed_job_and_the_workers_go_on() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let workers = start(&rig, 1, 1, &supervisor);
    let broken = rig.queue.enqueue(NewJob::new(ActionType::Skill, json!({"skill": "x"}))).await.unwrap();
    let fine = rig.queue.enqueue(job()).await.unwrap();
    ends(&rig, "job.succeeded", 1).await;
    assert_eq!(rig.queue.get(broken).await.unwrap().state, JobState::Dead);
    assert_eq!(rig.queue.get(fine).await.unwrap().state, JobState::Succeeded);
    assert_eq!(workers.alive(), 1);
    supervisor.shutdown(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test]
async fn as_many_jobs_run_at_once_as_there_are_workers() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    start(&rig, 3, 3, &supervisor);
    // Each of the nine ends only beside two others.
    for _ in 0..9 {
        rig.queue.enqueue(NewJob::new(ActionType::AgentChat, json!({"agent": "a", "prompt": "p"}))).await.unwrap();
    }
    ends(&rig, "job.succeeded", 9).await;
    supervisor.shutdown(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test]
async fn jobs_that_wait_for_their_key_occupy_no_worker() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let chat = || NewJob::new(ActionType::AgentChat, json!({"agent": "a", "prompt": "p"}));
    for key in ["x", "x", "x", "y", "y", "y"] {
        rig.queue.enqueue(NewJob { concurrency_key: Some(key.into()), ..chat() }).await.unwrap();
    }
    // Two workers, and every answer needs two at once: possible only if x and y run beside each other.
    start(&rig, 2, 2, &supervisor);
    ends(&rig, "job.succeeded", 6).await;
    supervisor.shutdown(Duration::from_secs(30)).await.unwrap();
}

/// Ends at once, or when it is told to.
#[derive(Debug)]
struct Held(Arc<tokio::sync::Semaphore>);

impl Perform for Held {
    fn perform<'a>(&'a self, job: &'a Claimed) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            if job.payload.is_some() {
                self.0.acquire().await.unwrap().forget();
            }
            Outcome::Succeeded(String::new())
        })
    }
}

#[tokio::test]
async fn a_job_begins_with_the_write_that_stores_it_when_a_worker_is_free() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    Workers::start(1, rig.queue.clone(), Arc::new(Held(gate.clone())), rig.clock.clone(), &supervisor);
    // The first look at an empty table is over when a job has gone through.
    rig.queue.enqueue(job()).await.unwrap();
    ends(&rig, "job.succeeded", 1).await;
    let id = rig.queue.enqueue(NewJob { payload: Some(json!(1)), ..job() }).await.unwrap();
    assert_eq!(rig.queue.get(id).await.unwrap().state, JobState::Running, "acknowledged and held are one");
    gate.add_permits(1);
    ends(&rig, "job.succeeded", 2).await;
    supervisor.shutdown(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test]
async fn what_was_taken_ahead_goes_back_when_the_work_turns_long() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    Workers::start(1, rig.queue.clone(), Arc::new(Held(gate.clone())), rig.clock.clone(), &supervisor);
    for _ in 0..50 {
        rig.queue.enqueue(job()).await.unwrap();
    }
    ends(&rig, "job.succeeded", 50).await;
    // Short jobs so far: the next ones are taken ahead, behind one that does not end.
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(rig.queue.enqueue(NewJob { payload: Some(json!(1)), ..job() }).await.unwrap());
    }
    let waiting = async {
        let mut ready = rig.queue.ready().listen();
        while rig.queue.counts().queued < 4 {
            ready.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
    assert_eq!(rig.queue.get(ids[4]).await.unwrap().state, JobState::Ready);
    gate.add_permits(5);
    ends(&rig, "job.succeeded", 55).await;
    supervisor.shutdown(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_fails() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    Workers::start(1, rig.queue.clone(), Arc::new(Held(gate)), rig.clock.clone(), &supervisor);
    let timeout = Some(Duration::from_millis(20));
    let id = rig.queue.enqueue(NewJob { payload: Some(json!(1)), timeout, ..job() }).await.unwrap();
    ends(&rig, "job.dead", 1).await;
    assert!(rig.queue.get(id).await.unwrap().error.unwrap().contains("time-out of 0.02 s"));
    supervisor.shutdown(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test]
async fn a_job_of_the_future_that_came_while_all_were_busy_runs_when_its_time_comes() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    Workers::start(1, rig.queue.clone(), Arc::new(Held(gate.clone())), rig.clock.clone(), &supervisor);
    rig.queue.enqueue(NewJob { payload: Some(json!(1)), ..job() }).await.unwrap();
    ends(&rig, "job.started", 1).await;
    let run_at = Some(rig.now() + chrono::Duration::milliseconds(50));
    rig.queue.enqueue(NewJob { run_at, ..job() }).await.unwrap();
    // The look that this asked for is over, without room.
    rig.queue.set_key("nobody", 2, None).await.unwrap();
    rig.advance(1);
    gate.add_permits(1);
    ends(&rig, "job.succeeded", 2).await;
    supervisor.shutdown(Duration::from_secs(30)).await.unwrap();
}
