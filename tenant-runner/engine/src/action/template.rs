//! `{{path}}` in webhook bodies and prompts. Known paths begin with `job`, `event`, `payload`, `slot` or `now`; a path that
//! leads nowhere is empty. A text that is nothing but one placeholder becomes the value itself, so that numbers stay numbers.
//! Scripts are never templated: what comes from outside reaches them on standard input, not in their source.

use crate::queue::Claimed;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

const ROOTS: &[&str] = &["job", "event", "payload", "slot", "now"];
const STEPS: &str = "steps";
/// The most that may be filled in.
const LONGEST: usize = 4 * 1024 * 1024;

/// Where a template stands: only a step can refer to the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Within {
    Nothing,
    Steps,
}

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

    #[cfg(test)]
    pub(super) fn new(values: Value) -> Self {
        Self(values)
    }

    /// Adds what a step answered: what it is as JSON, if it is JSON, else its text.
    pub(super) fn with_step(&mut self, name: &str, result: &str) {
        let value = serde_json::from_str(result).unwrap_or_else(|_| Value::String(result.to_owned()));
        self.0[STEPS][name] = value;
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
pub(super) fn check(template: &Value, within: Within) -> Result<(), String> {
    match template {
        Value::String(text) => Parts(text).try_for_each(|part| match part {
            Part::Text(_) => Ok(()),
            Part::Path(path) => {
                let root = path.split('.').next().unwrap_or_default();
                if ROOTS.contains(&root) || (within == Within::Steps && root == STEPS) {
                    return Ok(());
                }
                let path: String = path.chars().take(60).collect();
                Err(format!("refers to '{path}'; a placeholder begins with one of {}", ROOTS.join(", ")))
            }
        }),
        Value::Array(items) => items.iter().try_for_each(|item| check(item, within)),
        Value::Object(map) => map.values().try_for_each(|value| check(value, within)),
        _ => Ok(()),
    }
}

/// What is filled in would be more than anybody can mean: a long payload, many times over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

impl std::fmt::Display for TooLong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the filled template is longer than {} MiB", LONGEST / 1024 / 1024)
    }
}

/// `template` with its placeholders filled in. What is filled in is never read as a template again.
pub(super) fn fill(template: &Value, values: &Values) -> Result<Value, TooLong> {
    fill_within(template, values, &mut Room(LONGEST))
}

/// `template` as text with its placeholders filled in.
pub(super) fn text(template: &str, values: &Values) -> Result<String, TooLong> {
    join(template, values, &mut Room(LONGEST))
}

fn fill_within(template: &Value, values: &Values, room: &mut Room) -> Result<Value, TooLong> {
    Ok(match template {
        Value::String(text) => {
            let mut parts = Parts(text);
            match (parts.next(), parts.next()) {
                (Some(Part::Path(path)), None) => {
                    let value = values.at(path);
                    room.take_json(value)?;
                    value.clone()
                }
                _ => Value::String(join(text, values, room)?),
            }
        }
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| fill_within(item, values, room)).collect::<Result<_, _>>()?)
        }
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(key, value)| Ok((key.clone(), fill_within(value, values, room)?)))
                .collect::<Result<_, _>>()?,
        ),
        other => other.clone(),
    })
}

fn join(template: &str, values: &Values, room: &mut Room) -> Result<String, TooLong> {
    let mut filled = String::new();
    for part in Parts(template) {
        match part {
            Part::Text(text) => {
                room.take(text.len())?;
                filled.push_str(text);
            }
            Part::Path(path) => match values.at(path) {
                Value::Null => {}
                Value::String(text) => {
                    room.take(text.len())?;
                    filled.push_str(text);
                }
                other => {
                    room.take_json(other)?;
                    filled.push_str(&other.to_string());
                }
            },
        }
    }
    Ok(filled)
}

/// How many bytes may still be filled in.
struct Room(usize);

impl Room {
    fn take(&mut self, bytes: usize) -> Result<(), TooLong> {
        self.0 = self.0.checked_sub(bytes).ok_or(TooLong)?;
        Ok(())
    }

    /// Takes what `value` is long as JSON, and looks no further than there is room.
    fn take_json(&mut self, value: &Value) -> Result<(), TooLong> {
        serde_json::to_writer(self, value).map_err(|_| TooLong)
    }
}

