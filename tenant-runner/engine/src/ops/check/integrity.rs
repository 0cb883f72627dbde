//! What the latest examination of the whole database said. It runs in idle time, at most daily; until the first one, nothing
//! is known.

use super::{Check, Judged};
use crate::config::OpsConfig;
use crate::ops::policy::{Escalation, Finding, Reading, Severity, Verdict};
use crate::ops::reading::Readings;
use serde_json::json;

pub(super) const CHECK: Check =
    Check { name: "integrity", about: "The database's file is undamaged", escalation: Escalation::NEVER, judge };

fn judge(readings: &Readings, _: &OpsConfig) -> Judged {
    let latest = match &readings.integrity {
        Reading::Known(latest) => latest,
        Reading::Unknown(why) => return Judged::unknown(why),
    };
    let finding = latest.fault.as_ref().map(|fault| {
        let message = format!("The database is damaged; restore a backup. SQLite says: {fault}");
        Finding::new("integrity", Severity::Critical, message).details(json!({"examined_at": latest.at}))
    });
    Judged::new(json!({"examined_at": latest.at, "fault": latest.fault}), Verdict::maybe(finding))
}
