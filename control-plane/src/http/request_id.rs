//! Every request has an id, in its span, in the answer, and in what is sent on to a runner. The id is always our own: one
//! that a caller sends could be used to confuse the log.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue};
use nexaas_common::id::RequestId;
use tracing::Instrument as _;

pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// What belongs to one request, for handlers that want to name it.
#[derive(Debug, Clone, Copy)]
pub struct RequestContext {
    pub id: RequestId,
}

/// Takes the context the edge has made, or makes one, and runs the rest inside its span.
pub async fn trace(mut request: Request, next: Next) -> Response {
    let context = match request.extensions().get::<RequestContext>() {
        Some(context) => *context,
        None => {
            let context = RequestContext { id: RequestId::generate() };
            request.extensions_mut().insert(context);
            context
        }
    };
    let span = tracing::info_span!(
        "page",
        request_id = %context.id,
        method = %request.method(),
        path = request.uri().path(),
        status = tracing::field::Empty,
    );
    let mut response = next.run(request).instrument(span.clone()).await;
    span.record("status", response.status().as_u16());
    if let Ok(value) = HeaderValue::from_str(&context.id.to_string()) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}
