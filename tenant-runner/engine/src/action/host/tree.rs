//! Everybody below this process, as the kernel lists them. A process that leaves its group or session stays below its subreaper.

use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};
use std::collections::{HashMap, HashSet};
use std::fs;

/// Beyond so many, killing begins with whoever is stopped.
const MOST_PASSES: usize = 32;

/// One process, as it was a moment ago.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    pub pid: Pid,
    parent: i32,
    state: u8,
    pub threads: u64,
}

impl Process {
    fn read(pid: Pid) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
        // The name may hold anything, also a bracket; what follows the last one is numbers.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        Some(Self {
            pid,
            state: *fields.first()?.as_bytes().first()?,
            parent: fields.get(1)?.parse().ok()?,
            threads: fields.get(17)?.parse().ok()?,
        })
    }

    pub fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    fn is_stopped(&self) -> bool {
        matches!(self.state, b'T' | b't')
    }

    /// Its memory, with what it has in common with others, in KiB.
    pub fn resident_kib(&self) -> Option<u64> {
        self.kib("status", "VmRSS:")
    }

    /// What it has alone, and its share of what it has in common with others, in KiB.
    pub fn proportional_kib(&self) -> Option<u64> {
        self.kib("smaps_rollup", "Pss:")
    }

    fn kib(&self, file: &str, name: &str) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.pid.as_raw_nonzero())).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches("kB").trim().parse().ok()
    }

    /// Signals this very process: its number may have gone to a stranger since it was listed.
    fn signal(&self, signal: Signal) {
        let Ok(handle) = pidfd_open(self.pid, PidfdFlags::empty()) else { return };
        let ours = getpid().as_raw_nonzero().get();
        // An orphan came to us meanwhile.
        if Self::read(self.pid).is_some_and(|now| now.parent == self.parent || now.parent == ours) {
            let _ = pidfd_send_signal(handle, signal);
        }
    }
}

/// Everybody below this process that is not dead, parents before children.
pub fn descendants() -> Vec<Process> {
    descendants_up_to(usize::MAX)
}

/// The first `most` of them.
pub fn descendants_up_to(most: usize) -> Vec<Process> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut next = vec![getpid().as_raw_nonzero().get()];
    let mut all = None;
    while let Some(parent) = next.pop() {
        for child in children(parent, &mut all) {
            if !seen.insert(child) {
                continue;
            }
            let Some(process) = Pid::from_raw(child).and_then(Process::read) else { continue };
            next.push(child);
            if !process.is_dead() {
                found.push(process);
            }
            if found.len() >= most {
                return found;
            }
        }
    }
    found
}

type ByParent = HashMap<i32, Vec<i32>>;

fn children(parent: i32, all: &mut Option<ByParent>) -> Vec<i32> {
    if let Some(all) = all {
        return all.get(&parent).cloned().unwrap_or_default();
    }
    let Ok(tasks) = fs::read_dir(format!("/proc/{parent}/task")) else { return Vec::new() };
    let mut children = Vec::new();
    for task in tasks.flatten() {
        match fs::read_to_string(task.path().join("children")) {
            Ok(text) => children.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok())),
            // A kernel without these lists: look at everybody, once.
            Err(_) if task.path().join("stat").exists() => {
                let all = all.insert(by_parent());
                return all.get(&parent).cloned().unwrap_or_default();
            }
            Err(_) => {}
        }
    }
    children
}

fn by_parent() -> ByParent {
    let mut all = ByParent::new();
    let Ok(listing) = fs::read_dir("/proc") else { return all };
    for entry in listing.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if let Some(process) = pid.and_then(Process::read) {
            all.entry(process.parent).or_default().push(process.pid.as_raw_nonzero().get());
        }
    }
    all
}

/// Signals everybody; answers how many there were.
pub fn signal_all(signals: &[Signal]) -> usize {
    let all = descendants();
    for process in &all {
        for signal in signals {
            process.signal(*signal);
        }
    }
    all.len()
}

/// Stops everybody: whoever is stopped cannot fork away from what comes next. Each is stopped before its children are listed,
/// so that a pass overtakes a tree that grows; orphans that came to us meanwhile are found by the next.
pub fn stop_all() {
    for _ in 0..MOST_PASSES {
        if stop_running() == 0 {
            return;
        }
    }
}

fn stop_running() -> usize {
    let mut stopped = 0;
    let mut seen = HashSet::new();
    let mut next = vec![getpid().as_raw_nonzero().get()];
    // Lists of everybody would be out of date at once; a kernel without lists of children is served by more passes.
    while let Some(parent) = next.pop() {
        for child in children(parent, &mut None) {
            if !seen.insert(child) {
                continue;
            }
            let Some(process) = Pid::from_raw(child).and_then(Process::read) else { continue };
            if process.is_dead() {
                continue;
            }
            if !process.is_stopped() {
                process.signal(Signal::STOP);
                stopped += 1;
            }
            next.push(child);
        }
    }
    stopped
}
