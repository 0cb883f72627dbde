//! How long the runner's own certificate is still valid.

use super::{Check, Judged};
use crate::config::OpsConfig;
use crate::ops::policy::{Escalation, Finding, Severity, Verdict};
use crate::ops::reading::Readings;
use serde_json::json;

pub(super) const CHECK: Check = Check {
    name: "certificate",
    about: "The runner's certificate is valid for a while yet",
    escalation: Escalation::NEVER,
    judge,
};

fn judge(readings: &Readings, config: &OpsConfig) -> Judged {
    let Some(ends) = readings.certificate else {
        return Judged::new(json!({}), Verdict::Off("this runner has no certificate"));
    };
    let left = (ends - readings.now).to_std().unwrap_or_default();
    let days = left.as_secs() / 86_400;
    let finding = (left < config.limits.certificate_warning).then(|| {
        let severity = if left < config.limits.certificate_critical { Severity::Critical } else { Severity::Warning };
        let message = if left.is_zero() {
            "The runner's certificate is no longer valid; restart the runner to get another".to_owned()
        } else {
            format!("The runner's certificate ends in {days} days; restart the runner to get another")
        };
        Finding::new("certificate", severity, message).details(json!({"not_after": ends}))
    });
    Judged::new(json!({"not_after": ends, "days_left": days}), Verdict::maybe(finding))
}
