//! What runs were about, in numbers: they show that what is to be tested did happen.

use std::collections::BTreeMap;

#[derive(Debug, Default, Clone)]
pub struct Figures {
    pub steps: u64,
    pub claims: u64,
    pub slots: u64,
    /// Slots that were left out, because an earlier job was not over.
    pub left_out: u64,
    /// Schedules that too many failures paused.
    pub paused: u64,
    /// Facts that were answered.
    pub answers: u64,
    /// Crashes by kind of write and point.
    pub crashes: BTreeMap<(&'static str, &'static str), u64>,
}

impl Figures {
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.claims += other.claims;
        self.slots += other.slots;
        self.left_out += other.left_out;
        self.answers += other.answers;
        self.paused += other.paused;
        for (at, count) in &other.crashes {
            *self.crashes.entry(*at).or_default() += count;
        }
    }
}
