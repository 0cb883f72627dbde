//! Faults on real processes: the program itself is killed, starved of disk, given hostile scripts, and must lose nothing that
//! it acknowledged. Everything random comes from a seed that is printed; `NEXAAS_FAULT_SEED` replays the plan.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints its figures"
)]

mod crash;
mod database;
mod dice;
mod disk_full;
mod hostile_scripts;
mod migration;
mod old_database;
mod process;
mod receiver;
mod small_disk;

/// Where the data of a test is kept: a real disk, not a memory file system, so that reaching the disk costs what it costs.
pub fn real_disk() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("faults-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}
