//! `memory/followups.yaml` and `memory/checks.yaml`: what an agent means to come back to, as events of the scheduler.
//!
//! Always true here: an entry's event has an id made of the entry's own, so that the same entry is the same event.

use super::layout::line_of;
use super::problem::Problem;
use super::yaml::{self, or_default};
use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeZone as _, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use serde_saphyr::Spanned;

pub const FOLLOWUPS: &str = "memory/followups.yaml";
pub const CHECKS: &str = "memory/checks.yaml";
const DEFAULT_INTERVAL_S: u64 = 3600;
const SHORTEST_INTERVAL_S: u64 = 1;

/// An event that an entry stands for, in the form `POST /api/events` takes.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryEvent {
    pub id: String,
    pub json: Value,
}

#[derive(Debug, Default, Deserialize)]
struct FollowupsFile {
    #[serde(default, deserialize_with = "or_default")]
    followups: Vec<Followup>,
}

#[derive(Debug, Deserialize)]
struct Followup {
    id: Spanned<Name>,
    #[serde(default, deserialize_with = "or_default")]
    description: String,
    agent: String,
    due: Spanned<String>,
    action: Action,
}

#[derive(Debug, Default, Deserialize)]
struct ChecksFile {
    #[serde(default, deserialize_with = "or_default")]
    checks: Vec<Check>,
}

#[derive(Debug, Deserialize)]
struct Check {
    id: Spanned<Name>,
    #[serde(default, deserialize_with = "or_default")]
    description: String,
    agent: String,
    #[serde(default)]
    interval: Option<Spanned<i64>>,
    action: Action,
}

/// People write ids as texts and as numbers.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "must be a text or a whole number")]
enum Name {
    Number(i64),
    Text(String),
}

