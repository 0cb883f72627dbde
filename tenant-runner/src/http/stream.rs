//! The live stream of what happens, as server-sent events that can be resumed.

use super::error::{ApiError, ApiResult};
use crate::app::App;
use crate::principal::{Credential, only, stream_end};
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::{Stream, StreamExt as _};
use serde_json::json;
use std::convert::Infallible;
use std::time::Duration;

/// After `Last-Event-ID`, or from now on. It ends when the runner stops; the client comes back with
/// the last id it saw.
pub async fn events(
    State(app): State<App>,
    Extension(credential): Extension<Credential>,
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
    let events = app.engine().bus().subscribe(after).map(|event| {
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
