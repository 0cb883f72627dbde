//! `kill -9`, again and again, under load. What was acknowledged is done; what is done twice can be told by its key; a slot of
//! a schedule has one job; the next start goes on where the last one was ended.

use crate::database::{Copy, copy_of};
use crate::dice::Dice;
use crate::process::{Api, Launch, PATIENCE, Process};
use crate::receiver::Receiver;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

const SENDERS: usize = 4;
/// How long a program works at most before it is killed.
const LIFE: Duration = Duration::from_millis(200);
/// One kill in so many hits a program that has not got ready yet.
const EARLY: u64 = 4;
const SCHEDULES: [&str; 3] = ["every-a", "every-b", "every-c"];
/// Work that waits beyond this makes the senders wait: the test is about crashes, not about backlogs.
const MOST_OUTSTANDING: u64 = 200;
/// Fewer than retention keeps, so that at the end each job can be looked at.
const MOST_ACKNOWLEDGED: usize = 15_000;
/// The longest from a kill to the next delivery.
const RESUMED_WITHIN: Duration = Duration::from_secs(5);
const LOOKED_INTO_EVERY: u32 = 20;

/// How a piece of work is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// `POST /api/events/{id}/trigger`. What was not acknowledged is forgotten: it may have been queued or not.
    Trigger(&'static str),
    /// `POST /api/queue` under a unique key, repeated until it is acknowledged; the receiver may refuse the first attempt.
    Queue { refuse_once: bool },
}

const WAYS: [Way; 5] = [
    Way::Trigger("accepted"),
    Way::Trigger("refused-once"),
    Way::Queue { refuse_once: false },
    Way::Queue { refuse_once: false },
    Way::Queue { refuse_once: true },
];

/// What the senders share.
struct Load {
    receiver: Receiver,
    /// The program as it runs now; none between a kill and the next start.
    api: watch::Sender<Option<Api>>,
    /// Acknowledged work and its job.
    acknowledged: Mutex<HashMap<String, String>>,
    over: watch::Sender<bool>,
    ways: Vec<Way>,
}

impl Load {
    async fn send(self: Arc<Self>, sender: usize, mut dice: Dice) {
        for number in 0.. {
            tokio::time::sleep(dice.within(Duration::from_millis(8))).await;
            if *self.over.borrow() {
                return;
            }
            let acknowledged = self.acknowledged.lock().unwrap().len();
            let waiting = (acknowledged as u64).saturating_sub(self.receiver.accepted_works());
            if waiting > MOST_OUTSTANDING || acknowledged > MOST_ACKNOWLEDGED {
                continue;
            }
            let way = self.ways[dice.below(self.ways.len() as u64) as usize];
            if let Some((work, job)) = self.hand_over(way, format!("s{sender}-{number}")).await {
                let before = self.acknowledged.lock().unwrap().insert(work, job);
                assert_eq!(before, None, "two pieces of work got one job");
            }
        }
    }

    async fn hand_over(&self, way: Way, name: String) -> Option<(String, String)> {
        match way {
            Way::Trigger(event) => {
                let answer = self.once("POST", &format!("/api/events/{event}/trigger"), None).await?;
                let job = text(&answer["job_id"]);
                Some((job.clone(), job))
            }
            Way::Queue { refuse_once } => {
                let spec = json!({
                    "action_type": "webhook",
                    "action_config": self.receiver.action(json!({"work": name, "refuse_once": refuse_once})),
                    "unique_key": name,
                    "unique_for_s": 3600,
                    "max_retries": 2,
                    "retry_delays_s": [0.02],
                });
                loop {
                    if let Some(answer) = self.once("POST", "/api/queue", Some(spec.clone())).await {
                        return Some((name, text(&answer["id"])));
                    }
                }
            }
        }
    }

