//! `.mcp.json` and the catalogue of MCP servers.
//!
//! Always true here: what is served of `.mcp.json` holds no secret. A value of `env` or `headers` is shown only when it is
//! wholly made of `${VAR}` references; an argument or an address loses the part that looks like a credential.

use super::files::{Root, stem};
use super::problem::Problem;
use super::yaml::{self, or_default};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What stands where a secret was.
pub const REDACTED: &str = "[redacted]";
pub const FILE: &str = ".mcp.json";

/// One entry of the catalogue.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CatalogEntry {
    pub name: String,
    pub description: String,
    pub category: String,
    pub requires_env: Vec<String>,
    pub config: Value,
    #[serde(skip)]
    pub path: String,
}

#[derive(Debug, Default, Deserialize)]
struct EntryFile {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    description: String,
    #[serde(default, deserialize_with = "or_default")]
    category: String,
    #[serde(default, deserialize_with = "or_default")]
    requires_env: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    config: Value,
}

/// Reads `mcp-servers/*.yaml` of one root; for a broken file, `last_good` is asked by path.
pub fn load_catalog(
    root: &Root,
    last_good: &BTreeMap<String, CatalogEntry>,
    problems: &mut Vec<Problem>,
) -> Vec<CatalogEntry> {
    let mut entries = Vec::new();
    for entry in root.list("mcp-servers", problems).into_iter().filter(|e| !e.is_dir) {
        let Some(stem) = stem(&entry.name, &[".yaml", ".yml"]) else { continue };
        let path = format!("mcp-servers/{}", entry.name);
        let read = root.text(&path).and_then(|t| t.map(|t| yaml::parse::<EntryFile>(&path, &t)).transpose());
        match read {
            Ok(document) => entries.extend(document.map(|d| CatalogEntry {
                name: if d.typed.name.is_empty() { stem.to_owned() } else { d.typed.name },
                description: d.typed.description,
                category: d.typed.category,
                requires_env: d.typed.requires_env,
                config: redact_server(d.typed.config),
                path,
            })),
            Err(problem) => {
                problems.push(problem);
                entries.extend(last_good.get(&path).cloned());
            }
        }
    }
    entries
}

/// An empty configuration, in the file's own shape.
pub fn empty() -> Value {
    json!({"mcpServers": {}})
}

/// Reads `.mcp.json`, already redacted.
pub fn load_config(root: &Root) -> Result<Option<Value>, Problem> {
    root.text(FILE)?.map(|text| parse_config(&text)).transpose()
}

fn parse_config(text: &str) -> Result<Value, Problem> {
    let mut value: Value = serde_json::from_str(text).map_err(|e| {
        let line = u32::try_from(e.line()).unwrap_or(0);
        let reason = e.to_string();
        let reason = reason.split(" at line ").next().unwrap_or_default();
        Problem::error(FILE, line, reason)
    })?;
    let Some(object) = value.as_object_mut() else { return Err(Problem::error(FILE, 1, "must be a JSON object")) };
    match object.get_mut("mcpServers") {
        None | Some(Value::Null) => {
            object.insert("mcpServers".to_owned(), json!({}));
        }
        Some(Value::Object(servers)) => {
            for server in servers.values_mut() {
                *server = redact_server(server.take());
            }
        }
        Some(_) => return Err(Problem::error(FILE, 0, "mcpServers must be an object of servers by name")),
    }
    Ok(value)
}

fn redact_server(mut server: Value) -> Value {
    let Some(fields) = server.as_object_mut() else {
        return if server.is_null() { Value::Object(Map::new()) } else { Value::String(REDACTED.to_owned()) };
    };
    for (key, value) in fields.iter_mut() {
        match key.as_str() {
            "env" | "headers" => redact_values(value),
            "args" => redact_args(value),
            "url" => {
                if let Some(text) = value.as_str() {
                    *value = Value::String(redact_url(text));
                }
            }
            name if looks_secret(name) => redact_values(value),
            _ => {}
        }
    }
    server
}

fn redact_values(value: &mut Value) {
    match value {
        Value::Object(map) => map.values_mut().for_each(redact_values),
        Value::Array(list) => list.iter_mut().for_each(redact_values),
        Value::String(text) if only_references(text) => {}
        Value::Null => {}
        other => *other = Value::String(REDACTED.to_owned()),
    }
}

