//! How answers and bodies look, for the description alone: the values themselves are made by the engine's own types.
#![allow(dead_code, reason = "these types are described, never made")]

use chrono::{DateTime, Utc};
use serde_json::Value;
use utoipa::ToSchema;

/// Every refusal.
#[derive(ToSchema)]
pub struct Problem {
    detail: String,
    /// The field at fault, when there is one.
    field: Option<String>,
}

#[derive(ToSchema)]
pub struct Health {
    status: String,
    version: String,
}

#[derive(ToSchema)]
pub struct User {
    id: String,
    username: String,
    /// admin | member
    role: String,
    company_id: String,
    company: String,
}

#[derive(ToSchema)]
pub struct Session {
    token: String,
    user: User,
    expires_at: DateTime<Utc>,
}

#[derive(ToSchema)]
pub struct Registration {
    /// Needed by the first registration.
    company_name: Option<String>,
    username: String,
    /// At least 8 characters.
    password: String,
}

#[derive(ToSchema)]
pub struct Login {
    username: String,
    password: String,
}

#[derive(ToSchema)]
pub struct Workspace {
    root: String,
    /// `workspace.yaml`, as it is; null when it never could be read.
    #[schema(value_type = Option<Object>)]
    config: Value,
    #[schema(value_type = Vec<Object>)]
    perspectives: Value,
    #[schema(value_type = Vec<Object>)]
    pages: Value,
    #[schema(value_type = Vec<Object>)]
    components: Value,
    registries: Vec<RegistryName>,
    claude_md: String,
    /// Secrets are left out.
    mcp_config: Value,
    problems: Vec<FileProblem>,
    revision: u64,
}

/// A file that could not be used as it stands.
#[derive(ToSchema)]
pub struct FileProblem {
    file: String,
    /// From 1; 0 when unknown.
    line: u32,
    reason: String,
    /// error | warning
    severity: String,
}

#[derive(ToSchema)]
pub struct CatalogEntry {
    name: String,
    description: String,
    category: String,
    requires_env: Vec<String>,
    config: Value,
}

#[derive(ToSchema)]
pub struct Agent {
    name: String,
    dir: String,
    #[schema(value_type = Object)]
    config: Value,
    prompt: String,
    parent: Option<String>,
    /// framework | client
    source: String,
    #[schema(no_recursion)]
    children: Vec<Agent>,
}

#[derive(ToSchema)]
pub struct Skill {
    name: String,
    filename: String,
    description: String,
    path: String,
    /// framework | client
    source: String,
}

#[derive(ToSchema)]
pub struct SkillWithBody {
    name: String,
    filename: String,
    description: String,
    path: String,
    source: String,
    body: String,
}

#[derive(ToSchema)]
pub struct SkillInput {
    input: Option<String>,
    agent: Option<String>,
}

#[derive(ToSchema)]
pub struct SkillRun {
    skill: String,
    result: String,
}

#[derive(ToSchema)]
pub struct RegistryName {
    name: String,
    path: String,
}

#[derive(ToSchema)]
pub struct Registry {
    name: String,
    /// With `fields` and `entries`.
    #[schema(value_type = Object)]
    data: Value,
}

