//! Schedules that were paused because they kept failing: somebody has to look, then resume them.

use super::{Check, Judged, several};
use crate::config::OpsConfig;
use crate::ops::policy::{Escalation, Finding, Reading, Severity, Verdict};
use crate::ops::reading::Readings;
use serde_json::json;

pub(super) const CHECK: Check = Check {
    name: "paused_schedules",
    about: "No schedule had to be paused because it kept failing",
    escalation: Escalation::NEVER,
    judge,
};

fn judge(readings: &Readings, _: &OpsConfig) -> Judged {
    let paused = match &readings.paused {
        Reading::Known(paused) => paused,
        Reading::Unknown(why) => return Judged::unknown(why),
    };
    let findings = several("paused_schedules", paused, Severity::Warning, |paused| {
        let message = format!("The event {} was paused: {}", paused.event_id, paused.reason);
        Finding::new("paused_schedules", Severity::Warning, message)
            .about(&paused.event_id)
            .details(json!({"event_id": paused.event_id}))
    });
    Judged::new(json!({"paused": paused.len()}), Verdict::of(findings))
}
