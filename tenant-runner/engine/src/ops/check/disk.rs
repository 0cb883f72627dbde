//! How much of the disk is free that holds the database. Removing what has passed its time may give some back.

use super::{Check, Judged};
use crate::config::OpsConfig;
use crate::ops::policy::{Escalation, Finding, Reading, Severity, Verdict};
use crate::ops::reading::Readings;
use crate::ops::remedy::Remedy;
use serde_json::json;

pub(super) const CHECK: Check =
    Check { name: "disk", about: "The disk has room", escalation: Escalation::NEVER, judge };

fn judge(readings: &Readings, config: &OpsConfig) -> Judged {
    let disk = match &readings.disk {
        Reading::Known(disk) => *disk,
        Reading::Unknown(why) => return Judged::unknown(why),
    };
    let free = disk.part_free();
    let finding = (free < config.limits.disk_free_warning).then(|| {
        let critical = free < config.limits.disk_free_critical;
        let severity = if critical { Severity::Critical } else { Severity::Warning };
        let message = format!("Only {:.0} % of the disk is free", free * 100.0);
        let finding = Finding::new("disk", severity, message).details(json!({"free": free}));
        if critical { finding.remedy(Remedy::RunRetention) } else { finding }
    });
    let reading = json!({"free_bytes": disk.free, "total_bytes": disk.total, "free": free});
    Judged::new(reading, Verdict::maybe(finding))
}
