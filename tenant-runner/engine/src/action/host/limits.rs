//! The limits that a process takes upon itself and hands down to its children.

use super::super::script::Limits;
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use std::fs;
use std::os::unix::fs::MetadataExt as _;

const MIB: u64 = 1024 * 1024;

/// Sets them; `counted` says that the number of processes is limited otherwise.
pub fn set(limits: &Limits, counted: bool) -> std::io::Result<()> {
    lower(Resource::Core, 0)?;
    // What is written to, not what is mapped: programs with a garbage collector reserve far more addresses than they use.
    lower(Resource::Data, limits.memory_mb * MIB)?;
    lower(Resource::Fsize, limits.file_mb * MIB)?;
    lower(Resource::Nofile, limits.open_files)?;
    if !counted && !geteuid().is_root() {
        // The kernel counts everything this user runs, also what is not ours.
        lower(Resource::Nproc, own_tasks() + limits.processes)?;
    }
    Ok(())
}

/// A limit that is stricter already stays.
fn lower(resource: Resource, to: u64) -> std::io::Result<()> {
    let now = getrlimit(resource);
    let least = |limit: Option<u64>| Some(limit.map_or(to, |limit| limit.min(to)));
    Ok(setrlimit(resource, Rlimit { current: least(now.current), maximum: least(now.maximum) })?)
}

/// How many threads this user has.
fn own_tasks() -> u64 {
    let user = geteuid().as_raw();
    let Ok(listing) = fs::read_dir("/proc") else { return 0 };
    let processes = listing
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit())));
    processes
        .filter(|process| process.metadata().is_ok_and(|m| m.uid() == user))
        // A folder has a link for itself, one from its parent, and one from each folder in it.
        .map(|process| {
            fs::metadata(process.path().join("task")).map_or(1, |tasks| tasks.nlink().saturating_sub(2).max(1))
        })
        .sum()
}
