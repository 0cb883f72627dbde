//! Reading `action_config`. Every refusal names the member at fault.

use super::{ActionType, template};
use crate::error::{EngineError, Result};
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value};
use std::time::Duration;
use url::Url;

const LONGEST_TEXT: usize = 64 * 1024;
const MOST_HEADERS: usize = 32;
/// Set by us on every call; a definition cannot.
const OWN_HEADERS: &[&str] = &[
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "idempotency-key",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "traceparent",
    "tracestate",
];

#[derive(Debug)]
pub(super) enum Action {
    Webhook(Webhook),
    Script(Script),
    Skill(Skill),
    AgentChat(AgentChat),
}

#[derive(Debug)]
pub(super) struct Webhook {
    pub url: Url,
    pub method: reqwest::Method,
    /// Values may refer to secrets as `${NAME}`.
    pub headers: Vec<(HeaderName, String)>,
    /// May hold `{{…}}`.
    pub body: Option<Value>,
    /// Name of the secret that signs the call.
    pub signing_secret: Option<String>,
    pub timeout: Duration,
}

#[derive(Debug)]
pub(super) struct Script {
    pub command: Command,
    pub timeout: Duration,
}

#[derive(Debug)]
pub(super) enum Command {
    Shell(String),
    Argv(Vec<String>),
}

#[derive(Debug)]
pub(super) struct Skill {
    pub skill: String,
    pub input: String,
    pub agent: Option<String>,
}

#[derive(Debug)]
pub(super) struct AgentChat {
    pub agent: Option<String>,
    pub prompt: String,
}

/// Whether `config` is a valid configuration of `action`.
pub fn check(action: ActionType, config: &Value) -> Result<()> {
    Action::read(action, config).map(|_| ())
}

impl Action {
    pub(super) fn read(action: ActionType, config: &Value) -> Result<Self> {
        let Value::Object(map) = config else {
            return Err(EngineError::invalid("action_config", "must be a JSON object"));
        };
        let members = Members(map);
        match action {
            ActionType::Webhook => webhook(&members).map(Self::Webhook),
            ActionType::Script => script(&members).map(Self::Script),
            ActionType::Skill => {
                members.only(&["skill", "name", "input", "agent"])?;
                Ok(Self::Skill(Skill {
                    skill: members.needed(&["skill", "name"])?,
                    input: members.template(&["input"])?.unwrap_or_default(),
                    agent: members.text(&["agent"])?,
                }))
            }
            ActionType::AgentChat => {
                members.only(&["agent", "prompt", "message"])?;
                let prompt = members.template(&["prompt", "message"])?;
                Ok(Self::AgentChat(AgentChat {
                    agent: members.text(&["agent"])?,
                    prompt: prompt.ok_or_else(|| {
                        EngineError::invalid("action_config.prompt", "must be a text that is not empty")
                    })?,
                }))
            }
        }
    }
}

fn webhook(members: &Members<'_>) -> Result<Webhook> {
    members.only(&["url", "method", "headers", "body", "signing_secret", "timeout_s"])?;
    let url = members.needed(&["url"])?;
    let url = Url::parse(&url).map_err(|e| EngineError::invalid("action_config.url", format!("must be a URL: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(EngineError::invalid("action_config.url", "must begin with http:// or https:// and name a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(EngineError::invalid("action_config.url", "must not hold a user name or password; use headers"));
    }
    let method = match members.text(&["method"])?.as_deref().unwrap_or("POST") {
        "GET" => reqwest::Method::GET,
        "POST" => reqwest::Method::POST,
        "PUT" => reqwest::Method::PUT,
        "PATCH" => reqwest::Method::PATCH,
        "DELETE" => reqwest::Method::DELETE,
        _ => return Err(EngineError::invalid("action_config.method", "must be one of GET, POST, PUT, PATCH, DELETE")),
    };
    let body = members.0.get("body").filter(|body| !body.is_null()).cloned();
    if let Some(body) = &body {
        if method == reqwest::Method::GET {
            return Err(EngineError::invalid("action_config.body", "cannot go with the method GET"));
        }
        if body.to_string().len() > LONGEST_TEXT {
            return Err(EngineError::invalid("action_config.body", format!("must be at most {LONGEST_TEXT} bytes")));
        }
        template::check(body).map_err(|rule| EngineError::invalid("action_config.body", rule))?;
    }
    Ok(Webhook {
        url,
        method,
        headers: headers(members.0.get("headers"))?,
        body,
        signing_secret: members.text(&["signing_secret"])?,
        timeout: members.seconds("timeout_s", 30, 300)?,
    })
}

fn headers(value: Option<&Value>) -> Result<Vec<(HeaderName, String)>> {
    let field = "action_config.headers";
    let map = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(map)) if map.len() <= MOST_HEADERS => map,
        Some(_) => {
            return Err(EngineError::invalid(field, format!("must be an object of at most {MOST_HEADERS} texts")));
        }
    };
    map.iter()
        .map(|(name, value)| {
            let field = format!("{field}.{}", name.chars().take(60).collect::<String>());
            let invalid = |rule: &str| EngineError::invalid(field.clone(), rule);
            let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid("is not a valid header name"))?;
            if OWN_HEADERS.contains(&header.as_str()) {
                return Err(invalid("is set by the engine itself"));
            }
            let text = value.as_str().ok_or_else(|| invalid("must be a text"))?;
            HeaderValue::from_str(text).map_err(|_| invalid("must be printable text on one line"))?;
            Ok((header, text.to_owned()))
        })
        .collect()
}

