//! What happened, newest first: jobs and alerts as they are stored, and what the bus tells of schedules and of the workspace;
//! or the schedules by their next run.

use super::{Place, settings};
use crate::dashboard::describe::{condition, event_name, event_state, job_name, job_path, job_row, job_time, line};
use crate::error::{Error, Result};
use crate::runner_client::model::{Alert, Component, Event, Fact, Job, JobState};
use nexaas_dashboard::layout::Tone;
use nexaas_dashboard::widgets::event_timeline::{EventTimeline, TimelineRow};
use nexaas_dashboard::widgets::{Html, html};
use serde::Deserialize;

const MAX_EVENTS: u32 = 1000;
/// Of the bus. Jobs and alerts have rows of their own, which say more and are kept for longer.
const FACTS: &[&str] =
    &["event.created", "event.updated", "event.paused", "event.skipped", "event.deleted", "workspace.changed"];

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    limit: Option<usize>,
    types: Vec<String>,
    show: Show,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Show {
    #[default]
    Bus,
    Schedules,
}

/// A row and the type it is filtered by.
struct Happened {
    kind: &'static str,
    row: TimelineRow,
}

pub async fn draw(place: &Place<'_>, component: &Component) -> Result<Html> {
    let config: Config = settings(component)?;
    let limit = config.limit.unwrap_or(20);
    if !(1..=100).contains(&limit) {
        return Err(Error::invalid("limit", "must be between 1 and 100"));
    }
    let view = match config.show {
        Show::Bus => {
            let most = u32::try_from(limit).unwrap_or(100);
            let api = place.api;
            let (jobs, alerts, facts) = tokio::try_join!(api.jobs(most), api.alerts(most), api.facts(FACTS, most))?;
            let mut all: Vec<Happened> = jobs.iter().map(of_job).collect();
            all.extend(alerts.iter().map(of_alert));
            all.extend(facts.iter().filter_map(of_fact));
            all.retain(|h| {
                config.types.is_empty()
                    || config.types.iter().any(|t| h.kind == t || h.kind.starts_with(&format!("{t}.")))
            });
            all.sort_by(|a, b| b.row.at.cmp(&a.row.at));
            EventTimeline {
                rows: all.into_iter().take(limit).map(|h| h.row).collect(),
                empty_title: "Nothing has happened yet".to_owned(),
                empty_text: "Jobs, alerts and changes appear here as they happen.".to_owned(),
            }
        }
        Show::Schedules => {
            let mut events = place.api.events(MAX_EVENTS).await?;
            events.retain(|e| e.status == "active");
            // Those without a next run (webhooks) come last.
            events.sort_by(|a, b| {
                (a.next_eval_at.is_empty(), &a.next_eval_at).cmp(&(b.next_eval_at.is_empty(), &b.next_eval_at))
            });
            EventTimeline {
                rows: events.iter().take(limit).map(of_schedule).collect(),
                empty_title: "No schedules".to_owned(),
                empty_text: "Nothing is planned in this workspace.".to_owned(),
            }
        }
    };
    Ok(html(&view))
}

fn of_job(job: &Job) -> Happened {
    let row = job_row(job);
    let (kind, verb) = match job.state {
        JobState::Ready => ("job.queued", "is waiting"),
        JobState::Running => ("job.started", "is running"),
        JobState::Succeeded => ("job.succeeded", "finished"),
        JobState::Dead => ("job.dead", "failed"),
        JobState::Cancelled => ("job.cancelled", "was cancelled"),
        JobState::Other => ("job.other", "changed"),
    };
    let row = TimelineRow {
        tone: row.tone,
        title: format!("{} {verb}", job_name(job)),
        detail: row.detail,
        at: job_time(job),
        href: job_path(&job.id),
    };
    Happened { kind, row }
}

fn of_alert(alert: &Alert) -> Happened {
    let tone = match alert.severity.as_str() {
        "critical" => Tone::Bad,
        "warning" => Tone::Warn,
        _ => Tone::Info,
    };
    let row = TimelineRow {
        tone,
        title: alert.message.clone(),
        detail: alert.category.clone(),
        at: alert.created_at.clone(),
        href: String::new(),
    };
    Happened { kind: "alert.raised", row }
}

/// None: a kind that is not asked for.
fn of_fact(fact: &Fact) -> Option<Happened> {
    let text = |key: &str| fact.data.get(key).and_then(|value| value.as_str()).unwrap_or_default();
    let name = Some(text("description")).filter(|name| !name.is_empty()).unwrap_or(text("id"));
    let (kind, tone, title, detail) = match fact.kind.as_str() {
        "event.created" => ("event.created", Tone::Info, format!("{name} was planned"), String::new()),
        "event.deleted" => ("event.deleted", Tone::Idle, format!("{name} was removed"), String::new()),
        "event.paused" => ("event.paused", Tone::Warn, format!("{name} was paused"), line(text("reason"), 120)),
        "event.skipped" => (
            "event.skipped",
            Tone::Idle,
            format!("{name} left out a run"),
            "The one before was still at work".to_owned(),
        ),
        "event.updated" => match text("status") {
            "failed" => ("event.updated", Tone::Bad, format!("{name} cannot go on"), line(text("error"), 120)),
            "expired" => ("event.updated", Tone::Idle, format!("{name} has expired"), String::new()),
            "paused" => ("event.updated", Tone::Idle, format!("{name} was paused"), String::new()),
            _ => ("event.updated", Tone::Info, format!("{name} was changed"), String::new()),
        },
        "workspace.changed" => {
            let problems = fact.data.get("problems").and_then(|count| count.as_u64()).unwrap_or(0);
            let (tone, detail) = match problems {
                0 => (Tone::Info, String::new()),
                1 => (Tone::Warn, "1 file has a problem".to_owned()),
                more => (Tone::Warn, format!("{more} files have problems")),
            };
            ("workspace.changed", tone, "The workspace's files changed".to_owned(), detail)
        }
        _ => return None,
    };
    let href = if fact.kind == "workspace.changed" { "/workspace" } else { "/workspace/events" };
    Some(Happened { kind, row: TimelineRow { tone, title, detail, at: fact.at.clone(), href: href.to_owned() } })
}

fn of_schedule(event: &Event) -> TimelineRow {
    TimelineRow {
        tone: event_state(&event.status).0,
        title: event_name(event),
        detail: condition(event),
        at: event.next_eval_at.clone(),
        href: "/workspace/events".to_owned(),
    }
}
