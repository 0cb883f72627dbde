//! Where a process runner's files are, who owns them, and how they are written.
//!
//! ```text
//! <data_dir>/process/program/<hash>/{nexaas-runner, framework/, templates/}   what runners execute and read
//! <data_dir>/process/<tenant>/runner.json, runner.log                        ours alone
//! <data_dir>/process/<tenant>/identity/                                      readable by the runner, writable by us
//! <data_dir>/process/<tenant>/data/                                          the runner's own
//! ```
//! Always true: nothing is written by name into a folder that a runner can change, so no link it leaves is followed.

use super::procfs::Handle;
use crate::domain::TenantId;
use crate::error::{Error, Kind, Result};
use crate::orchestrator::{RUNNER_UID, RunnerIdentity};
use nexaas_common::secret::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

const RECORD: &str = "runner.json";
const LOG: &str = "runner.log";
const NETWORK_MARK: &str = "network";
/// A log that grew beyond this is cut down to its newest part.
const LOG_MAX: u64 = 8 << 20;
const LOG_KEEP: u64 = 1 << 20;
/// No folder of content is larger.
const MAX_TREE_BYTES: u64 = 64 << 20;

pub(super) fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::new(Kind::Internal, format!("{}: {error}", path.display())).with_source(error)
}

/// What is kept of one runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub generation: u64,
    pub spec_hash: String,
    pub port: u16,
    /// The folder of `program/` it runs from.
    pub program: String,
    pub state: State,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub(super) enum State {
    Created,
    Started {
        process: Handle,
    },
    /// `None`: it ended while nobody could collect its code.
    Exited {
        code: Option<i64>,
    },
}

/// The folders of one tenant.
#[derive(Debug, Clone)]
pub(super) struct TenantFiles {
    pub root: PathBuf,
}

impl TenantFiles {
    pub(super) fn new(process_dir: &Path, tenant: TenantId) -> Self {
        Self { root: process_dir.join(tenant.uuid().to_string()) }
    }
    pub(super) fn data(&self) -> PathBuf {
        self.root.join("data")
    }
    pub(super) fn identity(&self) -> PathBuf {
        self.root.join("identity")
    }
    pub(super) fn log(&self) -> PathBuf {
        self.root.join(LOG)
    }
    fn mark(&self) -> PathBuf {
        self.root.join(NETWORK_MARK)
    }

    pub(super) fn ensure_root(&self, privileged: bool) -> Result<()> {
        folder(&self.root, if privileged { 0o711 } else { 0o700 })
    }

    /// Processes share the host's network; the mark only says that the step was done.
    pub(super) fn has_network(&self) -> std::io::Result<bool> {
        self.mark().try_exists()
    }
    pub(super) fn set_network(&self, present: bool) -> Result<()> {
        let path = self.mark();
        if present {
            return std::fs::write(&path, b"").map_err(|e| failed(&path, e));
        }
        absent_is_fine(std::fs::remove_file(&path)).map_err(|e| failed(&path, e))
    }

    pub(super) fn has_data(&self) -> std::io::Result<bool> {
        self.data().try_exists()
    }

    /// As whom this tenant's runner runs.
    pub(super) fn owner(&self) -> Result<u32> {
        let path = self.data();
        std::fs::metadata(&path).map(|m| m.uid()).map_err(|e| failed(&path, e))
    }

    /// Makes the data folder. As root it gets an owner of its own, so that one tenant's processes cannot touch another's.
    pub(super) fn ensure_data(&self, process_dir: &Path, privileged: bool) -> Result<()> {
        let path = self.data();
        if self.has_data().map_err(|e| failed(&path, e))? {
            return Ok(());
        }
        let fresh = self.root.join("data.new");
        folder(&fresh, 0o700)?;
        if privileged {
            let uid = free_uid(process_dir)?;
            std::os::unix::fs::chown(&fresh, Some(uid), Some(uid)).map_err(|e| failed(&fresh, e))?;
        }
        std::fs::rename(&fresh, &path).map_err(|e| failed(&path, e))
    }

