//! Conversations with agents.
//!
//! Always true here: a turn belongs to the engine, not to whoever watches it; everything a watcher is shown was stored first,
//! with a sequence number, and can be shown again; one turn at a time runs in a session.

mod rows;

use crate::agent::{self, Agents};
use crate::bus::{Bus, Fact};
use crate::error::{EngineError, Result};
use crate::model::Origin;
use crate::retention::Keep;
use crate::store::{Signal, Store, to_micros};
use chrono::{DateTime, Utc};
use futures::Stream;
use nexaas_common::clock::SharedClock;
use nexaas_common::id::BootId;
use nexaas_common::task::{OnExit, Supervisor};
use rows::Begun;
use serde::Serialize;
use serde_json::json;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

const LONGEST_MESSAGE: usize = 256 * 1024;
/// Turns that run at once, over all sessions.
const MOST_TURNS: usize = 64;
/// Pieces of an answer that wait to be stored.
const PENDING: usize = 64;
/// Pieces that arrive meanwhile are stored together, up to this size.
const LARGEST_CHUNK: usize = 8 * 1024;

/// Sessions that nobody touches end; the pieces of an answer are only for replay, the answer itself is a message.
pub const KEEP: &[Keep] = &[
    Keep {
        table: "chat_sessions",
        sql: "DELETE FROM chat_sessions WHERE id IN (
                  SELECT id FROM chat_sessions WHERE turn_boot IS NULL AND (
                      updated_at < :before OR updated_at <= (
                          SELECT updated_at FROM chat_sessions ORDER BY updated_at DESC LIMIT 1 OFFSET :rows))
                  ORDER BY updated_at LIMIT :at_once)",
        rows: 5_000,
        age: chrono::Duration::days(180),
    },
    Keep {
        table: "chat_events",
        sql: "DELETE FROM chat_events WHERE (session_id, seq) IN (
                  SELECT e.session_id, e.seq FROM chat_events e JOIN chat_sessions s ON s.id = e.session_id
                  WHERE s.turn_boot IS NULL AND (e.created_at < :before OR e.created_at <= (
                      SELECT created_at FROM chat_events ORDER BY created_at DESC LIMIT 1 OFFSET :rows))
                  ORDER BY e.created_at LIMIT :at_once)",
        rows: 200_000,
        age: chrono::Duration::days(7),
    },
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChatEventKind {
    /// A piece of the answer.
    Chunk,
    /// The answer is complete; its text was in the chunks.
    Done,
    /// The turn failed; `content` says why.
    Error,
}

impl ChatEventKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chunk => "chunk",
            Self::Done => "done",
            Self::Error => "error",
        }
    }
}

/// What a watcher of a session is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChatEvent {
    #[serde(rename = "type")]
    pub kind: ChatEventKind,
    pub content: String,
    pub session_id: String,
    pub seq: u64,
}