/// Whether a text holds nothing but `${VAR}` references, besides a leading scheme such as `Bearer`.
fn only_references(text: &str) -> bool {
    let mut rest = text.trim();
    for scheme in ["Bearer ", "Basic ", "token "] {
        rest = rest.strip_prefix(scheme).unwrap_or(rest).trim_start();
    }
    if rest.is_empty() {
        return true;
    }
    while let Some(after) = rest.strip_prefix("${") {
        let Some((name, tail)) = after.split_once('}') else { return false };
        // A default (`${NAME:-value}`) would be a literal.
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return false;
        }
        rest = tail.trim_start();
    }
    rest.is_empty()
}

fn looks_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["key", "token", "secret", "passw", "auth", "credential", "bearer"].iter().any(|w| name.contains(w))
}

fn redact_args(value: &mut Value) {
    let Some(args) = value.as_array_mut() else { return redact_values(value) };
    let mut hide_next = false;
    for arg in args {
        let Some(text) = arg.as_str() else {
            redact_values(arg);
            continue;
        };
        let redacted = if std::mem::take(&mut hide_next) && !text.starts_with('-') {
            (!only_references(text)).then(|| REDACTED.to_owned())
        } else if let Some((name, rest)) =
            text.split_once(['=', ':']).filter(|(n, r)| looks_secret(n) && !r.starts_with("//"))
        {
            let separator = &text[name.len()..=name.len()];
            (!only_references(rest)).then(|| format!("{name}{separator}{REDACTED}"))
        } else {
            hide_next = text.starts_with('-') && looks_secret(text);
            text.contains("://").then(|| redact_url(text))
        };
        if let Some(text) = redacted {
            *arg = Value::String(text);
        }
    }
}

fn redact_url(text: &str) -> String {
    let Ok(mut url) = url::Url::parse(text) else { return text.to_owned() };
    let has_user = !url.username().is_empty() || url.password().is_some();
    let secret_query = url.query_pairs().any(|(name, value)| looks_secret(&name) && !only_references(&value));
    if !has_user && !secret_query {
        return text.to_owned();
    }
    if has_user {
        // Fails only for addresses that cannot have a user, which this one has.
        let _ = url.set_username("");
        let _ = url.set_password(None);
    }
    if secret_query {
        let pairs: Vec<(String, String)> = url
            .query_pairs()
            .map(|(n, v)| {
                let shown = if looks_secret(&n) { REDACTED.to_owned() } else { v.into_owned() };
                (n.into_owned(), shown)
            })
            .collect();
        url.query_pairs_mut().clear().extend_pairs(pairs);
    }
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_secrets_are_hidden_wherever_they_stand_and_references_are_not() {
        let text = r#"{"mcpServers":{
            "a":{"command":"npx","args":["-y","pkg","--api-key","sk-canary-1","--token=sk-canary-2","--root","/data"],
                 "env":{"KEY":"sk-canary-3","REF":"${KEY}","MIX":"x${KEY}","DEF":"${KEY:-sk-canary-8}"}},
            "b":{"url":"https://user:sk-canary-4@host.example/mcp?api_key=sk-canary-5&page=2","headers":{"Authorization":"Bearer sk-canary-6","X":"Bearer ${TOKEN}"}},
            "c":{"url":"https://host.example/mcp","authToken":"sk-canary-7"}},
            "enabledFrameworkServers":["filesystem"]}"#;
        let shown = parse_config(text).unwrap();
        let flat = shown.to_string();
        assert!(!flat.contains("canary"), "{flat}");
        assert_eq!(shown["mcpServers"]["a"]["env"]["REF"], "${KEY}");
        assert_eq!(shown["mcpServers"]["b"]["headers"]["X"], "Bearer ${TOKEN}");
        assert_eq!(shown["mcpServers"]["a"]["args"][6], "/data");
        assert_eq!(shown["mcpServers"]["a"]["args"][1], "pkg");
        assert_eq!(shown["enabledFrameworkServers"][0], "filesystem");
        assert!(flat.contains("page=2"));
    }

    #[test]
    fn broken_json_is_reported_with_its_line() {
        assert_eq!(parse_config("{\n \"mcpServers\": {\n  oops\n}}").unwrap_err().line, 3);
        assert!(parse_config("[]").is_err());
        assert!(parse_config("{\"mcpServers\": 7}").is_err());
    }

    #[test]
    fn deeply_nested_json_is_a_problem() {
        assert!(parse_config(&"[".repeat(100_000)).is_err());
    }
}
