//! Whether jobs wait too long, or too many of them. Waking the workers costs nothing and ends nothing.

use super::{Check, Judged};
use crate::config::OpsConfig;
use crate::ops::policy::{Escalation, Finding, Reading, Severity, Verdict};
use crate::ops::reading::Readings;
use crate::ops::remedy::Remedy;
use serde_json::json;

pub(super) const CHECK: Check = Check {
    name: "backlog",
    about: "Jobs do not wait long",
    escalation: Escalation::after(2, Severity::Critical),
    judge,
};

fn judge(readings: &Readings, config: &OpsConfig) -> Judged {
    let jobs = match &readings.jobs {
        Reading::Known(jobs) => jobs,
        Reading::Unknown(why) => return Judged::unknown(why),
    };
    let oldest = jobs.oldest_ready.map(|age| age.as_secs());
    let reading = json!({"pending_jobs": jobs.pending, "oldest_ready_s": oldest});
    let mut findings = Vec::new();
    if jobs.pending > config.limits.max_pending_jobs {
        let message = format!("{} jobs are waiting", jobs.pending);
        findings.push(Finding::new("backlog", Severity::Warning, message).details(reading.clone()));
    }
    if let Some(age) = jobs.oldest_ready.filter(|age| *age > config.limits.max_ready_age) {
        let finding = Finding::new("backlog", Severity::Warning, format!("A job has waited for {} s", age.as_secs()))
            .about("age")
            .details(reading.clone());
        // With room left, the workers may have missed that it is ready; without, they are simply busy.
        let idle = jobs.running < readings.workers_alive as u64;
        findings.push(if idle { finding.remedy(Remedy::WakeWorkers) } else { finding });
    }
    Judged::new(reading, Verdict::of(findings))
}
