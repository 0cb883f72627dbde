//! What an attempt wrote, or a piece of it: by `offset` and `limit`, or by a `Range` of bytes.

use super::error::{ApiError, ApiResult};
use super::extract::{Path, Query};
use super::queue::known;
use crate::app::App;
use crate::principal::only;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use nexaas_engine::EngineError;
use nexaas_engine::queue::JobId;
use serde::Deserialize;

/// Bytes of one answer.
pub(crate) const MOST: u64 = 1024 * 1024;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Piece {
    /// Where to begin, in bytes.
    offset: Option<u64>,
    /// At most so many bytes; 1 MiB unless given, and at most.
    limit: Option<u64>,
}

/// A piece of an output.
#[derive(Debug)]
pub(crate) struct Output {
    pub bytes: Vec<u8>,
    pub offset: u64,
    pub total: u64,
}

/// From the file kept beside the database, else from what is stored with the job.
pub(crate) async fn read(app: &App, id: JobId, attempt: u32, offset: u64, limit: u64) -> Result<Output, EngineError> {
    let engine = app.engine();
    let attempts = engine.queue().attempts(id).await?;
    let Some(found) = attempts.into_iter().find(|known| known.number == attempt) else {
        return Err(EngineError::not_found(format!("attempt {attempt} of job {id}")));
    };
    let limit = limit.clamp(1, MOST);
    if let Some(part) = engine.outputs().read(id, attempt, offset, limit).await? {
        return Ok(Output { bytes: part.bytes, offset: part.offset, total: part.total });
    }
    let job = engine.queue().get(id).await?;
    let text = match found.detail {
        Some(detail) => detail,
        None if job.attempt == attempt => job.result.or(job.error).unwrap_or_default(),
        None => String::new(),
    };
    let total = text.len() as u64;
    let bytes = text.bytes().skip(usize::try_from(offset).unwrap_or(usize::MAX)).take(limit as usize).collect();
    Ok(Output { bytes, offset: offset.min(total), total })
}

/// What an attempt wrote, as text.
#[utoipa::path(get, path = "/api/queue/{id}/attempts/{number}/output", tag = "queue",
    params(("id" = String, Path, description = "The job"), ("number" = u32, Path, description = "The attempt, from 1"), Piece,
        ("Range" = Option<String>, Header, description = "One range of bytes, instead of offset and limit")),
    responses((status = 200, body = String, content_type = "text/plain", description = "All of it"),
        (status = 206, body = String, content_type = "text/plain", description = "A piece; Content-Range says which"),
        (status = 416, body = super::openapi::shapes::Problem)))]
pub async fn show(
    State(app): State<App>,
    Path((id, number)): Path<(String, String)>,
    Query(piece): Query<Piece>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let id = known(&id)?;
    let number = number.parse().map_err(|_| ApiError::not_found("The attempt does not exist"))?;
    let (offset, limit) = match only(&headers, &header::RANGE) {
        Some(range) => {
            read_range(range).ok_or_else(|| ApiError::invalid("Range", "must be one range, as bytes=0-499"))?
        }
        None => (piece.offset.unwrap_or(0), piece.limit.unwrap_or(MOST)),
    };
    let output = read(&app, id, number, offset, limit).await?;
    let end = output.offset + output.bytes.len() as u64;
    if offset > output.total || (output.bytes.is_empty() && output.total > 0) {
        let mut refused = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, format!("There are {} bytes", output.total))
            .into_response();
        if let Ok(value) = HeaderValue::from_str(&format!("bytes */{}", output.total)) {
            refused.headers_mut().insert(header::CONTENT_RANGE, value);
        }
        return Ok(refused);
    }
    let whole = output.offset == 0 && end == output.total;
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))];
    let status = if whole { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT };
    let range = format!("bytes {}-{}/{}", output.offset, end.saturating_sub(1), output.total);
    let mut response = (status, kind, output.bytes).into_response();
    if let (false, Ok(value)) = (whole, HeaderValue::from_str(&range)) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    Ok(response)
}

/// Where a range begins and how long it is.
fn read_range(text: &str) -> Option<(u64, u64)> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    let from: u64 = from.trim().parse().ok()?;
    let limit = match to.trim() {
        "" => MOST,
        to => to.parse::<u64>().ok()?.checked_sub(from)?.saturating_add(1),
    };
    Some((from, limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_bytes_is_understood() {
        assert_eq!(read_range("bytes=0-499"), Some((0, 500)));
        assert_eq!(read_range("bytes=5-"), Some((5, MOST)));
        for bad in ["bytes=-5", "bytes=5-4", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b", ""] {
            assert_eq!(read_range(bad), None, "{bad}");
        }
    }
}
