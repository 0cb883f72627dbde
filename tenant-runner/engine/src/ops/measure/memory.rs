//! How much memory the process's control group uses and may use (cgroup v2, else v1), or what the process itself holds where
//! there is no limit. Cache that the kernel can give back at once does not count.

use crate::ops::policy::Reading;
use crate::ops::reading::Memory;
use std::path::{Path, PathBuf};

/// v1 writes "no limit" as the largest number of whole pages.
const NO_LIMIT: u64 = 1 << 60;

pub(super) fn measure(root: &Path) -> Reading<Memory> {
    match group(root) {
        Some(memory @ Memory { limit: Some(_), .. }) => Reading::Known(memory),
        // Without a limit, the group may be the whole machine: the process itself says more.
        _ => match resident(root) {
            Some(used) => Reading::Known(Memory { used, limit: None }),
            None => Reading::unknown("the machine does not tell how much memory is used"),
        },
    }
}

fn group(root: &Path) -> Option<Memory> {
    let text = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let path_of = |wanted: &str| {
        text.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let hit =
                if wanted.is_empty() { controllers.is_empty() } else { controllers.split(',').any(|c| c == wanted) };
            hit.then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let base = root.join("sys/fs/cgroup");
    // Inside a container the path may be the host's, while the mount already begins at the group itself.
    let both = |base: PathBuf, path: String| [base.join(path), base];
    let v2 = path_of("").into_iter().flat_map(|path| both(base.clone(), path)).find_map(|dir| {
        let limit = number(&dir, "memory.max");
        let used = number(&dir, "memory.current")?;
        Some(Memory { used: used.saturating_sub(stat(&dir, "inactive_file")), limit })
    });
    v2.or_else(|| {
        path_of("memory").into_iter().flat_map(|path| both(base.join("memory"), path)).find_map(|dir| {
            let limit = number(&dir, "memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT);
            let used = number(&dir, "memory.usage_in_bytes")?;
            Some(Memory { used: used.saturating_sub(stat(&dir, "total_inactive_file")), limit })
        })
    })
}

/// `max` is no number, and so no limit.
fn number(dir: &Path, file: &str) -> Option<u64> {
    std::fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
}

fn stat(dir: &Path, name: &str) -> u64 {
    let text = std::fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
}

fn resident(root: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(root.join("proc/self/status")).ok()?;
    let kib: u64 =
        text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok())?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn the_limit_of_the_group_counts_and_cache_does_not() {
        let stat = "anon 5\ninactive_file 300\nactive_file 7\n";
        let status = "Name:\tx\nVmRSS:\t      4 kB\n";
        for (what, files, expected) in [
            (
                "v2, in a group",
                vec![
                    ("proc/self/cgroup", "0::/system.slice/x.service\n"),
                    ("sys/fs/cgroup/system.slice/x.service/memory.max", "1000\n"),
                    ("sys/fs/cgroup/system.slice/x.service/memory.current", "800\n"),
                    ("sys/fs/cgroup/system.slice/x.service/memory.stat", stat),
                ],
                Memory { used: 500, limit: Some(1000) },
            ),
            (
                "v2, a path of the host's inside a container",
                vec![
                    ("proc/self/cgroup", "0::/docker/abc\n"),
                    ("sys/fs/cgroup/memory.max", "1000"),
                    ("sys/fs/cgroup/memory.current", "800"),
                ],
                Memory { used: 800, limit: Some(1000) },
            ),
            (
                "v2 without a limit",
                vec![
                    ("proc/self/cgroup", "0::/\n"),
                    ("sys/fs/cgroup/memory.max", "max\n"),
                    ("sys/fs/cgroup/memory.current", "800"),
                    ("proc/self/status", status),
                ],
                Memory { used: 4096, limit: None },
            ),
            (
                "v1",
                vec![
                    ("proc/self/cgroup", "12:cpu:/y\n7:memory:/x\n0::/\n"),
                    ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "1000"),
                    ("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "900"),
                    ("sys/fs/cgroup/memory/x/memory.stat", "total_inactive_file 400\n"),
                ],
                Memory { used: 500, limit: Some(1000) },
            ),
            (
                "v1 without a limit",
                vec![
                    ("proc/self/cgroup", "7:memory:/\n"),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
                    ("sys/fs/cgroup/memory/memory.usage_in_bytes", "900"),
                    ("proc/self/status", status),
                ],
                Memory { used: 4096, limit: None },
            ),
            ("no group at all", vec![("proc/self/status", status)], Memory { used: 4096, limit: None }),
        ] {
            assert_eq!(measure(machine(&files).path()), Reading::Known(expected), "{what}");
        }
        assert!(matches!(measure(machine(&[]).path()), Reading::Unknown(_)));
    }

    #[test]
    fn this_machine_tells_something() {
        assert!(measure(Path::new("/")).known().is_some_and(|memory| memory.used > 0));
    }
}
