//! `nexaas tenant …`

use super::client::Client;
use super::output::{colour, fancy, foreign, line, table};
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::service::validate;
use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create a client's workspace
    #[command(
        after_help = "Examples:\n  nexaas tenant create acme --wait\n  nexaas tenant create acme --template demo --name 'Acme Ltd' --memory-mb 1024"
    )]
    Create {
        /// Its name in addresses: 3 to 32 of a-z, 0-9 and '-'
        slug: String,
        /// Its name for people [default: the slug]
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
        /// The workspace it begins with [default: fresh]
        #[arg(long)]
        template: Option<String>,
        /// Memory of its runner in MiB
        #[arg(long, value_name = "MIB")]
        memory_mb: Option<u64>,
        /// Thousandths of a core for its runner
        #[arg(long, value_name = "MILLIS")]
        cpu_millis: Option<u32>,
        /// Show the steps until it is ready
        #[arg(long)]
        wait: bool,
    },
    /// All clients
    List,
    /// One client: how it is and why
    Show { slug: String },
    /// Wait until a client is ready
    Wait { slug: String },
    /// Stop a client's runner until it is resumed; its data stays
    Suspend {
        slug: String,
        #[arg(long)]
        wait: bool,
    },
    /// Start a suspended client again
    Resume {
        slug: String,
        #[arg(long)]
        wait: bool,
    },
    /// Delete a client and its data
    Delete {
        slug: String,
        #[arg(long)]
        wait: bool,
    },
    /// The last lines that a client's runner wrote
    Logs {
        slug: String,
        #[arg(long, default_value_t = 100)]
        lines: usize,
    },
    /// What happened to a client
    Events { slug: String },
    /// Keys and passwords that a client's runner needs
    #[command(subcommand)]
    Secret(SecretVerb),
    /// Give a client's HTTP API a new key; printed once
    ApiKey { slug: String },
}

#[derive(Debug, Subcommand)]
pub enum SecretVerb {
    /// Set one; the value is read from standard input
    #[command(after_help = "Example:\n  nexaas tenant secret set acme ANTHROPIC_API_KEY < key.txt")]
    Set { slug: String, name: String },
    /// Names only: values are never shown again
    List { slug: String },
    /// Delete one
    Delete { slug: String, name: String },
}

/// Checked here too: what goes into an address must be a slug.
fn checked(slug: &str) -> Result<String> {
    Ok(validate::slug(slug)?.as_str().to_owned())
}

