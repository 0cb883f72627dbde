//! What happened, newest first: jobs and alerts as they are stored, and what the bus tells of schedules and of the workspace;
//! or the schedules by their next run.

use super::{Place, settings};
use crate::dashboard::describe::{condition, event_name, event_state, job_name, job_path, job_row, job_time, line};
use crate::error::{Error, Result};
use crate::runner_client::model::{Alert, Component, Event, Fact, Job, JobState};
use chrono::{DateTime, TimeDelta};
use nexaas_dashboard::layout::Tone;
use nexaas_dashboard::widgets::event_timeline::{EventTimeline, TimelineRow};
use nexaas_dashboard::widgets::{Html, html};
use serde::Deserialize;

const MAX_EVENTS: u32 = 1000;
/// More than there are rows, because several may share one.
const MOST_FACTS: u32 = 200;
/// What happens within this time of one another may share a row.
const MOMENT: TimeDelta = TimeDelta::seconds(60);
/// So many of which the same became still have a row each.
const APART: usize = 2;
/// Names in a row that stands for several.
const NAMED: usize = 3;
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
#[derive(Debug, Clone)]
struct Happened {
    kind: String,
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
            let (jobs, alerts) = tokio::try_join!(place.api.jobs(most), place.api.alerts(most))?;
            let all_types = config.types.is_empty();
            // What is older than as many jobs as there are rows has no place among them; a busy bus holds much of it.
            let since = jobs.iter().map(job_time).min().filter(|_| all_types && jobs.len() == limit);
            let facts = place.api.facts(FACTS, &since.unwrap_or_default(), MOST_FACTS).await?;
            let mut all: Vec<Happened> = jobs.iter().map(of_job).collect();
            all.extend(alerts.iter().map(of_alert));
            all.extend(of_facts(&facts));
            all.retain(|h| {
                all_types || config.types.iter().any(|t| h.kind == *t || h.kind.starts_with(&format!("{t}.")))
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
    Happened { kind: kind.to_owned(), row }
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
    Happened { kind: "alert.raised".to_owned(), row }
}

/// What a fact says of something.
struct News {
    happened: Happened,
    name: String,
    /// What became of several at once; none where the newest alone tells it.
    of_many: Option<&'static str>,
}

/// None: a kind that is not asked for.
fn news(fact: &Fact) -> Option<News> {
    let text = |key: &str| fact.data.get(key).and_then(|value| value.as_str()).unwrap_or_default();
    let none = String::new;
    let name = if text("description").is_empty() { text("id") } else { text("description") };
    let (tone, verb, of_many, detail) = match (fact.kind.as_str(), text("status")) {
        ("event.created", _) => (Tone::Info, "was planned", "were planned", none()),
        ("event.deleted", _) => (Tone::Idle, "was removed", "were removed", none()),
        ("event.paused", _) => (Tone::Warn, "was paused", "were paused", line(text("reason"), 120)),
        ("event.skipped", _) => {
            (Tone::Idle, "left out a run", "left out a run", "The one before was still at work".to_owned())
        }
        ("event.updated", "failed") => (Tone::Bad, "cannot go on", "cannot go on", line(text("error"), 120)),
        ("event.updated", "expired") => (Tone::Idle, "has expired", "have expired", none()),
        ("event.updated", "paused") => (Tone::Idle, "was paused", "were paused", none()),
        ("event.updated", _) => (Tone::Info, "was changed", "were changed", none()),
        ("workspace.changed", _) => return Some(of_workspace(fact)),
        _ => return None,
    };
    let row = TimelineRow {
        tone,
        title: format!("{name} {verb}"),
        detail,
        at: fact.at.clone(),
        href: "/workspace/events".to_owned(),
    };
    Some(News { happened: Happened { kind: fact.kind.clone(), row }, name: name.to_owned(), of_many: Some(of_many) })
}

fn of_workspace(fact: &Fact) -> News {
    let (tone, detail) = match fact.data.get("problems").and_then(|count| count.as_u64()).unwrap_or(0) {
        0 => (Tone::Info, String::new()),
        1 => (Tone::Warn, "1 file has a problem".to_owned()),
        more => (Tone::Warn, format!("{more} files have problems")),
    };
    let title = "The workspace's files changed".to_owned();
    let row = TimelineRow { tone, title, detail, at: fact.at.clone(), href: "/workspace".to_owned() };
    News { happened: Happened { kind: fact.kind.clone(), row }, name: String::new(), of_many: None }
}

/// Rows for what the bus tells, newest first; where the same became of many within a moment, one for all of them.
fn of_facts(facts: &[Fact]) -> Vec<Happened> {
    let all: Vec<News> = facts.iter().filter_map(news).collect();
    let together = |a: &News, b: &News| {
        let same = a.happened.kind == b.happened.kind && a.of_many == b.of_many;
        same && within_a_moment(&b.happened.row.at, &a.happened.row.at)
    };
    all.chunk_by(together).flat_map(rows_of).collect()
}

fn rows_of(group: &[News]) -> Vec<Happened> {
    let several = group.first().and_then(|first| Some((first, first.of_many?)));
    let Some((first, of_many)) = several.filter(|_| group.len() > APART) else {
        let shown = if several.is_some() { group.len() } else { 1 };
        return group.iter().take(shown).map(|news| news.happened.clone()).collect();
    };
    let names: Vec<&str> = group.iter().take(NAMED).map(|news| news.name.as_str()).collect();
    let more = match group.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let row = TimelineRow {
        title: format!("{} schedules {of_many}", group.len()),
        detail: format!("{}{more}", names.join(", ")),
        ..first.happened.row.clone()
    };
    vec![Happened { row, ..first.happened.clone() }]
}

fn within_a_moment(earlier: &str, later: &str) -> bool {
    match (DateTime::parse_from_rfc3339(earlier), DateTime::parse_from_rfc3339(later)) {
        (Ok(earlier), Ok(later)) => later - earlier <= MOMENT,
        (Err(_), _) | (_, Err(_)) => false,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fact(kind: &str, id: &str, at: &str) -> Fact {
        Fact { kind: kind.into(), data: json!({"id": id}), at: format!("2026-11-24T{at}Z") }
    }

    #[test]
    fn what_became_of_many_at_once_is_one_row() {
        let facts = [
            fact("event.created", "e", "10:00:30.5"),
            fact("event.created", "d", "10:00:30"),
            fact("event.created", "c", "10:00:00"),
            fact("event.created", "b", "09:59:59"),
            fact("workspace.changed", "", "09:59:58"),
            fact("workspace.changed", "", "09:59:57"),
            fact("event.deleted", "b", "09:30:00"),
            fact("event.created", "a", "09:00:00"),
            fact("event.created", "z", "08:00:00"),
        ];
        let rows: Vec<(String, String)> = of_facts(&facts).into_iter().map(|h| (h.row.title, h.row.detail)).collect();
        let rows: Vec<(&str, &str)> = rows.iter().map(|(title, detail)| (title.as_str(), detail.as_str())).collect();
        assert_eq!(
            rows,
            [
                ("4 schedules were planned", "e, d, c and 1 more"),
                ("The workspace's files changed", ""),
                ("b was removed", ""),
                ("a was planned", ""),
                ("z was planned", ""),
            ]
        );
    }
}
