//! `{{path}}` in webhook bodies and prompts. Known paths begin with `job`, `event`, `payload`, `slot` or `now`; a path that
//! leads nowhere is empty. A text that is nothing but one placeholder becomes the value itself, so that numbers stay numbers.
//! Scripts are never templated: what comes from outside reaches them on standard input, not in their source.

use crate::queue::Claimed;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

const ROOTS: &[&str] = &["job", "event", "payload", "slot", "now"];

/// What placeholders may refer to.
pub(super) struct Values(Value);

impl Values {
    pub(super) fn of(job: &Claimed, now: DateTime<Utc>) -> Self {
        let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
        Self(json!({
            "job": {"id": job.id, "attempt": job.attempt, "attempt_id": job.attempt_id},
            "event": {"id": job.event_id, "agent": job.agent},
            "payload": job.payload,
            "slot": job.slot.map(time),
            "now": time(now),
        }))
    }

    fn at(&self, path: &str) -> &Value {
        path.split('.').fold(&self.0, |value, step| match value {
            Value::Object(map) => map.get(step).unwrap_or(&Value::Null),
            Value::Array(items) => step.parse::<usize>().ok().and_then(|i| items.get(i)).unwrap_or(&Value::Null),
            _ => &Value::Null,
        })
    }
}

/// Whether every placeholder in `template` is well-formed; the error continues "the field …".
pub(super) fn check(template: &Value) -> Result<(), String> {
    match template {
        Value::String(text) => Parts(text).try_for_each(|part| match part {
            Part::Text(_) => Ok(()),
            Part::Path(path) if ROOTS.contains(&path.split('.').next().unwrap_or_default()) => Ok(()),
            Part::Path(path) => {
                let path: String = path.chars().take(60).collect();
                Err(format!("refers to '{path}'; a placeholder begins with one of {}", ROOTS.join(", ")))
            }
        }),
        Value::Array(items) => items.iter().try_for_each(check),
        Value::Object(map) => map.values().try_for_each(check),
        _ => Ok(()),
    }
}

/// `template` with its placeholders filled in.
pub(super) fn fill(template: &Value, values: &Values) -> Value {
    match template {
        Value::String(text) => {
            let parts: Vec<_> = Parts(text).collect();
            match parts.as_slice() {
                [Part::Path(path)] => values.at(path).clone(),
                _ => Value::String(join(&parts, values)),
            }
        }
        Value::Array(items) => items.iter().map(|item| fill(item, values)).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), fill(value, values))).collect(),
        other => other.clone(),
    }
}

/// `template` as text with its placeholders filled in.
pub(super) fn text(template: &str, values: &Values) -> String {
    join(&Parts(template).collect::<Vec<_>>(), values)
}

fn join(parts: &[Part<'_>], values: &Values) -> String {
    parts
        .iter()
        .map(|part| match part {
            Part::Text(text) => (*text).to_owned(),
            Part::Path(path) => match values.at(path) {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            },
        })
        .collect()
}

/// Whether `template` is valid, and what becomes of it with that payload.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn tried(template: &Value, payload: Value) -> (bool, Value) {
    let values = Values(json!({"payload": payload, "job": {"id": "j"}, "now": "2026-01-01T00:00:00.000Z"}));
    (check(template).is_ok(), fill(template, &values))
}

enum Part<'a> {
    Text(&'a str),
    Path(&'a str),
}

/// Splits a text at its placeholders. Braces that are not closed are plain text.
struct Parts<'a>(&'a str);

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;
    fn next(&mut self) -> Option<Part<'a>> {
        if self.0.is_empty() {
            return None;
        }
        if let Some(inside) = self.0.strip_prefix("{{")
            && let Some((path, rest)) = inside.split_once("}}")
        {
            self.0 = rest;
            return Some(Part::Path(path.trim()));
        }
        let skip = self.0.chars().next().map_or(0, char::len_utf8);
        let end = self.0[skip..].find("{{").map_or(self.0.len(), |at| at + skip);
        let (text, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(Part::Text(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values() -> Values {
        Values(json!({"payload": {"n": 3, "name": "A \"b\"", "list": [1, {"x": "y"}]}, "job": {"id": "j"}}))
    }

    #[test]
    fn placeholders_are_filled_and_keep_their_kind() {
        let template =
            json!({"n": "{{payload.n}}", "t": "<{{ payload.name }}|{{job.id}}>", "l": ["{{payload.list.1.x}}", true]});
        assert_eq!(fill(&template, &values()), json!({"n": 3, "t": "<A \"b\"|j>", "l": ["y", true]}));
    }

    #[test]
    fn a_path_that_leads_nowhere_is_empty() {
        assert_eq!(fill(&json!("{{payload.none.at.all}}"), &values()), Value::Null);
        assert_eq!(text("[{{payload.none}}]", &values()), "[]");
    }

    #[test]
    fn what_is_filled_in_is_not_read_as_a_template_again() {
        let values = Values(json!({"payload": {"evil": "{{job.id}}"}, "job": {"id": "j"}}));
        assert_eq!(text("{{payload.evil}}!", &values), "{{job.id}}!");
    }

    #[test]
    fn an_unknown_root_is_refused() {
        assert!(check(&json!(["{{secrets.key}}"])).is_err());
        assert!(check(&json!("{{ unclosed")).is_ok());
    }

    proptest! {
        #[test]
        fn text_without_placeholders_passes_unchanged(input in "[^{]{0,40}\\{?[^{]{0,10}") {
            prop_assert_eq!(text(&input, &values()), input);
        }
        #[test]
        fn no_text_makes_it_panic(input in "[{}a.ü ]{0,40}") {
            let _ = (check(&json!(input)), fill(&json!(input), &values()));
        }
    }
}
