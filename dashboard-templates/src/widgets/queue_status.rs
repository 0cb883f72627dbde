//! Counts of the queue and its most recent jobs.

use super::JobRow;
use askama::Template;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub queued: u64,
    pub running: u64,
    pub completed: u64,
    pub failed: u64,
}

/// What an empty list says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Empty {
    NothingRan,
    NothingFailed,
}

#[derive(Debug, Clone, Template)]
#[template(path = "widgets/queue_status.html")]
pub struct QueueStatus {
    pub counts: Option<Counts>,
    /// `None`: no list wanted.
    pub jobs: Option<Vec<JobRow>>,
    pub empty: Empty,
}
