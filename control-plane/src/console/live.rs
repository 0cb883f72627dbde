//! What is watched: fragments over server-sent events, sent when they differ from the last ones sent. A stream ends by itself
//! after a while; the browser comes back and is asked again who it is.

use super::page::{Page, Result};
use super::tenant::{self, Parts};
use super::tenants::table;
use crate::api::extract::TenantPath;
use crate::domain::TenantId;
use crate::error::{Error, Kind};
use crate::service::Services;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::Stream;
use http::HeaderValue;
use nexaas_dashboard::Template;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

/// After this the browser must come back.
const LIFE: Duration = Duration::from_secs(15 * 60);
/// Changes within this time are one.
const CALM: Duration = Duration::from_millis(100);
/// Looked at again even without news.
const SWEEP: Duration = Duration::from_secs(20);

fn stream(events: impl Stream<Item = std::result::Result<Event, Infallible>> + Send + 'static) -> Response {
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(15));
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    // A proxy in front must not collect the events.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// A fragment as an event; line ends are the only thing the format cannot carry as they are.
fn fragment(name: &'static str, template: &impl Template) -> Option<Event> {
    match template.render() {
        Ok(html) => Some(Event::default().event(name).data(html.replace('\r', ""))),
        Err(error) => {
            crate::http::problem::log(&Error::internal(error));
            None
        }
    }
}

/// Waits for news about `only` (or anybody), then until it is calm. False when there will be none any more.
async fn news(changes: &mut broadcast::Receiver<TenantId>, only: Option<TenantId>, until: Instant) -> bool {
    let wait = async {
        loop {
            match changes.recv().await {
                Ok(id) if only.is_none_or(|o| o == id) => return true,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return true,
                Err(RecvError::Closed) => return false,
            }
        }
    };
    tokio::select! {
        more = wait => if !more { return false },
        () = tokio::time::sleep(SWEEP) => {}
        () = tokio::time::sleep_until(until) => return false,
    }
    tokio::time::sleep(CALM).await;
    while !matches!(
        changes.try_recv(),
        Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed)
    ) {}
    true
}

pub async fn tenants(State(services): State<Services>, page: Page) -> Response {
    let may_create = page.may_change();
    let until = Instant::now() + LIFE;
    stream(async_stream::stream! {
        // Subscribed before the first look, so that nothing falls between.
        let mut changes = services.tenants.changes();
        let mut last = None;
        loop {
            let now = table(&services, may_create).await;
            if last.as_ref() != Some(&now) {
                if let Some(event) = fragment("tenants", &now) {
                    yield Ok(event);
                }
                last = Some(now);
            }
            if !news(&mut changes, None, until).await {
                return;
            }
        }
    })
}

pub async fn tenant(
    State(services): State<Services>,
    page: Page,
    slug: std::result::Result<TenantPath, Error>,
) -> Result {
    let TenantPath(slug) = slug?;
    let may_change = page.may_change();
    let until = Instant::now() + LIFE;
    let mut changes = services.tenants.changes();
    let id = services.tenants.get(&slug).await?.id;
    Ok(stream(async_stream::stream! {
        let mut last: Option<Parts> = None;
        loop {
            match look(&services, &slug, id, may_change).await {
                Ok(Some(now)) => {
                    // Written out part by part: only what changed is swapped, so that nobody loses their place.
                    let differs = |f: fn(&Parts, &Parts) -> bool| last.as_ref().is_none_or(|l| f(l, &now));
                    let events = [
                        differs(|a, b| a.summary != b.summary).then(|| fragment("summary", &now.summary)),
                        differs(|a, b| a.progress != b.progress).then(|| fragment("progress", &now.progress)),
                        differs(|a, b| a.conditions != b.conditions).then(|| fragment("conditions", &now.conditions)),
                        differs(|a, b| a.operations != b.operations).then(|| fragment("operations", &now.operations)),
                        differs(|a, b| a.events != b.events).then(|| fragment("events", &now.events)),
                    ];
                    for event in events.into_iter().flatten().flatten() {
                        yield Ok(event);
                    }
                    last = Some(now);
                }
                Ok(None) => {
                    if let Some(event) = fragment("summary", &tenant::gone(&slug)) {
                        yield Ok(event);
                    }
                    // Held open: a browser that reconnects would only be told that there is nothing.
                    tokio::time::sleep_until(until).await;
                    return;
                }
                // The page keeps what it shows until the next look succeeds.
                Err(error) => crate::http::problem::log(&error),
            }
            if !news(&mut changes, Some(id), until).await {
                return;
            }
        }
    }))
}

/// `None` once the tenant is gone, also when its name went to another one.
async fn look(
    services: &Services,
    slug: &crate::domain::Slug,
    id: TenantId,
    may_change: bool,
) -> std::result::Result<Option<Parts>, Error> {
    match services.tenants.get(slug).await {
        Ok(found) if found.id == id => tenant::parts(services, &found, may_change).await.map(Some),
        Ok(_) => Ok(None),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