impl std::io::Write for &mut Room {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.take(bytes.len()).map_err(|_| std::io::Error::from(std::io::ErrorKind::StorageFull))?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Whether `template` is valid, and what becomes of it with that payload.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn tried(template: &Value, payload: Value) -> (bool, Value) {
    let values = Values(json!({"payload": payload, "job": {"id": "j"}, "now": "2026-01-01T00:00:00.000Z"}));
    (check(template, Within::Steps).is_ok(), fill(template, &values).unwrap_or_default())
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
        assert_eq!(fill(&template, &values()).unwrap(), json!({"n": 3, "t": "<A \"b\"|j>", "l": ["y", true]}));
    }

    #[test]
    fn a_path_that_leads_nowhere_is_empty() {
        assert_eq!(fill(&json!("{{payload.none.at.all}}"), &values()), Ok(Value::Null));
        assert_eq!(text("[{{payload.none}}]", &values()), Ok("[]".to_owned()));
    }

    #[test]
    fn what_is_filled_in_is_not_read_as_a_template_again() {
        let values = Values(json!({"payload": {"evil": "{{job.id}}"}, "job": {"id": "j"}}));
        assert_eq!(text("{{payload.evil}}!", &values), Ok("{{job.id}}!".to_owned()));
    }

    #[test]
    fn an_unknown_root_is_refused() {
        assert!(check(&json!(["{{secrets.key}}"]), Within::Steps).is_err());
        assert!(check(&json!("{{ unclosed"), Within::Nothing).is_ok());
        assert!(check(&json!("{{steps.a.b}}"), Within::Steps).is_ok());
        assert!(check(&json!("{{steps.a.b}}"), Within::Nothing).is_err());
    }

    #[test]
    fn a_step_is_what_it_answered_as_json_if_it_is() {
        let mut values = values();
        values.with_step("a", r#"{"n": [1, 2]}"#);
        values.with_step("b", "plain");
        let template = json!(["{{steps.a.n.1}}", "{{steps.b}}", "{{steps.c}}"]);
        assert_eq!(fill(&template, &values), Ok(json!([2, "plain", null])));
    }

    #[test]
    fn a_long_payload_many_times_over_is_refused_before_it_is_made() {
        let values = Values(json!({"payload": {"text": "x".repeat(100_000), "list": vec![7; 50_000]}}));
        for path in ["payload.text", "payload.list", "payload"] {
            let placeholder = format!("{{{{{path}}}}}");
            let many = placeholder.repeat(64 * 1024 / placeholder.len());
            assert_eq!(text(&many, &values), Err(TooLong));
            assert_eq!(fill(&json!({"a": [many]}), &values), Err(TooLong));
            assert_eq!(fill(&json!(vec![placeholder; 4_000]), &values), Err(TooLong));
        }
        assert!(text("{{payload}}{{payload.text}}", &values).is_ok());
    }

    proptest! {
        #[test]
        fn text_without_placeholders_passes_unchanged(input in "[^{]{0,40}\\{?[^{]{0,10}") {
            prop_assert_eq!(text(&input, &values()), Ok(input));
        }
        #[test]
        fn no_text_makes_it_panic(input in "[{}a.ü ]{0,40}") {
            let _ = (check(&json!(input), Within::Nothing), fill(&json!(input), &values()));
        }
        #[test]
        fn what_comes_from_outside_appears_as_it_is_and_only_where_it_was_asked_for(
            outside in "[{}a-z.\"$ü ]{0,60}", before in "[a-z ]{0,10}", after in "[a-z ]{0,10}",
        ) {
            let values = Values(json!({"payload": {"x": outside}, "job": {"id": "secret"}}));
            let template = format!("{before}{{{{payload.x}}}}{after}");
            prop_assert_eq!(text(&template, &values), Ok(format!("{before}{outside}{after}")));
            prop_assert_eq!(fill(&json!("{{payload.x}}"), &values), Ok(json!(outside)));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn whatever_is_filled_in_stays_within_the_cap(
            template in "(\\{\\{payload\\.(a|b|c)\\}\\}|[a-z]{1,9}){0,200}", length in 0usize..60_000,
        ) {
            let values = Values(json!({"payload": {"a": "x".repeat(length), "b": vec![1; length / 10], "c": {"d": 1}}}));
            if let Ok(filled) = text(&template, &values) {
                prop_assert!(filled.len() <= LONGEST);
            }
        }
    }
}
