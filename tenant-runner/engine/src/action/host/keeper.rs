//! The keeper: starts the script, adopts its orphans, and ends whoever is left.

use super::super::script::Limits;
use super::cgroup::Cgroup;
use super::wire::{End, Order, Report, STOP, Start, Starting, Stopped, control, receive, receive_bytes, send};
use super::{GRACE, tree};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, set_child_subreaper, wait};
use std::io::{IoSlice, PipeWriter, Read as _, Result, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Where the kernel does not limit a script as a whole, this often it is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// The same where nothing at all limits the number of processes, because the kernel exempts root.
const LOOK_CLOSELY: Duration = Duration::from_millis(20);
/// The program this is, also when its file was replaced meanwhile.
const OURSELVES: &str = "/proc/self/exe";

pub fn run() -> Result<()> {
    let mut runner = control()?;
    let order: Order = receive(&mut runner)?;
    let input = receive_bytes(&mut runner)?;
    set_child_subreaper(Some(getpid()))?;
    let limits = order.limits.clone();
    let mut cgroup = Cgroup::make(&limits);
    let wishes = Arc::new(Wishes::default());
    let started = start(order, input, &mut cgroup, &wishes, &runner);
    let report = match started {
        Err(error) => {
            wishes.wish(Wish::Kill, None);
            reap(None);
            not_started(error.to_string(), &cgroup)
        }
        Ok(started) => {
            if !cgroup.limits_everything() {
                if !cgroup.counts {
                    // The dead of a bomb must not pile up.
                    hurry();
                }
                let (wishes, counted, weighed) = (wishes.clone(), cgroup.counts, cgroup.weighs);
                thread::Builder::new().spawn(move || watch(&limits, counted, weighed, &wishes))?;
            }
            let end = reap(Some((started.main, &wishes)));
            report(end, started, &cgroup, &wishes)
        }
    };
    cgroup.remove();
    // Nobody may be there any more to hear it.
    let _ = send(&mut runner, &report);
    Ok(())
}

struct Started {
    main: Pid,
    failure: Option<String>,
    signals: bool,
}

fn start(
    order: Order,
    input: Vec<u8>,
    cgroup: &mut Cgroup,
    wishes: &Arc<Wishes>,
    runner: &UnixStream,
) -> Result<Started> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let (read, write) = std::io::pipe()?;
    let child = Command::new(OURSELVES)
        .arg0("nexaas-script")
        .args(["script-host", "--starter"])
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    let main = Pid::from_raw(child.id().cast_signed()).ok_or(Errno::SRCH)?;
    // From here on somebody is there to be ended.
    let listening = runner.try_clone()?;
    let heard = wishes.clone();
    thread::Builder::new().spawn(move || listen(listening, &heard))?;
    let (ending, kill) = (wishes.clone(), cgroup.kill_file());
    thread::Builder::new().spawn(move || end_everybody(&ending, kill.as_deref()))?;

    cgroup.take_in(main);
    let byte = [IoSlice::new(&[0])];
    let descriptors = [read.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(&ours, &byte, &mut control, SendFlags::NOSIGNAL)?;
    send(&mut ours, &Start { order, keeper: getpid().as_raw_nonzero().get(), counted: cgroup.counts })?;
    drop(read);
    thread::Builder::new().spawn(move || feed(write, &input))?;
    let mut started = Started { main, failure: None, signals: false };
    // Until the program has taken over, or could not.
    while let Ok(said) = receive(&mut ours) {
        match said {
            Starting::Confined { signals } => started.signals = signals,
            Starting::Failed(why) => started.failure = Some(why),
        }
    }
    Ok(started)
}

fn feed(mut to: PipeWriter, input: &[u8]) {
    // A script that does not read its input is free not to.
    let _ = to.write_all(input);
}

/// Waits for everybody: answers when nobody is left. Whoever loses its parent becomes our child, so having none means just that.
fn reap(main: Option<(Pid, &Wishes)>) -> Option<WaitStatus> {
    let mut end = None;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) => {
                if let Some((main, wishes)) = main
                    && pid == main
                {
                    end = Some(status);
                    wishes.main_is_over();
                }
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(_) => return end,
        }
    }
}

