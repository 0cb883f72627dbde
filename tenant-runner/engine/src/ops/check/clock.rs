//! Whether the machine's clock was set. One jump is worth knowing (schedules follow the wall clock); several are a broken
//! time service.

use super::{Check, Judged};
use crate::config::OpsConfig;
use crate::ops::policy::{Escalation, Finding, Reading, Severity, Verdict};
use crate::ops::reading::Readings;
use crate::ops::remedy::Remedy;
use serde_json::json;

pub(super) const CHECK: Check = Check {
    name: "clock",
    about: "The machine's clock runs evenly",
    // An info that ends by itself after an hour.
    escalation: Escalation { after: None, flaps: None, up_to: Severity::Warning },
    judge,
};

/// Jumps within the last hour from which on it is more than a single event.
const SEVERAL: usize = 3;

fn judge(readings: &Readings, _: &OpsConfig) -> Judged {
    let jumps = match &readings.clock {
        Reading::Known(jumps) => jumps,
        Reading::Unknown(why) => return Judged::unknown(why),
    };
    let finding = jumps.last().map(|last| {
        let severity = if jumps.len() >= SEVERAL { Severity::Warning } else { Severity::Info };
        let times = if jumps.len() == 1 { String::new() } else { format!("; {} times within an hour", jumps.len()) };
        let message = format!("The machine's clock moved by {} s at {}{times}", last.seconds, last.at.to_rfc3339());
        let finding = Finding::new("clock", severity, message).details(json!({"seconds": last.seconds, "at": last.at}));
        // Right after a jump: whoever sleeps until a wall-clock time looks again.
        if last.at == readings.now { finding.remedy(Remedy::WakeScheduler) } else { finding }
    });
    Judged::new(json!({"jumps_last_hour": jumps.len()}), Verdict::maybe(finding))
}
