//! Buttons that put work on the queue. Each answers with a toast that links to the job; the queue's widgets follow by the bus.
//! A browser that sent the form by itself (no script yet, or none at all) is led to the job's page instead.

use super::describe::{job_name, job_path};
use super::failure::{Failure, toast, toast_with_link};
use super::pages::find;
use super::session::Session;
use super::widgets::{Deed, action_at};
use crate::error::{Error, Kind, Result};
use crate::runner_client::TenantApi;
use axum::extract::{Form, Path, Query};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum_htmx::HxRequest;
use nexaas_dashboard::layout::Tone;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

const MAX_INPUT: usize = 32_000;

fn queued(by_script: bool, what: &str, job: &str) -> Response {
    if !by_script {
        let to = if job.is_empty() { "/workspace/queue".to_owned() } else { job_path(job) };
        return Redirect::to(&to).into_response();
    }
    let (href, link) = if job.is_empty() { Default::default() } else { (job_path(job), "Show the job".to_owned()) };
    toast_with_link(Tone::Ok, what, "is on the queue.".to_owned(), href, link)
}

#[derive(Debug, Deserialize)]
pub struct Seen {
    #[serde(default)]
    seen: String,
}

/// Presses the button at a place of a page.
pub async fn quick_action(
    session: Session,
    HxRequest(by_script): HxRequest,
    Path((perspective, page, widget, index)): Path<(String, String, usize, usize)>,
    Query(Seen { seen }): Query<Seen>,
) -> Result<Response, Failure> {
    let workspace = session.api.workspace().await?;
    let found = find(&workspace, &perspective, &page)?;
    let component = found
        .page
        .components
        .get(widget)
        .ok_or_else(|| Error::new(Kind::NotFound, "This action does not exist any more; load the page again"))?;
    let (label, deed) = action_at(component, index, &seen)?;
    let job = match deed {
        Deed::Skill { name, input, agent } => session.api.run_skill(&name, &input, &agent).await?,
        Deed::Event { id } => session.api.trigger_event(&id).await?,
        Deed::Prompt { agent, prompt } => prompt_agent(&session.api, &label, &agent, &prompt).await?,
    };
    Ok(queued(by_script, &label, &job))
}

/// A prompt becomes an event that only a person can fire (paused, its time never comes), so that its job is queued, retried and
/// shown like any other. Its id follows from what it does, so pressing again makes no second one.
async fn prompt_agent(api: &TenantApi, label: &str, agent: &str, prompt: &str) -> Result<String> {
    let digest = Sha256::digest(format!("{agent}\0{prompt}").as_bytes());
    let id = format!("quick-action:{}", hex::encode(&digest[..8]));
    api.upsert_event(&json!({
        "id": id,
        "type": "quick_action",
        "condition_type": "once",
        "condition_expr": "2999-01-01T00:00:00Z",
        "action_type": "agent_chat",
        "action_config": {"agent": agent, "prompt": prompt},
        "status": "paused",
        "agent": agent,
        "description": label,
    }))
    .await?;
    api.trigger_event(&id).await
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RunSkill {
    agent: String,
    input: String,
}

pub async fn run_skill(
    session: Session,
    HxRequest(by_script): HxRequest,
    Path(name): Path<String>,
    Form(form): Form<RunSkill>,
) -> Result<Response, Failure> {
    if form.input.len() > MAX_INPUT {
        return Err(Error::invalid("input", format!("must be at most {MAX_INPUT} bytes long")).into());
    }
    let job = session.api.run_skill(&name, form.input.trim(), &form.agent).await?;
    Ok(queued(by_script, &name, &job))
}

pub async fn trigger_event(
    session: Session,
    HxRequest(by_script): HxRequest,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let job = session.api.trigger_event(&id).await?;
    Ok(queued(by_script, "The schedule's action", &job))
}

pub async fn cancel_job(
    session: Session,
    HxRequest(by_script): HxRequest,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    session.api.cancel_job(&id).await?;
    if !by_script {
        return Ok(Redirect::to(&job_path(&id)).into_response());
    }
    Ok(toast(Tone::Ok, "Cancelled", "The job will not go on.".to_owned()))
}

pub async fn retry_job(
    session: Session,
    HxRequest(by_script): HxRequest,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let job = session.api.retry_job(&id).await?;
    Ok(queued(by_script, &job_name(&job), &id))
}
