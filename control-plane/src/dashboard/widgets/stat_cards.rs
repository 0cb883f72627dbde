//! Numbers in a row, each from its source. Every source is asked once, however many cards want it.

use super::{Place, settings};
use crate::error::{Error, Result};
use crate::runner_client::model::{Agent, Alert, Component, Event, QueueView, Registry, Usage};
use chrono::Duration;
use futures::future::join_all;
use nexaas_dashboard::layout::Tone;
use nexaas_dashboard::widgets::registry_table::{amount, number};
use nexaas_dashboard::widgets::stat_cards::{Stat, StatCards};
use nexaas_dashboard::widgets::{Html, html};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashMap};

const MAX_CARDS: usize = 24;
const MAX_EVENTS: u32 = 1000;
const MAX_ALERTS: u32 = 200;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    cards: Option<Vec<Card>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Card {
    label: String,
    source: Option<Source>,
    value: Option<Value>,
    field: Option<String>,
    days: Option<i64>,
    registry: Option<String>,
    r#where: Map<String, Value>,
    sum: Option<String>,
    format: Format,
    icon: String,
    detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Source {
    Queue,
    Events,
    Usage,
    Agents,
    Skills,
    Registries,
    Registry,
    Alerts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Number,
    Usd,
    Eur,
    Gbp,
    Percent,
}

fn defaults() -> Vec<Card> {
    let card = |label: &str, icon: &str, source: Source, field: &str| Card {
        label: label.to_owned(),
        icon: icon.to_owned(),
        source: Some(source),
        field: (!field.is_empty()).then(|| field.to_owned()),
        ..Card::default()
    };
    vec![
        card("Waiting jobs", "clock", Source::Queue, "queued"),
        card("Running", "play", Source::Queue, "running"),
        card("Active schedules", "calendar-clock", Source::Events, "active"),
        card("Agents", "bot", Source::Agents, ""),
        Card {
            format: Format::Usd,
            detail: "last 30 days".to_owned(),
            ..card("Model cost", "coins", Source::Usage, "total_cost_usd")
        },
    ]
}

/// What was fetched, or the reason why not, by source.
#[derive(Default)]
struct Data {
    queue: Option<Result<QueueView>>,
    events: Option<Result<Vec<Event>>>,
    agents: Option<Result<Vec<Agent>>>,
    skills: Option<Result<usize>>,
    registries: Option<Result<usize>>,
    alerts: Option<Result<Vec<Alert>>>,
    usage: HashMap<i64, Result<Usage>>,
    registry: HashMap<String, Result<Registry>>,
}

/// The result of a source, if `$wanted`.
macro_rules! when {
    ($wanted:expr, $call:expr) => {
        async { if $wanted { Some($call.await) } else { None } }
    };
}

pub async fn draw(place: &Place<'_>, component: &Component) -> Result<Html> {
    let config: Config = settings(component)?;
    let cards = config.cards.unwrap_or_else(defaults);
    if cards.len() > MAX_CARDS {
        return Err(Error::invalid("cards", format!("may have at most {MAX_CARDS} entries")));
    }
    for (i, card) in cards.iter().enumerate() {
        check(card).map_err(|rule| Error::invalid(format!("cards[{i}]"), rule))?;
    }
    let data = fetch(place, &cards).await;
    let cards = cards.iter().map(|card| stat(card, &data)).collect();
    Ok(html(&StatCards { cards }))
}

fn check(card: &Card) -> std::result::Result<(), String> {
    if card.label.trim().is_empty() {
        return Err("needs a label".into());
    }
    match (card.source, &card.value) {
        (None, None) => return Err("needs a source or a value".into()),
        (Some(_), Some(_)) => return Err("has both a source and a value; keep one".into()),
        (Some(Source::Registry), None) if card.registry.is_none() => {
            return Err("needs the name of its registry".into());
        }
        _ => {}
    }
    if card.days.is_some_and(|d| !(1..=366).contains(&d)) {
        return Err("days must be between 1 and 366".into());
    }
    let fields: &[&str] = match card.source {
        Some(Source::Queue) => &["queued", "running", "completed", "failed"],
        Some(Source::Events) => &["total", "active", "paused", "failed", "runs"],
        Some(Source::Usage) => {
            &["total_calls", "total_cost_usd", "total_input_tokens", "total_output_tokens", "total_tokens"]
        }
        Some(Source::Alerts) => &["open"],
        _ => return Ok(()),
    };
    match &card.field {
        Some(field) if !fields.contains(&field.as_str()) => {
            Err(format!("field '{field}' is not one of {}", fields.join(", ")))
        }
        Some(_) | None => Ok(()),
    }
}

fn days(card: &Card) -> i64 {
    card.days.unwrap_or(30)
}

async fn fetch(place: &Place<'_>, cards: &[Card]) -> Data {
    let api = place.api;
    let wanted: BTreeSet<Source> = cards.iter().filter_map(|c| c.source).collect();
    let spans: BTreeSet<i64> = cards.iter().filter(|c| c.source == Some(Source::Usage)).map(days).collect();
    let names: BTreeSet<&String> =
        cards.iter().filter(|c| c.source == Some(Source::Registry)).filter_map(|c| c.registry.as_ref()).collect();
    let usage = join_all(spans.into_iter().map(|days| async move {
        let since = (place.now - Duration::days(days)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        (days, api.usage(&since).await)
    }));
    let registry = join_all(names.into_iter().map(|name| async move { (name.clone(), api.registry(name).await) }));
    let (queue, events, agents, skills, registries, alerts, usage, registry) = tokio::join!(
        when!(wanted.contains(&Source::Queue), api.queue()),
        when!(wanted.contains(&Source::Events), api.events(MAX_EVENTS)),
        when!(wanted.contains(&Source::Agents), api.agents()),
        when!(wanted.contains(&Source::Skills), async { api.skills().await.map(|s| s.len()) }),
        when!(wanted.contains(&Source::Registries), async { api.registries().await.map(|r| r.len()) }),
        when!(wanted.contains(&Source::Alerts), api.alerts(MAX_ALERTS)),
        usage,
        registry,
    );
    let (usage, registry) = (usage.into_iter().collect(), registry.into_iter().collect());
    Data { queue, events, agents, skills, registries, alerts, usage, registry }
}

fn stat(card: &Card, data: &Data) -> Stat {
    let (value, tone, problem) = match read(card, data) {
        Ok((value, tone)) => (value, tone, None),
        Err(why) => ("–".to_owned(), Tone::Idle, Some(why)),
    };
    Stat {
        label: card.label.clone(),
        icon: card.icon.clone(),
        value,
        detail: problem.unwrap_or_else(|| card.detail.clone()),
        tone,
    }
}

type Read = std::result::Result<(String, Tone), String>;

fn read(card: &Card, data: &Data) -> Read {
    let Some(source) = card.source else {
        return Ok((literal(card.value.as_ref(), card.format), Tone::Idle));
    };
    let field = card.field.as_deref().unwrap_or_default();
    let (value, tone) = match source {
        Source::Queue => {
            let q = got(data.queue.as_ref())?;
            match field {
                "running" => (count(q.running), if q.running > 0 { Tone::Busy } else { Tone::Idle }),
                "completed" => (count(q.completed), Tone::Idle),
                "failed" => (count(q.failed), if q.failed > 0 { Tone::Bad } else { Tone::Idle }),
                _ => (count(q.queued), Tone::Idle),
            }
        }
        Source::Events => {
            let events = got(data.events.as_ref())?;
            let of = |status: &str| events.iter().filter(|e| e.status == status).count() as f64;
            match field {
                "active" => (of("active"), Tone::Idle),
                "paused" => (of("paused"), Tone::Idle),
                "failed" => (of("failed"), if of("failed") > 0.0 { Tone::Bad } else { Tone::Idle }),
                "runs" => (events.iter().map(|e| e.run_count as f64).sum(), Tone::Idle),
                _ => (events.len() as f64, Tone::Idle),
            }
        }
        Source::Usage => {
            let u = got(data.usage.get(&days(card)))?;
            let value = match field {
                "total_cost_usd" => u.cost_usd,
                "total_input_tokens" => count(u.input_tokens),
                "total_output_tokens" => count(u.output_tokens),
                "total_tokens" => count(u.input_tokens.saturating_add(u.output_tokens)),
                _ => count(u.calls),
            };
            (value, Tone::Idle)
        }
        Source::Agents => (got(data.agents.as_ref())?.iter().map(head_count).sum::<usize>() as f64, Tone::Idle),
        Source::Skills => (*got(data.skills.as_ref())? as f64, Tone::Idle),
        Source::Registries => (*got(data.registries.as_ref())? as f64, Tone::Idle),
        Source::Alerts => {
            let open: Vec<_> = got(data.alerts.as_ref())?.iter().filter(|a| !a.acknowledged).collect();
            let tone = if open.iter().any(|a| a.severity == "critical") {
                Tone::Bad
            } else if open.is_empty() {
                Tone::Ok
            } else {
                Tone::Warn
            };
            (open.len() as f64, tone)
        }
        Source::Registry => {
            let name = card.registry.as_deref().unwrap_or_default();
            (registry_value(card, got(data.registry.get(name))?), Tone::Idle)
        }
    };
    Ok((shown(value, card.format), tone))
}

fn got<T>(fetched: Option<&Result<T>>) -> std::result::Result<&T, String> {
    match fetched {
        Some(Ok(data)) => Ok(data),
        Some(Err(error)) => Err(super::said(error)),
        None => Err("no data".to_owned()),
    }
}

fn count(n: u64) -> f64 {
    n as f64
}

fn head_count(agent: &Agent) -> usize {
    1 + agent.children.iter().map(head_count).sum::<usize>()
}

fn registry_value(card: &Card, registry: &Registry) -> f64 {
    let entries = registry.entries.iter().filter(|entry| matches(entry, &card.r#where));
    match &card.sum {
        None => entries.count() as f64,
        Some(field) => entries
            .filter_map(|e| match e.get(field)? {
                Value::Number(n) => n.as_f64(),
                Value::String(s) => s.trim().parse().ok(),
                _ => None,
            })
            .filter(|n: &f64| n.is_finite())
            .sum(),
    }
}

/// Whether an entry's fields equal those asked for. A number and its text are equal: YAML writes both.
pub(super) fn matches(entry: &Map<String, Value>, filter: &Map<String, Value>) -> bool {
    filter.iter().all(|(field, wanted)| match entry.get(field) {
        Some(value) => value == wanted || plain(value) == plain(wanted),
        None => wanted.is_null(),
    })
}

pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn literal(value: Option<&Value>, format: Format) -> String {
    match value {
        Some(Value::Number(n)) => shown(n.as_f64().unwrap_or_default(), format),
        Some(other) => plain(other),
        None => String::new(),
    }
}

/// A number as people write it: whole numbers whole, money with two places, large amounts shortened.
fn shown(value: f64, format: Format) -> String {
    let money = |sign: &str| {
        let digits = if value.abs() >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") };
        format!("{sign}{}", amount(&digits))
    };
    match format {
        Format::Usd => money("$"),
        Format::Eur => money("€"),
        Format::Gbp => money("£"),
        Format::Percent => format!("{} %", trimmed(value)),
        Format::Number if value.abs() >= 1e7 => format!("{:.1}M", value / 1e6),
        Format::Number => number(&trimmed(value)),
    }
}

fn trimmed(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn card(value: Value) -> Card {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_card_that_cannot_work_is_refused_with_its_rule() {
        for (config, rule) in [
            (json!({"label": "x"}), "needs a source or a value"),
            (json!({"source": "queue"}), "needs a label"),
            (json!({"label": "x", "source": "queue", "value": 1}), "both a source and a value"),
            (json!({"label": "x", "source": "registry"}), "needs the name of its registry"),
            (json!({"label": "x", "source": "queue", "field": "done"}), "is not one of queued"),
            (json!({"label": "x", "source": "usage", "days": 0}), "between 1 and 366"),
        ] {
            assert!(check(&card(config)).unwrap_err().contains(rule), "{rule}");
        }
    }

    #[test]
    fn a_registry_is_counted_filtered_and_summed() {
        let entries = json!([
            {"tier": "gold", "fee": 1000}, {"tier": "gold", "fee": "250.5"}, {"tier": "tin", "fee": "none"}, {"fee": 9}
        ]);
        let registry = Registry { entries: serde_json::from_value(entries).unwrap(), ..Registry::default() };
        let value = |config: Value| registry_value(&card(config), &registry);
        assert_eq!(value(json!({})), 4.0);
        assert_eq!(value(json!({"where": {"tier": "gold"}})), 2.0);
        assert_eq!(value(json!({"where": {"tier": "gold"}, "sum": "fee"})), 1250.5);
    }

    #[test]
    fn numbers_are_written_for_people() {
        for (value, format, text) in [
            (3.0, Format::Number, "3"),
            (12_345.0, Format::Number, "12\u{202f}345"),
            (23_400_000.0, Format::Number, "23.4M"),
            (0.42, Format::Usd, "$0.42"),
            (48_200.0, Format::Eur, "€48\u{202f}200"),
            (12.5, Format::Percent, "12.5 %"),
        ] {
            assert_eq!(shown(value, format), text);
        }
    }
}
