//! A script without the launcher, in a process group of its own: what leaves the group is not found again, and no limit holds.
//! For an engine that was not told where its launcher is.

use super::super::host::{End, Report};
use super::{Asked, Capture, Ended, LINGER, Launch};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::process::{Child, Command};

pub(super) async fn run(
    launch: Launch<'_>,
    capture: &mut Capture,
    until: impl Future<Output = Asked>,
) -> io::Result<Ended> {
    let (program, arguments) = launch.argv.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let spawned = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(launch.env.iter().map(|(name, value)| (name, value)))
        .current_dir(launch.folder())
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return Ok(Ended { report: report(End::NotStarted(error.to_string())), asked: None }),
    };
    // Declared after the child, so that a dropped run ends the group before anybody reaps its leader.
    let mut group = Group::of(&child);
    let (stdin, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let status = {
        let streams = async {
            tokio::join!(
                async {
                    if let Some(mut stdin) = stdin {
                        // A script that does not read its input is free not to.
                        let _ = stdin.write_all(launch.input.as_bytes()).await;
                    }
                },
                capture.fill(out, err),
            )
        };
        let ended = async {
            tokio::select! {
                biased;
                status = ended(&mut child, &mut group) => Ok(status),
                asked = until => Err(asked),
            }
        };
        let (mut streams, mut ended) = (pin!(streams), pin!(ended));
        tokio::select! {
            status = &mut ended => {
                if status.is_ok() {
                    let _ = tokio::time::timeout(LINGER, streams).await;
                }
                status
            }
            _ = &mut streams => ended.await,
        }
    };
    match status {
        Ok(status) => Ok(Ended { report: report(how(status?)), asked: None }),
        Err(asked) => {
            group.kill();
            let status = child.wait().await?;
            Ok(Ended { report: report(how(status)), asked: Some(asked) })
        }
    }
}

fn report(end: End) -> Report {
    let confined = "a process group only: no launcher is set up".to_owned();
    Report { end, stopped: None, left: 0, out_of_memory: false, out_of_processes: false, confined }
}

fn how(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exit(code),
        (None, Some(signal)) => End::Signal(signal),
        (None, None) => End::NotStarted("it ended without a status".to_owned()),
    }
}

/// Waits for the leader's end, ends whoever it left behind, and only then reaps it: until it is reaped nobody else can get
/// its number, so the signal cannot hit a stranger.
async fn ended(child: &mut Child, group: &mut Group) -> io::Result<ExitStatus> {
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
