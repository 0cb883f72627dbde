//! Reading `action_config`. Every refusal names the member at fault.

use super::script::Limits;
use super::template::Within;
use super::{ActionType, enqueue, template};
use crate::error::{EngineError, Result};
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value};
use std::time::Duration;
use url::Url;

const LONGEST_TEXT: usize = 64 * 1024;
const MOST_HEADERS: usize = 32;
const MOST_VARIABLES: usize = 64;
const MOST_STEPS: usize = 50;
const LONGEST_SPEC: usize = 256 * 1024;
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
    RegistryUpdate(RegistryUpdate),
    /// A job spec that may hold `{{…}}`.
    JobEnqueue(Value),
    Steps(Vec<Step>),
}

#[derive(Debug)]
pub(super) struct Step {
    pub name: String,
    pub action: Action,
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
    /// Added to the environment; values may refer to secrets as `${NAME}`.
    pub env: Vec<(String, String)>,
    /// Beneath the workspace.
    pub cwd: Option<String>,
    pub limits: Limits,
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

#[derive(Debug)]
pub(super) struct RegistryUpdate {
    pub registry: String,
    pub op: Change,
    /// Which rows; values may hold `{{…}}`.
    pub matching: Map<String, Value>,
    pub set: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Changes the rows that match; adds one if there is none.
    Upsert,
    Append,
    Remove,
}

/// Whether `config` is a valid configuration of `action`.
pub fn check(action: ActionType, config: &Value) -> Result<()> {
    Action::read(action, config, Within::Nothing).map(|_| ())
}

impl Action {
    pub(super) fn read(action: ActionType, config: &Value, within: Within) -> Result<Self> {
        let Value::Object(map) = config else {
            return Err(EngineError::invalid("action_config", "must be a JSON object"));
        };
        let members = Members(map, within);
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
            ActionType::JobEnqueue => {
                if config.to_string().len() > LONGEST_SPEC {
                    return Err(EngineError::invalid("action_config", format!("must be at most {LONGEST_SPEC} bytes")));
                }
                template::check(config, within).map_err(|rule| EngineError::invalid("action_config", rule))?;
                enqueue::check(config)?;
                Ok(Self::JobEnqueue(config.clone()))
            }
            ActionType::Steps => steps(&members).map(Self::Steps),
            ActionType::RegistryUpdate => registry_update(&members).map(Self::RegistryUpdate),
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
        template::check(body, members.1).map_err(|rule| EngineError::invalid("action_config.body", rule))?;
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
    members.only(&["command", "script", "timeout_s", "env", "cwd", "limits"])?;
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
    Ok(Script {
        command,
        timeout: members.seconds("timeout_s", 300, 24 * 3600)?,
        env: environment(members.0.get("env"))?,
        cwd: folder(members)?,
        limits: Limits::read(members.0.get("limits"))?,
    })
}

fn environment(value: Option<&Value>) -> Result<Vec<(String, String)>> {
    let field = "action_config.env";
    let map = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(map)) if map.len() <= MOST_VARIABLES => map,
        Some(_) => {
            return Err(EngineError::invalid(field, format!("must be an object of at most {MOST_VARIABLES} texts")));
        }
    };
    let mut length = 0;
    map.iter()
        .map(|(name, value)| {
            let field = format!("{field}.{}", name.chars().take(60).collect::<String>());
            let invalid = |rule: &str| EngineError::invalid(field.clone(), rule);
            let plain = name.len() <= 128
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !plain {
                return Err(invalid("is not a name of letters, digits and underscores that begins with no digit"));
            }
            if name.starts_with("NEXAAS_") || name == "TRACEPARENT" {
                return Err(invalid("is set by the engine itself"));
            }
            let text = value.as_str().ok_or_else(|| invalid("must be a text"))?;
            length += name.len() + text.len();
            if text.contains('\0') || length > LONGEST_TEXT {
                return Err(invalid("must not hold a NUL character, nor all of them together more than 65536 bytes"));
            }
            Ok((name.clone(), text.to_owned()))
        })
        .collect()
}

fn folder(members: &Members<'_>) -> Result<Option<String>> {
    let folder = members.text(&["cwd"])?;
    match &folder {
        Some(path) if path.starts_with('/') || path.contains('\0') || path.split('/').any(|step| step == "..") => {
            Err(EngineError::invalid(
                "action_config.cwd",
                "must be the path of a folder beneath the workspace, such as tools/bin",
            ))
        }
        _ => Ok(folder),
    }
}

