//! Which facts on the bus an event waits for: their kind, and what their data must hold. Pure, like all of a schedule.

use super::parse::{FIELD, refuse};
use crate::bus::BusEvent;
use crate::error::{EngineError, Result};
use serde_json::{Map, Value};

const MOST_KINDS: usize = 16;
const MOST_FIELDS: usize = 20;
const MOST_ALTERNATIVES: usize = 50;
const LONGEST_KIND: usize = 100;

/// A condition on facts.
#[derive(Debug, Clone, PartialEq)]
pub struct FactRule {
    kinds: Vec<String>,
    /// All of them must hold.
    fields: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq)]
struct Field {
    /// Members of members of the fact's data, joined by dots.
    path: String,
    /// One of them must be there.
    values: Vec<Value>,
}

impl FactRule {
    /// Reads `job.failed`, `job.*`, or `{"on": …, "match": {"path": value}}`, where `on` may be a list and a value too.
    pub(super) fn parse(text: &str) -> Result<Self> {
        if !text.starts_with('{') {
            return Ok(Self { kinds: vec![kind(text)?], fields: Vec::new() });
        }
        let map: Map<String, Value> =
            serde_json::from_str(text).or_else(|error| refuse(format!("looks like JSON but is not: {error}")))?;
        if let Some(key) = map.keys().find(|key| !["on", "match"].contains(&key.as_str())) {
            let key: String = key.chars().take(40).collect();
            return refuse(format!("has an unknown member '{key}'; known are 'on' and 'match'"));
        }
        let kinds = match map.get("on") {
            Some(Value::String(text)) => vec![kind(text)?],
            Some(Value::Array(list)) if (1..=MOST_KINDS).contains(&list.len()) => list
                .iter()
                .map(|item| item.as_str().map_or_else(|| refuse("needs texts in 'on'"), kind))
                .collect::<Result<_>>()?,
            _ => {
                return refuse(format!(
                    "needs the kind of fact in 'on', such as \"job.failed\", or 1 to {MOST_KINDS} of them"
                ));
            }
        };
        let fields = match map.get("match") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Object(fields)) if fields.len() <= MOST_FIELDS => {
                fields.iter().map(|(path, value)| Field::parse(path, value)).collect::<Result<_>>()?
            }
            Some(_) => return refuse(format!("needs an object of at most {MOST_FIELDS} members in 'match'")),
        };
        Ok(Self { kinds, fields })
    }

    /// Whether a fact is one of those waited for.
    pub fn matches(&self, fact: &BusEvent) -> bool {
        self.kinds.iter().any(|wanted| kind_fits(wanted, &fact.kind))
            && self.fields.iter().all(|field| field.matches(fact))
    }

    /// Whether the condition names this event as the origin of the fact.
    pub(crate) fn names_event(&self, id: &str) -> bool {
        self.fields.iter().any(|field| {
            matches!(field.path.as_str(), "event_id" | "data.event_id") && field.values.iter().any(|value| value == id)
        })
    }
}

impl Field {
    fn parse(path: &str, value: &Value) -> Result<Self> {
        let name: String = path.chars().take(40).collect();
        if path.is_empty() || path.split('.').any(str::is_empty) {
            return refuse(format!("has '{name}' in 'match', which is no path of members joined by dots"));
        }
        let values = match value {
            Value::Array(list) if (1..=MOST_ALTERNATIVES).contains(&list.len()) => list.clone(),
            single => vec![single.clone()],
        };
        if !values.iter().all(|value| value.is_string() || value.is_number() || value.is_boolean()) {
            let rule = format!("must be a text, a number, true, false, or a list of 1 to {MOST_ALTERNATIVES} of them");
            return Err(EngineError::invalid(FIELD, format!("has 'match.{name}', which {rule}")));
        }
        Ok(Self { path: path.to_owned(), values })
    }

