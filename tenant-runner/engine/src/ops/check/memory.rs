//! How much memory is used of what is allowed. Without a limit there is nothing to compare with.

use super::{Check, Judged, mib};
use crate::config::OpsConfig;
use crate::ops::policy::{Escalation, Finding, Reading, Severity, Verdict};
use crate::ops::reading::Readings;
use serde_json::json;

pub(super) const CHECK: Check = Check {
    name: "memory",
    about: "The memory limit is not reached",
    escalation: Escalation::after(1, Severity::Critical),
    judge,
};

fn judge(readings: &Readings, config: &OpsConfig) -> Judged {
    let memory = match &readings.memory {
        Reading::Known(memory) => *memory,
        Reading::Unknown(why) => return Judged::unknown(why),
    };
    let reading = json!({"used_bytes": memory.used, "limit_bytes": memory.limit});
    let Some(limit) = memory.limit.filter(|limit| *limit > 0) else {
        return Judged::new(reading, Verdict::Fine);
    };
    let part = memory.used as f64 / limit as f64;
    let finding = (part > config.limits.memory_warning).then(|| {
        let severity = if part > config.limits.memory_critical { Severity::Critical } else { Severity::Warning };
        let message = format!("{} of {} MiB of memory are in use", mib(memory.used), mib(limit));
        Finding::new("memory", severity, message).details(reading.clone())
    });
    Judged::new(reading, Verdict::maybe(finding))
}
