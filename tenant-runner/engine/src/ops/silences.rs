//! Silences: who does not want to hear of what, until when, and why. What is silenced is recorded all the same; only nobody is
//! told.

use super::alerts::Alert;
use crate::error::{EngineError, Result};
use crate::store::{from_micros, to_micros};
use chrono::{DateTime, TimeDelta, Utc};
use nexaas_common::id::{Id, Kind};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};

enum SilenceKind {}
impl Kind for SilenceKind {
    const NAME: &'static str = "silence";
}

const MOST_ACTIVE: u64 = 1000;
const LONGEST: TimeDelta = TimeDelta::days(365);
const LONGEST_TEXT: usize = 500;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Silence {
    pub id: String,
    /// `category` or `fingerprint`.
    pub kind: String,
    pub value: String,
    pub until: DateTime<Utc>,
    pub reason: String,
    pub created_by: String,
    pub created_at: DateTime<Utc>,
    pub ended_by: Option<String>,
    pub ended_at: Option<DateTime<Utc>>,
    pub active: bool,
}

/// What to silence, as it is asked for: one of `category` and `fingerprint`, one of `for_s` and `until`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SilenceSpec {
    pub category: Option<String>,
    pub fingerprint: Option<String>,
    pub for_s: Option<u64>,
    pub until: Option<DateTime<Utc>>,
    pub reason: Option<String>,
}

impl SilenceSpec {
    fn subject(&self) -> Result<(&'static str, &str)> {
        let (kind, value) = match (&self.category, &self.fingerprint) {
            (Some(category), None) => ("category", category.trim()),
            (None, Some(fingerprint)) => ("fingerprint", fingerprint.trim()),
            _ => return Err(EngineError::invalid("category", "or fingerprint must be given, and only one of them")),
        };
        if value.is_empty() || value.len() > LONGEST_TEXT {
            return Err(EngineError::invalid(kind, format!("must have 1 to {LONGEST_TEXT} bytes")));
        }
        Ok((kind, value))
    }

    fn end(&self, now: DateTime<Utc>) -> Result<DateTime<Utc>> {
        let (field, until) = match (self.for_s, self.until) {
            (Some(seconds), None) => {
                let length = i64::try_from(seconds).ok().and_then(TimeDelta::try_seconds);
                ("for_s", length.and_then(|length| now.checked_add_signed(length)))
            }
            (None, Some(until)) => ("until", Some(until)),
            _ => return Err(EngineError::invalid("for_s", "or until must be given, and only one of them")),
        };
        until
            .filter(|until| *until > now && *until - now <= LONGEST)
            .ok_or_else(|| EngineError::invalid(field, "must end in the future and within a year"))
    }

    fn reason(&self) -> Result<&str> {
        let reason = self.reason.as_deref().unwrap_or_default().trim();
        if reason.is_empty() || reason.len() > LONGEST_TEXT {
            return Err(EngineError::invalid("reason", format!("must say why, in 1 to {LONGEST_TEXT} bytes")));
        }
        Ok(reason)
    }
}

const COLUMNS: &str = "id, kind, value, until, reason, created_by, created_at, ended_by, ended_at";

fn from_row(row: &Row<'_>, now: DateTime<Utc>) -> rusqlite::Result<Silence> {
    let (until, ended_at) = (from_micros(row.get(3)?), row.get::<_, Option<i64>>(8)?.map(from_micros));
    Ok(Silence {
        id: row.get(0)?,
        kind: row.get(1)?,
        value: row.get(2)?,
        until,
        reason: row.get(4)?,
        created_by: row.get(5)?,
        created_at: from_micros(row.get(6)?),
        ended_by: row.get(7)?,
        ended_at,
        active: ended_at.is_none() && until > now,
    })
}

pub(super) fn add(tx: &Connection, spec: &SilenceSpec, who: &str, now: DateTime<Utc>) -> Result<Silence> {
    let ((kind, value), until, reason) = (spec.subject()?, spec.end(now)?, spec.reason()?);
    let active: u64 = tx
        .prepare_cached("SELECT count(*) FROM ops_silences WHERE until > ?1 AND ended_at IS NULL")?
        .query_row([to_micros(now)], |row| row.get(0))?;
    if active >= MOST_ACTIVE {
        return Err(EngineError::conflict(format!("There are {MOST_ACTIVE} silences already; end some first")));
    }
    let id = Id::<SilenceKind>::generate().to_string();
    tx.prepare_cached(
        "INSERT INTO ops_silences (id, kind, value, until, reason, created_by, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![id, kind, value, to_micros(until), reason, who, to_micros(now)])?;
    get(tx, &id, now)
}

fn get(connection: &Connection, id: &str, now: DateTime<Utc>) -> Result<Silence> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM ops_silences WHERE id = ?1"))?
        .query_row([id], |row| from_row(row, now))
        .optional()?
        .ok_or_else(|| EngineError::not_found("This silence"))
}

