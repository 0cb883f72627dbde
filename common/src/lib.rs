//! What the control plane and the runner both need, and nothing else: typed ids and slugs, injected time, back-off,
//! secrets that cannot be printed, supervised tasks and telemetry.
//!
//! Always true here: no module knows a database, a container engine or an HTTP framework.

pub mod backoff;
pub mod clock;
pub mod id;
pub mod secret;
pub mod slug;
pub mod task;
pub mod telemetry;

/// The version both binaries report.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
