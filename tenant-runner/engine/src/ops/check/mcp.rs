//! Whether the configured MCP servers could be used at all: a command that exists, an address that answers. Their protocol is
//! not spoken.

use super::{Check, Judged, several};
use crate::config::OpsConfig;
use crate::ops::policy::{Escalation, Finding, Reading, Severity, Verdict};
use crate::ops::reading::Readings;
use serde_json::{Value, json};

pub(super) const CHECK: Check = Check {
    name: "mcp_servers",
    about: "The configured MCP servers exist",
    escalation: Escalation::after(1, Severity::Warning),
    judge,
};

fn judge(readings: &Readings, _: &OpsConfig) -> Judged {
    let servers = match &readings.mcp {
        Reading::Known(servers) => servers,
        Reading::Unknown(why) => return Judged::unknown(why),
    };
    if servers.is_empty() {
        return Judged::new(json!({}), Verdict::Off("no MCP server is configured"));
    }
    let mut reading = serde_json::Map::new();
    let mut broken = Vec::new();
    for server in servers {
        let state = match &server.found {
            Reading::Known(Ok(())) => "found".to_owned(),
            Reading::Known(Err(why)) => {
                broken.push((server, why));
                why.clone()
            }
            Reading::Unknown(why) => format!("unknown: {why}"),
        };
        reading.insert(server.name.clone(), Value::String(state));
    }
    let findings = several("mcp_servers", &broken, Severity::Info, |(server, why)| {
        Finding::new("mcp_servers", Severity::Info, format!("The MCP server {} cannot be used: {why}", server.name))
            .about(&server.name)
    });
    let nothing_known = servers.iter().all(|server| matches!(server.found, Reading::Unknown(_)));
    let verdict =
        if nothing_known { Verdict::Unknown("none was looked at yet".to_owned()) } else { Verdict::of(findings) };
    Judged::new(Value::Object(reading), verdict)
}
