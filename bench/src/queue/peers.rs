//! The peers, each in a program of its own that answers one JSON line: apalis on SQLite, huey on SQLite, litequeue.

use super::ours::Regime;
use crate::rig::Folder;
use nexaas_test_system::Result;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(600);

/// Where the peers are, as `run.sh` made them.
#[derive(Debug, Clone)]
pub struct Programs {
    apalis: PathBuf,
    python: PathBuf,
    script: PathBuf,
}

impl Programs {
    pub fn from_environment() -> Result<Self> {
        let path = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .ok_or(format!("{name} is not set: use bench/run.sh, or --no-peers"))
        };
        Ok(Self {
            apalis: path("NEXAAS_BENCH_APALIS")?,
            python: path("NEXAAS_BENCH_PYTHON")?,
            script: path("NEXAAS_BENCH_PEERS")?,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Apalis,
    Huey,
    Litequeue,
}

impl Peer {
    pub const ALL: [Self; 3] = [Self::Apalis, Self::Huey, Self::Litequeue];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Apalis => "apalis",
            Self::Huey => "huey",
            Self::Litequeue => "litequeue",
        }
    }

    /// huey has no call that queues several jobs at once.
    pub fn can(self, regime: Regime) -> bool {
        !(self == Self::Huey && regime == Regime::Many)
    }
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub jobs_per_s: f64,
    pub synchronous: i64,
    pub journal: String,
    pub sqlite: String,
}

/// One run on a new file in `dir`, in the peer's durable setting or in the one it has by itself.
pub async fn run(
    programs: &Programs,
    dir: &Path,
    peer: Peer,
    regime: Regime,
    jobs: u64,
    durable: bool,
) -> Result<Answer> {
    let folder = Folder::new(dir)?;
    let mut command = match peer {
        Peer::Apalis => tokio::process::Command::new(&programs.apalis),
        Peer::Huey | Peer::Litequeue => {
            let mut command = tokio::process::Command::new(&programs.python);
            command.arg(&programs.script).arg(peer.name());
            command
        }
    };
    command.arg("--database").arg(folder.path().join("peer.db")).args(["--mode", regime.name()]);
    command.args(["--durability", if durable { "full" } else { "default" }, "--jobs"]).arg(jobs.to_string());
    let running =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true).spawn()?;
    let ended = tokio::time::timeout(PATIENCE, running.wait_with_output())
        .await
        .map_err(|_| format!("{} did not end within {PATIENCE:?}", peer.name()))??;
    if !ended.status.success() {
        return Err(format!("{} ended with {}", peer.name(), ended.status).into());
    }
    let answer: Value = serde_json::from_slice(&ended.stdout)?;
    let text = |name: &str| answer[name].as_str().unwrap_or("?").to_owned();
    Ok(Answer {
        jobs_per_s: answer["jobs_per_s"].as_f64().ok_or("the peer's answer has no jobs_per_s")?,
        synchronous: answer["synchronous"].as_i64().ok_or("the peer's answer has no synchronous")?,
        journal: text("journal_mode"),
        sqlite: text("sqlite"),
    })
}
