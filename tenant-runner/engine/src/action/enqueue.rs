//! Putting a further job on the queue, exactly once for one attempt.

use super::config::beneath;
use super::template::{self, Values};
use super::{Failure, Run};
use crate::error::{EngineError, Result};
use crate::queue::{NewJob, Queue, Unique};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::time::Duration;

/// How long the attempt's key stands: an attempt that a crash interrupted is taken up again long before that is over.
const STANDS: Duration = Duration::from_secs(7 * 24 * 3600);

/// Whether `spec` can be a job. What a template will say is checked when it says it.
pub(super) fn check(spec: &Value) -> Result<()> {
    if spec.to_string().contains("{{") {
        let action = spec.get("action_type").and_then(Value::as_str).unwrap_or_default();
        action.parse::<super::ActionType>().map_err(within)?;
        return match spec.get("action_config") {
            Some(Value::Object(_)) => Ok(()),
            _ => Err(EngineError::invalid("action_config.action_config", "must be a JSON object")),
        };
    }
    NewJob::from_json(spec, DateTime::<Utc>::UNIX_EPOCH).map(|_| ()).map_err(within)
}

pub(super) async fn run(
    spec: &Value,
    run: &Run<'_>,
    values: &Values,
    queue: &Queue,
    now: DateTime<Utc>,
) -> Result<String, Failure> {
    let spec = template::fill(spec, values)?;
    let mut job = NewJob::from_json(&spec, now).map_err(within)?;
    job.depth = run.job.depth + 1;
    job.traceparent.clone_from(&run.job.traceparent);
    // A key that the definition gives makes a repetition harmless as well.
    job.unique.get_or_insert_with(|| Unique { key: format!("enqueued-by-{}", run.key), period: Some(STANDS) });
    let queued = queue.enqueue_with(job).await.map_err(within)?;
    Ok(json!({"job_id": queued.id, "existed": queued.existed}).to_string())
}

fn within(error: EngineError) -> EngineError {
    beneath("action_config", error)
}
