//! Whether something answers at an address, and whether a command exists. Nothing is sent that costs anything or tells anything:
//! no key, no body, no protocol.
//!
//! Always true here: an address that a tenant's file names is dialled only where a webhook may go; no redirect is followed.

use crate::action::Guard;
use crate::net;
use crate::ops::policy::Reading;
use crate::ops::reading::McpServer;
use crate::workspace::Snapshot;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;
use url::Url;

const PATIENCE: Duration = Duration::from_secs(5);
/// Servers looked at; a workspace has a handful.
const MOST_SERVERS: usize = 50;

/// Whether any HTTP answer comes from `url`. With a guard, only where it allows.
pub(super) async fn answers(url: &Url, guard: Option<&Guard>) -> Reading<Result<(), String>> {
    let builder = match net::client_tls() {
        Ok(tls) => reqwest::Client::builder().tls_backend_preconfigured(tls),
        Err(error) => return Reading::unknown(format!("TLS cannot be used: {error}")),
    };
    let builder = builder.timeout(PATIENCE).redirect(reqwest::redirect::Policy::none());
    let builder = match guard {
        Some(guard) => {
            if let Err(refused) = guard.check_url(url) {
                return Reading::unknown(format!("not looked at: {refused}"));
            }
            builder.dns_resolver(guard.clone()).no_proxy()
        }
        None => builder,
    };
    let client = match builder.build() {
        Ok(client) => client,
        Err(error) => return Reading::unknown(error.to_string()),
    };
    match client.head(url.clone()).send().await {
        Ok(_) => Reading::Known(Ok(())),
        Err(error) => Reading::Known(Err(cause(error))),
    }
}

/// The innermost cause says what happened; the URL may hold a token and stays out.
fn cause(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", PATIENCE.as_secs());
    }
    let error = error.without_url();
    let mut cause: &(dyn std::error::Error + 'static) = &error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Looks at every server that the workspace enables.
pub(super) async fn mcp(workspace: &Snapshot, root: &Path, path: &str, guard: &Guard) -> Vec<McpServer> {
    let mut found = Vec::new();
    for (name, config) in servers(workspace).into_iter().take(MOST_SERVERS) {
        let state = match (config["command"].as_str(), config["url"].as_str()) {
            (Some(command), _) if command.contains("${") => Reading::unknown("its command holds a reference"),
            (Some(command), _) => Reading::Known(exists(command, root, path)),
            (None, Some(url)) => match Url::parse(url) {
                Ok(url) if matches!(url.scheme(), "http" | "https") => answers(&url, Some(guard)).await,
                Ok(_) => Reading::unknown("its address is neither http nor https"),
                Err(_) => Reading::unknown("its address holds a reference or is none"),
            },
            (None, None) => Reading::Known(Err("it has neither a command nor an address".to_owned())),
        };
        found.push(McpServer { name, found: state });
    }
    found
}

/// The servers of `.mcp.json` by name, those of the catalogue that it enables among them.
fn servers(workspace: &Snapshot) -> Vec<(String, Value)> {
    let own = workspace.mcp_config["mcpServers"].as_object();
    let mut all: Vec<(String, Value)> =
        own.into_iter().flatten().map(|(name, config)| (name.clone(), config.clone())).collect();
    let enabled = workspace.mcp_config["enabledFrameworkServers"].as_array();
    for name in enabled.into_iter().flatten().filter_map(Value::as_str) {
        if all.iter().any(|(known, _)| known == name) {
            continue;
        }
        let entry = workspace.mcp_catalog.iter().find(|entry| entry.name == name);
        all.push((name.to_owned(), entry.map_or(Value::Null, |entry| entry.config.clone())));
    }
    all
}

/// Whether a command could be started: a path, seen from the workspace, or a name on the search path of scripts.
fn exists(command: &str, root: &Path, path: &str) -> Result<(), String> {
    let runs = |file: &Path| {
        std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let found = if command.contains('/') {
        runs(&root.join(command))
    } else {
        !command.is_empty() && path.split(':').any(|dir| runs(&Path::new(dir).join(command)))
    };
    if found { Ok(()) } else { Err(format!("there is no command '{command}'")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::SystemNames;
    use serde_json::json;
    use std::sync::Arc;

    fn guard(allowed: &[&str]) -> Guard {
        Guard::new(Arc::new(SystemNames), allowed.iter().map(|net| net.parse().unwrap()).collect())
    }

    #[tokio::test]
    async fn any_answer_is_an_answer_and_a_closed_port_is_none() {
        let server = wiremock::MockServer::start().await;
        let url = Url::parse(&server.uri()).unwrap();
        assert_eq!(answers(&url, None).await, Reading::Known(Ok(())), "404 comes from somebody");
        let closed = Url::parse("http://127.0.0.1:1/").unwrap();
        assert!(matches!(answers(&closed, None).await, Reading::Known(Err(_))));
        let asked = server.received_requests().await.unwrap();
        assert!(asked.iter().all(|request| request.body.is_empty() && !request.headers.contains_key("x-api-key")));
    }

    #[tokio::test]
    async fn a_private_address_of_a_tenants_file_is_not_dialled() {
        let server = wiremock::MockServer::start().await;
        let workspace =
            Snapshot { mcp_config: json!({"mcpServers": {"inner": {"url": server.uri()}}}), ..Snapshot::default() };
        let look = async |guard: Guard| mcp(&workspace, Path::new("/"), "/bin", &guard).await.remove(0).found;
        assert!(matches!(look(guard(&[])).await, Reading::Unknown(why) if why.contains("not a public address")));
        assert!(server.received_requests().await.unwrap().is_empty());
        assert_eq!(look(guard(&["127.0.0.0/8"])).await, Reading::Known(Ok(())), "unless its network is allowed");
    }

    #[tokio::test]
    async fn commands_are_looked_up_and_never_started() {
        let workspace = Snapshot {
            mcp_config: json!({"mcpServers": {
                "shell": {"command": "sh"}, "path": {"command": "/bin/sh"}, "none": {"command": "no-such-command"},
                "file": {"command": "/etc/passwd"}, "ref": {"command": "${X}"}, "empty": {}},
                "enabledFrameworkServers": ["gone"]}),
            ..Snapshot::default()
        };
        let found = mcp(&workspace, Path::new("/"), "/usr/bin:/bin", &guard(&[])).await;
        let state = |name: &str| match &found.iter().find(|server| server.name == name).unwrap().found {
            Reading::Known(Ok(())) => "found",
            Reading::Known(Err(_)) => "missing",
            Reading::Unknown(_) => "unknown",
        };
        for (name, expected) in [
            ("shell", "found"),
            ("path", "found"),
            ("none", "missing"),
            ("file", "missing"),
            ("ref", "unknown"),
            ("empty", "missing"),
            ("gone", "missing"),
        ] {
            assert_eq!(state(name), expected, "{name}");
        }
    }
}
