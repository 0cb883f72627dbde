//! `nexaas operator …`

use super::client::Client;
use super::output::{line, table};
use crate::config::Settings;
use crate::error::Result;
use crate::service::validate;
use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create the first operator, unless somebody exists; the password is printed once
    Bootstrap {
        #[arg(default_value = "admin")]
        username: String,
    },
    /// Create an operator; the password is printed once
    Create {
        username: String,
        /// viewer, operator or owner
        #[arg(long, default_value = "operator")]
        role: String,
    },
    /// All operators
    List,
    /// Give an operator a new password, printed once, and end their sessions
    ResetPassword { username: String },
}

pub async fn run(settings: &Settings, verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Bootstrap { username } => {
            let username = validate::username(&username)?;
            let body = json!({ "username": username, "first": true });
            let answer = Client::new(settings)?.call(Method::POST, "/operators", Some(&body)).await?;
            match answer["password"].as_str() {
                Some(_) => password(settings, &answer),
                None => line(
                    "An operator exists already; a lost password is replaced with: nexaas operator reset-password NAME",
                ),
            }
        }
        Verb::Create { username, role } => {
            let username = validate::username(&username)?;
            crate::store::operators::parse_role(&role)?;
            let body = json!({ "username": username, "role": role });
            password(settings, &Client::new(settings)?.call(Method::POST, "/operators", Some(&body)).await?);
        }
        Verb::List => {
            let answer = Client::new(settings)?.get("/operators").await?;
            let text = |o: &Value, k: &str| o[k].as_str().unwrap_or_default().to_owned();
            let rows: Vec<Vec<String>> = answer["items"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|o| vec![text(o, "username"), text(o, "role"), text(o, "created_at")])
                .collect();
            table(&["NAME", "ROLE", "SINCE"], &rows);
        }
        Verb::ResetPassword { username } => {
            let username = validate::username(&username)?;
            let path = format!("/operators/{username}/reset-password");
            password(settings, &Client::new(settings)?.call(Method::POST, &path, None).await?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Shown on the terminal of whoever asked, once; it is stored nowhere.
fn password(settings: &Settings, answer: &Value) {
    line(&format!("Console    {}", settings.public_url("console")));
    line(&format!("Username   {}", answer["username"].as_str().unwrap_or_default()));
    line(&format!("Password   {}", answer["password"].as_str().unwrap_or_default()));
    line("The password is shown this once.");
}
