//! Whether the model provider can be reached: by what became of real calls, or, when nobody asked lately, whether its address
//! answers. No call that costs anything is made for it.

use super::{Check, Judged};
use crate::config::OpsConfig;
use crate::ops::policy::{Escalation, Finding, Reading, Severity, Verdict};
use crate::ops::reading::{Model, Readings};
use serde_json::json;

pub(super) const CHECK: Check = Check {
    name: "model",
    about: "The model provider answers",
    escalation: Escalation::after_minutes(30, Severity::Critical),
    judge,
};

/// Fewer failed calls may be the callers' own fault.
const TELLING: u64 = 3;

fn judge(readings: &Readings, _: &OpsConfig) -> Judged {
    let bad = |message: String| Verdict::Bad(vec![Finding::new("model", Severity::Warning, message)]);
    match &readings.model {
        Reading::Unknown(why) => Judged::unknown(why),
        Reading::Known(Model::Offline) => {
            Judged::new(json!({"state": "offline"}), Verdict::Off("no model key is configured"))
        }
        Reading::Known(Model::Asked { answered, failed }) => {
            let reading = json!({"state": "asked", "answered": answered, "failed": failed});
            let verdict = if *answered == 0 && *failed >= TELLING {
                bad(format!("The last {failed} calls of the model failed"))
            } else {
                Verdict::Fine
            };
            Judged::new(reading, verdict)
        }
        Reading::Known(Model::Probed(Ok(()))) => Judged::new(json!({"state": "reachable"}), Verdict::Fine),
        Reading::Known(Model::Probed(Err(why))) => Judged::new(
            json!({"state": "unreachable", "error": why}),
            bad(format!("The model provider cannot be reached: {why}")),
        ),
    }
}
