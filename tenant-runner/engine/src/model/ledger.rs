//! The books: what was spent, what running calls may still cost, and whether another call fits the budget.
//!
//! Always true here: the check and the reservation are one write, so two calls cannot both take the last dollar; a settled
//! call is one row of usage and no reservation, written together.

use super::{Call, TokenUsage, price};
use crate::error::{EngineError, Result};
use crate::store::{Store, to_micros};
use chrono::{DateTime, Datelike as _, NaiveDate, Utc};
use nexaas_common::id::BootId;
use rusqlite::{Connection, params};
use uuid::Uuid;

/// A call's claim on the budget.
#[derive(Debug)]
pub(super) struct Reservation(String);

/// How a call ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settled<'a> {
    pub backend: &'static str,
    pub model: &'a str,
    pub usage: TokenUsage,
    pub outcome: &'static str,
}

fn month_start(now: DateTime<Utc>) -> i64 {
    let first = NaiveDate::from_ymd_opt(now.year(), now.month(), 1).and_then(|d| d.and_hms_opt(0, 0, 0));
    first.map_or_else(|| to_micros(now), |t| to_micros(t.and_utc()))
}

fn nano(dollars: f64) -> i64 {
    // Saturates, which is what a limit of any size should do.
    (dollars * 1e9) as i64
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Claims the worst case of `call`, or refuses it.
pub(super) async fn reserve(
    store: &Store,
    boot: BootId,
    workspace: String,
    call: &Call,
    monthly_budget_usd: Option<f64>,
    now: DateTime<Utc>,
) -> Result<Reservation> {
    let input = call.estimate();
    let worst = TokenUsage {
        // Instructions may have to be written to the cache, which costs a quarter more.
        cache_creation_tokens: input,
        output_tokens: u64::from(call.max_tokens),
        ..TokenUsage::default()
    };
    let worst = signed(price::cost_nano_usd(&call.model, &worst));
    let id = Uuid::now_v7().to_string();
    let (agent, source, model) = (call.origin.agent.clone(), call.origin.source, call.model.clone());
    let kept = id.clone();
    store
        .write(move |tx| {
            if let Some(budget) = monthly_budget_usd.map(nano) {
                let spent: i64 = tx
                    .prepare_cached("SELECT coalesce(sum(cost_nano_usd), 0) FROM usage WHERE at >= ?1")?
                    .query_row([month_start(now)], |r| r.get(0))?;
                let reserved: i64 = tx
                    .prepare_cached("SELECT coalesce(sum(cost_nano_usd), 0) FROM usage_reservations")?
                    .query_row([], |r| r.get(0))?;
                if spent.saturating_add(reserved).saturating_add(worst) > budget {
                    return Err(EngineError::forbidden(format!(
                        "This month's model budget of {:.2} USD does not allow another call: {:.2} USD are spent, {:.2} USD are reserved, and this call may cost up to {:.2} USD",
                        price::dollars(budget), price::dollars(spent), price::dollars(reserved), price::dollars(worst)
                    )));
                }
            }
            tx.prepare_cached(
                "INSERT INTO usage_reservations (id, boot_id, at, workspace, agent, source, model, input_tokens, cost_nano_usd)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![kept, boot.to_string(), to_micros(now), workspace, agent, source, model, signed(input), worst])?;
            Ok(())
        })
        .await?;
    Ok(Reservation(id))
}

/// Ends a call: its row of usage replaces its reservation.
pub(super) async fn settle(
    store: &Store,
    reservation: Option<Reservation>,
    workspace: String,
    call: &Call,
    settled: Settled<'_>,
    now: DateTime<Utc>,
) -> Result<()> {
    let origin = call.origin.clone();
    let (model, backend, usage, outcome) = (settled.model.to_owned(), settled.backend, settled.usage, settled.outcome);
    let cost = if backend == "offline" { 0 } else { signed(price::cost_nano_usd(&model, &usage)) };
    store
        .write(move |tx| {
            if let Some(Reservation(id)) = reservation {
                tx.prepare_cached("DELETE FROM usage_reservations WHERE id = ?1")?.execute([id])?;
            }
            tx.prepare_cached(
                "INSERT INTO usage (at, workspace, agent, source, backend, model, input_tokens, output_tokens, cache_read_tokens,
                                    cache_creation_tokens, cost_nano_usd, outcome, session_id, job_id)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
            )?
            .execute(params![
                to_micros(now),
                workspace,
                origin.agent,
                origin.source,
                backend,
                model,
                signed(usage.input_tokens),
                signed(usage.output_tokens),
                signed(usage.cache_read_tokens),
                signed(usage.cache_creation_tokens),
                cost,
                outcome,
                origin.session_id,
                origin.job_id,
            ])?;
            Ok(())
        })
        .await
}

/// Calls that an ended process left open: what they cost is not known, so their input is counted as sent, marked as an estimate.
pub(super) fn recover(tx: &Connection, boot: BootId) -> Result<usize> {
    let mut statement = tx.prepare(
        "DELETE FROM usage_reservations WHERE boot_id <> ?1 RETURNING at, workspace, agent, source, model, input_tokens",
    )?;
    type Left = (i64, Option<String>, Option<String>, String, String, i64);
    let left: Vec<Left> = statement
        .query_map([boot.to_string()], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (at, workspace, agent, source, model, input) in &left {
        let usage = TokenUsage { input_tokens: input.unsigned_abs(), ..TokenUsage::default() };
        let cost = signed(price::cost_nano_usd(model, &usage));
        tx.execute(
            "INSERT INTO usage (at, workspace, agent, source, backend, model, input_tokens, output_tokens, cache_read_tokens,
                                cache_creation_tokens, cost_nano_usd, outcome)
             VALUES (?1, ?2, ?3, ?4, 'anthropic', ?5, ?6, 0, 0, 0, ?7, 'interrupted')",
            params![at, workspace, agent, source, model, input, cost],
        )?;
    }
    Ok(left.len())
}
