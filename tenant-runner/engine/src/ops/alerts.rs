//! Alerts: what was found wrong, from when it was first seen until it is gone. The same trouble is one alert, however often
//! it is seen.

use super::policy::{Finding, Severity};
use crate::bus::{Bus, Fact};
use crate::error::{EngineError, Result};
use crate::store::{from_micros, to_micros};
use chrono::{DateTime, Utc};
use nexaas_common::id::{Id, Kind};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;
use serde_json::{Value, json};

enum AlertKind {}
impl Kind for AlertKind {
    const NAME: &'static str = "alert";
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alert {
    pub id: String,
    pub severity: String,
    pub category: String,
    pub message: String,
    pub auto_healed: bool,
    pub acknowledged: bool,
    pub details: Value,
    pub created_at: DateTime<Utc>,
    pub resolved_at: Option<DateTime<Utc>>,
}

const COLUMNS: &str = "id, severity, category, message, auto_healed, acknowledged, details, created_at, resolved_at";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Alert> {
    let details: String = row.get(6)?;
    Ok(Alert {
        id: row.get(0)?,
        severity: row.get(1)?,
        category: row.get(2)?,
        message: row.get(3)?,
        auto_healed: row.get(4)?,
        acknowledged: row.get(5)?,
        details: serde_json::from_str(&details)
            .map_err(|e| rusqlite::Error::FromSqlConversionFailure(6, Type::Text, Box::new(e)))?,
        created_at: from_micros(row.get(7)?),
        resolved_at: row.get::<_, Option<i64>>(8)?.map(from_micros),
    })
}

pub(super) fn list(connection: &Connection, limit: u32, severity: Option<&str>) -> Result<Vec<Alert>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM alerts WHERE ?1 IS NULL OR severity = ?1 ORDER BY created_at DESC, id DESC LIMIT ?2"
    ))?;
    let rows = statement.query_map(params![severity, limit], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn acknowledge(tx: &Connection, id: &str) -> Result<Alert> {
    tx.prepare_cached(&format!("UPDATE alerts SET acknowledged = 1 WHERE id = ?1 RETURNING {COLUMNS}"))?
        .query_row([id], from_row)
        .optional()?
        .ok_or_else(|| EngineError::not_found("This alert"))
}

/// Whether any alert is unresolved.
pub(super) fn any_open(connection: &Connection) -> Result<bool> {
    Ok(connection.prepare_cached("SELECT 1 FROM alerts WHERE resolved_at IS NULL")?.exists([])?)
}

/// Brings the open alerts in line with what is wrong now; answers those that are new or have become worse.
pub(super) fn reconcile(tx: &Connection, bus: &Bus, findings: &[Finding], now: DateTime<Utc>) -> Result<Vec<Alert>> {
    let mut open: Vec<Alert> = tx
        .prepare_cached(&format!("SELECT {COLUMNS} FROM alerts WHERE resolved_at IS NULL"))?
        .query_map([], from_row)?
        .collect::<rusqlite::Result<_>>()?;
    let mut raised = Vec::new();
    for finding in findings {
        let known = open.iter().position(|alert| alert.category == finding.category).map(|at| open.swap_remove(at));
        match known {
            Some(alert) if alert.severity == finding.severity.as_str() => {
                tx.prepare_cached("UPDATE alerts SET message = ?2, details = ?3 WHERE id = ?1")?.execute(params![
                    alert.id,
                    finding.message,
                    finding.details.to_string()
                ])?;
            }
            Some(alert) => {
                resolve(tx, bus, &alert, now)?;
                raised.push(raise(tx, bus, finding, now)?);
            }
            None => raised.push(raise(tx, bus, finding, now)?),
        }
    }
    for gone in &open {
        resolve(tx, bus, gone, now)?;
    }
    Ok(raised)
}

fn raise(tx: &Connection, bus: &Bus, finding: &Finding, now: DateTime<Utc>) -> Result<Alert> {
    let alert = Alert {
        id: Id::<AlertKind>::generate().to_string(),
        severity: finding.severity.as_str().to_owned(),
        category: finding.category.to_owned(),
        message: finding.message.clone(),
        auto_healed: false,
        acknowledged: false,
        details: finding.details.clone(),
        created_at: now,
        resolved_at: None,
    };
    tx.prepare_cached(
        "INSERT INTO alerts (id, fingerprint, severity, category, message, details, created_at)
         VALUES (?1, ?3, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        alert.id,
        alert.severity,
        alert.category,
        alert.message,
        alert.details.to_string(),
        to_micros(now)
    ])?;
    bus.publish(tx, &Fact::new("alert.raised", "ops", json!(alert)))?;
    Ok(alert)
}

fn resolve(tx: &Connection, bus: &Bus, alert: &Alert, now: DateTime<Utc>) -> Result<()> {
    tx.prepare_cached("UPDATE alerts SET resolved_at = ?2 WHERE id = ?1")?
        .execute(params![alert.id, to_micros(now)])?;
    let data = json!({"id": alert.id, "category": alert.category, "message": alert.message});
    bus.publish(tx, &Fact::new("alert.resolved", "ops", data))?;
    Ok(())
}

/// What alerts of this severity and above are sent out for.
pub(super) const ESCALATED: Severity = Severity::Critical;
