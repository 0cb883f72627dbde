//! Alerts: what was found wrong, from when it was first seen until it is gone.
//!
//! Always true here: the same trouble (its fingerprint) is one open alert, however often it is seen; what a check cannot tell
//! at the moment is neither resolved nor changed; an alert's severity only rises while it is open; trouble that comes and goes
//! is the same alert, and the more often it does, the longer it must be gone before the alert is resolved.

use super::check;
use super::policy::{Finding, SAME_AGAIN, Severity, quiet_needed};
use super::silences::Silences;
use crate::bus::{Bus, Fact};
use crate::error::{EngineError, Result};
use crate::store::{from_micros, to_micros};
use chrono::{DateTime, TimeDelta, Utc};
use nexaas_common::id::{Id, Kind};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

enum AlertKind {}
impl Kind for AlertKind {
    const NAME: &'static str = "alert";
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alert {
    pub id: String,
    pub severity: Severity,
    pub category: String,
    pub message: String,
    /// A remedy ran for it by itself, and then the trouble was gone.
    pub auto_healed: bool,
    pub acknowledged: bool,
    pub details: Value,
    pub created_at: DateTime<Utc>,
    pub resolved_at: Option<DateTime<Utc>>,
    pub fingerprint: String,
    pub acknowledged_by: Option<String>,
    pub acknowledged_at: Option<DateTime<Utc>>,
    /// When the trouble was last found.
    pub seen_at: DateTime<Utc>,
    /// The trouble is gone; the alert waits whether it stays away.
    pub gone_since: Option<DateTime<Utc>>,
    /// How often it came back.
    pub flaps: u32,
    /// The remedy that ran for it by itself.
    pub remedy: Option<String>,
    pub silenced_until: Option<DateTime<Utc>>,
    /// The severity that webhooks were told.
    #[serde(skip)]
    pub(super) sent: Option<Severity>,
}

const COLUMNS: &str = "id, severity, category, message, auto_healed, acknowledged, details, created_at, resolved_at, fingerprint, \
                       acknowledged_by, acknowledged_at, seen_at, gone_since, flaps, remedy, sent";

fn broken(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Alert> {
    let details: String = row.get(6)?;
    let time = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(from_micros));
    let severity = |column| {
        let text: Option<String> = row.get(column)?;
        text.map(|text| text.parse::<Severity>()).transpose().map_err(|e| broken(column, e))
    };
    Ok(Alert {
        id: row.get(0)?,
        severity: severity(1)?.unwrap_or(Severity::Info),
        category: row.get(2)?,
        message: row.get(3)?,
        auto_healed: row.get(4)?,
        acknowledged: row.get(5)?,
        details: serde_json::from_str(&details).map_err(|e| broken(6, e))?,
        created_at: from_micros(row.get(7)?),
        resolved_at: time(8)?,
        fingerprint: row.get(9)?,
        acknowledged_by: row.get(10)?,
        acknowledged_at: time(11)?,
        seen_at: from_micros(row.get(12)?),
        gone_since: time(13)?,
        flaps: row.get(14)?,
        remedy: row.get(15)?,
        silenced_until: None,
        sent: severity(16)?,
    })
}

/// Which alerts to list.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct AlertFilter {
    pub severity: Option<Severity>,
    pub category: Option<String>,
    /// True: only open ones; false: only resolved ones.
    pub open: Option<bool>,
    /// 50, if none.
    pub limit: Option<u32>,
}

/// The newest alerts.
pub(super) fn list(connection: &Connection, filter: &AlertFilter, now: DateTime<Utc>) -> Result<Vec<Alert>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM alerts
         WHERE (?1 IS NULL OR severity = ?1) AND (?2 IS NULL OR category = ?2)
           AND (?3 IS NULL OR ?3 = (resolved_at IS NULL))
         ORDER BY created_at DESC, id DESC LIMIT ?4"
    ))?;
    let limit = filter.limit.unwrap_or(50).clamp(1, 1000);
    let severity = filter.severity.map(Severity::as_str);
    let rows = statement.query_map(params![severity, filter.category, filter.open, limit], from_row)?;
    let mut alerts: Vec<Alert> = rows.collect::<rusqlite::Result<_>>()?;
    let silences = Silences::active(connection, now)?;
    for alert in &mut alerts {
        alert.silenced_until = silences.until(alert);
    }
    Ok(alerts)
}

pub(super) fn get(connection: &Connection, id: &str, now: DateTime<Utc>) -> Result<Alert> {
    let mut alert = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM alerts WHERE id = ?1"))?
        .query_row([id], from_row)
        .optional()?
        .ok_or_else(|| EngineError::not_found("This alert"))?;
    alert.silenced_until = Silences::active(connection, now)?.until(&alert);
    Ok(alert)
}

