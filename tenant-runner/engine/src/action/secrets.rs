//! `${NAME}` in values that never leave an attempt: headers, and the environment of a script.

use super::Failure;
use crate::config::Settings;
use nexaas_common::secret::ExposeSecret as _;

/// Fills `${NAME}` from the settings' secrets.
pub(super) fn with_secrets(text: &str, settings: &Settings) -> Result<String, Failure> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, after)) = after.split_once('}') else { break };
        filled.push_str(before);
        filled.push_str(&secret(name, settings)?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

pub(super) fn secret(name: &str, settings: &Settings) -> Result<String, Failure> {
    let value = settings.secrets.get(name).map(|secret| secret.expose_secret().to_owned());
    value.ok_or_else(|| Failure::permanent(format!("the secret {name} is not set")))
}