fn registry_update(members: &Members<'_>) -> Result<RegistryUpdate> {
    members.only(&["registry", "match", "set", "op"])?;
    let registry = members.needed(&["registry"])?;
    let plain = registry.len() <= 100
        && !registry.starts_with('.')
        && !registry.contains(|c: char| c == '/' || c == '\\' || c.is_control());
    if !plain {
        return Err(EngineError::invalid("action_config.registry", "must be the name of a registry"));
    }
    let op = match members.text(&["op"])?.as_deref().unwrap_or("upsert") {
        "upsert" => Change::Upsert,
        "append" => Change::Append,
        "remove" => Change::Remove,
        _ => return Err(EngineError::invalid("action_config.op", "must be one of upsert, append, remove")),
    };
    let (matching, set) = (members.row("match")?, members.row("set")?);
    match op {
        Change::Upsert | Change::Remove if matching.is_empty() => {
            return Err(EngineError::invalid("action_config.match", "must name at least one field and its value"));
        }
        Change::Append if !matching.is_empty() => {
            return Err(EngineError::invalid("action_config.match", "does not go with append"));
        }
        Change::Upsert | Change::Append if set.is_empty() => {
            return Err(EngineError::invalid("action_config.set", "must name at least one field and its value"));
        }
        Change::Remove if !set.is_empty() => {
            return Err(EngineError::invalid("action_config.set", "does not go with remove"));
        }
        Change::Upsert | Change::Append | Change::Remove => {}
    }
    Ok(RegistryUpdate { registry, op, matching, set })
}

fn steps(members: &Members<'_>) -> Result<Vec<Step>> {
    if members.1 == Within::Steps {
        return Err(EngineError::invalid("action_type", "cannot be steps within steps"));
    }
    members.only(&["steps"])?;
    let field = "action_config.steps";
    let list = match members.0.get("steps") {
        Some(Value::Array(list)) if (1..=MOST_STEPS).contains(&list.len()) => list,
        _ => return Err(EngineError::invalid(field, format!("must be a list of 1 to {MOST_STEPS} steps"))),
    };
    let mut steps: Vec<Step> = Vec::with_capacity(list.len());
    for (at, step) in list.iter().enumerate() {
        let step = step_of(step).map_err(|error| beneath(&format!("{field}.{at}"), error))?;
        if steps.iter().any(|known| known.name == step.name) {
            return Err(EngineError::invalid(format!("{field}.{at}.name"), "is the name of an earlier step"));
        }
        steps.push(step);
    }
    Ok(steps)
}

fn step_of(step: &Value) -> Result<Step> {
    let Value::Object(map) = step else { return Err(EngineError::invalid("step", "must be a JSON object")) };
    if let Some(key) = map.keys().find(|key| !["name", "action_type", "action_config"].contains(&key.as_str())) {
        let key: String = key.chars().take(60).collect();
        return Err(EngineError::invalid(key, "is unknown; known are name, action_type, action_config"));
    }
    let text = |name: &str| map.get(name).and_then(Value::as_str).unwrap_or_default();
    let name = text("name");
    let plain = (1..=40).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    if !plain {
        return Err(EngineError::invalid("name", "must be 1 to 40 letters, digits, underscores and dashes"));
    }
    let action = text("action_type").parse()?;
    let config = map.get("action_config").unwrap_or(&Value::Null);
    Ok(Step { name: name.to_owned(), action: Action::read(action, config, Within::Steps)? })
}

/// The same refusal, of a field inside `outer`.
pub(super) fn beneath(outer: &str, error: EngineError) -> EngineError {
    match error.field() {
        Some(field) => {
            let rule = error.public().strip_prefix(field).unwrap_or(error.public()).trim_start().to_owned();
            EngineError::invalid(format!("{outer}.{field}"), rule)
        }
        None => error,
    }
}