    pub(super) fn place_identity(&self, identity: &RunnerIdentity, privileged: bool) -> Result<()> {
        let folder_path = self.identity();
        folder(&folder_path, if privileged { 0o750 } else { 0o700 })?;
        let group = if privileged { Some(self.owner()?) } else { None };
        if group.is_some() {
            std::os::unix::fs::chown(&folder_path, None, group).map_err(|e| failed(&folder_path, e))?;
        }
        for (name, content) in [
            ("cert.pem", identity.certificate_pem.as_str()),
            ("key.pem", identity.key_pem.expose_secret()),
            ("ca.pem", identity.ca_pem.as_str()),
        ] {
            let path = folder_path.join(name);
            let write = || -> std::io::Result<()> {
                let mut file = tempfile::NamedTempFile::new_in(&folder_path)?;
                file.write_all(content.as_bytes())?;
                if group.is_some() {
                    std::os::unix::fs::chown(file.path(), None, group)?;
                    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o640))?;
                }
                file.persist(&path)?;
                Ok(())
            };
            write().map_err(|e| failed(&path, e))?;
        }
        Ok(())
    }

    pub(super) fn record(&self) -> Result<Option<Record>> {
        let path = self.root.join(RECORD);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| Error::new(Kind::Internal, format!("{} is damaged: {e}", path.display())).with_source(e)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed(&path, e)),
        }
    }

    /// On disk before it counts: it is all that tells a later control plane which process is the runner.
    pub(super) fn write_record(&self, record: &Record) -> Result<()> {
        let path = self.root.join(RECORD);
        let write = || -> std::io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.root)?;
            serde_json::to_writer(&mut file, record)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(|e| failed(&path, e))
    }

    pub(super) fn remove_runner(&self) -> Result<()> {
        for path in [self.root.join(RECORD), self.log()] {
            absent_is_fine(std::fs::remove_file(&path)).map_err(|e| failed(&path, e))?;
        }
        let identity = self.identity();
        absent_is_fine(std::fs::remove_dir_all(&identity)).map_err(|e| failed(&identity, e))?;
        self.remove_root_if_empty();
        Ok(())
    }

    pub(super) fn remove_data(&self) -> Result<()> {
        for path in [self.data(), self.root.join("data.new")] {
            absent_is_fine(std::fs::remove_dir_all(&path)).map_err(|e| failed(&path, e))?;
        }
        self.remove_root_if_empty();
        Ok(())
    }

    pub(super) fn remove_root_if_empty(&self) {
        // Fails while anything of the tenant is left, which is the point.
        let _ = std::fs::remove_dir(&self.root);
    }

    /// Opened for appending, so that cutting it down while the runner writes leaves no hole.
    pub(super) fn open_log(&self) -> Result<std::fs::File> {
        self.cap_log();
        let path = self.log();
        let mut options = std::fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.create(true).append(true).open(&path).map_err(|e| failed(&path, e))
    }

    /// Keeps the newest part of a log that grew too large.
    pub(super) fn cap_log(&self) {
        let path = self.log();
        if std::fs::metadata(&path).is_ok_and(|m| m.len() > LOG_MAX) {
            let cut = || -> std::io::Result<()> {
                let tail = tail(&path, LOG_KEEP)?;
                let mut file = std::fs::OpenOptions::new().append(true).open(&path)?;
                file.set_len(0)?;
                file.write_all(&tail)
            };
            if let Err(error) = cut() {
                tracing::warn!(path = %path.display(), %error, "a runner's log could not be cut down");
            }
        }
    }

    pub(super) fn log_lines(&self, lines: usize) -> Result<String> {
        let path = self.log();
        let bytes = match tail(&path, LOG_KEEP) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
            Err(e) => return Err(failed(&path, e)),
        };
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<&str> = text.lines().collect();
        let mut newest = all[all.len().saturating_sub(lines)..].join("\n");
        if !newest.is_empty() {
            newest.push('\n');
        }
        Ok(newest)
    }
}

fn tail(path: &Path, bytes: u64) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut content = Vec::new();
    file.take(bytes).read_to_end(&mut content)?;
    Ok(content)
}

fn absent_is_fine(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub(super) fn folder(path: &Path, mode: u32) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|e| failed(path, e))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(|e| failed(path, e))
}

/// Lets others pass through (not list) a folder, so that runners with an id of their own reach what is theirs.
pub(super) fn allow_passage(path: &Path) -> Result<()> {
    let mode = std::fs::metadata(path).map_err(|e| failed(path, e))?.permissions().mode() & 0o7777;
    if mode & 0o001 == 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode | 0o011)).map_err(|e| failed(path, e))?;
    }
    Ok(())
}

/// The folders above the data folder are not ours to change: one that others cannot pass is named.
pub(super) fn require_passage(path: &Path) -> Result<()> {
    for ancestor in path.ancestors().skip(1) {
        let Ok(metadata) = std::fs::metadata(ancestor) else { continue };
        if metadata.permissions().mode() & 0o001 == 0 {
            return Err(Error::invalid(
                "data_dir",
                format!(
                    "lies beneath {}, which runners (they do not run as root) cannot pass; choose another folder, such as /var/lib/nexaas",
                    ancestor.display()
                ),
            ));
        }
    }
    Ok(())
}

