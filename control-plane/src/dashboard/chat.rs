//! Conversations: a message starts a turn at the runner, and the page then follows the stored events of the session. The turn
//! goes on whether anybody watches or not, and a reload takes it up where it is.

use super::AppState;
use super::failure::{Failure, said};
use super::session::Session;
use super::stream::{keep_alive, last_event_id, permit};
use crate::error::{Error, Result};
use crate::runner_client::TenantApi;
use crate::runner_client::model::{ChatEvent, ChatKind};
use axum::Json;
use axum::extract::{Form, Path, Query, State};
use axum::response::Sse;
use axum::response::sse::Event;
use futures::{Stream, StreamExt as _};
use http::HeaderMap;
use nexaas_dashboard::markdown;
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use tokio::sync::OwnedSemaphorePermit;

const MAX_MESSAGE: usize = 32_000;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ChatForm {
    agent: String,
    message: String,
    session_id: String,
}

/// Starts a turn. Answers with the session and the number after which its events are to be read.
pub async fn send(session: Session, Form(form): Form<ChatForm>) -> Result<Json<Value>, Failure> {
    let message = form.message.trim();
    if message.is_empty() {
        return Err(Error::invalid("message", "must not be empty").into());
    }
    if message.len() > MAX_MESSAGE {
        return Err(Error::invalid("message", format!("must be at most {MAX_MESSAGE} bytes long")).into());
    }
    if form.agent.is_empty() {
        return Err(Error::invalid("agent", "must name the agent to talk to").into());
    }
    let first = session.api.send_chat(&form.agent, message, &form.session_id).await?;
    Ok(Json(json!({"session_id": first.session_id, "seq": first.seq.saturating_sub(1)})))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct From {
    /// Events up to this one are known.
    after: u64,
    /// After a reload: the session's last stored event. Of what is stored up to it, only the running turn is told.
    upto: u64,
}

pub async fn stream(
    State(state): State<AppState>,
    session: Session,
    Path(id): Path<String>,
    Query(from): Query<From>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = std::result::Result<Event, Infallible>>>, Failure> {
    let permit = permit(&state)?;
    let (after, upto) = match last_event_id(&headers) {
        Some(seq) => (seq, 0),
        None => (from.after, from.upto),
    };
    let events = session.api.resume_chat(&id, after).await?;
    let told = told(events, upto, session.api.clone(), id, permit).map(|(seq, name, data)| {
        let event = Event::default().event(name).data(data.to_string());
        Ok(if seq > 0 { event.id(seq.to_string()) } else { event })
    });
    Ok(Sse::new(told).keep_alive(keep_alive()))
}

type Told = (u64, &'static str, Value);

/// The events of a session for a page. Ends with `done`, `failed`, or `idle` when no turn is running.
fn told(
    mut events: impl Stream<Item = Result<ChatEvent>> + Send + Unpin + 'static,
    upto: u64,
    api: TenantApi,
    id: String,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Told> + Send {
    async_stream::stream! {
        let _permit = permit;
        let mut earlier = String::new();
        while let Some(next) = events.next().await {
            let event = match next {
                Ok(event) => event,
                Err(error) => {
                    crate::http::problem::log(&error);
                    // Not the turn's own failure: the browser comes back and goes on from the last id.
                    if error.kind.retryable() {
                        return;
                    }
                    yield (0, "failed", json!({"content": said(&error)}));
                    return;
                }
            };
            if event.seq <= upto {
                match event.kind {
                    ChatKind::Chunk => earlier.push_str(&event.content),
                    ChatKind::Done | ChatKind::Failed => earlier.clear(),
                }
                if event.seq == upto && !earlier.is_empty() {
                    yield (event.seq, "chunk", json!({"content": std::mem::take(&mut earlier)}));
                }
                continue;
            }
            match event.kind {
                ChatKind::Chunk => yield (event.seq, "chunk", json!({"content": event.content})),
                ChatKind::Done => {
                    yield (event.seq, "done", json!({"html": answer(&api, &id, event.content).await}));
                    return;
                }
                ChatKind::Failed => {
                    yield (event.seq, "failed", json!({"content": event.content}));
                    return;
                }
            }
        }
        yield (0, "idle", json!({}));
    }
}

/// The finished answer as safe markup: the stored message, or what the event itself carries.
async fn answer(api: &TenantApi, id: &str, content: String) -> String {
    let stored = match api.chat_session(id).await {
        Ok(session) => session.messages.into_iter().next_back().filter(|m| !m.from_person).map(|m| m.content),
        Err(error) => {
            crate::http::problem::log(&error);
            None
        }
    };
    markdown::render(&stored.unwrap_or(content)).0
}
