//! Tells when somebody sets the machine's clock, or it wakes from sleep: whoever sleeps until a wall-clock time must look
//! again. The kernel says so; nothing is polled.

use crate::store::Signal;
use nexaas_common::task::{OnExit, Supervisor};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Further than any machine runs.
const NEVER: Itimerspec =
    Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: Timespec { tv_sec: 1 << 40, tv_nsec: 0 } };

/// Raises `signals` whenever the clock is set.
pub(crate) fn start(signals: Vec<Signal>, supervisor: &Supervisor) {
    supervisor.spawn("clock-watch", OnExit::Expected, |token| async move {
        tokio::select! {
            () = token.cancelled() => {}
            Err(error) = watch(&signals) => {
                tracing::warn!(%error, "a change of the machine's clock will be noticed late");
            }
        }
    });
}

async fn watch(signals: &[Signal]) -> std::io::Result<()> {
    let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    arm(&timer)?;
    #[expect(deprecated, reason = "sound for an owned descriptor; what replaces it needs unsafe code")]
    let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
    loop {
        let mut ready = timer.readable().await?;
        ready.clear_ready();
        match rustix::io::read(timer.get_ref(), &mut [0; 8]) {
            Err(Errno::CANCELED) => {
                tracing::info!("the machine's clock was set");
                arm(timer.get_ref())?;
                signals.iter().for_each(Signal::raise_now);
            }
            Err(Errno::AGAIN) | Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn arm(timer: &OwnedFd) -> std::io::Result<()> {
    timerfd_settime(timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &NEVER)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn the_kernel_takes_the_watch_and_is_silent_while_nobody_sets_the_clock() {
        let watching = watch(&[]);
        tokio::pin!(watching);
        assert!(watching.as_mut().now_or_never().is_none());
    }
}