    fn matches(&self, fact: &BusEvent) -> bool {
        let found = member(&fact.data, &self.path).or_else(|| member(&fact.data, self.path.strip_prefix("data.")?));
        match found {
            Some(found) => self.values.iter().any(|wanted| same(wanted, found)),
            None => self.path == "source" && self.values.iter().any(|wanted| wanted == fact.source.as_str()),
        }
    }
}

fn member<'a>(data: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(data, |value, name| value.get(name))
}

/// Numbers are equal by value: 1 is 1.0.
fn same(wanted: &Value, found: &Value) -> bool {
    wanted == found || matches!((wanted.as_f64(), found.as_f64()), (Some(a), Some(b)) if a == b)
}

/// A kind of fact, or all of a family: `job.*`.
fn kind(text: &str) -> Result<String> {
    let text = text.trim();
    let name = text.strip_suffix(".*").unwrap_or(text);
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.';
    if text.len() > LONGEST_KIND || name.split('.').any(str::is_empty) || !name.chars().all(word) {
        return refuse("must name a kind of fact, such as job.failed, or a family of them, such as job.*");
    }
    Ok(text.to_owned())
}

fn kind_fits(wanted: &str, kind: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(family) => kind.starts_with(family),
        None => kind == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Utc};
    use serde_json::json;

    fn fact(kind: &str, data: Value) -> BusEvent {
        BusEvent { seq: 1, kind: kind.into(), source: "queue".into(), data, created_at: DateTime::<Utc>::UNIX_EPOCH }
    }

    fn rule(value: Value) -> FactRule {
        FactRule::parse(&value.to_string()).unwrap()
    }

    #[test]
    fn a_kind_stands_for_itself_and_a_star_for_a_family() {
        let exact = FactRule::parse("job.failed").unwrap();
        assert!(exact.matches(&fact("job.failed", json!({}))));
        assert!(!exact.matches(&fact("job.failed_twice", json!({}))));
        let family = FactRule::parse("job.*").unwrap();
        assert!(family.matches(&fact("job.dead", json!({}))));
        assert!(!family.matches(&fact("jobs.dead", json!({}))));
        assert!(rule(json!({"on": ["job.dead", "alert.*"]})).matches(&fact("alert.raised", json!({}))));
    }

    #[test]
    fn every_named_field_must_hold_one_of_its_values() {
        let data = json!({"event_id": "x", "attempt": 2, "agent": {"name": "ada"}, "last": true});
        for (wanted, fits) in [
            (json!({"event_id": "x"}), true),
            (json!({"data.event_id": "x"}), true),
            (json!({"event_id": ["y", "x"]}), true),
            (json!({"event_id": "y"}), false),
            (json!({"event_id": "x", "attempt": 3}), false),
            (json!({"attempt": 2.0}), true),
            (json!({"attempt": "2"}), false),
            (json!({"agent.name": "ada", "last": true}), true),
            (json!({"agent": "ada"}), false),
            (json!({"nothing.here": "x"}), false),
            (json!({"source": "queue"}), true),
        ] {
            let rule = rule(json!({"on": "job.failed", "match": wanted}));
            assert_eq!(rule.matches(&fact("job.failed", data.clone())), fits, "{wanted}");
        }
    }

    #[test]
    fn a_bad_condition_is_refused_with_its_field() {
        for text in [
            "",
            "*",
            "job.",
            ".*",
            "job failed",
            "Job.failed",
            "job.*.failed",
            r#"{"match": {}}"#,
            r#"{"on": []}"#,
            r#"{"on": [1]}"#,
            r#"{"on": "job.failed", "when": 1}"#,
            r#"{"on": "job.failed", "match": []}"#,
            r#"{"on": "job.failed", "match": {"": 1}}"#,
            r#"{"on": "job.failed", "match": {"a..b": 1}}"#,
            r#"{"on": "job.failed", "match": {"a": null}}"#,
            r#"{"on": "job.failed", "match": {"a": [[1]]}}"#,
            r#"{"on": "#,
        ] {
            assert_eq!(FactRule::parse(text).unwrap_err().field(), Some("condition_expr"), "{text}");
        }
    }
}
