//! The keys of an event, in its `metadata`: `secret` for senders that sign after Standard Webhooks, `github_secret` for those
//! that sign as GitHub does, `token` for those that cannot sign. Each is a text or names one of the client's secrets as
//! `${NAME}`.
//!
//! Always true here: a token given literally is stored as its hash; a literal key is shown to nobody, and what is shown in its
//! place can be sent back without changing it.

use crate::error::{EngineError, Result};
use crate::standard_webhooks;
use crate::workspace::REDACTED;
use nexaas_common::secret::{ExposeSecret as _, SecretString};
use serde::{Serialize as _, Serializer};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use subtle::ConstantTimeEq as _;

const SECRET: &str = "secret";
const GITHUB: &str = "github_secret";
const TOKEN: &str = "token";
const ALL: [&str; 3] = [SECRET, GITHUB, TOKEN];
const HASHED: &str = "sha256:";
const SHORTEST_TOKEN: usize = 32;
const SHORTEST_GITHUB: usize = 16;
const LONGEST: usize = 256;

/// The keys of one event, with references resolved. A reference to nothing is no key.
#[derive(Debug, Default)]
pub struct Keys {
    /// `whsec_…`
    pub signing: Option<SecretString>,
    pub github: Option<SecretString>,
    pub token: Option<Token>,
}

/// A token of which only the hash is known.
#[derive(Debug, Clone, Copy)]
pub struct Token([u8; 32]);

impl Token {
    fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// In a time that does not depend on where they differ.
    pub fn is(&self, given: &str) -> bool {
        self.0.ct_eq(&Self::of(given).0).into()
    }
}

impl Keys {
    pub fn of(metadata: Option<&Value>, secrets: &HashMap<String, SecretString>) -> Self {
        let text = |name: &str| metadata?.get(name)?.as_str().filter(|text| !text.is_empty());
        let resolve = |text: &str| match reference(text) {
            Some(name) => secrets.get(name).filter(|secret| !secret.expose_secret().is_empty()).cloned(),
            None => Some(SecretString::from(text)),
        };
        let token = text(TOKEN).and_then(|text| match hash(text) {
            Some(hash) => Some(Token(hash)),
            None => resolve(text).map(|secret| Token::of(secret.expose_secret())),
        });
        Self { signing: text(SECRET).and_then(resolve), github: text(GITHUB).and_then(resolve), token }
    }
}

fn reference(text: &str) -> Option<&str> {
    text.strip_prefix("${")?.strip_suffix('}')
}

fn hash(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text.strip_prefix(HASHED)?, &mut hash).ok().map(|()| hash)
}

/// Puts the keys in the metadata that somebody sent in the form they are stored in; `strict`, for an event that waits for
/// calls, only if they are good ones. `before` is the metadata as it was.
pub(crate) fn settle(metadata: &mut Value, before: Option<&Value>, strict: bool) -> Result<()> {
    let Value::Object(map) = metadata else { return Ok(()) };
    for name in ALL {
        let Some(value) = map.get_mut(name) else { continue };
        if value.as_str() == Some(REDACTED) {
            let known = before.and_then(|before| before.get(name)).cloned();
            *value = known.ok_or_else(|| refuse(name, "must be given anew: what was shown in its place is not it"))?;
            continue;
        }
        if !strict {
            continue;
        }
        check(name, value)?;
        if name == TOKEN
            && let Some(text) = value.as_str()
            && reference(text).is_none()
            && hash(text).is_none()
        {
            *value = Value::String(format!("{HASHED}{}", hex::encode(Token::of(text).0)));
        }
    }
    Ok(())
}

fn refuse(name: &str, rule: &str) -> EngineError {
    EngineError::invalid(format!("metadata.{name}"), rule)
}

fn check(name: &str, value: &Value) -> Result<()> {
    let text = value.as_str().ok_or_else(|| refuse(name, "must be a text, or ${NAME} for one of the secrets"))?;
    if let Some(secret) = reference(text) {
        let fits = (1..=128).contains(&secret.len()) && secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        return if fits { Ok(()) } else { Err(refuse(name, "must name a secret in letters, digits and _")) };
    }
    let visible = text.len() <= LONGEST && text.bytes().all(|b| b.is_ascii_graphic());
    match name {
        SECRET if standard_webhooks::key(text).is_none() => {
            Err(refuse(name, "must be whsec_ and base64 of 24 to 64 bytes, or ${NAME}"))
        }
        GITHUB if !visible || text.len() < SHORTEST_GITHUB => {
            Err(refuse(name, "must be 16 to 256 visible characters, or ${NAME}"))
        }
        TOKEN if !visible || text.len() < SHORTEST_TOKEN => {
            Err(refuse(name, "must be 32 to 256 visible characters, or ${NAME}"))
        }
        _ => Ok(()),
    }
}

/// Metadata as it is shown: a reference to a secret is, a literal key is not.
pub(crate) fn shown<S: Serializer>(metadata: &Option<Value>, serializer: S) -> Result<S::Ok, S::Error> {
    let hides = |value: &Value| value.as_str().is_none_or(|text| reference(text).is_none()) && !value.is_null();
    match metadata {
        Some(Value::Object(map)) if ALL.iter().any(|name| map.get(*name).is_some_and(hides)) => {
            let mut map = map.clone();
            for (_, value) in map.iter_mut().filter(|(name, value)| ALL.contains(&name.as_str()) && hides(value)) {
                *value = Value::String(REDACTED.to_owned());
            }
            map.serialize(serializer)
        }
        other => other.serialize(serializer),
    }
}
