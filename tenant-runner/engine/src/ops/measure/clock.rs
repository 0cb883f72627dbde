//! Whether the wall clock moved against the machine's own, which counts on while the machine sleeps.

use crate::ops::reading::Jump;
use chrono::{DateTime, TimeDelta, Utc};
use rustix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;
use std::time::Duration;

/// The machine's own clock: time since it was started.
pub(crate) type Monotonic = std::sync::Arc<dyn Fn() -> Duration + Send + Sync>;

pub(crate) fn monotonic() -> Monotonic {
    std::sync::Arc::new(|| {
        let now = clock_gettime(ClockId::Boottime);
        Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
    })
}

const REMEMBERED: TimeDelta = TimeDelta::hours(1);
/// Jumps kept; more within the hour say nothing new.
const MOST: usize = 60;

/// What both clocks said last, and the jumps of the last hour.
#[derive(Debug, Default)]
pub(in crate::ops) struct Watch {
    last: Option<(DateTime<Utc>, Duration)>,
    jumps: VecDeque<Jump>,
}

impl Watch {
    pub fn look(&mut self, wall: DateTime<Utc>, machine: Duration, tolerance: Duration) -> Vec<Jump> {
        if let Some((last_wall, last_machine)) = self.last.replace((wall, machine)) {
            let passed = TimeDelta::from_std(machine.saturating_sub(last_machine)).unwrap_or(TimeDelta::MAX);
            let moved = (wall - last_wall).checked_sub(&passed).unwrap_or_default();
            if moved.abs().to_std().unwrap_or_default() > tolerance {
                // What was noted under the old time is moved along, or it would be forgotten too early or never.
                self.jumps.iter_mut().for_each(|jump| jump.at += moved);
                self.jumps.push_back(Jump { at: wall, seconds: moved.num_seconds() });
            }
        }
        while self.jumps.len() > MOST || self.jumps.front().is_some_and(|jump| wall - jump.at > REMEMBERED) {
            self.jumps.pop_front();
        }
        self.jumps.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::utc;

    #[test]
    fn only_a_wall_clock_that_moves_against_the_machines_own_has_jumped() {
        let mut watch = Watch::default();
        let start = utc("2026-01-01T00:00:00Z");
        let at = |seconds: i64| start + TimeDelta::seconds(seconds);
        let minute = Duration::from_secs(60);
        let seconds = |n| Duration::from_secs(n);
        assert_eq!(watch.look(at(0), seconds(1000), minute), []);
        assert_eq!(watch.look(at(600), seconds(1600), minute), [], "both went on");
        assert_eq!(watch.look(at(690), seconds(1630), minute), [], "within the tolerance");
        let forward = watch.look(at(690 + 3660), seconds(1690), minute);
        assert_eq!(forward, [Jump { at: at(4350), seconds: 3600 }]);
        let back = watch.look(at(690 + 120), seconds(1750), minute);
        assert_eq!(back.len(), 2);
        assert_eq!(back[1].seconds, -3600);
        assert_eq!(back[0].at, at(750), "moved along");
        assert_eq!(watch.look(at(810 + 7200), seconds(1750 + 7200), minute), [], "forgotten after an hour");
    }

    #[test]
    fn the_machines_own_clock_does_not_go_back() {
        let now = monotonic();
        let first = now();
        assert!(now() >= first);
    }
}
