//! Chat: one WebSocket, many turns, one at a time. `{agent, message, session_id?}` starts a turn;
//! `{session_id, after_seq}` follows a session from where a lost connection left it. The answers are
//! `{type: chunk|done|error, content, session_id, seq}`. A turn goes on when its watcher leaves.

use super::error::{ApiError, ApiResult};
use super::extract::{Path, Query};
use super::origin;
use crate::app::App;
use crate::listener::Peer;
use crate::principal::{CHAT_PROTOCOL, Credential, stream_end};
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::{Extension, Json};
use futures::StreamExt as _;
use nexaas_engine::chat::{ChatEventKind, ChatStream};
use serde::Deserialize;
use serde_json::{Value, json};
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

const MESSAGE_BYTES: usize = 256 * 1024;
const PING: Duration = Duration::from_secs(30);
/// Without a sign of life for this long the peer is gone.
const SILENCE: Duration = Duration::from_secs(90);
const SEND: Duration = Duration::from_secs(20);

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Sessions {
    #[serde(default)]
    agent: Option<String>,
    limit: Option<u32>,
}

/// The conversations, the latest first.
#[utoipa::path(get, path = "/api/chat/sessions", tag = "chat", params(Sessions), responses((status = 200, body = Vec<super::openapi::shapes::ChatSession>)))]
pub async fn sessions(State(app): State<App>, Query(query): Query<Sessions>) -> ApiResult<Json<Value>> {
    let agent = query.agent.filter(|a| !a.is_empty());
    Ok(Json(json!(app.engine().chat().sessions(agent.as_deref(), query.limit.unwrap_or(50).clamp(1, 500)).await?)))
}

/// One conversation, with what was said.
#[utoipa::path(get, path = "/api/chat/sessions/{id}", tag = "chat", params(("id" = String, Path, description = "The session")), responses((status = 200, body = super::openapi::shapes::ChatSession)))]
pub async fn session(State(app): State<App>, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    Ok(Json(json!(app.engine().chat().session(&id).await?)))
}

/// Authentication has already happened, before the upgrade; the Origin is checked here.
#[utoipa::path(get, path = "/api/chat", tag = "chat", responses((status = 101, description = "A WebSocket"), (status = 400, body = super::openapi::shapes::Problem), (status = 403, body = super::openapi::shapes::Problem), (status = 426, body = super::openapi::shapes::Problem)))]
pub async fn socket(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    Extension(credential): Extension<Credential>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> ApiResult<Response> {
    let settings = app.engine().settings();
    let rules = origin::Rules {
        public_url: settings.public_url.as_ref(),
        allowed: app.cors_origins(),
        behind_control_plane: peer.control_plane,
    };
    origin::check(&headers, &rules).map_err(ApiError::forbidden)?;
    let upgrade = upgrade.map_err(|e| ApiError::new(e.status(), e.body_text()))?;
    let tracker = app.sockets().clone();
    Ok(upgrade
        .max_message_size(MESSAGE_BYTES)
        .max_frame_size(MESSAGE_BYTES)
        .read_buffer_size(8 * 1024)
        .write_buffer_size(0)
        .protocols([CHAT_PROTOCOL])
        .on_upgrade(move |socket| {
            tracker
                .track_future(Conversation { app, socket, turn: None, answered: false, waiting: None }.run(credential))
        }))
}

#[derive(Debug, Deserialize)]
struct Ask {
    #[serde(default)]
    agent: String,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    session_id: Option<String>,
    #[serde(default)]
    after_seq: Option<u64>,
}

struct Conversation {
    app: App,
    socket: WebSocket,
    turn: Option<ChatStream>,
    /// The last event said that an answer is complete. The stream may end right after it, or go on replaying.
    answered: bool,
    /// What was asked between that event and the end of its stream.
    waiting: Option<String>,
}

/// Why the loop ends.
enum End {
    Gone,
    Close(u16, &'static str),
}

impl Conversation {
    async fn run(mut self, credential: Credential) {
        if let End::Close(code, reason) = self.talk(credential).await {
            let frame = CloseFrame { code, reason: reason.into() };
            let _ = tokio::time::timeout(SEND, self.socket.send(Message::Close(Some(frame)))).await;
        }
    }

    async fn talk(&mut self, credential: Credential) -> End {
        let mut end = pin!(stream_end(self.app.clone(), credential));
        let mut ping = interval(PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let step = tokio::select! {
                () = &mut end => {
                    return if self.app.draining().is_cancelled() {
                        End::Close(close_code::AWAY, "the runner stops; come back and resume")
                    } else {
                        End::Close(close_code::POLICY, "the credential no longer holds")
                    };
                }
                _ = ping.tick() => {
                    if heard.elapsed() > SILENCE {
                        return End::Gone;
                    }
                    self.send(Message::Ping(Vec::new().into())).await
                }
                event = next(&mut self.turn) => match event {
                    Some(event) => {
                        self.answered = matches!(event.kind, ChatEventKind::Done | ChatEventKind::Error);
                        self.send(Message::Text(json!(event).to_string().into())).await
                    }
                    None => {
                        self.turn = None;
                        match self.waiting.take() {
                            Some(text) => self.asked(&text).await,
                            None => Ok(()),
                        }
                    }
                },
                received = self.socket.recv() => {
                    heard = Instant::now();
                    match received {
                        None | Some(Err(_) | Ok(Message::Close(_))) => return End::Gone,
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
                        Some(Ok(Message::Binary(_))) => return End::Close(close_code::UNSUPPORTED, "text only"),
                        Some(Ok(Message::Text(text))) => self.asked(&text).await,
                    }
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn asked(&mut self, text: &str) -> Result<(), End> {
        if self.turn.is_some() && self.answered && self.waiting.is_none() {
            self.waiting = Some(text.to_owned());
            return Ok(());
        }
        if self.turn.is_some() {
            return self.complain("", "The agent is still answering; wait for done").await;
        }
        let ask: Ask = match serde_json::from_str(text) {
            Ok(ask) => ask,
            Err(error) => {
                return self
                    .complain("", &format!("The message must be {{agent, message, session_id?}}: {error}"))
                    .await;
            }
        };
        let session = ask.session_id.clone().unwrap_or_default();
        let started = match (ask.message, ask.session_id.filter(|s| !s.is_empty())) {
            (Some(message), session) => self.app.engine().chat().send(&ask.agent, &message, session.as_deref()).await,
            (None, Some(session)) => self.app.engine().chat().resume(&session, ask.after_seq.unwrap_or(0)).await,
            (None, None) => return self.complain("", "message is required").await,
        };
        match started {
            Ok(turn) => {
                self.turn = Some(turn);
                self.answered = false;
                Ok(())
            }
            Err(error) => {
                let error = ApiError::from(error);
                error.log();
                let detail = error.detail().to_owned();
                self.complain(&session, &detail).await
            }
        }
    }

    async fn complain(&mut self, session: &str, why: &str) -> Result<(), End> {
        let text = json!({ "type": "error", "content": why, "session_id": session, "seq": 0 }).to_string();
        self.send(Message::Text(text.into())).await
    }

    /// A peer that does not read is given up.
    async fn send(&mut self, message: Message) -> Result<(), End> {
        match tokio::time::timeout(SEND, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }
}

/// The next event of the running turn; never, when none runs.
async fn next(turn: &mut Option<ChatStream>) -> Option<nexaas_engine::chat::ChatEvent> {
    match turn {
        Some(turn) => turn.next().await,
        None => std::future::pending().await,
    }
}
