//! The live stream of what happens, as server-sent events that can be resumed.

use super::error::{ApiError, ApiResult};
use super::extract::Query;
use crate::app::App;
use crate::principal::{Credential, only, stream_end};
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::future::ready;
use futures::{Stream, StreamExt as _};
use nexaas_engine::bus::{BusEvent, kind_matches};
use serde::Deserialize;
use serde_json::json;
use std::convert::Infallible;
use std::time::Duration;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Watch {
    /// Only facts of these types, with commas between them; `job.*` is a family.
    #[serde(rename = "type", default)]
    kinds: String,
}

/// What happens, as server-sent events: after `Last-Event-ID`, or from now on. It ends when the runner stops; the client comes back with
/// the last id it saw.
#[utoipa::path(get, path = "/api/events/stream", tag = "events", params(Watch, ("Last-Event-ID" = Option<u64>, Header, description = "Go on after this one")), responses((status = 200, body = String, content_type = "text/event-stream")))]
pub async fn events(
    State(app): State<App>,
    Extension(credential): Extension<Credential>,
    Query(watch): Query<Watch>,
    headers: HeaderMap,
) -> ApiResult<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    const LAST: HeaderName = HeaderName::from_static("last-event-id");
    let after = match only(&headers, &LAST).map(str::trim) {
        Some("") => None,
        Some(text) => Some(
            text.parse::<u64>().map_err(|_| ApiError::invalid("Last-Event-ID", "must be a number this stream gave"))?,
        ),
        None if headers.contains_key(LAST) => return Err(ApiError::invalid("Last-Event-ID", "must be given once")),
        None => None,
    };
    let kinds = kinds(&watch.kinds)?;
    let wanted = move |event: &BusEvent| ready(kind_matches(&event.kind, &kinds));
    let events = app.engine().bus().subscribe(after).filter(wanted).map(|event| {
        let data =
            json!({ "type": event.kind, "source": event.source, "data": event.data, "created_at": event.created_at });
        Ok(Event::default().id(event.seq.to_string()).event(event.kind).data(data.to_string()))
    });
    // The first line goes out at once, so that the client knows that it is connected.
    let hello =
        futures::stream::once(async { Ok(Event::default().comment("connected").retry(Duration::from_secs(1))) });
    let stream = hello.chain(events).take_until(stream_end(app, credential));
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

/// The types in a list with commas.
pub(super) fn kinds(list: &str) -> ApiResult<Vec<String>> {
    let kinds: Vec<String> =
        list.split(',').map(str::trim).filter(|kind| !kind.is_empty()).map(str::to_owned).collect();
    if kinds.len() > 32 || kinds.iter().any(|kind| kind.len() > 100) {
        return Err(ApiError::invalid(
            "type",
            "must be at most 32 types of at most 100 bytes, with commas between them",
        ));
    }
    Ok(kinds)
}