    /// One call; none if the program was killed before it answered.
    async fn once(&self, method: &str, path: &str, body: Option<serde_json::Value>) -> Option<serde_json::Value> {
        let api = self.api.subscribe().wait_for(Option::is_some).await.unwrap().clone().unwrap();
        match api.call(method, path, body).await {
            Ok((200..=299, answer)) => Some(answer),
            Ok((status, answer)) => panic!("{method} {path}: {status} {answer}"),
            Err(_) => {
                // Most likely it was killed; whoever kills is about to say so.
                tokio::time::sleep(Duration::from_millis(2)).await;
                None
            }
        }
    }
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

async fn define_events(api: &Api, receiver: &Receiver) {
    for (id, refuse_once) in [("accepted", false), ("refused-once", true)] {
        let event = json!({
            "id": id, "type": "load", "condition_type": "webhook", "action_type": "webhook",
            "action_config": receiver.action(json!({"work": "{{job.id}}", "refuse_once": refuse_once})),
            "max_retries": u32::from(refuse_once), "retry_backoff_minutes": 0,
        });
        api.done("POST", "/api/events", Some(event)).await;
    }
    for id in SCHEDULES {
        let event = json!({
            "id": id, "type": "load", "condition_type": "interval",
            "condition_expr": {"seconds": 1, "catch_up": {"all": 100}},
            "action_type": "webhook", "max_retries": 0,
            "action_config": receiver.action(json!({"work": "slot {{event.id}} {{slot}}"})),
        });
        api.done("POST", "/api/events", Some(event)).await;
    }
}

/// Kills the program and counts it; every so often looks into what it left.
struct Reaper {
    done: u32,
    database: PathBuf,
}

impl Reaper {
    async fn kill(&mut self, mut process: Process) {
        process.kill().await;
        self.done += 1;
        if self.done.is_multiple_of(LOOKED_INTO_EVERY) {
            copy_of(&self.database).assert_whole();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9_at_any_moment() {
    let kills: u32 = std::env::var("NEXAAS_CRASH_KILLS").map_or(200, |text| text.parse().expect("a number of kills"));
    let mut dice = Dice::announced("kill -9");
    let dir = crate::real_disk();
    let mut reaper = Reaper { done: 0, database: dir.path().join("nexaas.db") };
    let receiver = Receiver::start().await;
    let launch = Launch::on(dir.path());
    let (mut process, api) = launch.start().await;
    define_events(&api, &receiver).await;
    // A program that takes no jobs from outside is given triggers alone.
    let (status, _) = api.call("POST", "/api/queue", Some(json!({}))).await.unwrap();
    let ways = WAYS.into_iter().filter(|way| status == 422 || matches!(way, Way::Trigger(_))).collect();

    let load = Arc::new(Load {
        receiver: receiver.clone(),
        api: watch::Sender::new(Some(api)),
        acknowledged: Mutex::default(),
        over: watch::Sender::new(false),
        ways,
    });
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        senders.spawn(load.clone().send(sender, dice.fork()));
    }

    let (mut starts, mut resumes) = (Vec::new(), Vec::new());
    let mut usual_start = Duration::from_millis(100);
    while reaper.done < kills {
        tokio::time::sleep(dice.within(LIFE)).await;
        reaper.kill(process).await;
        load.api.send_replace(None);
        let down = Instant::now();
        let (next, api, began) = loop {
            let began = Instant::now();
            let mut next = launch.spawn();
            if reaper.done < kills && dice.one_in(EARLY) {
                tokio::time::sleep(dice.within(usual_start)).await;
                reaper.kill(next).await;
                continue;
            }
            let api = next.ready().await;
            break (next, api, began);
        };
        let ready = Instant::now();
        usual_start = ready - began;
        starts.push(usual_start);
        process = next;
        let mut arrivals = receiver.arrivals();
        load.api.send_replace(Some(api));
        let arrived = tokio::time::timeout(PATIENCE, arrivals.wait_for(|(_, at)| *at > ready)).await;
        let (_, arrived) = *arrived.unwrap_or_else(|_| panic!("no delivery after a start: {}", process.log())).unwrap();
        resumes.push(arrived - down);
    }

    load.over.send_replace(true);
    while let Some(sender) = senders.join_next().await {
        sender.unwrap();
    }
    let api = load.api.borrow().clone().unwrap();
    for id in SCHEDULES {
        api.done("PATCH", &format!("/api/events/{id}"), Some(json!({"status": "paused"}))).await;
    }
    let acknowledged = load.acknowledged.lock().unwrap().clone();
    let all = receiver.until(Duration::from_secs(20), |works| {
        acknowledged.keys().all(|work| works.get(work).is_some_and(|work| work.accepted))
    });
    if !all.await {
        eprintln!("the receiver still lacks acknowledged work, and nothing more arrives: {}", process.log());
    }
    api.idle(0).await;
    process.terminate().await;

    let left = Left::of(&reaper.database);
    let works = receiver.works();
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|(work, job)| !works.get(*work).is_some_and(|w| w.accepted) || left.state(job) != Some("succeeded"))
        .collect();
    let duplicates: Vec<_> = works.iter().filter(|(_, work)| work.duplicates() > 0).collect();
    resumes.sort_unstable();
    starts.sort_unstable();
    let worst = resumes.last().copied().unwrap_or_default();
    println!(
        "kills: {} acknowledged: {} lost: {} duplicate_keys: {} repeated_same_key: {} worst_resume_ms: {}",
        reaper.done,
        acknowledged.len(),
        lost.len(),
        duplicates.iter().map(|(_, work)| work.duplicates()).sum::<usize>(),
        works.values().map(crate::receiver::Work::repetitions).sum::<u32>(),
        worst.as_millis(),
    );
    println!(
        "median_resume_ms: {} median_start_ms: {} slots: {} works_delivered: {}",
        resumes[resumes.len() / 2].as_millis(),
        starts[starts.len() / 2].as_millis(),
        left.slots.values().map(Vec::len).sum::<usize>(),
        works.len(),
    );
    let some = |list: &[String]| list[..list.len().min(10)].join("\n");
    let lost: Vec<_> = lost.iter().map(|(work, job)| left.story(work, job, works.get(*work))).collect();
    assert!(lost.is_empty(), "acknowledged and not done:\n{}", some(&lost));
    let duplicates: Vec<_> = duplicates.iter().map(|(name, work)| format!("{name}: {work:?}")).collect();
    assert!(duplicates.is_empty(), "done twice, and the receiver cannot tell:\n{}", some(&duplicates));
    left.assert_one_job_per_slot();
    assert!(worst <= RESUMED_WITHIN, "resumed after {worst:?}");
}

/// What the database holds at the end.
struct Left {
    /// State and error by job.
    jobs: HashMap<String, (String, Option<String>)>,
    /// The slots that have a job, by event, in order: a slot with two jobs is there twice.
    slots: BTreeMap<String, Vec<i64>>,
    _copy: Copy,
}

impl Left {
    fn of(database: &Path) -> Self {
        let copy = copy_of(database);
        copy.assert_whole();
        let mut jobs = HashMap::new();
        let mut slots: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        {
            let mut statement =
                copy.connection.prepare("SELECT lower(hex(id)), state, error, event_id, slot FROM jobs").unwrap();
            let mut rows = statement.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                jobs.insert(row.get(0).unwrap(), (row.get(1).unwrap(), row.get(2).unwrap()));
                if let Some(slot) = row.get::<_, Option<i64>>(4).unwrap() {
                    slots.entry(row.get(3).unwrap()).or_default().push(slot);
                }
            }
        }
        slots.values_mut().for_each(|slots| slots.sort_unstable());
        Self { jobs, slots, _copy: copy }
    }

    fn state(&self, job: &str) -> Option<&str> {
        self.jobs.get(&job.replace('-', "")).map(|(state, _)| state.as_str())
    }

    fn story(&self, work: &str, job: &str, seen: Option<&crate::receiver::Work>) -> String {
        format!("{work}: job {job} is {:?}; the receiver saw {seen:?}", self.jobs.get(&job.replace('-', "")))
    }

    /// Every schedule runs each second and catches up on all it misses: no second is left out, none comes twice.
    fn assert_one_job_per_slot(&self) {
        assert_eq!(self.slots.keys().collect::<Vec<_>>(), SCHEDULES.iter().collect::<Vec<_>>());
        for (event, slots) in &self.slots {
            for pair in slots.windows(2) {
                assert_eq!(
                    pair[1] - pair[0],
                    1_000_000,
                    "{event}: the slots {} and {} follow each other",
                    pair[0],
                    pair[1]
                );
            }
        }
    }
}
