//! The checks: each is a pure function from readings and limits to a verdict, in a file of its own.
//!
//! Always true here: a check never measures and never acts; what it cannot know it calls unknown; at most `MOST_FINDINGS`
//! findings of one check exist at a time.

mod backlog;
mod backup;
mod certificate;
mod clock;
mod database;
mod database_size;
mod disk;
mod engine;
mod integrity;
mod job_failures;
mod mcp;
mod memory;
mod model;
mod paused;
mod scheduler;
mod stuck_jobs;
mod wal;
mod workers;

#[cfg(test)]
mod tests;

use super::policy::{Escalation, Finding, Severity, Verdict};
use super::reading::Readings;
use crate::config::OpsConfig;
use serde_json::Value;

/// One thing that is looked at.
#[derive(Debug)]
pub struct Check {
    /// Also the category of its alerts.
    pub name: &'static str,
    /// What it is about, in a line.
    pub about: &'static str,
    pub escalation: Escalation,
    pub(super) judge: fn(&Readings, &OpsConfig) -> Judged,
}

/// What a check says of one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The figures it looked at.
    pub reading: Value,
    pub verdict: Verdict,
}

impl Judged {
    fn new(reading: Value, verdict: Verdict) -> Self {
        Self { reading, verdict }
    }

    fn unknown(why: &str) -> Self {
        Self { reading: Value::Null, verdict: Verdict::Unknown(why.to_owned()) }
    }
}

pub static CHECKS: &[Check] = &[
    engine::CHECK,
    database::CHECK,
    database_size::CHECK,
    wal::CHECK,
    integrity::CHECK,
    scheduler::CHECK,
    paused::CHECK,
    workers::CHECK,
    backlog::CHECK,
    stuck_jobs::CHECK,
    job_failures::CHECK,
    disk::CHECK,
    memory::CHECK,
    clock::CHECK,
    model::CHECK,
    mcp::CHECK,
    certificate::CHECK,
    backup::CHECK,
];

/// The rule by which alerts of this category become worse.
pub(super) fn escalation(category: &str) -> Escalation {
    CHECKS.iter().find(|check| check.name == category).map_or(Escalation::NEVER, |check| check.escalation)
}

const MOST_FINDINGS: usize = 20;

/// One finding per thing that is wrong, and one for all that are too many to name.
fn several<T>(category: &'static str, all: &[T], severity: Severity, one: impl Fn(&T) -> Finding) -> Vec<Finding> {
    let mut findings: Vec<Finding> = all.iter().take(MOST_FINDINGS - 1).map(one).collect();
    let rest = all.len() - findings.len();
    if rest > 0 {
        findings.push(Finding::new(category, severity, format!("{rest} more of these")).about("others"));
    }
    findings
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}
