//! Counts of the queue and its most recent jobs.

use super::{Place, settings};
use crate::dashboard::describe::job_row;
use crate::error::{Error, Result};
use crate::runner_client::model::Component;
use nexaas_dashboard::widgets::queue_status::{Counts, QueueStatus};
use nexaas_dashboard::widgets::{Html, html};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    limit: Option<usize>,
    counts: Option<bool>,
}

pub async fn draw(place: &Place<'_>, component: &Component) -> Result<Html> {
    let config: Config = settings(component)?;
    let limit = config.limit.unwrap_or(6);
    if limit > 20 {
        return Err(Error::invalid("limit", "must be between 0 and 20"));
    }
    let queue = place.api.queue().await?;
    let counts =
        Counts { queued: queue.queued, running: queue.running, completed: queue.completed, failed: queue.failed };
    let jobs = (limit > 0).then(|| queue.recent.iter().take(limit).map(job_row).collect());
    Ok(html(&QueueStatus { counts: config.counts.unwrap_or(true).then_some(counts), jobs }))
}
