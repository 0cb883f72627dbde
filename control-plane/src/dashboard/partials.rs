//! Parts of pages, fetched again when the stream says that they are stale.

use super::AppState;
use super::describe::{events_table, job_detail};
use super::failure::Failure;
use super::pages::{Opened, find, html, place};
use super::session::Session;
use super::widgets::{self, FIXED, Place};
use super::workspace::MAX_EVENTS;
use crate::error::{Error, Kind};
use axum::extract::{Path, Query, State};
use axum::response::{Html, IntoResponse as _, Response};
use http::{HeaderMap, StatusCode};
use nexaas_dashboard::tenant::ProblemsBanner;
use serde::Deserialize;

/// The inside of one widget.
pub async fn widget(
    State(state): State<AppState>,
    session: Session,
    Path((perspective, page, index)): Path<(String, String, usize)>,
    headers: HeaderMap,
) -> Result<Html<String>, Failure> {
    let workspace = if perspective == FIXED { Default::default() } else { session.api.workspace().await? };
    let found = find(&workspace, &perspective, &page)?;
    let component = found.page.components.get(index).ok_or_else(|| {
        Error::new(Kind::NotFound, "This part of the page does not exist any more; load the page again")
    })?;
    let opened = opened(&headers);
    let place = Place { index, ..place(&state, &session, &found, &opened) };
    Ok(Html(widgets::inside(&place, component).await.0))
}

#[derive(Debug, Deserialize)]
pub struct Seen {
    #[serde(default)]
    seen: String,
}

/// The whole grid when the page's description changed, nothing while it is as it was drawn.
pub async fn grid(
    State(state): State<AppState>,
    session: Session,
    Path((perspective, page)): Path<(String, String)>,
    Query(Seen { seen }): Query<Seen>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let workspace = session.api.workspace().await?;
    let found = find(&workspace, &perspective, &page)?;
    if widgets::fingerprint(&found.page) == seen {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let opened = opened(&headers);
    let grid = widgets::grid(&place(&state, &session, &found, &opened), &found.page).await;
    Ok(html(&grid)?.into_response())
}

pub async fn problems(session: Session) -> Result<Html<String>, Failure> {
    let workspace = session.api.workspace().await?;
    let errors = workspace.problems.iter().filter(|p| p.is_error).count();
    html(&ProblemsBanner { errors, warnings: workspace.problems.len() - errors })
}

pub async fn events(session: Session) -> Result<Html<String>, Failure> {
    html(&events_table(session.api.events(MAX_EVENTS).await?))
}

pub async fn job(session: Session, Path(id): Path<String>) -> Result<Html<String>, Failure> {
    html(&job_detail(session.api.job(&id).await?))
}

/// The query of the page that the part belongs to, as htmx names it.
fn opened(headers: &HeaderMap) -> Opened {
    headers
        .get("hx-current-url")
        .and_then(|v| v.to_str().ok())
        .and_then(|v| url::Url::parse(v).ok())
        .map(|url| url.query_pairs().into_owned().collect())
        .unwrap_or_default()
}
