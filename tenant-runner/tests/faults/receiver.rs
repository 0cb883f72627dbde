//! Who receives the webhooks: counts what arrives, by the work it stands for and by its idempotency key, as a receiver that
//! wants each effect once would.
//!
//! A body names its work (`work`), its `job`, and may ask to be refused once (`refuse_once`) or to wait (`hold`).

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Debug, Deserialize)]
struct Body {
    work: String,
    job: String,
    #[serde(default)]
    refuse_once: bool,
    #[serde(default)]
    hold: bool,
}

/// What arrived for one piece of work.
#[derive(Debug, Default, Clone)]
pub struct Work {
    pub jobs: BTreeSet<String>,
    /// How often each idempotency key arrived.
    pub keys: BTreeMap<String, u32>,
    /// The key that was refused, whenever it comes.
    refused: Option<String>,
    pub accepted: bool,
}

impl Work {
    /// Effects that the receiver would count twice: jobs beyond the first, and keys beyond those that a refusal explains.
    pub fn duplicates(&self) -> usize {
        let explained = 1 + usize::from(self.refused.is_some());
        self.keys.len().saturating_sub(explained) + self.jobs.len().saturating_sub(1)
    }

    /// Deliveries that the receiver could tell to be repetitions.
    pub fn repetitions(&self) -> u32 {
        self.keys.values().map(|count| count - 1).sum()
    }
}

#[derive(Clone)]
pub struct Receiver(Arc<Inner>);

struct Inner {
    url: String,
    works: Mutex<HashMap<String, Work>>,
    accepted: AtomicU64,
    /// How many have arrived, and when the last did.
    arrivals: watch::Sender<(u64, Instant)>,
    open: watch::Sender<bool>,
    server: Mutex<JoinSet<()>>,
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let this = Self(Arc::new(Inner {
            url: format!("http://{}/", listener.local_addr().unwrap()),
            works: Mutex::default(),
            accepted: AtomicU64::default(),
            arrivals: watch::Sender::new((0, Instant::now())),
            open: watch::Sender::new(true),
            server: Mutex::default(),
        }));
        let app = Router::new().route("/", post(receive)).with_state(this.clone());
        this.0.server.lock().unwrap().spawn(async move { axum::serve(listener, app).await.unwrap() });
        this
    }

    /// The action of a webhook with this body, which gets the job's id added.
    pub fn action(&self, mut body: Value) -> Value {
        body["job"] = json!("{{job.id}}");
        json!({ "url": self.0.url, "body": body })
    }

    /// From here on as if nothing had arrived.
    pub fn forget(&self) {
        self.0.works.lock().unwrap().clear();
    }

    /// Whether those that ask to wait are let go.
    pub fn open(&self, open: bool) {
        self.0.open.send_replace(open);
    }

    pub fn arrivals(&self) -> watch::Receiver<(u64, Instant)> {
        self.0.arrivals.subscribe()
    }

    pub fn works(&self) -> HashMap<String, Work> {
        self.0.works.lock().unwrap().clone()
    }

    /// How many pieces of work have been accepted, those of schedules aside.
    pub fn accepted_works(&self) -> u64 {
        self.0.accepted.load(Ordering::Relaxed)
    }

    /// Waits until `enough` holds; `false` when nothing more arrives for as long as `silence`.
    pub async fn until(&self, silence: Duration, enough: impl Fn(&HashMap<String, Work>) -> bool) -> bool {
        let mut arrivals = self.arrivals();
        loop {
            arrivals.borrow_and_update();
            if enough(&self.0.works.lock().unwrap()) {
                return true;
            }
            if tokio::time::timeout(silence, arrivals.changed()).await.is_err() {
                return false;
            }
        }
    }

    /// Notes an arrival; answers whether it is accepted.
    fn note(&self, body: Body, key: String) -> bool {
        let scheduled = body.work.starts_with("slot ");
        let mut works = self.0.works.lock().unwrap();
        let work = works.entry(body.work).or_default();
        work.jobs.insert(body.job);
        if body.refuse_once && work.refused.is_none() {
            work.refused = Some(key.clone());
        }
        let refused = work.refused.as_ref() == Some(&key);
        *work.keys.entry(key).or_default() += 1;
        if !refused && !work.accepted {
            work.accepted = true;
            self.0.accepted.fetch_add(u64::from(!scheduled), Ordering::Relaxed);
        }
        !refused
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    assert_eq!(headers["webhook-id"], key.as_str());
    let body: Body = serde_json::from_slice(&body).unwrap();
    let (hold, pause) =
        (body.hold, Duration::from_micros(u64::from(key.bytes().map(u32::from).sum::<u32>() % 40) * 100));
    let accepted = receiver.note(body, key);
    receiver.0.arrivals.send_modify(|(count, at)| (*count, *at) = (*count + 1, Instant::now()));
    // Work takes a while, or nobody would ever be killed in the middle of it.
    tokio::time::sleep(pause).await;
    if hold {
        let mut open = receiver.0.open.subscribe();
        let _ = open.wait_for(|open| *open).await;
    }
    if accepted { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }
}