/// A schedule or trigger, with what it does and how that went.
#[derive(ToSchema)]
pub struct Event {
    id: String,
    #[schema(rename = "type")]
    kind: String,
    condition_type: String,
    condition_expr: String,
    /// Of a cron expression that names none itself; the workspace's, if none.
    timezone: Option<String>,
    /// skip, latest or `{"all": n}`, unless the expression says it.
    catch_up: Option<Value>,
    next_eval_at: Option<DateTime<Utc>>,
    starts_at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
    jitter_s: u32,
    /// allow | skip | queue | cancel_previous
    overlap: String,
    action_type: String,
    #[schema(value_type = Object)]
    action_config: Value,
    /// Further fields of its jobs, as a job has them.
    job: Option<Value>,
    /// active | paused | completed | failed | expired
    status: String,
    /// Why it is paused, if the engine did that.
    paused_reason: Option<String>,
    pause_after_failures: Option<u32>,
    failures_in_row: u32,
    priority: i32,
    concurrency_key: Option<String>,
    max_retries: u32,
    retry_backoff_minutes: f64,
    workspace: Option<String>,
    agent: Option<String>,
    client: Option<String>,
    description: Option<String>,
    /// Keys for calls from outside are shown as `[redacted]`, and can be sent back so.
    metadata: Option<Value>,
    last_run_at: Option<DateTime<Utc>>,
    last_result: Option<String>,
    run_count: u64,
    fail_count: u64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// What may be set of an event. `PATCH` takes any part of it, and null clears an optional field.
#[derive(ToSchema)]
pub struct EventInput {
    id: Option<String>,
    #[schema(rename = "type")]
    kind: Option<String>,
    condition_type: Option<String>,
    /// A text, a number of seconds, or an object.
    condition_expr: Option<Value>,
    timezone: Option<String>,
    /// skip, latest or `{"all": n}`.
    catch_up: Option<Value>,
    starts_at: Option<DateTime<Utc>>,
    jitter_s: Option<u32>,
    /// allow | skip | queue | cancel_previous
    overlap: Option<String>,
    /// Further fields of its jobs: `timeout_s`, `then`, `on_failure` …
    #[schema(value_type = Option<Object>)]
    job: Option<Value>,
    pause_after_failures: Option<u32>,
    next_eval_at: Option<DateTime<Utc>>,
    action_type: Option<String>,
    #[schema(value_type = Option<Object>)]
    action_config: Option<Value>,
    status: Option<String>,
    priority: Option<i32>,
    concurrency_key: Option<String>,
    max_retries: Option<u32>,
    retry_backoff_minutes: Option<f64>,
    expires_at: Option<DateTime<Utc>>,
    workspace: Option<String>,
    agent: Option<String>,
    client: Option<String>,
    description: Option<String>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
}

#[derive(ToSchema)]
pub struct Upserted {
    id: String,
    /// created | updated
    action: String,
}

#[derive(ToSchema)]
pub struct Triggered {
    id: String,
    job_id: String,
}

#[derive(ToSchema)]
pub struct HookAnswer {
    id: String,
    job_id: String,
    /// The call was taken before; this is the job of then.
    duplicate: Option<bool>,
}

#[derive(ToSchema)]
pub struct Job {
    id: String,
    event_id: Option<String>,
    slot: Option<DateTime<Utc>>,
    /// How many jobs led to this one.
    depth: u32,
    action_type: String,
    description: Option<String>,
    agent: Option<String>,
    /// ready | running | succeeded | dead | cancelled
    state: String,
    /// It is due, but its concurrency key has no room.
    blocked: bool,
    priority: i32,
    concurrency_key: Option<String>,
    attempt: u32,
    max_attempts: u32,
    run_at: DateTime<Utc>,
    timeout_ms: Option<u64>,
    result: Option<String>,
    error: Option<String>,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
}

#[derive(ToSchema)]
pub struct JobWithAll {
    id: String,
    event_id: Option<String>,
    slot: Option<DateTime<Utc>>,
    /// How many jobs led to this one.
    depth: u32,
    action_type: String,
    description: Option<String>,
    agent: Option<String>,
    /// ready | running | succeeded | dead | cancelled
    state: String,
    /// It is due, but its concurrency key has no room.
    blocked: bool,
    priority: i32,
    concurrency_key: Option<String>,
    attempt: u32,
    max_attempts: u32,
    run_at: DateTime<Utc>,
    timeout_ms: Option<u64>,
    result: Option<String>,
    error: Option<String>,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    attempts: Vec<Attempt>,
    steps: Vec<Step>,
}

#[derive(ToSchema)]
pub struct JobPage {
    /// Newest first.
    jobs: Vec<Job>,
    /// Where the next page begins; null on the last one.
    next_before: Option<String>,
}

/// One try at a job.
#[derive(ToSchema)]
pub struct Attempt {
    /// From 1.
    number: u32,
    /// Sent as `Idempotency-Key` with what the attempt does.
    id: String,
    /// running | succeeded | failed | cancelled | interrupted
    outcome: String,
    /// What went wrong.
    detail: Option<String>,
    started_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    duration_ms: Option<i64>,
}

/// A finished part of a job: a retry goes on after it.
#[derive(ToSchema)]
pub struct Step {
    /// From 0.
    number: u32,
    name: String,
    result: String,
    finished_at: DateTime<Utc>,
}

#[derive(ToSchema)]
pub struct Enqueued {
    id: String,
    /// No new job was made.
    existed: bool,
}

#[derive(ToSchema)]
pub struct Retried {
    retried: u64,
}

/// A job for the queue.
#[derive(ToSchema)]
pub struct JobInput {
    action_type: String,
    #[schema(value_type = Object)]
    action_config: Value,
    /// What templates find at `payload`.
    payload: Option<Value>,
    description: Option<String>,
    agent: Option<String>,
    /// -1000 to 1000, lower runs first; 5 unless given.
    priority: Option<i32>,
    run_at: Option<DateTime<Utc>>,
    /// Instead of `run_at`.
    delay_s: Option<f64>,
    concurrency_key: Option<String>,
    concurrency_limit: Option<u32>,
    rate_limit: Option<KeyRate>,
    /// At most one job stands for it: while it lives, or for `unique_for_s`.
    unique_key: Option<String>,
    unique_for_s: Option<f64>,
    max_retries: Option<u32>,
    retry_backoff_minutes: Option<f64>,
    /// The waits between attempts one by one, instead of a growing one.
    retry_delays_s: Option<Vec<f64>>,
    timeout_s: Option<f64>,
    /// Jobs that follow when this one has succeeded.
    #[schema(value_type = Vec<Object>)]
    then: Option<Value>,
    /// Jobs that follow when it has failed for good.
    #[schema(value_type = Vec<Object>)]
    on_failure: Option<Value>,
}

#[derive(ToSchema)]
pub struct Key {
    key: String,
    /// How many of its jobs run at a time.
    concurrency_limit: u32,
    rate_limit: Option<KeyRate>,
    running: u32,
    /// Due jobs that wait for it.
    blocked: u32,
}

#[derive(ToSchema)]
pub struct KeyRate {
    /// So many starts …
    count: u32,
    /// … in any stretch of so many seconds.
    per_s: f64,
}

/// Something that happened.
#[derive(ToSchema)]
pub struct Fact {
    seq: u64,
    #[schema(rename = "type")]
    kind: String,
    source: String,
    data: Value,
    created_at: DateTime<Utc>,
}

#[derive(ToSchema)]
pub struct FactPage {
    /// Newest first.
    events: Vec<Fact>,
    next_before: Option<u64>,
}

#[derive(ToSchema)]
pub struct Counts {
    queued: u64,
    running: u64,
    /// Since the beginning.
    completed: u64,
    failed: u64,
    cancelled: u64,
}

#[derive(ToSchema)]
pub struct Queue {
    counts: Counts,
    /// The 20 most recent, newest first.
    recent: Vec<Job>,
}

#[derive(ToSchema)]
pub struct ChatSession {
    id: String,
    agent: String,
    title: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    last_seq: u64,
    running: bool,
    messages: Option<Vec<ChatMessage>>,
}

#[derive(ToSchema)]
pub struct ChatMessage {
    /// user | assistant
    role: String,
    content: String,
    created_at: DateTime<Utc>,
}

#[derive(ToSchema)]
pub struct UsageReport {
    total_calls: u64,
    total_input_tokens: u64,
    total_output_tokens: u64,
    total_cache_read_tokens: u64,
    total_cache_creation_tokens: u64,
    total_cost_usd: f64,
    by_model: Vec<UsageBucket>,
    by_agent: Vec<UsageBucket>,
    by_source: Vec<UsageBucket>,
    /// Keys are dates, oldest first.
    daily: Vec<UsageBucket>,
}

#[derive(ToSchema)]
pub struct UsageBucket {
    key: String,
    calls: u64,
    input_tokens: u64,
    output_tokens: u64,
    cost_usd: f64,
}
