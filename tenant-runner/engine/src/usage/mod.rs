//! What the models were used for and what that cost, as people ask about it.
//!
//! Always true here: every call is counted once, by the row its settlement wrote; what was planted as a demonstration's past
//! counts like the rest.

use crate::error::{EngineError, Result};
use crate::model::price::dollars;
use crate::retention::Keep;
use crate::store::{Store, from_micros, to_micros};
use chrono::{DateTime, Duration, NaiveDate, Utc};
use rusqlite::{Connection, Row, ToSql};
use serde::{Deserialize, Serialize};

/// Usage is kept for longer than a year, for comparisons.
pub const KEEP: &[Keep] = &[Keep {
    table: "usage",
    sql: "DELETE FROM usage WHERE id IN (
              SELECT id FROM usage WHERE at < :before OR at <= (SELECT at FROM usage ORDER BY at DESC LIMIT 1 OFFSET :rows)
              ORDER BY at LIMIT :at_once)",
    rows: 500_000,
    age: Duration::days(400),
}];

/// What to count. Empty: everything.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct UsageFilter {
    pub workspace: Option<String>,
    pub agent: Option<String>,
    pub source: Option<String>,
    /// RFC 3339, or a date; inclusive.
    pub since: Option<String>,
    /// RFC 3339, or a date; a date includes its whole day.
    pub until: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct UsageReport {
    pub total_calls: u64,
    pub total_input_tokens: u64,
    pub total_output_tokens: u64,
    pub total_cache_read_tokens: u64,
    pub total_cache_creation_tokens: u64,
    pub total_cost_usd: f64,
    pub by_model: Vec<UsageBucket>,
    pub by_agent: Vec<UsageBucket>,
    pub by_source: Vec<UsageBucket>,
    /// Keys are dates (UTC), oldest first.
    pub daily: Vec<UsageBucket>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct UsageBucket {
    pub key: String,
    pub calls: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cost_usd: f64,
}

/// Clones share the store.
#[derive(Debug, Clone)]
pub struct Usage {
    store: Store,
}

impl Usage {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    pub async fn report(&self, filter: UsageFilter) -> Result<UsageReport> {
        let since = filter.since.as_deref().filter(|s| !s.is_empty()).map(|t| moment("since", t, false)).transpose()?;
        let until = filter.until.as_deref().filter(|s| !s.is_empty()).map(|t| moment("until", t, true)).transpose()?;
        let mut conditions = vec!["1"];
        let mut values: Vec<Box<dyn ToSql + Send>> = Vec::new();
        let texts = [("workspace = ?", filter.workspace), ("agent = ?", filter.agent), ("source = ?", filter.source)];
        for (condition, value) in texts {
            if let Some(value) = value.filter(|v| !v.is_empty()) {
                conditions.push(condition);
                values.push(Box::new(value));
            }
        }
        for (condition, value) in [("at >= ?", since), ("at < ?", until)] {
            if let Some(value) = value {
                conditions.push(condition);
                values.push(Box::new(to_micros(value)));
            }
        }
        let wherever = conditions.join(" AND ");
        self.store.read(move |c| report(c, &wherever, &values)).await
    }
}

/// A moment, or a date; `end` turns a date into the end of its day.
fn moment(field: &str, text: &str, end: bool) -> Result<DateTime<Utc>> {
    if let Ok(exact) = DateTime::parse_from_rfc3339(text) {
        return Ok(exact.with_timezone(&Utc));
    }
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    let date = if end { date.and_then(|d| d.succ_opt()) } else { date };
    date.and_then(|d| d.and_hms_opt(0, 0, 0)).map(|t| t.and_utc()).ok_or_else(|| {
        EngineError::invalid(field, "must be a time such as 2026-05-01T09:00:00Z or a date such as 2026-05-01")
    })
}

const SUMS: &str =
    "count(*), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), coalesce(sum(cost_nano_usd), 0)";

fn report(c: &Connection, wherever: &str, values: &[Box<dyn ToSql + Send>]) -> Result<UsageReport> {
    let bound = || rusqlite::params_from_iter(values.iter().map(|v| v.as_ref() as &dyn ToSql));
    let sql = format!(
        "SELECT {SUMS}, coalesce(sum(cache_read_tokens), 0), coalesce(sum(cache_creation_tokens), 0) FROM usage WHERE {wherever}"
    );
    let mut report = c.query_row(&sql, bound(), |r| {
        Ok(UsageReport {
            total_calls: r.get(0)?,
            total_input_tokens: r.get(1)?,
            total_output_tokens: r.get(2)?,
            total_cost_usd: dollars(r.get(3)?),
            total_cache_read_tokens: r.get(4)?,
            total_cache_creation_tokens: r.get(5)?,
            ..UsageReport::default()
        })
    })?;
    let buckets = |key: &str, order: &str| -> Result<Vec<UsageBucket>> {
        let sql =
            format!("SELECT {SUMS}, {key} AS k FROM usage WHERE {wherever} GROUP BY k ORDER BY {order} LIMIT 1000");
        let mut statement = c.prepare(&sql)?;
        let rows = statement.query_map(bound(), bucket)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    };
    report.by_model = buckets("model", "4 DESC, k")?;
    report.by_agent = buckets("coalesce(agent, '')", "4 DESC, k")?;
    report.by_source = buckets("source", "4 DESC, k")?;
    // Days since the epoch sort as they should; the date is made of them afterwards.
    let days: Vec<UsageBucket> = buckets("CAST(at / 86400000000 AS TEXT)", "at / 86400000000 DESC")?;
    report.daily = days
        .into_iter()
        .rev()
        .map(|mut b| {
            let day = b.key.parse::<i64>().unwrap_or(0);
            b.key = from_micros(day.saturating_mul(86_400_000_000)).format("%Y-%m-%d").to_string();
            b
        })
        .collect();
    Ok(report)
}

fn bucket(r: &Row<'_>) -> rusqlite::Result<UsageBucket> {
    Ok(UsageBucket {
        calls: r.get(0)?,
        input_tokens: r.get(1)?,
        output_tokens: r.get(2)?,
        cost_usd: dollars(r.get(3)?),
        key: r.get(4)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_as_an_end_includes_its_day() {
        assert_eq!(moment("until", "2026-05-01", true).unwrap().to_rfc3339(), "2026-05-02T00:00:00+00:00");
        assert_eq!(moment("since", "2026-05-01", false).unwrap().to_rfc3339(), "2026-05-01T00:00:00+00:00");
        assert_eq!(moment("since", "yesterday", false).unwrap_err().field(), Some("since"));
    }
}
