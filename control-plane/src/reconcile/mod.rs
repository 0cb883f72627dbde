//! From wish to reality: `plan` decides, `execute` does, nothing else writes what was seen.

pub mod progress;
