//! The descriptions of the monitor's paths, whose handlers are in `ops.rs` beside this folder.
#![allow(dead_code, reason = "these functions are described, never called")]

use super::shapes::Problem;
use chrono::{DateTime, Utc};
use serde_json::Value;
use utoipa::ToSchema;

#[derive(ToSchema)]
pub struct OpsHealth {
    engine_running: bool,
    worker_count: u32,
    workers_alive: u32,
    pending_jobs: u64,
    failed_jobs_last_hour: u64,
    /// Jobs that have run for longer than expected.
    stale_locks: u64,
    db_ok: bool,
    snapshot_at: DateTime<Utc>,
    running_jobs: u64,
    oldest_ready_s: Option<u64>,
    database_bytes: Option<u64>,
    wal_bytes: Option<u64>,
    disk_free_bytes: Option<u64>,
    memory_bytes: Option<u64>,
    open_alerts: OpenAlerts,
}

#[derive(ToSchema)]
pub struct OpenAlerts {
    info: u32,
    warning: u32,
    critical: u32,
}

#[derive(ToSchema)]
pub struct Alert {
    id: String,
    /// info | warning | critical
    severity: String,
    category: String,
    message: String,
    /// A remedy ran for it by itself, and then the trouble was gone.
    auto_healed: bool,
    acknowledged: bool,
    details: Value,
    created_at: DateTime<Utc>,
    resolved_at: Option<DateTime<Utc>>,
    fingerprint: String,
    acknowledged_by: Option<String>,
    acknowledged_at: Option<DateTime<Utc>>,
    /// When the trouble was last found.
    seen_at: DateTime<Utc>,
    gone_since: Option<DateTime<Utc>>,
    /// How often it came back.
    flaps: u32,
    /// The remedy that ran for it by itself.
    remedy: Option<String>,
    silenced_until: Option<DateTime<Utc>>,
}

/// Who does not want to hear of what.
#[derive(ToSchema)]
pub struct Silence {
    id: String,
    kind: String,
    value: String,
    until: DateTime<Utc>,
    reason: String,
    created_by: String,
    created_at: DateTime<Utc>,
    ended_by: Option<String>,
    ended_at: Option<DateTime<Utc>>,
    active: bool,
}

#[derive(ToSchema)]
pub struct SilenceInput {
    category: Option<String>,
    fingerprint: Option<String>,
    for_s: Option<u64>,
    /// Instead of `for_s`.
    until: Option<DateTime<Utc>>,
    reason: Option<String>,
}

#[derive(ToSchema)]
pub struct Unsilenced {
    ended: u64,
}

#[derive(ToSchema)]
pub struct Check {
    name: String,
    about: String,
    status: String,
    /// The figures it looked at.
    reading: Value,
    messages: Vec<String>,
    since: Option<DateTime<Utc>>,
}

#[derive(ToSchema)]
pub struct Taken {
    seq: u64,
    remedy: String,
    taken_by: String,
    fingerprint: Option<String>,
    outcome: String,
    result: String,
    started_at: DateTime<Utc>,
    finished_at: DateTime<Utc>,
}

#[derive(ToSchema)]
pub struct Healed {
    action: String,
    /// What was done, in words.
    result: String,
}

/// How the engine is.
#[utoipa::path(get, path = "/api/ops/health", tag = "ops", responses((status = 200, body = OpsHealth)))]
fn health() {}

/// Alerts, newest first.
#[utoipa::path(get, path = "/api/ops/alerts", tag = "ops", responses((status = 200, body = Vec<Alert>)),
    params(("limit" = Option<u32>, Query, description = "1 to 500; 50 unless given"),
        ("severity" = Option<String>, Query, description = "info, warning or critical"),
        ("category" = Option<String>, Query), ("open" = Option<bool>, Query)))]
fn alerts() {}

/// Somebody has seen it.
#[utoipa::path(post, path = "/api/ops/alerts/{id}/acknowledge", tag = "ops",
    params(("id" = String, Path, description = "The alert")), responses((status = 200, body = Alert)))]
fn acknowledge() {}

/// Nobody is told of an alert for a while.
#[utoipa::path(post, path = "/api/ops/alerts/{id}/silence", tag = "ops", request_body = SilenceInput,
    params(("id" = String, Path, description = "The alert")), responses((status = 201, body = Silence)))]
fn silence_alert() {}

/// An alert is told of again.
#[utoipa::path(delete, path = "/api/ops/alerts/{id}/silence", tag = "ops",
    params(("id" = String, Path, description = "The alert")), responses((status = 200, body = Unsilenced)))]
fn unsilence_alert() {}

/// The silences, newest first.
#[utoipa::path(get, path = "/api/ops/silences", tag = "ops", params(("limit" = Option<u32>, Query)),
    responses((status = 200, body = Vec<Silence>)))]
fn silences() {}

/// Nobody is told of a category or one kind of alert for a while.
#[utoipa::path(post, path = "/api/ops/silences", tag = "ops", request_body = SilenceInput,
    responses((status = 201, body = Silence)))]
fn silence() {}

/// Ends a silence.
#[utoipa::path(delete, path = "/api/ops/silences/{id}", tag = "ops",
    params(("id" = String, Path, description = "The silence")), responses((status = 200, body = Silence)))]
fn end_silence() {}

/// What is looked at, and what was found.
#[utoipa::path(get, path = "/api/ops/checks", tag = "ops", responses((status = 200, body = Vec<Check>)))]
fn checks() {}

/// Figures of earlier looks.
#[utoipa::path(get, path = "/api/ops/snapshots", tag = "ops", responses((status = 200, body = Vec<Object>)),
    params(("since" = Option<DateTime<Utc>>, Query), ("limit" = Option<u32>, Query)))]
fn snapshots() {}

/// The repairs that were made, newest first.
#[utoipa::path(get, path = "/api/ops/remedies", tag = "ops", params(("limit" = Option<u32>, Query)),
    responses((status = 200, body = Vec<Taken>)))]
fn remedies() {}

/// Makes a repair.
#[utoipa::path(post, path = "/api/ops/heal/{action}", tag = "ops",
    params(("action" = String, Path, description = "restart_workers, restart_engine, clear_locks, fail_stale_jobs …")),
    responses((status = 200, body = Healed), (status = 400, body = Problem)))]
fn heal() {}
