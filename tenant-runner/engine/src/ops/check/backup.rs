//! How old the newest backup is. Without anybody expecting one there is nothing to say; with one expected and none known, that
//! is the trouble.

use super::{Check, Judged};
use crate::config::OpsConfig;
use crate::ops::policy::{Escalation, Finding, Severity, Verdict};
use crate::ops::reading::Readings;
use serde_json::json;

pub(super) const CHECK: Check = Check {
    name: "backup",
    about: "There is a recent backup",
    escalation: Escalation::after(24, Severity::Critical),
    judge,
};

fn judge(readings: &Readings, _: &OpsConfig) -> Judged {
    let backup = readings.backup;
    let age = backup.last.map(|last| (readings.now - last).to_std().unwrap_or_default());
    let reading = json!({"last": backup.last, "age_s": age.map(|age| age.as_secs()),
        "max_age_s": backup.max_age.map(|most| most.as_secs())});
    let verdict = match (backup.max_age, age) {
        (None, None) => Verdict::Unknown("nobody has told of a backup, and none is expected".to_owned()),
        (None, Some(_)) => Verdict::Fine,
        (Some(_), None) => {
            Verdict::Bad(vec![Finding::new("backup", Severity::Warning, "A backup is expected, but none is known")])
        }
        (Some(most), Some(age)) => Verdict::maybe((age > most).then(|| {
            let severity = if age > most.saturating_mul(3) { Severity::Critical } else { Severity::Warning };
            let message = format!("The newest backup is {} hours old", age.as_secs() / 3600);
            Finding::new("backup", severity, message).details(reading.clone())
        })),
    };
    Judged::new(reading, verdict)
}
