//! Whether the workers take jobs.

use super::{Check, Judged};
use crate::config::OpsConfig;
use crate::ops::policy::{Escalation, Finding, Severity, Verdict};
use crate::ops::reading::Readings;
use serde_json::json;

pub(super) const CHECK: Check = Check {
    name: "workers",
    about: "The workers take jobs",
    escalation: Escalation::after_minutes(10, Severity::Critical),
    judge,
};

fn judge(readings: &Readings, _: &OpsConfig) -> Judged {
    let (alive, all) = (readings.workers_alive, readings.workers);
    let reading = json!({"alive": alive, "workers": all});
    let finding = (alive < all).then(|| {
        let severity = if alive == 0 { Severity::Critical } else { Severity::Warning };
        Finding::new("workers", severity, format!("{alive} of {all} workers take jobs")).details(reading.clone())
    });
    Judged::new(reading, Verdict::maybe(finding))
}
