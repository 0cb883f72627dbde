//! Programs of the workspace. Each runs in a process group of its own, with nothing of our environment, in the workspace's
//! folder; what came with the trigger is on its standard input.
//!
//! Always true here: when a script is over (by its end, its time-out, its cancellation, or ours) nobody of its group is left;
//! its output cannot fill our memory; success is exit status 0 and nothing else.

use super::Failure;
use super::config::{Command as Line, Script};
use crate::config::EngineConfig;
use crate::queue::Claimed;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::process::{Child, Command};

/// Kept of each stream: its end, where errors are explained.
const KEPT: usize = 64 * 1024;
/// How long a stream may stay open after the script is over, held by a process that left the group.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Scripts {
    folder: PathBuf,
    shell: PathBuf,
    environment: Vec<(String, String)>,
}

impl Scripts {
    pub(super) fn new(config: &EngineConfig) -> Self {
        Self {
            folder: config.workspace_root.clone(),
            shell: config.shell.clone(),
            environment: config.script_env.clone(),
        }
    }

    pub(super) async fn run(&self, script: &Script, job: &Claimed) -> Result<String, Failure> {
        let mut child = self
            .command(&script.command, job)
            .spawn()
            .map_err(|error| Failure::passing(format!("the program cannot be started: {error}")))?;
        // Declared after the child, so that a dropped run ends the group before anybody reaps its leader.
        let mut group = Group::of(&child);
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (mut out, mut err) = (Tail::default(), Tail::default());
        let status = {
            let input = job.payload.as_ref().map(|payload| payload.to_string()).unwrap_or_default();
            let feed = stdin.map(|mut stdin| async move {
                // A script that does not read its input is free not to.
                let _ = stdin.write_all(input.as_bytes()).await;
            });
            let streams = async {
                tokio::join!(
                    async {
                        if let Some(feed) = feed {
                            feed.await;
                        }
                    },
                    out.fill(stdout),
                    err.fill(stderr),
                )
            };
            let ended = tokio::time::timeout(script.timeout, ended(&mut child, &mut group));
            tokio::pin!(streams, ended);
            tokio::select! {
                status = &mut ended => {
                    let _ = tokio::time::timeout(LINGER, streams).await;
                    status
                }
                _ = &mut streams => ended.await,
            }
        };
        let Ok(status) = status else {
            group.kill();
            let _ = child.wait().await;
            let said = explain(&out, &err);
            return Err(Failure::passing(format!("ended by force after {} s{said}", script.timeout.as_secs())));
        };
        let status = status.map_err(|error| Failure::passing(format!("its end cannot be observed: {error}")))?;
        if status.success() {
            return Ok(out.text());
        }
        Err(Failure::passing(format!("{}{}", how(status), explain(&out, &err))))
    }

    fn command(&self, line: &Line, job: &Claimed) -> Command {
        let mut command = match line {
            Line::Shell(text) => {
                let mut command = Command::new(&self.shell);
                command.arg("-c").arg(text);
                command
            }
            Line::Argv(argv) => {
                let mut command = Command::new(&argv[0]);
                command.args(&argv[1..]);
                command
            }
        };
        command
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("NEXAAS_JOB_ID", job.id.to_string())
            .env("NEXAAS_ATTEMPT_ID", job.attempt_id.to_string())
            .env("NEXAAS_ATTEMPT", job.attempt.to_string())
            .current_dir(&self.folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(event_id) = &job.event_id {
            command.env("NEXAAS_EVENT_ID", event_id);
        }
        if let Some(traceparent) = &job.traceparent {
            command.env("TRACEPARENT", traceparent);
        }
        command
    }
}

/// Waits for the leader's end, ends whoever it left behind, and only then reaps it: until it is reaped nobody else can get
/// its number, so the signal cannot hit a stranger.
async fn ended(child: &mut Child, group: &mut Group) -> std::io::Result<ExitStatus> {
    if let Some(pid) = group.0
        && let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
    {
        #[expect(deprecated, reason = "sound for an owned descriptor; what replaces it needs unsafe code")]
        AsyncFd::with_interest(pidfd, Interest::READABLE)?.readable().await?.retain_ready();
        group.kill();
    }
    let status = child.wait().await;
    group.kill();
    status
}

/// Everybody a script started, unless they left the group.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(id.cast_signed())))
    }

    fn kill(&mut self) {
        if let Some(pid) = self.0.take() {
            // Fails only when nobody is left.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The end of a stream.
#[derive(Default)]
struct Tail {
    kept: VecDeque<u8>,
    cut: bool,
}

impl Tail {
    async fn fill(&mut self, stream: Option<impl AsyncRead + Unpin>) {
        let Some(mut stream) = stream else { return };
        let mut buffer = [0; 8192];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            self.kept.extend(&buffer[..read]);
            let excess = self.kept.len().saturating_sub(KEPT);
            self.cut |= excess > 0;
            self.kept.drain(..excess);
        }
    }

    fn text(&self) -> String {
        let (front, back) = self.kept.as_slices();
        let bytes = [front, back].concat();
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        if self.cut { format!("[…] {text}") } else { text.to_owned() }
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended without a status".to_owned(),
    }
}

/// What the script said about its failure.
fn explain(out: &Tail, err: &Tail) -> String {
    let said = match err.text() {
        text if text.is_empty() => out.text(),
        text => text,
    };
    if said.is_empty() { String::new() } else { format!(": {said}") }
}