fn script(members: &Members<'_>) -> Result<Script> {
    members.only(&["command", "script", "timeout_s"])?;
    let field = "action_config.command";
    let command = match members.0.get("command").or_else(|| members.0.get("script")) {
        Some(Value::String(text)) if !text.trim().is_empty() && text.len() <= LONGEST_TEXT => {
            Command::Shell(text.clone())
        }
        Some(Value::Array(items)) if !items.is_empty() && items.len() <= 256 => Command::Argv(
            items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
                .filter(|argv| !argv[0].is_empty() && argv.iter().map(String::len).sum::<usize>() <= LONGEST_TEXT)
                .ok_or_else(|| EngineError::invalid(field, "must be a list of texts that begins with a program"))?,
        ),
        _ => return Err(EngineError::invalid(field, "must be a line for the shell or a list of texts")),
    };
    let holds_nul = match &command {
        Command::Shell(text) => text.contains('\0'),
        Command::Argv(argv) => argv.iter().any(|text| text.contains('\0')),
    };
    if holds_nul {
        return Err(EngineError::invalid(field, "must not hold a NUL character"));
    }
    Ok(Script { command, timeout: members.seconds("timeout_s", 300, 24 * 3600)? })
}

struct Members<'a>(&'a Map<String, Value>);

impl Members<'_> {
    fn only(&self, known: &[&str]) -> Result<()> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => {
                let key: String = key.chars().take(60).collect();
                Err(EngineError::invalid(
                    format!("action_config.{key}"),
                    format!("is unknown; known are {}", known.join(", ")),
                ))
            }
        }
    }

    /// The first of `names` that is there; the others are older spellings of it.
    fn text(&self, names: &[&str]) -> Result<Option<String>> {
        let Some((name, value)) = names.iter().find_map(|name| self.0.get(*name).map(|value| (name, value))) else {
            return Ok(None);
        };
        match value {
            Value::Null => Ok(None),
            Value::String(text) if !text.trim().is_empty() && text.len() <= LONGEST_TEXT => Ok(Some(text.clone())),
            _ => Err(EngineError::invalid(
                format!("action_config.{name}"),
                format!("must be a text of 1 to {LONGEST_TEXT} bytes"),
            )),
        }
    }

    fn needed(&self, names: &[&str]) -> Result<String> {
        self.text(names)?.ok_or_else(|| {
            EngineError::invalid(format!("action_config.{}", names[0]), "must be a text that is not empty")
        })
    }

    fn template(&self, names: &[&str]) -> Result<Option<String>> {
        let text = self.text(names)?;
        if let Some(text) = &text {
            template::check(&Value::String(text.clone()))
                .map_err(|rule| EngineError::invalid(format!("action_config.{}", names[0]), rule))?;
        }
        Ok(text)
    }

    fn seconds(&self, name: &str, default: u64, most: u64) -> Result<Duration> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(Duration::from_secs(default)),
            Some(value) => match value.as_u64() {
                Some(seconds) if (1..=most).contains(&seconds) => Ok(Duration::from_secs(seconds)),
                _ => Err(EngineError::invalid(
                    format!("action_config.{name}"),
                    format!("must be a whole number of seconds from 1 to {most}"),
                )),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_mistake_is_named_by_its_member() {
        for (action, config, field) in [
            (ActionType::Webhook, json!([]), "action_config"),
            (ActionType::Webhook, json!({}), "action_config.url"),
            (ActionType::Webhook, json!({"url": "file:///etc/passwd"}), "action_config.url"),
            (ActionType::Webhook, json!({"url": "http://u:p@example.com"}), "action_config.url"),
            (ActionType::Webhook, json!({"url": "http://example.com", "method": "TRACE"}), "action_config.method"),
            (
                ActionType::Webhook,
                json!({"url": "http://example.com", "headers": {"a\nb": "c"}}),
                "action_config.headers.a\nb",
            ),
            (
                ActionType::Webhook,
                json!({"url": "http://example.com", "headers": {"Host": "x"}}),
                "action_config.headers.Host",
            ),
            (
                ActionType::Webhook,
                json!({"url": "http://example.com", "headers": {"X": "a\r\nb"}}),
                "action_config.headers.X",
            ),
            (ActionType::Webhook, json!({"url": "http://example.com", "timeout_s": 0}), "action_config.timeout_s"),
            (
                ActionType::Webhook,
                json!({"url": "http://example.com", "body": "{{nobody.knows}}"}),
                "action_config.body",
            ),
            (ActionType::Webhook, json!({"url": "http://example.com", "retries": 3}), "action_config.retries"),
            (ActionType::Script, json!({"command": ""}), "action_config.command"),
            (ActionType::Script, json!({"command": ["", "a"]}), "action_config.command"),
            (ActionType::Script, json!({"command": ["a", 1]}), "action_config.command"),
            (ActionType::Script, json!({"command": "a\u{0}b"}), "action_config.command"),
            (ActionType::Skill, json!({"input": "x"}), "action_config.skill"),
            (ActionType::AgentChat, json!({"agent": "a"}), "action_config.prompt"),
        ] {
            let error = check(action, &config).unwrap_err();
            assert_eq!(error.field(), Some(field), "{config}");
        }
    }

    #[test]
    fn the_older_spellings_are_understood() {
        check(ActionType::Skill, &json!({"name": "health-check"})).unwrap();
        check(ActionType::AgentChat, &json!({"agent": "a", "message": "hello {{payload.name}}"})).unwrap();
        assert_eq!("claude_chat".parse::<ActionType>().unwrap(), ActionType::AgentChat);
    }
}
