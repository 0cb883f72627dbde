//! Whether every task runs that the engine cannot do without.

use super::{Check, Judged};
use crate::config::OpsConfig;
use crate::ops::policy::{Escalation, Finding, Severity, Verdict};
use crate::ops::reading::Readings;
use serde_json::json;

pub(super) const CHECK: Check =
    Check { name: "engine", about: "The tasks of the engine run", escalation: Escalation::NEVER, judge };

fn judge(readings: &Readings, _: &OpsConfig) -> Judged {
    let finding = (!readings.tasks_running)
        .then(|| Finding::new("engine", Severity::Critical, "A task the engine depends on has ended"));
    Judged::new(json!({"tasks_running": readings.tasks_running}), Verdict::maybe(finding))
}
