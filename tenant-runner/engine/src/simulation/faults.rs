//! Ends the process at a commit: before it reached the disk, or after it and before anybody was told.

use crate::store::{Fault, Faults, Point};
use std::sync::{Mutex, MutexGuard};

/// Armed before a step, it strikes at a commit that follows.
#[derive(Debug, Default)]
pub struct Reaper(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    armed: Option<Point>,
    /// Commits to let pass.
    spare: u32,
    struck: Option<Point>,
}

impl Reaper {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn arm(&self, point: Option<Point>, spare: u32) {
        *self.lock() = State { armed: point, spare, struck: None };
    }

    /// Whether it struck since it was armed.
    pub fn struck(&self) -> Option<Point> {
        self.lock().struck
    }
}

impl Faults for Reaper {
    fn at(&self, point: Point) -> Fault {
        let mut state = self.lock();
        if state.armed != Some(point) || state.struck.is_some() {
            return Fault::None;
        }
        if state.spare > 0 {
            state.spare -= 1;
            return Fault::None;
        }
        state.struck = Some(point);
        Fault::Crash
    }
}

/// For figures.
pub fn name(point: Point) -> &'static str {
    match point {
        Point::BeforeCommit => "before",
        Point::AfterCommit => "after",
    }
}
