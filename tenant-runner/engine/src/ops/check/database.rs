//! Whether the database can be written and read, and soon. Not being able to measure it is the trouble itself, so this is the
//! one check that is never unknown.

use super::{Check, Judged};
use crate::config::OpsConfig;
use crate::ops::policy::{Escalation, Finding, Reading, Severity, Verdict};
use crate::ops::reading::Readings;
use serde_json::json;

pub(super) const CHECK: Check = Check {
    name: "database",
    about: "The database can be written and read",
    escalation: Escalation::after_minutes(15, Severity::Critical),
    judge,
};

fn judge(readings: &Readings, config: &OpsConfig) -> Judged {
    match &readings.database {
        Reading::Known(took) => {
            let ms = took.as_millis() as u64;
            let finding = (*took >= config.limits.database_slow).then(|| {
                Finding::new("database", Severity::Warning, format!("A write and a read of the database took {ms} ms"))
                    .details(json!({"took_ms": ms}))
            });
            Judged::new(json!({"took_ms": ms}), Verdict::maybe(finding))
        }
        Reading::Unknown(why) => {
            let finding = Finding::new("database", Severity::Critical, format!("The database cannot be used: {why}"));
            Judged::new(json!({"error": why}), Verdict::Bad(vec![finding]))
        }
    }
}
