//! A script under the launcher. The socket to it is the script's lifeline: when we are gone, so is the script.

use super::super::host::{End, GRACE, Order, Report, STOP};
use super::{Asked, Capture, Ended, LINGER, Launch};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::sync::Notify;

/// Beyond its grace, how long we wait for the launcher to end a tree. It goes on by itself after that.
const PATIENCE: Duration = Duration::from_secs(15);
const MOST_PASSES: usize = 32;
const LONGEST_REPORT: u64 = 64 * 1024;

pub(super) async fn run(
    host: &Path,
    launch: Launch<'_>,
    capture: &mut Capture,
    until: impl Future<Output = Asked>,
) -> io::Result<Ended> {
    let mark = launch.mark.clone();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut child = Command::new(host)
        .arg("script-host")
        .env_clear()
        .current_dir(launch.folder())
        .process_group(0)
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (read, write) = UnixStream::from_std(ours)?.into_split();
    let order = frames(&launch)?;
    let stop = Notify::new();
    let (end, asked) = {
        let mut report = pin!(async {
            tokio::select! {
                report = hear(read) => report,
                never = talk(write, &order, &stop) => match never {},
            }
        });
        let mut streams = pin!(capture.fill(out, err));
        let mut whole = pin!(async {
            tokio::select! {
                report = &mut report => {
                    let _ = tokio::time::timeout(LINGER, &mut streams).await;
                    report
                }
                () = &mut streams => report.await,
            }
        });
        tokio::select! {
            biased;
            heard = &mut whole => (Some(heard), None),
            asked = until => {
                stop.notify_one();
                (tokio::time::timeout(GRACE + PATIENCE, whole).await.ok(), Some(asked))
            }
        }
    };
    let report = match end {
        Some(Some(report)) => report,
        Some(None) => {
            // Nobody but the system or an administrator can have ended the launcher; its script may be left.
            end_by_force(&child, &mark).await;
            nothing_known("its launcher broke off")
        }
        None => {
            tracing::error!(mark, "a script cannot be ended yet; its launcher goes on trying");
            return Ok(Ended { report: nothing_known("it cannot be ended yet"), asked });
        }
    };
    let _ = tokio::time::timeout(PATIENCE, child.wait()).await;
    Ok(Ended { report, asked })
}

fn nothing_known(why: &str) -> Report {
    Report {
        end: End::NotStarted(why.to_owned()),
        stopped: None,
        left: 0,
        out_of_memory: false,
        out_of_processes: false,
        confined: String::new(),
    }
}

fn frames(launch: &Launch<'_>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let order = Order { argv: launch.argv.clone(), env: launch.env.clone(), limits: launch.limits.clone() };
    super::super::host::send(&mut bytes, &order)?;
    super::super::host::send_bytes(&mut bytes, launch.input.as_bytes())?;
    Ok(bytes)
}

/// Says what to run, and later, if so, to stop.
async fn talk(mut write: OwnedWriteHalf, order: &[u8], stop: &Notify) -> Infallible {
    // A launcher that does not listen has ended, and its report, or the lack of one, says why.
    let _ = write.write_all(order).await;
    stop.notified().await;
    let _ = write.write_all(&[STOP]).await;
    std::future::pending().await
}

async fn hear(mut read: OwnedReadHalf) -> Option<Report> {
    let length = read.read_u32_le().await.ok()?;
    let mut bytes = Vec::new();
    (&mut read).take(u64::from(length).min(LONGEST_REPORT)).read_to_end(&mut bytes).await.ok()?;
    serde_json::from_slice(&bytes).ok()
}

async fn end_by_force(child: &Child, mark: &str) {
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let mark = mark.to_owned();
    // Fails only when the runtime ends, and with it everything.
    let _ = tokio::task::spawn_blocking(move || {
        // Stopped first, so that nobody forks away; orphans of the stopped are found by the next pass.
        for signal in [Signal::STOP, Signal::KILL] {
            let mut found = HashSet::new();
            for _ in 0..MOST_PASSES {
                let new: Vec<Pid> = marked(&mark).into_iter().filter(|pid| found.insert(*pid)).collect();
                if new.is_empty() {
                    break;
                }
                for pid in new {
                    let _ = kill_process(pid, signal);
                }
            }
        }
    })
    .await;
}

/// Every process whose environment names this attempt.
fn marked(mark: &str) -> Vec<Pid> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let is_marked = |process: &std::fs::DirEntry| {
        std::fs::read(process.path().join("environ"))
            .is_ok_and(|all| all.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()))
    };
    processes
        .flatten()
        .filter(is_marked)
        .filter_map(|process| process.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
        .collect()
}
