//! What `/proc` says about processes. A process is named by its pid together with its start time, because pids come back.

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// The kernel counts processor time for user space in this unit on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// Only where the kernel has no pidfd.
const FALLBACK_INTERVAL: Duration = Duration::from_millis(250);

/// One process, recognisable after any number of reused pids and after a restart of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Handle {
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`.
    pub start_ticks: u64,
    /// The machine's start, as the kernel names it.
    pub boot: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stat {
    state: char,
    group: i32,
    user_ticks: u64,
    system_ticks: u64,
    threads: u64,
    start_ticks: u64,
}

/// The name in the second field may hold anything, parentheses included; the numbers follow the last one.
fn parse_stat(text: &str) -> Option<Stat> {
    let rest = text.get(text.rfind(')')? + 2..)?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |n: usize| fields.get(n).and_then(|f| f.parse::<u64>().ok());
    Some(Stat {
        state: fields.first()?.chars().next()?,
        group: fields.get(2)?.parse().ok()?,
        user_ticks: number(11)?,
        system_ticks: number(12)?,
        threads: number(17)?,
        start_ticks: number(19)?,
    })
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|s| s.trim().to_owned()).unwrap_or_default()
}

impl Handle {
    pub(super) fn of(pid: i32) -> Option<Self> {
        let stat = stat(pid)?;
        Some(Self { pid, start_ticks: stat.start_ticks, boot: boot() })
    }

    /// Whether this very process still runs. One that has ended but was not yet collected does not.
    pub(super) fn alive(&self) -> bool {
        self.boot == boot()
            && stat(self.pid).is_some_and(|s| s.start_ticks == self.start_ticks && !matches!(s.state, 'Z' | 'X'))
    }

    fn raw(&self) -> Option<Pid> {
        Pid::from_raw(self.pid)
    }

    /// Signals its whole group, if it is still that group's leader.
    pub(super) fn signal_group(&self, signal: Signal) {
        if self.boot == boot()
            && stat(self.pid).is_none_or(|s| s.start_ticks == self.start_ticks && s.group == self.pid)
            && let Some(pid) = self.raw()
        {
            // A group that is gone is what was wanted.
            let _ = rustix::process::kill_process_group(pid, signal);
        }
    }

    /// Ends when the process has ended.
    pub(super) async fn exited(&self) {
        let Some(pid) = self.raw().filter(|_| self.alive()) else { return };
        let fd = rustix::process::pidfd_open(pid, PidfdFlags::empty());
        // Between the look and the open the pid may have gone to another.
        if !self.alive() {
            return;
        }
        match fd.map_err(std::io::Error::from).and_then(register) {
            Ok(fd) => {
                let _ = fd.readable().await;
            }
            Err(_) => {
                while self.alive() {
                    tokio::time::sleep(FALLBACK_INTERVAL).await;
                }
            }
        }
    }

    /// Memory, processor seconds and threads of the whole group.
    pub(super) fn measure(&self) -> Option<(u64, f64, u64)> {
        if !self.alive() {
            return None;
        }
        let (mut memory, mut ticks, mut threads) = (0, 0, 0);
        for pid in pids() {
            if let Some(stat) = stat(pid).filter(|s| s.group == self.pid) {
                memory += resident(pid).unwrap_or(0);
                ticks += stat.user_ticks + stat.system_ticks;
                threads += stat.threads;
            }
        }
        Some((memory, ticks as f64 / TICKS_PER_SECOND, threads))
    }
}

#[allow(
    deprecated,
    reason = "the newer call is `unsafe` for types that may change their descriptor; an OwnedFd cannot"
)]
fn register(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, tokio::io::Interest::READABLE)
}

fn resident(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn pids() -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// The leader of a group whose arguments name this data folder and that runs as `uid`: a runner that was started just
/// before its starter died.
pub(super) fn find_by_data_dir(data_dir: &std::path::Path, uid: u32) -> Option<Handle> {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::MetadataExt as _;
    let wanted = data_dir.as_os_str().as_bytes();
    pids().into_iter().find_map(|pid| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let arguments: Vec<&[u8]> = command.split(|b| *b == 0).collect();
        let named = arguments.windows(2).any(|w| w[0] == b"--data-dir" && w[1] == wanted);
        let owner = std::fs::metadata(format!("/proc/{pid}")).ok()?.uid();
        (named && owner == uid && stat(pid)?.group == pid).then(|| Handle::of(pid)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_full_of_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) R) b) S 1 42 42 0 -1 4194560 1 2 3 4 70 30 0 0 20 0 5 0 12345 1000 200 18446744073709551615";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.state, stat.group, stat.start_ticks), ('S', 42, 12345));
        assert_eq!((stat.user_ticks, stat.system_ticks, stat.threads), (70, 30, 5));
    }

    #[test]
    fn the_same_pid_with_another_start_is_another_process() {
        let me = Handle::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.alive());
        assert!(!Handle { start_ticks: me.start_ticks + 1, ..me.clone() }.alive());
        assert!(!Handle { boot: "another".into(), ..me }.alive());
    }
}