pub async fn run(settings: &Settings, verb: Verb) -> Result<ExitCode> {
    let client = || Client::new(settings);
    match verb {
        Verb::Create { slug, name, template, memory_mb, cpu_millis, wait } => {
            let slug = checked(&slug)?;
            let mut body = json!({ "slug": slug });
            let given = [
                ("display_name", name.map(Value::from)),
                ("template", template.map(Value::from)),
                ("memory_mb", memory_mb.map(Value::from)),
                ("cpu_millis", cpu_millis.map(Value::from)),
            ];
            for (key, value) in given {
                if let Some(value) = value {
                    body[key] = value;
                }
            }
            let client = client()?;
            let accepted = client.call(Method::POST, "/tenants", Some(&body)).await?;
            finish(&client, &slug, &accepted, wait, Some(&settings.public_url(&slug))).await
        }
        Verb::List => list(&client()?).await,
        Verb::Show { slug } => show(&client()?, &checked(&slug)?).await,
        Verb::Wait { slug } => {
            let slug = checked(&slug)?;
            let client = client()?;
            let operations = client.get(&format!("/tenants/{slug}/operations?limit=1")).await?;
            let latest = operations["items"].get(0).or_else(|| operations.get(0)).cloned().unwrap_or_default();
            if !latest["id"].is_string() {
                return show(&client, &slug).await;
            }
            finish(&client, &slug, &json!({ "operation": latest }), true, Some(&settings.public_url(&slug))).await
        }
        Verb::Suspend { slug, wait } => change(&client()?, Method::POST, &checked(&slug)?, "/suspend", wait).await,
        Verb::Resume { slug, wait } => change(&client()?, Method::POST, &checked(&slug)?, "/resume", wait).await,
        Verb::Delete { slug, wait } => change(&client()?, Method::DELETE, &checked(&slug)?, "", wait).await,
        Verb::Logs { slug, lines } => {
            let answer =
                client()?.get(&format!("/tenants/{}/logs?lines={}", checked(&slug)?, lines.clamp(1, 5000))).await?;
            let text = answer
                .as_str()
                .or_else(|| ["text", "logs"].iter().find_map(|k| answer[*k].as_str()))
                .unwrap_or_default();
            line(foreign(text).trim_end());
            Ok(ExitCode::SUCCESS)
        }
        Verb::Events { slug } => {
            let answer = client()?.get(&format!("/tenants/{}/events", checked(&slug)?)).await?;
            let rows: Vec<Vec<String>> = items(&answer)
                .iter()
                .map(|e| ["at", "severity", "reason", "message"].iter().map(|k| text(e, k)).collect())
                .collect();
            table(&["AT", "SEVERITY", "REASON", "MESSAGE"], &rows);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Secret(verb) => secret(&client()?, verb).await,
        Verb::ApiKey { slug } => {
            let answer = client()?.call(Method::POST, &format!("/tenants/{}/api-key", checked(&slug)?), None).await?;
            let key = ["api_key", "key", "token"].iter().find_map(|k| answer[*k].as_str()).unwrap_or_default();
            line(key);
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn text(value: &Value, key: &str) -> String {
    match &value[key] {
        Value::String(s) => s.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn items(answer: &Value) -> Vec<Value> {
    answer["items"].as_array().or_else(|| answer.as_array()).cloned().unwrap_or_default()
}

async fn list(client: &Client) -> Result<ExitCode> {
    let mut rows = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let path = cursor
            .as_ref()
            .map_or_else(|| "/tenants?limit=200".to_owned(), |c| format!("/tenants?limit=200&cursor={c}"));
        let page = client.get(&path).await?;
        for t in items(&page) {
            rows.push(["slug", "phase", "template", "backend", "url"].iter().map(|k| text(&t, k)).collect::<Vec<_>>());
        }
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    if rows.is_empty() {
        line("There are no clients yet. Create one with: nexaas tenant create NAME --wait");
    } else {
        table(&["CLIENT", "STATE", "TEMPLATE", "BACKEND", "ADDRESS"], &rows);
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(client: &Client, slug: &str) -> Result<ExitCode> {
    let t = client.get(&format!("/tenants/{slug}")).await?;
    let t = t.get("tenant").unwrap_or(&t);
    for (label, key) in [
        ("Client", "slug"),
        ("Name", "display_name"),
        ("State", "phase"),
        ("Address", "url"),
        ("Template", "template"),
        ("Backend", "backend"),
        ("Generation", "generation"),
        ("Id", "id"),
        ("Created", "created_at"),
    ] {
        line(&format!("{label:<12}{}", foreign(&text(t, key))));
    }
    for c in t["conditions"].as_array().into_iter().flatten() {
        line(&format!(
            "{:<12}{} ({}): {}",
            text(c, "type"),
            text(c, "status"),
            text(c, "reason"),
            foreign(&text(c, "message"))
        ));
    }
    Ok(ExitCode::SUCCESS)
}

async fn change(client: &Client, method: Method, slug: &str, verb: &str, wait: bool) -> Result<ExitCode> {
    let accepted = client.call(method, &format!("/tenants/{slug}{verb}"), None).await?;
    finish(client, slug, &accepted, wait, None).await
}

/// Reports an accepted change; with `wait`, its steps as they turn green.
async fn finish(client: &Client, slug: &str, accepted: &Value, wait: bool, url: Option<&str>) -> Result<ExitCode> {
    let operation = accepted.get("operation").unwrap_or(accepted);
    let id =
        operation["id"].as_str().ok_or_else(|| Error::new(Kind::Internal, "the server's answer names no operation"))?;
    let kind = text(operation, "kind");
    if !wait {
        line(&format!("{kind} of {slug} has begun (operation {id}); follow it with: nexaas tenant wait {slug}"));
        return Ok(ExitCode::SUCCESS);
    }
    let mut shown: BTreeMap<String, String> = BTreeMap::new();
    let last = client.follow(id, |state| report(state, &mut shown)).await?;
    match last["state"].as_str() {
        Some("succeeded") => {
            let place = url.map_or_else(String::new, |u| format!(": {u}"));
            line(&format!("{} {slug} {}{place}", colour("✔", 32, fancy()), done(&kind)));
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            let why = last["error"].as_str().unwrap_or("it ended without a reason");
            Err(Error::new(Kind::Internal, format!("{kind} of {slug} {}: {}", text(&last, "state"), foreign(why))))
        }
    }
}

fn done(kind: &str) -> &'static str {
    match kind {
        "suspend" => "is suspended",
        "delete" => "is deleted",
        _ => "is ready",
    }
}

/// One line for each step when its state changes; a step that fails again with other words is said again.
fn report(operation: &Value, shown: &mut BTreeMap<String, String>) {
    for step in operation["steps"].as_array().into_iter().flatten() {
        let (name, state, detail) = (text(step, "name"), text(step, "state"), foreign(&text(step, "detail")));
        let now = if state == "failed" { format!("{state} {detail}") } else { state.clone() };
        if state == "pending" || shown.get(&name) == Some(&now) {
            continue;
        }
        let fancy = fancy();
        match state.as_str() {
            "succeeded" => line(&format!("  {} {name:<16} {detail}", colour("✔", 32, fancy))),
            "failed" => line(&format!("  {} {name:<16} {detail} (will be tried again)", colour("✘", 31, fancy))),
            _ => {}
        }
        shown.insert(name, now);
    }
}

async fn secret(client: &Client, verb: SecretVerb) -> Result<ExitCode> {
    match verb {
        SecretVerb::Set { slug, name } => {
            let (slug, name) = (checked(&slug)?, validate::secret_name(&name)?.to_owned());
            let mut value = String::new();
            std::io::stdin()
                .take(64 << 10)
                .read_to_string(&mut value)
                .map_err(|e| Error::invalid("value", format!("could not be read from standard input: {e}")))?;
            let value = value.strip_suffix('\n').unwrap_or(&value);
            let value = value.strip_suffix('\r').unwrap_or(value);
            client
                .call(Method::PUT, &format!("/tenants/{slug}/secrets/{name}"), Some(&json!({ "value": value })))
                .await?;
            line(&format!("{name} of {slug} is set"));
        }
        SecretVerb::List { slug } => {
            let answer = client.get(&format!("/tenants/{}/secrets", checked(&slug)?)).await?;
            let names = answer["names"].as_array().cloned().unwrap_or_else(|| items(&answer));
            for name in names {
                line(name.as_str().unwrap_or_default());
            }
        }
        SecretVerb::Delete { slug, name } => {
            let (slug, name) = (checked(&slug)?, validate::secret_name(&name)?.to_owned());
            client.call(Method::DELETE, &format!("/tenants/{slug}/secrets/{name}"), None).await?;
            line(&format!("{name} of {slug} is deleted"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