pub(super) fn acknowledge(tx: &Connection, bus: &Bus, id: &str, who: &str, now: DateTime<Utc>) -> Result<Alert> {
    let before = get(tx, id, now)?;
    // The first one who took it on stays named.
    if before.acknowledged {
        return Ok(before);
    }
    tx.prepare_cached("UPDATE alerts SET acknowledged = 1, acknowledged_by = ?2, acknowledged_at = ?3 WHERE id = ?1")?
        .execute(params![id, who, to_micros(now)])?;
    let data = json!({"id": id, "category": before.category, "by": who});
    bus.publish(tx, &Fact::new("alert.acknowledged", "ops", data))?;
    get(tx, id, now)
}

/// What changed about an alert, to be told to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Raised,
    Escalated,
    Resolved,
}

impl Change {
    pub fn kind(self) -> &'static str {
        match self {
            Self::Raised => "alert.raised",
            Self::Escalated => "alert.escalated",
            Self::Resolved => "alert.resolved",
        }
    }
}

/// What reconciling brought.
#[derive(Debug, Default)]
pub(super) struct Reconciled {
    pub open: Vec<Alert>,
    pub resolved: Vec<Alert>,
    /// When time alone will change something.
    pub next: Option<DateTime<Utc>>,
}

impl Reconciled {
    fn due(&mut self, at: DateTime<Utc>) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}

/// Brings the open alerts in line with what is wrong now. Alerts of `unknown` categories stay as they are.
pub(super) fn reconcile(
    tx: &Connection,
    bus: &Bus,
    findings: &[Finding],
    unknown: &BTreeSet<&'static str>,
    now: DateTime<Utc>,
) -> Result<Reconciled> {
    let mut open = open_alerts(tx)?;
    let mut done = Reconciled::default();
    for finding in findings {
        let known =
            open.iter().position(|alert| alert.fingerprint == finding.fingerprint).map(|at| open.swap_remove(at));
        let alert = match known {
            Some(alert) => again(tx, bus, alert, finding, now)?,
            None => match recently_resolved(tx, &finding.fingerprint, now)? {
                Some(alert) => reopen(tx, bus, alert, finding, now)?,
                None => raise(tx, bus, finding, now)?,
            },
        };
        if !alert.acknowledged
            && let Some(after) = check::escalation(finding.category).next_after(age(&alert, now))
        {
            done.due(alert.created_at + TimeDelta::from_std(after).unwrap_or(TimeDelta::MAX));
        }
        done.open.push(alert);
    }
    for mut alert in open {
        if unknown.contains(alert.category.as_str()) {
            done.open.push(alert);
            continue;
        }
        // A clock that was set back must not keep it open.
        let since = alert.gone_since.filter(|since| *since <= now).unwrap_or(now);
        let quiet = TimeDelta::from_std(quiet_needed(alert.flaps)).unwrap_or(TimeDelta::MAX);
        if now - since >= quiet {
            resolve(tx, bus, &mut alert, now)?;
            done.resolved.push(alert);
        } else {
            alert.gone_since = Some(since);
            tx.prepare_cached("UPDATE alerts SET gone_since = ?2 WHERE id = ?1")?
                .execute(params![alert.id, to_micros(since)])?;
            done.due(since + quiet);
            done.open.push(alert);
        }
    }
    Ok(done)
}

fn age(alert: &Alert, now: DateTime<Utc>) -> Duration {
    (now - alert.created_at).to_std().unwrap_or_default()
}

pub(super) fn open_alerts(connection: &Connection) -> Result<Vec<Alert>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM alerts WHERE resolved_at IS NULL"))?;
    let rows = statement.query_map([], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn recently_resolved(tx: &Connection, fingerprint: &str, now: DateTime<Utc>) -> Result<Option<Alert>> {
    let since = now - TimeDelta::from_std(SAME_AGAIN).unwrap_or_default();
    let found = tx
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM alerts WHERE fingerprint = ?1 AND resolved_at > ?2 ORDER BY resolved_at DESC LIMIT 1"
        ))?
        .query_row(params![fingerprint, to_micros(since)], from_row)
        .optional()?;
    Ok(found)
}

/// The trouble of an open alert is still there, or there again.
fn again(tx: &Connection, bus: &Bus, mut alert: Alert, finding: &Finding, now: DateTime<Utc>) -> Result<Alert> {
    if alert.gone_since.take().is_some() {
        alert.flaps += 1;
    }
    let before = alert.severity;
    bring_up_to_date(&mut alert, finding, now);
    alert.severity = alert.severity.max(before);
    if alert.severity > before {
        // Whoever took on the lesser trouble has not taken on this one.
        (alert.acknowledged, alert.acknowledged_by, alert.acknowledged_at) = (false, None, None);
        bus.publish(tx, &Fact::new(Change::Escalated.kind(), "ops", json!(alert)))?;
    }
    save(tx, &alert)?;
    Ok(alert)
}

/// The trouble of an alert that was resolved not long ago is back.
fn reopen(tx: &Connection, bus: &Bus, mut alert: Alert, finding: &Finding, now: DateTime<Utc>) -> Result<Alert> {
    alert.flaps += 1;
    (alert.resolved_at, alert.gone_since, alert.auto_healed, alert.remedy) = (None, None, false, None);
    (alert.acknowledged, alert.acknowledged_by, alert.acknowledged_at) = (false, None, None);
    bring_up_to_date(&mut alert, finding, now);
    bus.publish(tx, &Fact::new(Change::Raised.kind(), "ops", json!(alert)))?;
    save(tx, &alert)?;
    Ok(alert)
}

