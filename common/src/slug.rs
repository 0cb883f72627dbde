//! A tenant's name in hosts, paths and labels: the one user-chosen text that reaches DNS and the container engine.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// `^[a-z][a-z0-9-]{1,30}[a-z0-9]$` and not reserved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Slug(String);

/// Hosts that belong to the platform itself or that browsers and mail treat specially.
pub const RESERVED: &[&str] = &[
    "account",
    "admin",
    "api",
    "app",
    "assets",
    "auth",
    "autoconfig",
    "autodiscover",
    "billing",
    "cdn",
    "console",
    "dashboard",
    "docs",
    "edge",
    "ftp",
    "grafana",
    "health",
    "help",
    "hooks",
    "imap",
    "internal",
    "localhost",
    "login",
    "mail",
    "mcp",
    "metrics",
    "mta-sts",
    "ns1",
    "ns2",
    "nexaas",
    "pop",
    "postmaster",
    "prometheus",
    "proxy",
    "root",
    "runner",
    "security",
    "smtp",
    "static",
    "status",
    "support",
    "system",
    "traefik",
    "webmail",
    "well-known",
    "wpad",
    "www",
];

/// Why a slug was refused; the text is meant for the person who typed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSlug {
    #[error("must be 3 to 32 characters long")]
    Length,
    #[error("must start with a letter a-z")]
    Start,
    #[error("must end with a letter a-z or a digit")]
    End,
    #[error("may contain only a-z, 0-9 and '-'")]
    Character,
    #[error("is reserved for the platform; choose another")]
    Reserved,
}

impl Slug {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Slug {
    type Err = InvalidSlug;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let bytes = s.as_bytes();
        if !bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-') {
            return Err(InvalidSlug::Character);
        }
        if !(3..=32).contains(&bytes.len()) {
            return Err(InvalidSlug::Length);
        }
        if !bytes[0].is_ascii_lowercase() {
            return Err(InvalidSlug::Start);
        }
        if bytes[bytes.len() - 1] == b'-' {
            return Err(InvalidSlug::End);
        }
        if RESERVED.contains(&s) || s.starts_with("xn--") {
            return Err(InvalidSlug::Reserved);
        }
        Ok(Self(s.to_owned()))
    }
}

impl TryFrom<String> for Slug {
    type Error = InvalidSlug;
    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}
impl From<Slug> for String {
    fn from(s: Slug) -> Self {
        s.0
    }
}
impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_rules_are_named() {
        for (text, why) in [
            ("", InvalidSlug::Length),
            ("ab", InvalidSlug::Length),
            ("1ab", InvalidSlug::Start),
            ("ab-", InvalidSlug::End),
            ("Acme", InvalidSlug::Character),
            ("a;rm -rf", InvalidSlug::Character),
            ("$(id)", InvalidSlug::Character),
            ("a.b", InvalidSlug::Character),
            ("console", InvalidSlug::Reserved),
            ("xn--80ak6aa92e", InvalidSlug::Reserved),
        ] {
            assert_eq!(text.parse::<Slug>(), Err(why), "{text:?}");
        }
        assert!("acme".parse::<Slug>().is_ok());
        assert!(format!("a{}", "b".repeat(32)).parse::<Slug>().is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_matches_the_published_pattern(text in "\\PC{0,40}") {
            if let Ok(slug) = text.parse::<Slug>() {
                let s = slug.as_str();
                prop_assert!(s.len() >= 3 && s.len() <= 32);
                prop_assert!(s.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
            }
        }
    }
}