/// The smallest id from 10001 that neither a tenant nor a user of this host has.
fn free_uid(process_dir: &Path) -> Result<u32> {
    let mut taken: HashSet<u32> = std::fs::read_to_string("/etc/passwd")
        .unwrap_or_default()
        .lines()
        .filter_map(|l| l.split(':').nth(2)?.parse().ok())
        .collect();
    for entry in std::fs::read_dir(process_dir).map_err(|e| failed(process_dir, e))?.flatten() {
        for name in ["data", "data.new"] {
            if let Ok(metadata) = std::fs::symlink_metadata(entry.path().join(name)) {
                taken.insert(metadata.uid());
            }
        }
    }
    (RUNNER_UID..60_000)
        .find(|uid| !taken.contains(uid))
        .ok_or_else(|| Error::new(Kind::Exhausted { resource: "user ids" }, "no user id is free for another runner"))
}

/// Copies the program and its content to where every runner may read it and where a rebuild does not pull it away.
pub(super) fn stage(process_dir: &Path, binary: &Path, trees: &[(&str, Option<&Path>)]) -> Result<String> {
    let metadata = std::fs::metadata(binary)
        .map_err(|e| Error::invalid("runner_binary", format!("cannot be read at {}: {e}", binary.display())))?;
    if !metadata.is_file() {
        return Err(Error::invalid("runner_binary", format!("{} is not a file", binary.display())));
    }
    let mut hasher = Sha256::new();
    // Hashing a whole debug binary takes seconds; a build changes its size, its time or its inode.
    for value in [metadata.len(), metadata.ino(), metadata.dev()] {
        hasher.update(value.to_le_bytes());
    }
    hasher.update(metadata.mtime().to_le_bytes());
    hasher.update(metadata.mtime_nsec().to_le_bytes());
    let programs = process_dir.join("program");
    folder(&programs, 0o711)?;
    let fresh = tempfile::Builder::new().prefix(".new-").tempdir_in(&programs).map_err(|e| failed(&programs, e))?;
    let mut budget = MAX_TREE_BYTES;
    for (name, source) in trees {
        let target = fresh.path().join(name);
        folder(&target, 0o755)?;
        if let Some(source) = source {
            copy_tree(source, &target, &mut hasher, &mut budget)?;
        }
    }
    let hash = hex::encode(&hasher.finalize()[..8]);
    let target = programs.join(&hash);
    if target.join("nexaas-runner").is_file() {
        return Ok(hash);
    }
    let copy = fresh.path().join("nexaas-runner");
    std::fs::copy(binary, &copy).map_err(|e| failed(binary, e))?;
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).map_err(|e| failed(&copy, e))?;
    std::fs::set_permissions(fresh.path(), std::fs::Permissions::from_mode(0o755)).map_err(|e| failed(&target, e))?;
    std::fs::rename(fresh.keep(), &target).map_err(|e| failed(&target, e))?;
    Ok(hash)
}

fn copy_tree(source: &Path, target: &Path, hasher: &mut Sha256, budget: &mut u64) -> Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(source)
        .map_err(|e| failed(source, e))?
        .flatten()
        .map(|e| (e.file_name(), e.path()))
        .collect();
    entries.sort();
    for (name, path) in entries {
        let metadata = std::fs::symlink_metadata(&path).map_err(|e| failed(&path, e))?;
        let target = target.join(&name);
        hasher.update(name.as_encoded_bytes());
        hasher.update([0]);
        if metadata.is_dir() {
            folder(&target, 0o755)?;
            copy_tree(&path, &target, hasher, budget)?;
        } else if metadata.is_file() {
            *budget = budget.checked_sub(metadata.len()).ok_or_else(|| {
                Error::new(Kind::Exhausted { resource: "disk" }, format!("{} holds more than 64 MiB", source.display()))
            })?;
            let content = std::fs::read(&path).map_err(|e| failed(&path, e))?;
            hasher.update(&content);
            std::fs::write(&target, &content).map_err(|e| failed(&target, e))?;
            let mode = if metadata.permissions().mode() & 0o111 != 0 { 0o755 } else { 0o644 };
            std::fs::set_permissions(&target, std::fs::Permissions::from_mode(mode)).map_err(|e| failed(&target, e))?;
        }
    }
    Ok(())
}

/// Removes programs that no runner was started from any more.
pub(super) fn remove_unused_programs(process_dir: &Path, used: &HashSet<String>) {
    let Ok(entries) = std::fs::read_dir(process_dir.join("program")) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| !used.contains(name)) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
