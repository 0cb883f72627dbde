//! The cluster's folders: who owns them and where its socket is.

use super::Binaries;
use crate::error::{Error, Result};
use sha2::{Digest as _, Sha256};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The longest path of a socket in bytes, its name included.
const MAX_SOCKET: usize = 107;
const SOCKET_NAME: &str = "/.s.PGSQL.5432.lock";

/// The user the server runs as, when we are root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone)]
pub struct Layout {
    pub cluster: PathBuf,
    pub socket_dir: PathBuf,
    pub log: PathBuf,
    /// `None`: the server runs as we do.
    pub account: Option<Account>,
}

fn io(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let message = format!("{what} '{}'", path.display());
    move |e| Error::invalid("data_dir", format!("is not usable: {message}: {e}")).with_source(e)
}

impl Layout {
    /// Makes the folders with the right owner and mode.
    pub fn prepare(data_dir: &Path) -> Result<Self> {
        let account = if rustix::process::geteuid().is_root() { Some(server_account()?) } else { None };
        make(data_dir, if account.is_some() { 0o711 } else { 0o700 }, None)?;
        let run = data_dir.join("run");
        make(&run, if account.is_some() { 0o711 } else { 0o700 }, None)?;
        if account.is_some() {
            check_reachable(data_dir)?;
        }
        let cluster = data_dir.join("postgres");
        make(&cluster, 0o700, account)?;
        let socket_dir = socket_dir(&run, data_dir);
        make(&socket_dir, 0o700, account)?;
        let log = cluster.join("server.log");
        Ok(Self { cluster, socket_dir, log, account })
    }

    pub fn initialized(&self) -> bool {
        self.cluster.join("PG_VERSION").exists()
    }

    /// A cluster made by another major version is not started: it would refuse, or worse.
    pub fn check_version(&self, binaries: &Binaries) -> Result<()> {
        let path = self.cluster.join("PG_VERSION");
        let version = std::fs::read_to_string(&path).map_err(io("cannot read", &path))?;
        let version = version.trim();
        let same =
            binaries.postgres.components().any(|c| c.as_os_str() == version) || !under_debian(&binaries.postgres);
        if same || Binaries::of_version(version).is_some() {
            return Ok(());
        }
        Err(Error::invalid(
            "data_dir",
            format!(
                "holds a cluster of PostgreSQL {version}, which is not installed; install postgresql-{version} or move it with pg_upgrade"
            ),
        ))
    }

    /// The programs that fit the cluster.
    pub fn fitting(&self, binaries: &Binaries) -> Binaries {
        let version = std::fs::read_to_string(self.cluster.join("PG_VERSION")).unwrap_or_default();
        Binaries::of_version(version.trim()).unwrap_or_else(|| binaries.clone())
    }
}

fn under_debian(path: &Path) -> bool {
    path.starts_with("/usr/lib/postgresql")
}

fn make(path: &Path, mode: u32, owner: Option<Account>) -> Result<()> {
    std::fs::create_dir_all(path).map_err(io("cannot create", path))?;
    if let Some(Account { uid, gid }) = owner {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).map_err(io("cannot change the owner of", path))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(io("cannot change the mode of", path))
}

/// `run/pg`, or a short folder named after the data folder when the socket's path would be too long for the kernel.
fn socket_dir(run: &Path, data_dir: &Path) -> PathBuf {
    let wanted = run.join("pg");
    if wanted.as_os_str().len() + SOCKET_NAME.len() <= MAX_SOCKET {
        return wanted;
    }
    let digest = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
    let base = if rustix::process::geteuid().is_root() { "/run" } else { "/tmp" };
    Path::new(base).join(format!("nexaas-pg-{}", hex::encode(&digest[..8])))
}

/// The server's user must be able to walk down to its folder.
fn check_reachable(data_dir: &Path) -> Result<()> {
    for dir in data_dir.ancestors().filter(|d| !d.as_os_str().is_empty()) {
        let mode = std::fs::metadata(dir).map_err(io("cannot look at", dir))?.mode();
        if mode & 0o001 == 0 {
            return Err(Error::invalid(
                "data_dir",
                format!(
                    "'{}' cannot be reached by the PostgreSQL server's user because '{}' is closed to others; choose another folder, for example /var/lib/nexaas",
                    data_dir.display(),
                    dir.display()
                ),
            ));
        }
    }
    Ok(())
}

/// PostgreSQL refuses to run as root: the package's own user, else nobody.
fn server_account() -> Result<Account> {
    let table = std::fs::read_to_string("/etc/passwd").map_err(Error::internal)?;
    let find = |name: &str| {
        table.lines().find_map(|line| {
            let mut parts = line.split(':');
            (parts.next()? == name).then_some(())?;
            let uid = parts.nth(1)?.parse().ok()?;
            let gid = parts.next()?.parse().ok()?;
            Some(Account { uid, gid })
        })
    };
    find("postgres").filter(|a| a.uid != 0).ok_or_else(|| {
        Error::invalid("data_dir", "needs the system user 'postgres', because PostgreSQL refuses to run as root; install Debian's postgresql package or run nexaas as another user")
    })
}

/// The last line of a log, for an error message.
pub fn last_line(path: &Path) -> Option<String> {
    let text = std::fs::read(path).ok()?;
    let tail = &text[text.len().saturating_sub(4096)..];
    let text = String::from_utf8_lossy(tail);
    text.lines().rev().find(|l| !l.trim().is_empty()).map(|l| l.chars().take(300).collect())
}