fn report(end: Option<WaitStatus>, started: Started, cgroup: &Cgroup, wishes: &Wishes) -> Report {
    let end = match (started.failure, end) {
        (Some(why), _) => End::NotStarted(why),
        (None, None) => End::NotStarted("its end was not seen".to_owned()),
        (None, Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => End::Exit(code),
            (None, Some(signal)) => End::Signal(signal),
            (None, None) => End::NotStarted("it ended without a status".to_owned()),
        },
    };
    let state = wishes.state();
    let signals = if started.signals { "signals stay inside" } else { "the kernel cannot keep its signals inside" };
    Report {
        end,
        stopped: state.why,
        left: state.left,
        out_of_memory: cgroup.killed_for_memory(),
        out_of_processes: cgroup.refused_processes(),
        confined: format!("{}; {signals}", cgroup.describe()),
    }
}

fn not_started(why: String, cgroup: &Cgroup) -> Report {
    let confined = cgroup.describe();
    Report {
        end: End::NotStarted(why),
        stopped: None,
        left: 0,
        out_of_memory: false,
        out_of_processes: false,
        confined,
    }
}

/// Hears the runner: a byte asks for an end with a grace, and its silence for good (it is gone) for an immediate one.
fn listen(mut runner: UnixStream, wishes: &Wishes) {
    let mut byte = [0];
    loop {
        match runner.read(&mut byte) {
            Ok(1) if byte[0] == STOP => wishes.wish(Wish::Stop, Some(Stopped::Asked)),
            Ok(1) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return wishes.wish(Wish::Kill, Some(Stopped::Asked)),
        }
    }
}

/// In place of a control group: ends a script that has grown beyond its limits as a whole.
fn watch(limits: &Limits, counted: bool, weighed: bool, wishes: &Wishes) {
    let most_kib = limits.memory_mb * 1024;
    let most_processes = usize::try_from(limits.processes).unwrap_or(usize::MAX).saturating_add(1);
    let unlimited = !counted && rustix::process::geteuid().is_root();
    if unlimited {
        hurry();
    }
    loop {
        thread::sleep(if unlimited { LOOK_CLOSELY } else { LOOK });
        let all = tree::descendants_up_to(if counted { usize::MAX } else { most_processes });
        if !counted && all.iter().map(|process| process.threads).sum::<u64>() > limits.processes {
            return wishes.wish(Wish::Kill, Some(Stopped::Processes));
        }
        if weighed || all.iter().filter_map(tree::Process::resident_kib).sum::<u64>() <= most_kib {
            continue;
        }
        // Memory that several share was counted several times; this is slower, and right.
        if all.iter().filter_map(tree::Process::proportional_kib).sum::<u64>() > most_kib {
            return wishes.wish(Wish::Kill, Some(Stopped::Memory));
        }
    }
}

/// Has this thread run before anything a script can start. Only root may; others are limited by the kernel.
fn hurry() {
    let _ = rustix::process::setpriority_process(None, -20);
}

fn end_everybody(wishes: &Wishes, kill_file: Option<&std::path::Path>) {
    if wishes.wait() == Wish::Stop {
        let told = tree::signal_all(&[Signal::TERM, Signal::CONT]);
        wishes.told(told);
        wishes.wait_for_kill(GRACE);
    } else {
        wishes.told(tree::descendants().len());
    }
    hurry();
    let mut pause = Duration::from_millis(2);
    // The process ends, and this thread with it, as soon as nobody is left.
    loop {
        if let Some(file) = kill_file {
            let _ = std::fs::write(file, "1");
        }
        tree::stop_all();
        tree::signal_all(&[Signal::KILL]);
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    Stop,
    Kill,
}

/// What was asked of the keeper so far; the stricter wish holds, and the first reason.
#[derive(Default)]
struct Wishes {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    wish: Option<Wish>,
    why: Option<Stopped>,
    main_over: bool,
    left: usize,
}

impl Wishes {
    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wish(&self, wish: Wish, why: Option<Stopped>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.wish = state.wish.max(Some(wish));
        if !state.main_over {
            state.why = state.why.or(why);
        }
        self.changed.notify_all();
    }

    fn main_is_over(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).main_over = true;
        self.wish(Wish::Stop, None);
    }

    fn told(&self, processes: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.main_over && state.why.is_none() {
            state.left = processes;
        }
    }

    fn wait(&self) -> Wish {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match state.wish {
                Some(wish) => return wish,
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn wait_for_kill(&self, most: Duration) {
        let end = Instant::now() + most;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.wish != Some(Wish::Kill) {
            let Some(left) = end.checked_duration_since(Instant::now()) else { return };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
