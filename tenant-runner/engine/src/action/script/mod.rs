//! Programs of the workspace. Each runs with nothing of our environment, in the workspace's folder or one beneath it; what came
//! with the trigger is on its standard input.
//!
//! Always true here: when a script is over (by its end, its time-out, its cancellation, or ours) nobody it started is left; its
//! output cannot fill our memory; success is exit status 0 and nothing else; secrets reach the program and nobody else.

mod bare;
mod capture;
mod hosted;
mod limits;

pub(super) use limits::Limits;

use super::config::{Command as Line, Script};
use super::host::{End, Report, Stopped};
use super::outputs::Outputs;
use super::redact::Secrets;
use super::secrets::with_secrets;
use super::{Failure, Run};
use crate::config::{EngineConfig, Settings};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use capture::Capture;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::Once;
use std::time::Duration;

/// How long a stream may stay open after the script is over, held by somebody the script handed it to.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Scripts {
    workspace: PathBuf,
    shell: String,
    environment: Vec<(String, String)>,
    host: Option<PathBuf>,
    outputs: Outputs,
    told: Once,
}

/// Everything a program needs to begin.
struct Launch<'a> {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    /// The variable that names this attempt, as it is in the environment.
    mark: String,
    folder: File,
    limits: &'a Limits,
    input: String,
}

impl Launch<'_> {
    /// The opened folder itself, whatever became of its name; valid until the program has begun.
    fn folder(&self) -> String {
        format!("/proc/self/fd/{}", self.folder.as_raw_fd())
    }
}

/// Why we asked a script to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    TimedOut(Duration),
    Cancelled,
}

struct Ended {
    report: Report,
    asked: Option<Asked>,
}

impl Scripts {
    pub(super) fn new(config: &EngineConfig, outputs: Outputs) -> Self {
        Self {
            workspace: config.workspace_root.clone(),
            shell: config.shell.to_string_lossy().into_owned(),
            environment: config.script_env.clone(),
            host: config.script_host.clone(),
            outputs,
            told: Once::new(),
        }
    }

    pub(super) async fn run(&self, script: &Script, run: &Run<'_>, settings: &Settings) -> Result<String, Failure> {
        let launch = self.launch(script, run, settings).await?;
        let mut capture = Capture::new(self.outputs.clone(), run.job.id, run.job.attempt, &Secrets::of(settings));
        let until = until(script.timeout, run);
        let ended = match &self.host {
            Some(host) => hosted::run(host, launch, &mut capture, until).await,
            None => bare::run(launch, &mut capture, until).await,
        };
        capture.finish().await;
        let ended = ended.map_err(|error| Failure::passing(format!("the program cannot be run: {error}")))?;
        self.told.call_once(|| tracing::debug!(by = ended.report.confined, "scripts are confined"));
        if ended.report.left > 0 {
            tracing::info!(processes = ended.report.left, job_id = %run.job.id, "a script left processes behind; they were ended");
        }
        judge(&ended, &script.limits, &capture)
    }

    async fn launch<'a>(&self, script: &'a Script, run: &Run<'_>, settings: &Settings) -> Result<Launch<'a>, Failure> {
        let job = run.job;
        let mark = ("NEXAAS_ATTEMPT_ID".to_owned(), job.attempt_id.to_string());
        let marked = format!("{}={}", mark.0, mark.1);
        let mut env = self.environment.clone();
        for (name, text) in &script.env {
            env.retain(|(known, _)| known != name);
            env.push((name.clone(), with_secrets(text, settings)?));
        }
        env.extend([("NEXAAS_JOB_ID".to_owned(), job.id.to_string()), mark]);
        env.push(("NEXAAS_ATTEMPT".to_owned(), job.attempt.to_string()));
        env.push(("NEXAAS_IDEMPOTENCY_KEY".to_owned(), run.key.clone()));
        env.extend(job.event_id.iter().map(|id| ("NEXAAS_EVENT_ID".to_owned(), id.clone())));
        env.extend(job.traceparent.iter().map(|trace| ("TRACEPARENT".to_owned(), trace.clone())));
        Ok(Launch {
            argv: match &script.command {
                Line::Shell(text) => vec![self.shell.clone(), "-c".to_owned(), text.clone()],
                Line::Argv(argv) => argv.clone(),
            },
            env,
            mark: marked,
            folder: self.folder(script.cwd.clone()).await?,
            limits: &script.limits,
            input: job.payload.as_ref().map(|payload| payload.to_string()).unwrap_or_default(),
        })
    }

    /// Opens the folder to run in: what is opened is beneath the workspace, and stays the one that was looked at.
    async fn folder(&self, beneath: Option<String>) -> Result<File, Failure> {
        let workspace = self.workspace.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let workspace = Dir::open_ambient_dir(workspace, ambient_authority())
                .map_err(|error| Failure::passing(format!("the workspace cannot be opened: {error}")))?;
            match beneath {
                None => Ok(workspace),
                Some(path) => workspace.open_dir(&path).map_err(|error| {
                    Failure::permanent(format!("action_config.cwd must be a folder of the workspace: {error}"))
                }),
            }
        });
        let dir = opened.await.map_err(|_| Failure::passing("the workspace cannot be opened"))??;
        Ok(dir.into_std_file())
    }
}

/// Comes when the script must end: after its own time or the job's, or because somebody cancelled the job.
async fn until(own: Duration, run: &Run<'_>) -> Asked {
    let most = run.time_left().map_or(own, |left| left.min(own));
    tokio::select! {
        () = run.job.cancel.cancelled() => Asked::Cancelled,
        () = tokio::time::sleep(most) => Asked::TimedOut(most),
    }
}

fn judge(ended: &Ended, limits: &Limits, capture: &Capture) -> Result<String, Failure> {
    let report = &ended.report;
    let how = match (&ended.asked, report.stopped, &report.end) {
        (Some(Asked::Cancelled), ..) => return Err(Failure::cancelled()),
        (Some(Asked::TimedOut(most)), ..) => format!("ended by force after {} s", most.as_secs()),
        (None, Some(Stopped::Processes), _) => {
            format!("ended by force: it had more than {} processes (limits.processes)", limits.processes)
        }
        (None, Some(Stopped::Memory), _) => {
            format!("ended by force: it used more than {} MiB (limits.memory_mb)", limits.memory_mb)
        }
        (None, _, End::NotStarted(why)) => {
            return Err(Failure::passing(format!("the program cannot be started: {why}")));
        }
        (None, _, End::Exit(0)) => return Ok(capture.answer()),
        (None, _, End::Exit(code)) => format!("exit status {code}{}", ran_into(report, limits)),
        (None, _, End::Signal(signal)) => format!("ended by signal {signal}{}", ran_into(report, limits)),
    };
    let said = capture.explanation();
    Err(Failure::passing(if said.is_empty() { how } else { format!("{how}: {said}") }))
}

/// A limit that explains a failure.
fn ran_into(report: &Report, limits: &Limits) -> String {
    if report.out_of_memory {
        format!(" after it used up {} MiB (limits.memory_mb)", limits.memory_mb)
    } else if report.out_of_processes {
        format!(" after it used up {} processes (limits.processes)", limits.processes)
    } else {
        String::new()
    }
}
