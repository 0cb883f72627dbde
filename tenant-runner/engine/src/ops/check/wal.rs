//! How large the database's log is: it grows while a reader holds an old state, and shrinks by a checkpoint.

use super::{Check, Judged, mib};
use crate::config::OpsConfig;
use crate::ops::policy::{Escalation, Finding, Reading, Severity, Verdict};
use crate::ops::reading::Readings;
use crate::ops::remedy::Remedy;
use serde_json::json;

pub(super) const CHECK: Check = Check {
    name: "wal",
    about: "The database's log stays small",
    escalation: Escalation::after(1, Severity::Critical),
    judge,
};

fn judge(readings: &Readings, config: &OpsConfig) -> Judged {
    let size = match &readings.files {
        Reading::Known(files) => files.wal_bytes,
        Reading::Unknown(why) => return Judged::unknown(why),
    };
    let limit = config.limits.max_wal_bytes;
    let finding = (size > limit).then(|| {
        let message = format!("The database's log has {} MiB (more than {} MiB)", mib(size), mib(limit));
        Finding::new("wal", Severity::Warning, message)
            .details(json!({"bytes": size, "limit": limit}))
            .remedy(Remedy::Checkpoint)
    });
    Judged::new(json!({"bytes": size, "limit": limit}), Verdict::maybe(finding))
}
