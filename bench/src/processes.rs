//! What the kernel knows of a process: its memory, and how often its threads were given a processor.

use nexaas_test_system::Result;
use std::collections::BTreeMap;

/// A line of `/proc/<pid>/status` in MiB.
pub fn resident_mb(pid: u32, line: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = number(&status, line).ok_or_else(|| format!("/proc/{pid}/status has no {line}"))?;
    Ok(kib as f64 / 1024.0)
}

/// Context switches so far, voluntary and not, of every thread of `pid`: by thread, with its name.
pub fn switches(pid: u32) -> Result<BTreeMap<u32, (String, u64)>> {
    let mut threads = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        // A thread may end while it is looked at.
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let name = status.lines().find_map(|line| line.strip_prefix("Name:")).unwrap_or("?").trim().to_owned();
        let count = number(&status, "voluntary_ctxt_switches").unwrap_or(0)
            + number(&status, "nonvoluntary_ctxt_switches").unwrap_or(0);
        threads.insert(id, (name, count));
    }
    Ok(threads)
}

fn number(status: &str, line: &str) -> Option<u64> {
    status.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':'))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_threads() {
        let own = std::process::id();
        assert!(resident_mb(own, "VmRSS").unwrap() > 0.0);
        assert!(!switches(own).unwrap().is_empty());
    }
}
