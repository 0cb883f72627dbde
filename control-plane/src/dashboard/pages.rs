//! Pages of widgets: those that `workspace.yaml` describes, and two fixed ones so that a fresh workspace is not empty.

use super::AppState;
use super::failure::Failure;
use super::session::Session;
use super::shell::{Around, page_path};
use super::widgets::{self, FIXED, Place};
use crate::error::{Error, Kind};
use crate::runner_client::model::{Component, Page, WorkspaceView};
use axum::extract::{Path, Query, State};
use axum::response::{Html, Redirect};
use nexaas_dashboard::Template;
use nexaas_dashboard::tenant::GridPage;
use serde_json::json;
use std::collections::HashMap;

pub type Opened = HashMap<String, String>;

/// A page found by its ids: its own, or one of the fixed ones.
pub struct Found {
    pub perspective: String,
    pub page: Page,
    pub path: String,
}

pub fn find(workspace: &WorkspaceView, perspective: &str, page: &str) -> Result<Found, Error> {
    let missing = || Error::new(Kind::NotFound, "There is no such page in this workspace");
    if perspective == FIXED {
        let page = fixed(page).ok_or_else(missing)?;
        let path = if page.id == "overview" { "/workspace".to_owned() } else { format!("/workspace/{}", page.id) };
        return Ok(Found { perspective: FIXED.to_owned(), page, path });
    }
    let perspective = workspace.perspectives.iter().find(|p| p.id == perspective).ok_or_else(missing)?;
    let page = perspective.pages.iter().find(|p| p.id == page).ok_or_else(missing)?;
    Ok(Found { perspective: perspective.id.clone(), path: page_path(&perspective.id, &page.id), page: page.clone() })
}

fn fixed(id: &str) -> Option<Page> {
    let component = |kind: &str, title: &str, span: u8, config: serde_json::Value| Component {
        kind: kind.to_owned(),
        title: title.to_owned(),
        span,
        config,
    };
    let (name, components) = match id {
        "overview" => (
            "Overview",
            vec![
                component("stat-cards", "", 12, json!(null)),
                component("queue-status", "Queue", 7, json!(null)),
                component("agent-tree", "Agents", 5, json!(null)),
                component("event-timeline", "What happened", 7, json!({"limit": 12})),
                component("event-timeline", "Coming up", 5, json!({"limit": 8, "show": "schedules"})),
            ],
        ),
        "queue" => (
            "Queue",
            vec![
                component("queue-status", "Recent jobs", 12, json!({"limit": 20})),
                component("queue-status", "Failed jobs", 12, json!({"limit": 20, "counts": false, "show": "failed"})),
            ],
        ),
        _ => return None,
    };
    Some(Page { id: id.to_owned(), name: name.to_owned(), components, ..Page::default() })
}

/// The page to begin with: the first perspective's default page, else its first, else the overview.
pub async fn home(
    State(state): State<AppState>,
    session: Session,
    Query(opened): Query<Opened>,
) -> Result<Html<String>, Failure> {
    let around = Around::fetch(&session).await?;
    let first = around.workspace.perspectives.iter().find(|p| !p.pages.is_empty());
    let found =
        match first.and_then(|p| Some((p, p.pages.iter().find(|g| g.id == p.default_page).or(p.pages.first())?))) {
            Some((perspective, page)) => find(&around.workspace, &perspective.id, &page.id)?,
            None => find(&around.workspace, FIXED, "overview")?,
        };
    draw(&state, &session, &around, &found, &opened).await
}

/// A perspective leads to its default page.
pub async fn perspective(session: Session, Path(id): Path<String>) -> Result<Redirect, Failure> {
    let workspace = session.api.workspace().await?;
    let page = workspace.perspectives.iter().find(|p| p.id == id).and_then(|p| {
        let page = p.pages.iter().find(|g| g.id == p.default_page).or(p.pages.first())?;
        Some(page_path(&p.id, &page.id))
    });
    match page {
        Some(path) => Ok(Redirect::to(&path)),
        None => Err(Error::new(Kind::NotFound, "There is no such page in this workspace").into()),
    }
}

pub async fn page(
    State(state): State<AppState>,
    session: Session,
    Path((perspective, page)): Path<(String, String)>,
    Query(opened): Query<Opened>,
) -> Result<Html<String>, Failure> {
    let around = Around::fetch(&session).await?;
    let found = if perspective == FIXED {
        return Err(Error::new(Kind::NotFound, "There is no such page in this workspace").into());
    } else {
        find(&around.workspace, &perspective, &page)?
    };
    draw(&state, &session, &around, &found, &opened).await
}

pub async fn overview(State(state): State<AppState>, session: Session) -> Result<Html<String>, Failure> {
    show_fixed(&state, &session, "overview").await
}

pub async fn queue(State(state): State<AppState>, session: Session) -> Result<Html<String>, Failure> {
    show_fixed(&state, &session, "queue").await
}

async fn show_fixed(state: &AppState, session: &Session, id: &str) -> Result<Html<String>, Failure> {
    let around = Around::fetch(session).await?;
    let found = find(&around.workspace, FIXED, id)?;
    draw(state, session, &around, &found, &Opened::new()).await
}

async fn draw(
    state: &AppState,
    session: &Session,
    around: &Around,
    found: &Found,
    opened: &Opened,
) -> Result<Html<String>, Failure> {
    let place = place(state, session, found, opened);
    let grid = widgets::grid(&place, &found.page).await;
    let page = around.shell(session, &found.page.name, &found.path);
    html(&GridPage { page, problems: around.problems(), grid })
}

pub fn place<'a>(state: &AppState, session: &'a Session, found: &'a Found, opened: &'a Opened) -> Place<'a> {
    Place {
        api: &session.api,
        now: state.clock.now(),
        perspective: &found.perspective,
        page: &found.page.id,
        index: 0,
        path: &found.path,
        query: opened,
        single: found.page.single,
    }
}

pub fn html(view: &impl Template) -> Result<Html<String>, Failure> {
    Ok(Html(view.render().map_err(Error::internal)?))
}