/// Ends when the turn has.
pub type ChatStream = Pin<Box<dyn Stream<Item = ChatEvent> + Send>>;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChatMessage {
    /// `user` or `assistant`.
    pub role: String,
    pub content: String,
    pub created_at: DateTime<Utc>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChatSession {
    pub id: String,
    pub agent: String,
    pub title: String,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub last_seq: u64,
    /// Whether a turn runs now.
    pub running: bool,
    /// Only where one session is asked for.
    pub messages: Vec<ChatMessage>,
}

/// Clones share all sessions.
#[derive(Debug, Clone)]
pub struct Chat(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    bus: Bus,
    clock: SharedClock,
    boot: BootId,
    agents: Agents,
    supervisor: Supervisor,
    changed: Signal,
    turns: Arc<tokio::sync::Semaphore>,
}

impl Chat {
    pub(crate) async fn open(
        store: Store,
        bus: Bus,
        clock: SharedClock,
        boot: BootId,
        agents: Agents,
        supervisor: Supervisor,
    ) -> Result<Self> {
        let now = to_micros(clock.now());
        let interrupted = store.write(move |tx| rows::recover(tx, boot, now)).await?;
        if interrupted > 0 {
            tracing::warn!(interrupted, "turns of an earlier process were cut short; their sessions say so");
        }
        let changed = store.signal();
        let turns = Arc::new(tokio::sync::Semaphore::new(MOST_TURNS));
        Ok(Self(Arc::new(Inner { store, bus, clock, boot, agents, supervisor, changed, turns })))
    }

    /// Starts a turn and shows it. Without a session, a new one begins; the session's own agent answers when `agent` is empty.
    pub async fn send(&self, agent: &str, message: &str, session_id: Option<&str>) -> Result<ChatStream> {
        let inner = &self.0;
        if message.trim().is_empty() {
            return Err(EngineError::invalid("message", "must not be empty"));
        }
        if message.len() > LONGEST_MESSAGE {
            return Err(EngineError::invalid("message", format!("must be at most {} KiB", LONGEST_MESSAGE / 1024)));
        }
        let session_id = session_id.filter(|s| !s.is_empty()).map(str::to_owned);
        if session_id.is_none() && agent.is_empty() {
            return Err(EngineError::invalid("agent", "must name an agent"));
        }
        if !agent.is_empty() {
            inner.agents.check(agent)?;
        }
        let turn = inner
            .turns
            .clone()
            .try_acquire_owned()
            .map_err(|_| EngineError::unavailable("Too many chats are running"))?;
        let (agent, text, boot, now) = (agent.to_owned(), message.to_owned(), inner.boot, to_micros(inner.clock.now()));
        let bus = inner.bus.clone();
        let begun = inner
            .store
            .write(move |tx| {
                let begun = rows::begin(tx, session_id.as_deref(), &agent, &text, boot, now)?;
                let data = json!({"session_id": begun.session_id, "agent": begun.agent});
                bus.publish(tx, &Fact::new("chat.started", "chat", data))?;
                Ok(begun)
            })
            .await?;
        let (session_id, after) = (begun.session_id.clone(), begun.last_seq);
        let (this, message) = (self.clone(), message.to_owned());
        let started = inner.supervisor.spawn("chat-turn", OnExit::Expected, move |token| async move {
            let _turn = turn;
            this.turn(begun, message, token).await;
        });
        if started.is_none() {
            self.end(&session_id, "", Err(EngineError::unavailable("The runner is stopping"))).await?;
        }
        Ok(self.watch(session_id, after))
    }

    /// What a session showed after `after_seq`, then what it shows until the running turn, if one runs, ends.
    pub async fn resume(&self, session_id: &str, after_seq: u64) -> Result<ChatStream> {
        self.exists(session_id).await?;
        Ok(self.watch(session_id.to_owned(), after_seq))
    }

    async fn exists(&self, session_id: &str) -> Result<()> {
        let id = session_id.to_owned();
        self.0.store.read(move |c| rows::session(c, &id)).await.map(drop)
    }

    /// The latest sessions, without their messages.
    pub async fn sessions(&self, agent: Option<&str>, limit: u32) -> Result<Vec<ChatSession>> {
        let agent = agent.filter(|a| !a.is_empty()).map(str::to_owned);
        let limit = if limit == 0 { 50 } else { limit.min(500) };
        self.0.store.read(move |c| rows::sessions(c, agent.as_deref(), limit)).await
    }

    /// One session with its messages.
    pub async fn session(&self, id: &str) -> Result<ChatSession> {
        let id = id.to_owned();
        self.0
            .store
            .read(move |c| {
                let mut session = rows::session(c, &id)?;
                session.messages = rows::messages(c, &id)?;
                Ok(session)
            })
            .await
    }

    fn watch(&self, session_id: String, after: u64) -> ChatStream {
        let watcher = Watcher {
            store: self.0.store.clone(),
            changed: self.0.changed.listen(),
            session_id,
            after,
            page: VecDeque::new(),
        };
        Box::pin(futures::stream::unfold(watcher, |mut watcher| async move {
            let event = watcher.next().await?;
            Some((event, watcher))
        }))
    }

    async fn turn(&self, begun: Begun, message: String, stopping: CancellationToken) {
        let inner = &self.0;
        let session_id = begun.session_id.clone();
        let (sink, mut pieces) = mpsc::channel::<String>(PENDING);
        let origin = Origin {
            agent: Some(begun.agent.clone()),
            source: "chat",
            session_id: Some(session_id.clone()),
            job_id: None,
        };
        let running = inner.agents.turn(&begun.agent, begun.history, message, origin, sink, &stopping);
        let storing = async {
            let mut shown = String::new();
            while let Some(mut text) = pieces.recv().await {
                while text.len() < LARGEST_CHUNK {
                    match pieces.try_recv() {
                        Ok(more) => text.push_str(&more),
                        Err(_) => break,
                    }
                }
                shown.push_str(&text);
                if let Err(error) = self.append(&session_id, ChatEventKind::Chunk, text).await {
                    // The answer goes on and is stored as a whole at the end.
                    tracing::error!(
                        error = error.chain(),
                        session = session_id,
                        "a piece of an answer could not be stored"
                    );
                }
            }
            shown
        };
        let (outcome, shown) = tokio::join!(running, storing);
        let outcome = match outcome {
            Ok(completion) => {
                let remark = agent::remark(&completion);
                let told = if remark.is_empty() {
                    Ok(())
                } else {
                    self.append(&session_id, ChatEventKind::Chunk, remark.to_owned()).await
                };
                told.map(|()| agent::answer(&completion))
            }
            Err(error) => {
                tracing::warn!(error = error.chain(), session = session_id, agent = begun.agent, "a turn failed");
                Err(error)
            }
        };
        if let Err(error) = self.end(&session_id, &shown, outcome).await {
            tracing::error!(error = error.chain(), session = session_id, "the end of a turn could not be stored");
        }
    }

    async fn append(&self, session_id: &str, kind: ChatEventKind, content: String) -> Result<()> {
        let (id, now, changed) = (session_id.to_owned(), to_micros(self.0.clock.now()), self.0.changed.clone());
        self.0
            .store
            .write(move |tx| {
                rows::append(tx, &id, kind, &content, now)?;
                changed.raise();
                Ok(())
            })
            .await
    }

    /// Stores how a turn ended. What was shown of a failed answer stays part of the conversation.
    async fn end(&self, session_id: &str, shown: &str, outcome: Result<String>) -> Result<()> {
        let (id, now, changed, bus) =
            (session_id.to_owned(), to_micros(self.0.clock.now()), self.0.changed.clone(), self.0.bus.clone());
        let (kind, content, answer) = match outcome {
            Ok(answer) => (ChatEventKind::Done, String::new(), answer),
            Err(error) => (ChatEventKind::Error, error.public().to_owned(), shown.to_owned()),
        };
        self.0
            .store
            .write(move |tx| {
                rows::end(tx, &id, kind, &content, &answer, now)?;
                let name = if kind == ChatEventKind::Done { "chat.completed" } else { "chat.failed" };
                bus.publish(tx, &Fact::new(name, "chat", json!({"session_id": id})))?;
                changed.raise();
                Ok(())
            })
            .await
    }
}

struct Watcher {
    store: Store,
    changed: watch::Receiver<u64>,
    session_id: String,
    after: u64,
    page: VecDeque<ChatEvent>,
}

impl Watcher {
    async fn next(&mut self) -> Option<ChatEvent> {
        loop {
            if let Some(event) = self.page.pop_front() {
                self.after = event.seq;
                return Some(event);
            }
            // Marked as seen before reading, so that what is stored meanwhile wakes the wait below.
            self.changed.borrow_and_update();
            let (id, after) = (self.session_id.clone(), self.after);
            match self.store.read(move |c| rows::events_after(c, &id, after)).await {
                Ok((page, running)) if page.is_empty() => {
                    if !running {
                        return None;
                    }
                    self.changed.changed().await.ok()?;
                }
                Ok((page, _)) => self.page = page,
                Err(error) => {
                    tracing::error!(error = error.chain(), "a watcher of a chat is cut off");
                    return None;
                }
            }
        }
    }
}
