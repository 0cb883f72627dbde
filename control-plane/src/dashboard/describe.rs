//! Jobs, schedules and times in words.

use crate::runner_client::model::{Event, Job, JobState};
use chrono::DateTime;
use nexaas_dashboard::layout::Tone;
use nexaas_dashboard::tenant::{EventRow, EventsTable, JobDetail};
use nexaas_dashboard::widgets::JobRow;

use super::shell::segment;

pub fn job_state(job: &Job) -> (Tone, &'static str) {
    match job.state {
        JobState::Ready if job.blocked => (Tone::Idle, "Blocked"),
        JobState::Ready if job.attempt > 0 => (Tone::Warn, "Trying again"),
        JobState::Ready => (Tone::Idle, "Waiting"),
        JobState::Running => (Tone::Busy, "Running"),
        JobState::Succeeded => (Tone::Ok, "Done"),
        JobState::Dead => (Tone::Bad, "Failed"),
        JobState::Cancelled => (Tone::Idle, "Cancelled"),
        JobState::Other => (Tone::Idle, "Unknown"),
    }
}

pub fn action(kind: &str) -> &str {
    match kind {
        "webhook" => "Calls a webhook",
        "script" => "Runs a script",
        "skill" => "Runs a skill",
        "agent_chat" | "claude_chat" => "Prompts an agent",
        other => other,
    }
}

pub fn job_name(job: &Job) -> String {
    if job.description.is_empty() { action(&job.action_type).to_owned() } else { job.description.clone() }
}

pub fn job_path(id: &str) -> String {
    format!("/workspace/jobs/{}", segment(id))
}

/// When the job last changed.
pub fn job_time(job: &Job) -> String {
    [&job.finished_at, &job.started_at, &job.created_at]
        .into_iter()
        .find(|t| !t.is_empty())
        .cloned()
        .unwrap_or_default()
}

/// One line of a longer text, without the marks of markdown.
pub fn line(text: &str, most: usize) -> String {
    let first = text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default();
    let first = first.trim_start_matches(['#', '>']).trim_start().replace("**", "").replace('`', "");
    if first.chars().count() > most { first.chars().take(most).chain(['…']).collect() } else { first }
}

fn retry_url(job: &Job) -> Option<String> {
    job.state.retryable().then(|| format!("/-/job/{}/retry", segment(&job.id)))
}

pub fn job_row(job: &Job) -> JobRow {
    let (tone, state) = job_state(job);
    let detail = if job.state == JobState::Ready && job.blocked {
        format!("Waits for other jobs of the key “{}”", line(&job.concurrency_key, 80))
    } else if !job.error.is_empty() && job.state != JobState::Succeeded {
        line(&job.error, 120)
    } else if !job.result.is_empty() {
        line(&job.result, 120)
    } else {
        [action(&job.action_type), job.agent.as_str()]
            .into_iter()
            .filter(|t| !t.is_empty())
            .collect::<Vec<_>>()
            .join(" · ")
    };
    JobRow {
        name: job_name(job),
        detail,
        tone,
        state: state.to_owned(),
        at: job_time(job),
        href: job_path(&job.id),
        retry_url: retry_url(job),
    }
}

pub fn job_detail(job: Job) -> JobDetail {
    let (tone, state) = job_state(&job);
    let live = !job.state.finished();
    JobDetail {
        tone,
        state: state.to_owned(),
        action: action(&job.action_type).to_owned(),
        took: took(&job.started_at, &job.finished_at).unwrap_or_default(),
        retry_url: retry_url(&job),
        cancel_url: live.then(|| format!("/-/job/{}/cancel", segment(&job.id))),
        url: format!("/-/partial/job/{}", segment(&job.id)),
        live,
        id: job.id,
        agent: job.agent,
        event: job.event_id,
        attempt: job.attempt,
        max_attempts: job.max_attempts,
        created_at: job.created_at,
        started_at: job.started_at,
        finished_at: job.finished_at,
        result: job.result,
        error: job.error,
    }
}

fn took(from: &str, to: &str) -> Option<String> {
    let span = DateTime::parse_from_rfc3339(to).ok()? - DateTime::parse_from_rfc3339(from).ok()?;
    let ms = span.num_milliseconds().max(0);
    Some(match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    })
}

pub fn event_state(status: &str) -> (Tone, &str) {
    match status {
        "active" => (Tone::Ok, "Active"),
        "paused" => (Tone::Idle, "Paused"),
        "completed" => (Tone::Idle, "Completed"),
        "failed" => (Tone::Bad, "Failed"),
        "expired" => (Tone::Idle, "Expired"),
        other => (Tone::Idle, other),
    }
}

pub fn event_name(event: &Event) -> String {
    if event.description.is_empty() { event.id.clone() } else { event.description.clone() }
}

/// When it fires, in words.
pub fn condition(event: &Event) -> String {
    match event.condition_type.as_str() {
        "cron" => match serde_json::from_str::<serde_json::Value>(&event.condition_expr) {
            Ok(v) if v.is_object() => {
                let text = |key: &str| v.get(key).and_then(|t| t.as_str()).unwrap_or_default().to_owned();
                format!("cron {} {}", text("expr"), text("timezone")).trim().to_owned()
            }
            Ok(_) | Err(_) => format!("cron {}", event.condition_expr),
        },
        "interval" => match event.condition_expr.trim().parse::<u64>() {
            Ok(s) if s >= 86_400 && s % 86_400 == 0 => every(s / 86_400, "day"),
            Ok(s) if s >= 3600 && s % 3600 == 0 => every(s / 3600, "hour"),
            Ok(s) if s >= 60 && s % 60 == 0 => every(s / 60, "minute"),
            Ok(s) => every(s, "second"),
            Err(_) => format!("every {}", event.condition_expr),
        },
        "once" => "once".to_owned(),
        "webhook" => "when its webhook is called".to_owned(),
        other => format!("{other} {}", event.condition_expr).trim().to_owned(),
    }
}

fn every(n: u64, unit: &str) -> String {
    if n == 1 { format!("every {unit}") } else { format!("every {n} {unit}s") }
}

pub fn events_table(events: Vec<Event>) -> EventsTable {
    let rows = events
        .into_iter()
        .map(|event| {
            let (tone, status) = event_state(&event.status);
            let agent = if event.agent.is_empty() { String::new() } else { format!(" · {}", event.agent) };
            EventRow {
                name: event_name(&event),
                condition: condition(&event),
                action: format!("{}{agent}", action(&event.action_type)),
                tone,
                status: status.to_owned(),
                next_at: if event.status == "active" { event.next_eval_at.clone() } else { String::new() },
                last_at: event.last_run_at.clone(),
                last_result: line(&event.last_result, 90),
                runs: event.run_count,
                failures: event.fail_count,
                trigger_url: format!("/-/event/{}/trigger", segment(&event.id)),
                id: event.id,
            }
        })
        .collect();
    EventsTable { rows }
}
