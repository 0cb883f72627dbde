//! The bus of a tenant as server-sent events. The runner's many kinds of events become a few topics, each sent at most once
//! within a short while, so that a burst of jobs costs a page one refresh and not hundreds.
//!
//! Always true: an event's id is the sequence number of the bus up to which everything has been told, so a browser that
//! comes back misses nothing.

use super::AppState;
use super::failure::Failure;
use super::session::Session;
use crate::error::{Error, Kind, Result};
use crate::runner_client::model::BusEvent;
use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures::Stream;
use futures::StreamExt as _;
use http::HeaderMap;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// What happens within this time is told together.
const TOGETHER: Duration = Duration::from_millis(150);
/// A stream ends after this long; the browser opens it again, and its session is looked at anew.
const LIFE: Duration = Duration::from_secs(30 * 60);

pub async fn bus(
    State(state): State<AppState>,
    session: Session,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = std::result::Result<Event, Infallible>>>, Failure> {
    let permit = permit(&state)?;
    let after = last_event_id(&headers).unwrap_or(0);
    let events = session.api.watch_bus(after).await?;
    let told = topics_of(events, permit)
        .map(|(topic, seq)| Ok(Event::default().event(topic).id(seq.to_string()).data(seq.to_string())));
    Ok(Sse::new(told).keep_alive(keep_alive()))
}

/// A place among the open streams, kept until the stream ends.
pub fn permit(state: &AppState) -> Result<OwnedSemaphorePermit> {
    state
        .streams
        .clone()
        .try_acquire_owned()
        .map_err(|_| Error::new(Kind::Exhausted { resource: "open pages" }, "Too many pages are open; close some"))
}

pub fn keep_alive() -> KeepAlive {
    KeepAlive::new().interval(Duration::from_secs(15))
}

pub fn last_event_id(headers: &HeaderMap) -> Option<u64> {
    headers.get("last-event-id")?.to_str().ok()?.trim().parse().ok()
}

fn topics_of(
    mut events: impl Stream<Item = Result<BusEvent>> + Send + Unpin + 'static,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = (&'static str, u64)> + Send {
    async_stream::stream! {
        let _permit = permit;
        let end = tokio::time::Instant::now() + LIFE;
        let mut due = end;
        let mut topics = BTreeSet::new();
        let mut seq = 0;
        loop {
            tokio::select! {
                next = events.next() => match next {
                    Some(Ok(event)) => {
                        seq = event.seq;
                        let stale = topics_for(&event.kind);
                        if topics.is_empty() && !stale.is_empty() {
                            due = tokio::time::Instant::now() + TOGETHER;
                        }
                        topics.extend(stale);
                    }
                    // The browser comes back by itself and goes on from the last id.
                    Some(Err(error)) => {
                        crate::http::problem::log(&error);
                        break;
                    }
                    None => break,
                },
                () = tokio::time::sleep_until(due) => {
                    if topics.is_empty() {
                        break;
                    }
                    for topic in std::mem::take(&mut topics) {
                        yield (topic, seq);
                    }
                    due = end;
                }
            }
        }
        for topic in topics {
            yield (topic, seq);
        }
    }
}

/// What an event makes stale.
fn topics_for(kind: &str) -> &'static [&'static str] {
    match kind.split('.').next().unwrap_or_default() {
        "job" if matches!(kind, "job.succeeded" | "job.failed" | "job.dead" | "job.cancelled") => {
            &["queue", "events", "usage"]
        }
        "job" => &["queue"],
        "event" => &["events"],
        "workspace" => &["workspace"],
        "alert" => &["alerts"],
        "chat" | "usage" => &["usage"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::{Semaphore, mpsc};

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_jobs_is_told_once_with_the_last_number() {
        let (send, receive) = mpsc::channel(600);
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let mut told = Box::pin(topics_of(tokio_stream::wrappers::ReceiverStream::new(receive), permit));
        for seq in 1..=500 {
            send.send(Ok(BusEvent { seq, kind: "job.started".into() })).await.unwrap();
        }
        assert_eq!(told.next().await, Some(("queue", 500)));
        send.send(Ok(BusEvent { seq: 501, kind: "workspace.changed".into() })).await.unwrap();
        assert_eq!(told.next().await, Some(("workspace", 501)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_breaks_tells_what_it_knows_and_ends() {
        let permits = Arc::new(Semaphore::new(1));
        let events = futures::stream::iter([
            Ok(BusEvent { seq: 7, kind: "alert.raised".into() }),
            Err(Error::timeout("runner")),
        ]);
        let told: Vec<_> = topics_of(events, permits.clone().acquire_owned().await.unwrap()).collect().await;
        assert_eq!(told, [("alerts", 7)]);
        assert_eq!(permits.available_permits(), 1);
    }
}
