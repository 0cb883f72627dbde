//! The server's process: made in a group of its own (a terminal's Ctrl-C is ours to handle, not its), found again by its
//! pid file, waited for without polling.

use super::files::{Account, Layout};
use super::{Binaries, USER};
use crate::error::{Error, Kind, Result};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};

fn unavailable(message: String) -> Error {
    Error::new(Kind::Unavailable { what: "the database" }, message)
}

/// A command that runs as the server's user, with nothing of our environment but what it needs.
fn command(program: &Path, account: Option<Account>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    command.current_dir(folder).stdin(Stdio::null()).process_group(0);
    if let Some(Account { uid, gid }) = account {
        command.uid(uid).gid(gid);
    }
    command
}

pub async fn initialize(binaries: &Binaries, layout: &Layout) -> Result<()> {
    tracing::info!(folder = %layout.cluster.display(), "making a private PostgreSQL cluster");
    let mut command = command(&binaries.initdb, layout.account, &layout.cluster);
    // Whoever reaches the socket is its user or root: the folder around it admits nobody else.
    command.arg("--pgdata").arg(&layout.cluster).args([
        "--username",
        USER,
        "--auth-local=trust",
        "--auth-host=reject",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--data-checksums",
        "--no-instructions",
    ]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let run = tokio::time::timeout(Duration::from_secs(120), command.output()).await;
    let output = run
        .map_err(|_| Error::timeout("initdb"))?
        .map_err(|e| unavailable(format!("{} cannot be run", binaries.initdb.display())).with_source(e))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let why = text.lines().rev().find(|l| l.contains("error") || l.contains("fatal")).unwrap_or("no reason given");
    // What is half made would be taken for a cluster next time.
    clear(&layout.cluster);
    Err(unavailable(format!("initdb could not make the cluster: {}", why.chars().take(300).collect::<String>())))
}

fn clear(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "could not remove what a failed initdb left");
        }
    }
}

#[allow(deprecated, reason = "what is deprecated is passing types that do not own their descriptor; this one does")]
fn watched(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd).map_err(Error::internal)
}

#[derive(Debug)]
pub struct Server {
    pid: Pid,
    child: Option<Child>,
    /// Readable when the process ends; for one that is not our child.
    pidfd: Option<AsyncFd<OwnedFd>>,
}

impl Server {
    /// The server that already runs on this cluster, else a new one.
    pub async fn adopt_or_start(binaries: &Binaries, layout: &Layout) -> Result<Self> {
        if let Some(pid) = running(layout) {
            let fd = pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(|e| Error::internal(std::io::Error::from(e)))?;
            tracing::info!(
                pid = pid.as_raw_nonzero().get(),
                "took over the private PostgreSQL server that was still running"
            );
            return Ok(Self { pid, child: None, pidfd: Some(watched(fd)?) });
        }
        let binaries = layout.fitting(binaries);
        let log = std::fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(&layout.log)
            .map_err(|e| unavailable(format!("cannot write {}", layout.log.display())).with_source(e))?;
        let mut command = command(&binaries.postgres, layout.account, &layout.cluster);
        command.arg("-D").arg(&layout.cluster).arg("-k").arg(&layout.socket_dir);
        // Small: this server has one client. Durable: what was acknowledged is on disk.
        for setting in [
            "listen_addresses=",
            "unix_socket_permissions=0700",
            "max_connections=60",
            "shared_buffers=32MB",
            "fsync=on",
            "synchronous_commit=on",
            "max_wal_size=256MB",
            "log_min_messages=warning",
            "idle_in_transaction_session_timeout=60s",
            "client_connection_check_interval=5s",
        ] {
            command.arg("-c").arg(setting);
        }
        command.stdout(log.try_clone().map_err(Error::internal)?).stderr(log);
        let child = command
            .spawn()
            .map_err(|e| unavailable(format!("{} cannot be run", binaries.postgres.display())).with_source(e))?;
        let pid = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
            .ok_or_else(|| Error::internal("a new process has no pid"))?;
        Ok(Self { pid, child: Some(child), pidfd: None })
    }

    /// Waits until it ends; says how.
    pub async fn ended(&mut self) -> String {
        if let Some(child) = &mut self.child {
            return child.wait().await.map_or_else(|e| e.to_string(), |status| status.to_string());
        }
        if let Some(fd) = &self.pidfd {
            return fd.readable().await.map_or_else(|e| e.to_string(), |_| "it ended".to_owned());
        }
        "it was never started".to_owned()
    }

    /// PostgreSQL's fast shutdown; after `patience` the immediate one, which recovers at the next start.
    pub async fn stop(mut self, patience: Duration) {
        for signal in [Signal::INT, Signal::QUIT, Signal::KILL] {
            if kill_process(self.pid, signal).is_err() {
                return;
            }
            if tokio::time::timeout(patience, self.ended()).await.is_ok() {
                return;
            }
            tracing::warn!("the private PostgreSQL server did not stop in time");
        }
    }
}

/// The pid of a server that runs on this cluster: its pid file names a process whose working folder the cluster is.
fn running(layout: &Layout) -> Option<Pid> {
    let text = std::fs::read_to_string(layout.cluster.join("postmaster.pid")).ok()?;
    let pid: i32 = text.lines().next()?.trim().parse().ok()?;
    // The number may have been given to another program since.
    let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    (cwd == std::fs::canonicalize(&layout.cluster).ok()?).then(|| Pid::from_raw(pid)).flatten()
}