fn bring_up_to_date(alert: &mut Alert, finding: &Finding, now: DateTime<Utc>) {
    let rule = check::escalation(finding.category);
    alert.severity = rule.apply(finding.severity, age(alert, now), alert.flaps, alert.acknowledged);
    alert.message.clone_from(&finding.message);
    alert.details.clone_from(&finding.details);
    alert.seen_at = now;
}

fn raise(tx: &Connection, bus: &Bus, finding: &Finding, now: DateTime<Utc>) -> Result<Alert> {
    let alert = new(finding, now);
    insert(tx, bus, &alert)?;
    Ok(alert)
}

fn new(finding: &Finding, now: DateTime<Utc>) -> Alert {
    Alert {
        id: Id::<AlertKind>::generate().to_string(),
        severity: finding.severity,
        category: finding.category.to_owned(),
        message: finding.message.clone(),
        auto_healed: false,
        acknowledged: false,
        details: finding.details.clone(),
        created_at: now,
        resolved_at: None,
        fingerprint: finding.fingerprint.clone(),
        acknowledged_by: None,
        acknowledged_at: None,
        seen_at: now,
        gone_since: None,
        flaps: 0,
        remedy: None,
        silenced_until: None,
        sent: None,
    }
}

fn insert(tx: &Connection, bus: &Bus, alert: &Alert) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO alerts (id, fingerprint, severity, category, message, details, created_at, seen_at, sent)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8)",
    )?
    .execute(params![
        alert.id,
        alert.fingerprint,
        alert.severity.as_str(),
        alert.category,
        alert.message,
        alert.details.to_string(),
        to_micros(alert.created_at),
        alert.sent.map(Severity::as_str)
    ])?;
    bus.publish(tx, &Fact::new(Change::Raised.kind(), "ops", json!(alert)))?;
    Ok(())
}

/// The alert about a database that cannot be written; webhooks are told of it right away.
pub(super) fn of_outage(why: &str, now: DateTime<Utc>) -> Alert {
    let message = format!("The database cannot be written: {why}");
    let finding = Finding::new("database", Severity::Critical, message);
    Alert { sent: Some(Severity::Critical), ..new(&finding, now) }
}

/// The database is back: what could not be stored while it was away. It resolves like any other.
pub(super) fn record_outage(tx: &Connection, bus: &Bus, alert: &Alert) -> Result<()> {
    let open = tx
        .prepare_cached("SELECT 1 FROM alerts WHERE fingerprint = ?1 AND resolved_at IS NULL")?
        .exists([&alert.fingerprint])?;
    if open { Ok(()) } else { insert(tx, bus, alert) }
}

fn resolve(tx: &Connection, bus: &Bus, alert: &mut Alert, now: DateTime<Utc>) -> Result<()> {
    alert.resolved_at = Some(now);
    alert.gone_since = None;
    alert.auto_healed = alert.remedy.is_some();
    save(tx, alert)?;
    let data = json!({"id": alert.id, "category": alert.category, "message": alert.message, "severity": alert.severity,
        "auto_healed": alert.auto_healed});
    bus.publish(tx, &Fact::new(Change::Resolved.kind(), "ops", data))?;
    Ok(())
}

fn save(tx: &Connection, alert: &Alert) -> Result<()> {
    tx.prepare_cached(
        "UPDATE alerts SET severity = ?2, message = ?3, details = ?4, resolved_at = ?5, acknowledged = ?6,
             acknowledged_by = ?7, acknowledged_at = ?8, seen_at = ?9, gone_since = ?10, flaps = ?11, remedy = ?12,
             auto_healed = ?13
         WHERE id = ?1",
    )?
    .execute(params![
        alert.id,
        alert.severity.as_str(),
        alert.message,
        alert.details.to_string(),
        alert.resolved_at.map(to_micros),
        alert.acknowledged,
        alert.acknowledged_by,
        alert.acknowledged_at.map(to_micros),
        to_micros(alert.seen_at),
        alert.gone_since.map(to_micros),
        alert.flaps,
        alert.remedy,
        alert.auto_healed
    ])?;
    Ok(())
}

/// `remedy` ran by itself against the open alert of this fingerprint, and worked.
pub(super) fn remedied(tx: &Connection, fingerprint: &str, remedy: &str) -> Result<()> {
    tx.prepare_cached("UPDATE alerts SET remedy = ?2 WHERE fingerprint = ?1 AND resolved_at IS NULL")?
        .execute([fingerprint, remedy])?;
    Ok(())
}

/// Webhooks are being told `sent` of this alert.
pub(super) fn mark_sent(tx: &Connection, id: &str, sent: Option<Severity>) -> Result<()> {
    tx.prepare_cached("UPDATE alerts SET sent = ?2 WHERE id = ?1")?.execute(params![id, sent.map(Severity::as_str)])?;
    Ok(())
}
