//! Counts of the queue and its most recent jobs, or those that failed for good. What failed can be tried again on the spot.

use super::{Place, settings};
use crate::dashboard::describe::job_row;
use crate::error::{Error, Result};
use crate::runner_client::model::Component;
use nexaas_dashboard::widgets::queue_status::{Counts, Empty, QueueStatus};
use nexaas_dashboard::widgets::{Html, html};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    limit: Option<usize>,
    counts: Option<bool>,
    show: Show,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Show {
    #[default]
    Recent,
    Failed,
}

pub async fn draw(place: &Place<'_>, component: &Component) -> Result<Html> {
    let config: Config = settings(component)?;
    let limit = config.limit.unwrap_or(6);
    if limit > 20 {
        return Err(Error::invalid("limit", "must be between 0 and 20"));
    }
    let most = u32::try_from(limit).unwrap_or(20);
    let (queue, dead) = match config.show {
        Show::Failed if limit > 0 => tokio::try_join!(place.api.queue(), place.api.dead_jobs(most))?,
        Show::Failed | Show::Recent => (place.api.queue().await?, Vec::new()),
    };
    let counts =
        Counts { queued: queue.queued, running: queue.running, completed: queue.completed, failed: queue.failed };
    let (shown, empty) = match config.show {
        Show::Recent => (&queue.recent, Empty::NothingRan),
        Show::Failed => (&dead, Empty::NothingFailed),
    };
    let jobs = (limit > 0).then(|| shown.iter().take(limit).map(job_row).collect());
    Ok(html(&QueueStatus { counts: config.counts.unwrap_or(true).then_some(counts), jobs, empty }))
}