struct Members<'a>(&'a Map<String, Value>, Within);

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
            template::check(&Value::String(text.clone()), self.1)
                .map_err(|rule| EngineError::invalid(format!("action_config.{}", names[0]), rule))?;
        }
        Ok(text)
    }

    /// Fields and their values, which may hold placeholders; nothing is an empty row.
    fn row(&self, name: &str) -> Result<Map<String, Value>> {
        let field = format!("action_config.{name}");
        let value = match self.0.get(name) {
            None | Some(Value::Null) => return Ok(Map::new()),
            Some(value) => value,
        };
        let Value::Object(row) = value else { return Err(EngineError::invalid(field, "must be an object")) };
        if value.to_string().len() > LONGEST_TEXT {
            return Err(EngineError::invalid(field, format!("must be at most {LONGEST_TEXT} bytes")));
        }
        template::check(value, self.1).map_err(|rule| EngineError::invalid(field, rule))?;
        Ok(row.clone())
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
            (ActionType::Script, json!({"command": "a", "cwd": "/etc"}), "action_config.cwd"),
            (ActionType::Script, json!({"command": "a", "cwd": "a/../.."}), "action_config.cwd"),
            (ActionType::Script, json!({"command": "a", "env": []}), "action_config.env"),
            (ActionType::Script, json!({"command": "a", "env": {"A=B": ""}}), "action_config.env.A=B"),
            (ActionType::Script, json!({"command": "a", "env": {"": ""}}), "action_config.env."),
            (ActionType::Script, json!({"command": "a", "env": {"1A": ""}}), "action_config.env.1A"),
            (ActionType::Script, json!({"command": "a", "env": {"A": 1}}), "action_config.env.A"),
            (ActionType::Script, json!({"command": "a", "env": {"A": "\u{0}"}}), "action_config.env.A"),
            (
                ActionType::Script,
                json!({"command": "a", "env": {"NEXAAS_JOB_ID": ""}}),
                "action_config.env.NEXAAS_JOB_ID",
            ),
            (ActionType::Script, json!({"command": "a", "limits": {"processes": 0}}), "action_config.limits.processes"),
            (ActionType::JobEnqueue, json!({}), "action_config.action_type"),
            (
                ActionType::JobEnqueue,
                json!({"action_type": "script", "action_config": {}}),
                "action_config.action_config.command",
            ),
            (
                ActionType::JobEnqueue,
                json!({"action_type": "{{payload.x}}", "action_config": {}}),
                "action_config.action_type",
            ),
            (
                ActionType::JobEnqueue,
                json!({"action_type": "script", "action_config": {"command": "true"}, "prio": 1}),
                "action_config.prio",
            ),
            (ActionType::Steps, json!({}), "action_config.steps"),
            (ActionType::Steps, json!({"steps": []}), "action_config.steps"),
            (ActionType::Steps, json!({"steps": [1]}), "action_config.steps.0.step"),
            (ActionType::Steps, json!({"steps": vec![json!({}); 51]}), "action_config.steps"),
            (ActionType::Steps, json!({"steps": [{"name": "a.b"}]}), "action_config.steps.0.name"),
            (
                ActionType::Steps,
                json!({"steps": [{"name": "a", "action_type": "what"}]}),
                "action_config.steps.0.action_type",
            ),
            (
                ActionType::Steps,
                json!({"steps": [{"name": "a", "action_type": "script", "action_config": {"command": ""}}]}),
                "action_config.steps.0.action_config.command",
            ),
            (
                ActionType::Steps,
                json!({"steps": [{"name": "a", "action_type": "steps", "action_config": {"steps": []}}]}),
                "action_config.steps.0.action_type",
            ),
            (
                ActionType::Steps,
                json!({"steps": [
                    {"name": "a", "action_type": "script", "action_config": {"command": "true"}},
                    {"name": "a", "action_type": "script", "action_config": {"command": "true"}},
                ]}),
                "action_config.steps.1.name",
            ),
            (ActionType::AgentChat, json!({"prompt": "{{steps.a}}"}), "action_config.prompt"),
            (ActionType::RegistryUpdate, json!({"set": {"a": 1}}), "action_config.registry"),
            (ActionType::RegistryUpdate, json!({"registry": "../x", "set": {"a": 1}}), "action_config.registry"),
            (ActionType::RegistryUpdate, json!({"registry": "x", "set": {"a": 1}}), "action_config.match"),
            (ActionType::RegistryUpdate, json!({"registry": "x", "match": {"a": 1}}), "action_config.set"),
            (ActionType::RegistryUpdate, json!({"registry": "x", "op": "drop"}), "action_config.op"),
            (
                ActionType::RegistryUpdate,
                json!({"registry": "x", "op": "append", "set": {"a": "{{env.HOME}}"}}),
                "action_config.set",
            ),
            (
                ActionType::RegistryUpdate,
                json!({"registry": "x", "op": "remove", "match": {"a": 1}, "set": {"a": 1}}),
                "action_config.set",
            ),
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
