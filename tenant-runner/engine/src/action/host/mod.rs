//! The launcher: a small process between the runner and a script, so that a script can harm nothing but itself.
//!
//! Two processes take part. The *keeper* adopts whatever the script leaves behind (it is a child subreaper), watches the socket
//! to the runner and ends the whole tree when the script is over, when it is asked to, or when the runner is gone. The *starter*
//! takes the limits upon itself and then becomes the script.
//!
//! Always true here: the keeper ends only when no descendant is left; what it reports is what the kernel said; no value of the
//! script's environment is in its own.

mod cgroup;
mod keeper;
mod limits;
mod starter;
mod tree;
mod wire;

pub(super) use wire::{End, Order, Report, STOP, Stopped, send, send_bytes};

use std::io::Write as _;
use std::process::ExitCode;

/// How long a script may take to end by itself once it was told to.
pub(super) const GRACE: std::time::Duration = std::time::Duration::from_secs(2);

/// What the launcher's program does; `starter` says which of its two processes it is.
pub fn run(starter: bool) -> ExitCode {
    let result = if starter { starter::run() } else { keeper::run() };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is the script's, but there is no script when this fails.
            let _ = writeln!(std::io::stderr(), "error: this command is for the runner itself: {error}");
            ExitCode::from(2)
        }
    }
}
