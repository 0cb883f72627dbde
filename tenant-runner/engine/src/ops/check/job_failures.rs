//! How many jobs fail for good, as a number and as a part of those that ended.

use super::{Check, Judged};
use crate::config::OpsConfig;
use crate::ops::policy::{Escalation, Finding, Reading, Severity, Verdict};
use crate::ops::reading::Readings;
use serde_json::json;

pub(super) const CHECK: Check =
    Check { name: "job_failures", about: "Few jobs fail", escalation: Escalation::after(6, Severity::Critical), judge };

fn judge(readings: &Readings, config: &OpsConfig) -> Judged {
    let jobs = match &readings.jobs {
        Reading::Known(jobs) => jobs,
        Reading::Unknown(why) => return Judged::unknown(why),
    };
    let (failed, most) = (jobs.failed_last_hour, config.max_failed_jobs_hour);
    let ended = jobs.ended.succeeded + jobs.ended.failed;
    let ratio = if ended == 0 { 0.0 } else { jobs.ended.failed as f64 / ended as f64 };
    let reading = json!({"failed_last_hour": failed, "ended": ended, "failure_ratio": ratio});
    let mut findings = Vec::new();
    if failed > most {
        let severity = if failed > most.saturating_mul(5) { Severity::Critical } else { Severity::Warning };
        let message = format!("{failed} jobs failed for good within an hour (more than {most})");
        findings.push(Finding::new("job_failures", severity, message).details(reading.clone()));
    }
    if ended >= config.limits.ratio_from && ratio > config.limits.max_failure_ratio {
        let message = format!("{:.0} % of {ended} jobs failed for good", ratio * 100.0);
        findings.push(Finding::new("job_failures", Severity::Warning, message).about("ratio").details(reading.clone()));
    }
    Judged::new(reading, Verdict::of(findings))
}
