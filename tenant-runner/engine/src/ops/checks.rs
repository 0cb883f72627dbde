//! Since when each check is as it is.

use super::check::{Check, Judged};
use super::policy::{Severity, Verdict};
use crate::error::Result;
use crate::store::{from_micros, to_micros};
use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Ok,
    Info,
    Warning,
    Critical,
    /// Nothing can be said.
    Unknown,
    /// There is nothing to check.
    Off,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
            Self::Off => "off",
        }
    }

    pub(super) fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Fine => Self::Ok,
            Verdict::Unknown(_) => Self::Unknown,
            Verdict::Off(_) => Self::Off,
            Verdict::Bad(findings) => match findings.iter().map(|finding| finding.severity).max() {
                None => Self::Ok,
                Some(Severity::Info) => Self::Info,
                Some(Severity::Warning) => Self::Warning,
                Some(Severity::Critical) => Self::Critical,
            },
        }
    }
}

/// A check as it is now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckView {
    pub name: &'static str,
    pub about: &'static str,
    pub status: Status,
    /// The figures it looked at.
    pub reading: Value,
    /// What is wrong, or why nothing can be said; one line each.
    pub messages: Vec<String>,
    /// None: it was not looked at before.
    pub since: Option<DateTime<Utc>>,
}

type Known = BTreeMap<String, (String, DateTime<Utc>)>;

pub(super) fn view(check: &Check, judged: &Judged, known: &Known, now: DateTime<Utc>) -> CheckView {
    let status = Status::of(&judged.verdict);
    let messages = match &judged.verdict {
        Verdict::Fine => Vec::new(),
        Verdict::Unknown(why) => vec![why.clone()],
        Verdict::Off(why) => vec![(*why).to_owned()],
        Verdict::Bad(findings) => findings.iter().map(|finding| finding.message.clone()).collect(),
    };
    let since = known.get(check.name).map(|(was, since)| if was == status.as_str() { *since } else { now });
    CheckView { name: check.name, about: check.about, status, reading: judged.reading.clone(), messages, since }
}

pub(super) fn load(connection: &Connection) -> Result<Known> {
    let mut statement = connection.prepare_cached("SELECT name, status, since FROM ops_checks")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, from_micros(row.get(2)?)))))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Writes only what changed.
pub(super) fn save(tx: &Connection, statuses: &[(&'static str, Status)], now: DateTime<Utc>) -> Result<()> {
    let mut statement = tx.prepare_cached(
        "INSERT INTO ops_checks (name, status, since) VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET status = excluded.status, since = excluded.since
         WHERE status <> excluded.status",
    )?;
    for (name, status) in statuses {
        statement.execute(params![name, status.as_str(), to_micros(now)])?;
    }
    Ok(())
}
