//! A control group for one script, of whichever version the machine has and lets us make; without one, the keeper looks itself.

use super::super::script::Limits;
use rustix::process::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PREFIX: &str = "nexaas-script-";
const MIB: u64 = 1024 * 1024;

#[derive(Debug, Default)]
pub struct Cgroup {
    folders: Vec<PathBuf>,
    kill: Option<PathBuf>,
    memory: Option<PathBuf>,
    pids: Option<PathBuf>,
    /// The kernel limits the script's processes.
    pub counts: bool,
    /// The kernel limits its memory.
    pub weighs: bool,
    version: &'static str,
}

impl Cgroup {
    /// Makes what can be made, with its limits set.
    pub fn make(limits: &Limits) -> Self {
        let mut made = Self::default();
        let (Ok(mounts), Ok(own)) =
            (fs::read_to_string("/proc/self/mountinfo"), fs::read_to_string("/proc/self/cgroup"))
        else {
            return made;
        };
        let name = format!("{PREFIX}{}", std::process::id());
        if let Some(parent) = place(&mounts, &own, None) {
            made.make_v2(&parent, &name, limits);
        }
        if made.pids.is_none()
            && let Some(folder) = place(&mounts, &own, Some("pids")).and_then(|parent| made.make_folder(&parent, &name))
            && set(&folder, "pids.max", limits.processes)
        {
            made.pids = Some(folder);
            made.version = "1";
        }
        if made.memory.is_none()
            && let Some(folder) =
                place(&mounts, &own, Some("memory")).and_then(|parent| made.make_folder(&parent, &name))
            && set(&folder, "memory.limit_in_bytes", limits.memory_mb * MIB)
        {
            set(&folder, "memory.memsw.limit_in_bytes", limits.memory_mb * MIB);
            made.memory = Some(folder);
            made.version = "1";
        }
        made
    }

    fn make_v2(&mut self, parent: &Path, name: &str, limits: &Limits) {
        // Refused where processes live in the parent itself; then only ending the group as a whole is left of it.
        let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory +pids");
        let Some(folder) = self.make_folder(parent, name) else { return };
        self.kill = Some(folder.join("cgroup.kill")).filter(|file| file.exists());
        if set(&folder, "pids.max", limits.processes) {
            self.pids = Some(folder.clone());
            self.version = "2";
        }
        if set(&folder, "memory.max", limits.memory_mb * MIB) {
            set(&folder, "memory.swap.max", 0);
            set(&folder, "memory.oom.group", 1);
            self.memory = Some(folder);
            self.version = "2";
        }
    }

    fn make_folder(&mut self, parent: &Path, name: &str) -> Option<PathBuf> {
        sweep(parent);
        let folder = parent.join(name);
        fs::create_dir(&folder).ok()?;
        self.folders.push(folder.clone());
        Some(folder)
    }

    /// Moves a process in; its children follow by themselves. Where that is refused, the group counts for nothing.
    pub fn take_in(&mut self, pid: Pid) {
        let number = pid.as_raw_nonzero().to_string();
        self.folders.retain(|folder| {
            let taken = fs::write(folder.join("cgroup.procs"), &number).is_ok();
            if !taken {
                let _ = fs::remove_dir(folder);
            }
            taken
        });
        let is_in = |folder: &Option<PathBuf>| folder.as_ref().is_some_and(|folder| self.folders.contains(folder));
        (self.counts, self.weighs) = (is_in(&self.pids), is_in(&self.memory));
    }

    pub fn limits_everything(&self) -> bool {
        self.counts && self.weighs
    }

    /// A file that ends everybody in the group when it is written.
    pub fn kill_file(&self) -> Option<PathBuf> {
        self.kill.clone()
    }

    pub fn killed_for_memory(&self) -> bool {
        self.memory.as_ref().is_some_and(|folder| {
            counter(&folder.join("memory.events"), "oom_kill") + counter(&folder.join("memory.oom_control"), "oom_kill")
                > 0
        })
    }

    pub fn refused_processes(&self) -> bool {
        self.pids.as_ref().is_some_and(|folder| counter(&folder.join("pids.events"), "max") > 0)
    }

    pub fn describe(&self) -> String {
        match (self.counts, self.weighs) {
            (true, true) => format!("a control group of version {}", self.version),
            (true, false) => "a control group for processes; its memory is looked at".to_owned(),
            (false, true) => "a control group for memory; its processes are looked at".to_owned(),
            (false, false) => "no control group can be made here; the script is looked at".to_owned(),
        }
    }

    /// Nobody is in it any more, but the kernel may need a moment to see that.
    pub fn remove(&self) {
        for folder in &self.folders {
            for _ in 0..50 {
                match fs::remove_dir(folder) {
                    Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    Ok(()) | Err(_) => break,
                }
            }
        }
    }
}

fn set(folder: &Path, file: &str, value: u64) -> bool {
    fs::write(folder.join(file), value.to_string()).is_ok()
}

fn counter(file: &Path, name: &str) -> u64 {
    let Ok(text) = fs::read_to_string(file) else { return 0 };
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0)
}

/// Removes the empty groups of keepers that were killed.
fn sweep(parent: &Path) {
    let Ok(listing) = fs::read_dir(parent) else { return };
    for entry in listing.flatten() {
        let name = entry.file_name();
        let keeper = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if keeper.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Our own group's folder: of one controller of version 1, or of version 2.
fn place(mounts: &str, own: &str, controller: Option<&str>) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, names, path) = (parts.next()?, parts.next()?, parts.next()?);
        let fits = match controller {
            Some(controller) => names.split(',').any(|name| name == controller),
            None => names.is_empty(),
        };
        fits.then_some(path)
    })?;
    mounts.lines().find_map(|line| {
        let (mount, rest) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, at) = (mount.next()?, mount.next()?);
        let mut rest = rest.split(' ');
        let (kind, _, options) = (rest.next()?, rest.next()?, rest.next()?);
        let fits = match controller {
            Some(controller) => kind == "cgroup" && options.split(',').any(|name| name == controller),
            None => kind == "cgroup2",
        };
        let beneath = path.strip_prefix(root.trim_end_matches('/'))?;
        fits.then(|| Path::new(at).join(beneath.trim_start_matches('/')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_group_is_found_in_either_version() {
        let v2 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = place(v2, "0::/user.slice/a.scope\n", None).unwrap();
        assert_eq!(found, Path::new("/sys/fs/cgroup/user.slice/a.scope"));
        let v1 = "31 24 0:27 /docker/x /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n\
                  32 24 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let own = "8:pids:/docker/x\n4:memory:/a\n0::/\n";
        assert_eq!(place(v1, own, Some("pids")).unwrap(), Path::new("/sys/fs/cgroup/pids"));
        assert_eq!(place(v1, own, Some("memory")).unwrap(), Path::new("/sys/fs/cgroup/memory/a"));
        assert_eq!(place(v1, own, None), None);
    }

    #[test]
    fn a_machine_without_groups_makes_none() {
        assert_eq!(place("", "", None), None);
        assert!(!Cgroup::default().limits_everything());
    }
}