impl Name {
    fn text(&self) -> String {
        match self {
            Self::Number(n) => n.to_string(),
            Self::Text(t) => t.clone(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "must be a text, or a map with a prompt")]
enum Action {
    Text(String),
    Prompt { prompt: String },
}

impl Action {
    fn prompt(self) -> String {
        match self {
            Self::Text(text) | Self::Prompt { prompt: text } => text,
        }
    }
}

/// The events of `followups.yaml`. An entry that cannot be used is a problem of its own and does not harm the others.
pub fn followups(text: &str, zone: chrono_tz::Tz, problems: &mut Vec<Problem>) -> Result<Vec<MemoryEvent>, Problem> {
    let file = yaml::parse::<FollowupsFile>(FOLLOWUPS, text)?.typed;
    let mut events = Vec::new();
    for entry in file.followups {
        let Some(id) = checked_id(FOLLOWUPS, "followup", &entry.id, &events, problems) else { continue };
        let Some(due) = moment(&entry.due.value, zone) else {
            let reason = format!(
                "due '{}' must be a time such as 2026-05-01T09:00:00Z, 2026-05-01 09:00 or 2026-05-01",
                entry.due.value
            );
            problems.push(Problem::error(FOLLOWUPS, line_of(&entry.due), reason));
            continue;
        };
        let json = json!({
            "id": id, "type": "memory_followup", "condition_type": "once", "condition_expr": due.to_rfc3339(),
            "action_type": "agent_chat", "action_config": {"agent": entry.agent, "prompt": entry.action.prompt()},
            "status": "active", "agent": entry.agent, "description": entry.description, "metadata": {"file": FOLLOWUPS},
        });
        events.push(MemoryEvent { id, json });
    }
    Ok(events)
}

/// The events of `checks.yaml`.
pub fn checks(text: &str, problems: &mut Vec<Problem>) -> Result<Vec<MemoryEvent>, Problem> {
    let file = yaml::parse::<ChecksFile>(CHECKS, text)?.typed;
    let mut events = Vec::new();
    for entry in file.checks {
        let Some(id) = checked_id(CHECKS, "check", &entry.id, &events, problems) else { continue };
        let interval = match entry.interval {
            None => DEFAULT_INTERVAL_S,
            Some(i) => match u64::try_from(i.value) {
                Ok(seconds) if (SHORTEST_INTERVAL_S..=366 * 86_400).contains(&seconds) => seconds,
                _ => {
                    let reason = format!("interval is {}; it must be 1 to 31622400 seconds", i.value);
                    problems.push(Problem::error(CHECKS, line_of(&i), reason));
                    continue;
                }
            },
        };
        let json = json!({
            "id": id, "type": "memory_check", "condition_type": "interval", "condition_expr": interval.to_string(),
            "action_type": "agent_chat", "action_config": {"agent": entry.agent, "prompt": entry.action.prompt()},
            "status": "active", "agent": entry.agent, "description": entry.description, "metadata": {"file": CHECKS},
        });
        events.push(MemoryEvent { id, json });
    }
    Ok(events)
}

fn checked_id(
    file: &str,
    kind: &str,
    id: &Spanned<Name>,
    known: &[MemoryEvent],
    problems: &mut Vec<Problem>,
) -> Option<String> {
    let text = id.value.text();
    let good =
        !text.is_empty() && text.len() <= 100 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !good {
        let reason = format!("id '{text}' must be 1 to 100 letters, digits, '-', '_' or '.'");
        problems.push(Problem::error(file, line_of(id), reason));
        return None;
    }
    let full = format!("{kind}:{text}");
    if known.iter().any(|e| e.id == full) {
        problems.push(Problem::error(file, line_of(id), format!("id '{text}' appears twice; the second is ignored")));
        return None;
    }
    Some(full)
}

/// A moment as people write it; without an offset it is in `zone`, and a time that a clock change skips is an hour later.
fn moment(text: &str, zone: chrono_tz::Tz) -> Option<DateTime<Utc>> {
    let text = text.trim();
    if let Ok(exact) = DateTime::parse_from_rfc3339(text) {
        return Some(exact.with_timezone(&Utc));
    }
    let local = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]
        .iter()
        .find_map(|f| NaiveDateTime::parse_from_str(text, f).ok())
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))?;
    let found = zone.from_local_datetime(&local).earliest();
    let found =
        found.or_else(|| zone.from_local_datetime(&local.checked_add_signed(chrono::Duration::hours(1))?).earliest());
    found.map(|t| t.with_timezone(&Utc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_becomes_an_event_with_a_stable_id() {
        let text = "followups:\n  - id: call-acme\n    description: Ring them\n    agent: sales\n    due: 2026-05-01 09:00\n    action: {prompt: Call Acme}\n  - id: 7\n    agent: sales\n    due: 2026-05-01T09:00:00+02:00\n    action: Write\n";
        let mut problems = vec![];
        let events = followups(text, chrono_tz::Europe::Berlin, &mut problems).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(events.iter().map(|e| e.id.as_str()).collect::<Vec<_>>(), ["followup:call-acme", "followup:7"]);
        assert_eq!(events[0].json["condition_expr"], "2026-05-01T07:00:00+00:00");
        assert_eq!(events[1].json["condition_expr"], "2026-05-01T07:00:00+00:00");
        assert_eq!(events[0].json["action_config"]["prompt"], "Call Acme");
    }

    #[test]
    fn a_bad_entry_is_named_with_its_line_and_the_others_stand() {
        let text = "followups:\n  - id: a\n    agent: x\n    due: someday\n    action: y\n  - id: b\n    agent: x\n    due: 2026-01-01\n    action: y\n  - id: b\n    agent: x\n    due: 2026-01-01\n    action: y\n";
        let mut problems = vec![];
        let events = followups(text, chrono_tz::UTC, &mut problems).unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(problems.iter().map(|p| p.line).collect::<Vec<_>>(), [4, 10]);
    }

    #[test]
    fn a_check_runs_hourly_unless_it_says_otherwise() {
        let text = "checks:\n  - {id: a, agent: x, action: look}\n  - {id: b, agent: x, interval: 60, action: look}\n  - {id: c, agent: x, interval: 0, action: look}\n";
        let mut problems = vec![];
        let events = checks(text, &mut problems).unwrap();
        assert_eq!(
            events.iter().map(|e| e.json["condition_expr"].as_str().unwrap()).collect::<Vec<_>>(),
            ["3600", "60"]
        );
        assert_eq!(problems[0].line, 4);
    }

    #[test]
    fn a_local_time_that_a_clock_change_skips_is_an_hour_later() {
        let t = moment("2026-03-29 02:30", chrono_tz::Europe::Berlin).unwrap();
        assert_eq!(t.to_rfc3339(), "2026-03-29T01:30:00+00:00");
    }
}
