//! Jobs that run unusually long. They are reported and never ended by a clock: whoever knows them may.

use super::{Check, Judged};
use crate::config::OpsConfig;
use crate::ops::policy::{Escalation, Finding, Reading, Severity, Verdict};
use crate::ops::reading::Readings;
use serde_json::json;

pub(super) const CHECK: Check = Check {
    name: "stuck_jobs",
    about: "No job runs unusually long",
    escalation: Escalation::after(6, Severity::Critical),
    judge,
};

fn judge(readings: &Readings, _: &OpsConfig) -> Judged {
    let stuck = match &readings.jobs {
        Reading::Known(jobs) => &jobs.stuck,
        Reading::Unknown(why) => return Judged::unknown(why),
    };
    let count = stuck.len();
    let shown: Vec<_> = stuck.iter().take(20).collect();
    let finding = (count > 0).then(|| {
        Finding::new("stuck_jobs", Severity::Warning, format!("{count} jobs run unusually long"))
            .details(json!({"jobs": shown, "count": count}))
    });
    Judged::new(json!({"count": count}), Verdict::maybe(finding))
}
