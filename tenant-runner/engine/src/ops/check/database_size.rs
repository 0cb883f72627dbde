//! How large the database's file is. Removing what has passed its time and giving the space back ends no live work.

use super::{Check, Judged, mib};
use crate::config::OpsConfig;
use crate::ops::policy::{Escalation, Finding, Reading, Severity, Verdict};
use crate::ops::reading::Readings;
use crate::ops::remedy::Remedy;
use serde_json::json;

pub(super) const CHECK: Check = Check {
    name: "database_size",
    about: "The database's file stays small",
    escalation: Escalation::after(24, Severity::Critical),
    judge,
};

fn judge(readings: &Readings, config: &OpsConfig) -> Judged {
    let files = match &readings.files {
        Reading::Known(files) => *files,
        Reading::Unknown(why) => return Judged::unknown(why),
    };
    let (size, limit) = (files.database_bytes, config.limits.max_database_bytes);
    let finding = (size > limit).then(|| {
        // What is mostly free space needs no further removing.
        let remedy = if files.free_bytes > size / 4 { Remedy::Vacuum } else { Remedy::RunRetention };
        let severity = if size > limit.saturating_mul(2) { Severity::Critical } else { Severity::Warning };
        let message = format!("The database has {} MiB (more than {} MiB)", mib(size), mib(limit));
        Finding::new("database_size", severity, message).details(json!({"bytes": size, "limit": limit})).remedy(remedy)
    });
    Judged::new(json!({"bytes": size, "free_bytes": files.free_bytes, "limit": limit}), Verdict::maybe(finding))
}