/// Ends one silence. One that has ended stays as it is.
pub(super) fn end(tx: &Connection, id: &str, who: &str, now: DateTime<Utc>) -> Result<Silence> {
    tx.prepare_cached(
        "UPDATE ops_silences SET ended_by = ?2, ended_at = ?3 WHERE id = ?1 AND ended_at IS NULL AND until > ?3",
    )?
    .execute(params![id, who, to_micros(now)])?;
    get(tx, id, now)
}

/// Ends the silences of this very trouble; answers how many that were.
pub(super) fn end_of(tx: &Connection, fingerprint: &str, who: &str, now: DateTime<Utc>) -> Result<u64> {
    let ended = tx
        .prepare_cached(
            "UPDATE ops_silences SET ended_by = ?2, ended_at = ?3
             WHERE kind = 'fingerprint' AND value = ?1 AND ended_at IS NULL AND until > ?3",
        )?
        .execute(params![fingerprint, who, to_micros(now)])?;
    Ok(ended as u64)
}

/// The newest silences, whether they have ended or not.
pub(super) fn list(connection: &Connection, limit: u32, now: DateTime<Utc>) -> Result<Vec<Silence>> {
    let mut statement = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM ops_silences ORDER BY created_at DESC, id DESC LIMIT ?1"))?;
    let rows = statement.query_map([limit], |row| from_row(row, now))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The silences in force at one moment.
#[derive(Debug, Default)]
pub(super) struct Silences(Vec<Silence>);

impl Silences {
    pub fn active(connection: &Connection, now: DateTime<Utc>) -> Result<Self> {
        let mut statement = connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM ops_silences WHERE until > ?1 AND ended_at IS NULL"))?;
        let rows = statement.query_map([to_micros(now)], |row| from_row(row, now))?;
        Ok(Self(rows.collect::<rusqlite::Result<_>>()?))
    }

    /// Until when nobody is told of this alert.
    pub fn until(&self, alert: &Alert) -> Option<DateTime<Utc>> {
        let covers = |silence: &&Silence| match silence.kind.as_str() {
            "category" => silence.value == alert.category,
            _ => silence.value == alert.fingerprint,
        };
        self.0.iter().filter(covers).map(|silence| silence.until).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::utc;

    #[test]
    fn each_refusal_names_its_field() {
        let now = utc("2026-01-01T00:00:00Z");
        let good = || SilenceSpec {
            category: Some("disk".into()),
            for_s: Some(60),
            reason: Some("moving house".into()),
            ..SilenceSpec::default()
        };
        let check =
            |spec: &SilenceSpec| spec.subject().and_then(|_| spec.end(now)).and_then(|_| spec.reason().map(|_| ()));
        check(&good()).unwrap();
        for (spec, field) in [
            (SilenceSpec { category: None, ..good() }, "category"),
            (SilenceSpec { fingerprint: Some("x".into()), ..good() }, "category"),
            (SilenceSpec { category: Some(" ".into()), ..good() }, "category"),
            (SilenceSpec { category: None, fingerprint: Some("x".repeat(501)), ..good() }, "fingerprint"),
            (SilenceSpec { for_s: None, ..good() }, "for_s"),
            (SilenceSpec { until: Some(now + TimeDelta::hours(1)), ..good() }, "for_s"),
            (SilenceSpec { for_s: Some(0), ..good() }, "for_s"),
            (SilenceSpec { for_s: Some(u64::MAX), ..good() }, "for_s"),
            (SilenceSpec { for_s: None, until: Some(now - TimeDelta::hours(1)), ..good() }, "until"),
            (SilenceSpec { for_s: None, until: Some(now + TimeDelta::days(366)), ..good() }, "until"),
            (SilenceSpec { reason: None, ..good() }, "reason"),
            (SilenceSpec { reason: Some("x".repeat(501)), ..good() }, "reason"),
        ] {
            assert_eq!(check(&spec).unwrap_err().field(), Some(field), "{spec:?}");
        }
    }
}
