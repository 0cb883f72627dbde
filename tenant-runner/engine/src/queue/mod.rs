//! The durable queue.

use nexaas_common::id::{Id, Kind};

#[doc(hidden)]
pub enum JobKind {}
impl Kind for JobKind {
    const NAME: &'static str = "job";
}
#[doc(hidden)]
pub enum AttemptKind {}
impl Kind for AttemptKind {
    const NAME: &'static str = "attempt";
}
/// One piece of work.
pub type JobId = Id<JobKind>;
/// One try at a job.
pub type AttemptId = Id<AttemptKind>;
