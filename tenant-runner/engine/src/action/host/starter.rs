//! The starter: takes the limits upon itself, then becomes the program.

use super::limits;
use super::wire::{Start, Starting, control, receive, send};
use landlock::{CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, RulesetStatus, Scope};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, Signal, geteuid, getppid, set_parent_process_death_signal, setpriority_process, setsid};
use std::io::{Error, ErrorKind, IoSliceMut, Result};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

pub fn run() -> Result<()> {
    // Closed by the kernel when the program takes over, which is how the keeper learns that it did.
    let mut keeper = control()?;
    let input = input(&keeper)?;
    let start: Start = receive(&mut keeper)?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Pid::from_raw(start.keeper) {
        return Err(Error::other("its keeper is gone"));
    }
    // A session of its own: no terminal, and no signal that was meant for ours.
    let _ = setsid();
    // When memory runs out on the machine, scripts go first. Not every system lets us.
    let _ = std::fs::write("/proc/self/oom_score_adj", "800");
    let failed = match become_program(&mut keeper, &start, input) {
        Err(error) => error,
        Ok(never) => match never {},
    };
    send(&mut keeper, &Starting::Failed(failed.to_string()))
}

fn become_program(keeper: &mut UnixStream, start: &Start, input: OwnedFd) -> Result<std::convert::Infallible> {
    let order = &start.order;
    let (program, arguments) = order.argv.split_first().ok_or_else(|| Error::from(ErrorKind::InvalidInput))?;
    limits::set(&order.limits, start.counted)?;
    if !start.counted && geteuid().is_root() {
        // Nothing limits its processes then, so they must never outrun the keeper.
        let _ = setpriority_process(None, 19);
    }
    send(keeper, &Starting::Confined { signals: no_signals_outside() })?;
    let environment = order.env.iter().map(|(name, value)| (name, value));
    Err(Command::new(program).args(arguments).env_clear().envs(environment).stdin(Stdio::from(input)).exec())
}

/// Whoever shares our user could signal, trace and read the environment of the runner and of other scripts; a domain of its own
/// takes that away. A kernel that cannot is no reason to refuse the script.
fn no_signals_outside() -> bool {
    let domain = Ruleset::default().set_compatibility(CompatLevel::BestEffort).scope(Scope::Signal);
    let restricted = domain.and_then(|domain| domain.create()).and_then(|domain| domain.restrict_self());
    restricted.is_ok_and(|status| status.ruleset == RulesetStatus::FullyEnforced)
}

/// The program's standard input, which the keeper sends along.
fn input(keeper: &UnixStream) -> Result<OwnedFd> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(keeper, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors.next().and_then(|mut some| some.next()).ok_or_else(|| Error::other("no standard input came along"))
}
