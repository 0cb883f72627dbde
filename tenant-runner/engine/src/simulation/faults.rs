//! Ends the process at a commit: before it reached the disk, or after it and before anybody was told.

use std::sync::Mutex;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    BeforeCommit,
    AfterCommit,
}

/// Armed before a step, it strikes at the first commit that follows.
#[derive(Debug, Default)]
pub struct Reaper(Mutex<State>);

#[derive(Debug, Default, Clone, Copy)]
struct State {
    #[expect(dead_code, reason = "read by the store once it can be ended")]
    armed: Option<Point>,
    struck: Option<Point>,
}

impl Reaper {
    pub fn arm(&self, point: Option<Point>) {
        *self.0.lock().unwrap() = State { armed: point, struck: None };
    }

    /// Whether it struck since it was armed.
    pub fn struck(&self) -> Option<Point> {
        self.0.lock().unwrap().struck
    }
}
