//! Whether the scheduler's timer is alive: what is due has to be fired, so an earliest due time that lies well in the past
//! means that nobody looked.

use super::{Check, Judged};
use crate::config::OpsConfig;
use crate::ops::policy::{Escalation, Finding, Reading, Severity, Verdict};
use crate::ops::reading::Readings;
use crate::ops::remedy::Remedy;
use serde_json::json;

pub(super) const CHECK: Check = Check {
    name: "scheduler",
    about: "Schedules fire when they are due",
    escalation: Escalation::after_minutes(5, Severity::Critical),
    judge,
};

fn judge(readings: &Readings, config: &OpsConfig) -> Judged {
    let due = match &readings.earliest_due {
        Reading::Known(due) => *due,
        Reading::Unknown(why) => return Judged::unknown(why),
    };
    let late = due.and_then(|due| (readings.now - due).to_std().ok());
    let finding = late.filter(|late| *late > config.limits.scheduler_late).map(|late| {
        let message = format!("A schedule has been due for {} s and was not fired", late.as_secs());
        Finding::new("scheduler", Severity::Warning, message)
            .details(json!({"due_at": due, "late_s": late.as_secs()}))
            .remedy(Remedy::WakeScheduler)
    });
    Judged::new(json!({"next_due_at": due, "late_s": late.map(|l| l.as_secs())}), Verdict::maybe(finding))
}
