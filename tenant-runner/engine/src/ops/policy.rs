//! What is wrong, judged from readings alone: no clock, no database, no effect.

use serde::Serialize;
use serde_json::{Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What was measured at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Readings {
    pub tasks_running: bool,
    pub workers: usize,
    pub workers_alive: usize,
    pub pending_jobs: u64,
    pub failed_last_hour: u64,
    /// Ids of jobs that have run for longer than expected.
    pub stuck_jobs: Vec<String>,
    /// Of the file system that holds the database, 0 to 1.
    pub disk_free: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    pub max_failed_jobs_hour: u64,
    pub max_pending_jobs: u64,
    pub disk_free_warning: f64,
    pub disk_free_critical: f64,
}

impl Limits {
    pub fn new(max_failed_jobs_hour: u64) -> Self {
        Self { max_failed_jobs_hour, max_pending_jobs: 10_000, disk_free_warning: 0.10, disk_free_critical: 0.03 }
    }
}

/// Something that is wrong now. At most one per category at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    pub category: &'static str,
    pub severity: Severity,
    pub message: String,
    pub details: Value,
}

pub fn judge(readings: &Readings, limits: &Limits) -> Vec<Finding> {
    [
        tasks(readings),
        workers(readings),
        failures(readings, limits),
        stuck(readings),
        backlog(readings, limits),
        disk(readings, limits),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn finding(category: &'static str, severity: Severity, message: String, details: Value) -> Option<Finding> {
    Some(Finding { category, severity, message, details })
}

fn tasks(readings: &Readings) -> Option<Finding> {
    if readings.tasks_running {
        return None;
    }
    finding("engine", Severity::Critical, "A task the engine depends on has ended".into(), json!({}))
}

fn workers(readings: &Readings) -> Option<Finding> {
    if readings.workers_alive >= readings.workers {
        return None;
    }
    let (alive, all) = (readings.workers_alive, readings.workers);
    let severity = if alive == 0 { Severity::Critical } else { Severity::Warning };
    finding("workers", severity, format!("{alive} of {all} workers take jobs"), json!({"alive": alive, "workers": all}))
}

fn failures(readings: &Readings, limits: &Limits) -> Option<Finding> {
    let failed = readings.failed_last_hour;
    if failed <= limits.max_failed_jobs_hour {
        return None;
    }
    let severity =
        if failed > limits.max_failed_jobs_hour.saturating_mul(5) { Severity::Critical } else { Severity::Warning };
    let message = format!("{failed} jobs failed for good within an hour (more than {})", limits.max_failed_jobs_hour);
    finding("job_failures", severity, message, json!({"failed_last_hour": failed}))
}

fn stuck(readings: &Readings) -> Option<Finding> {
    let count = readings.stuck_jobs.len();
    if count == 0 {
        return None;
    }
    let shown: Vec<_> = readings.stuck_jobs.iter().take(20).collect();
    finding(
        "stuck_jobs",
        Severity::Warning,
        format!("{count} jobs run unusually long"),
        json!({"jobs": shown, "count": count}),
    )
}

fn backlog(readings: &Readings, limits: &Limits) -> Option<Finding> {
    if readings.pending_jobs <= limits.max_pending_jobs {
        return None;
    }
    let message = format!("{} jobs are waiting", readings.pending_jobs);
    finding("backlog", Severity::Warning, message, json!({"pending_jobs": readings.pending_jobs}))
}

fn disk(readings: &Readings, limits: &Limits) -> Option<Finding> {
    let free = readings.disk_free.filter(|free| *free < limits.disk_free_warning)?;
    let severity = if free < limits.disk_free_critical { Severity::Critical } else { Severity::Warning };
    let message = format!("Only {:.0} % of the disk is free", free * 100.0);
    finding("disk", severity, message, json!({"free": free}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fine() -> Readings {
        Readings {
            tasks_running: true,
            workers: 4,
            workers_alive: 4,
            pending_jobs: 3,
            failed_last_hour: 10,
            stuck_jobs: vec![],
            disk_free: Some(0.5),
        }
    }

    fn judged(readings: Readings) -> Vec<(&'static str, Severity)> {
        judge(&readings, &Limits::new(10)).into_iter().map(|f| (f.category, f.severity)).collect()
    }

    #[test]
    fn a_healthy_engine_has_no_findings() {
        assert_eq!(judged(fine()), []);
        assert_eq!(judged(Readings { disk_free: None, ..fine() }), []);
    }

    #[test]
    fn each_trouble_is_found_with_its_severity() {
        for (readings, expected) in [
            (Readings { tasks_running: false, ..fine() }, ("engine", Severity::Critical)),
            (Readings { workers_alive: 3, ..fine() }, ("workers", Severity::Warning)),
            (Readings { workers_alive: 0, ..fine() }, ("workers", Severity::Critical)),
            (Readings { failed_last_hour: 11, ..fine() }, ("job_failures", Severity::Warning)),
            (Readings { failed_last_hour: 51, ..fine() }, ("job_failures", Severity::Critical)),
            (Readings { stuck_jobs: vec!["a".into()], ..fine() }, ("stuck_jobs", Severity::Warning)),
            (Readings { pending_jobs: 10_001, ..fine() }, ("backlog", Severity::Warning)),
            (Readings { disk_free: Some(0.09), ..fine() }, ("disk", Severity::Warning)),
            (Readings { disk_free: Some(0.02), ..fine() }, ("disk", Severity::Critical)),
        ] {
            assert_eq!(judged(readings), [expected]);
        }
    }
}
