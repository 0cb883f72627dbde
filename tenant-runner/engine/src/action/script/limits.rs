//! What one script may use.

use crate::error::{EngineError, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Of the script as a whole where the system can count that way, else of each of its processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::action) struct Limits {
    pub memory_mb: u64,
    /// Processes and threads.
    pub processes: u64,
    /// The largest file it may write.
    pub file_mb: u64,
    pub open_files: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_mb: 1024, processes: 256, file_mb: 1024, open_files: 1024 }
    }
}

impl Limits {
    pub(in crate::action) fn read(value: Option<&Value>) -> Result<Self> {
        let mut limits = Self::default();
        let map = match value {
            None | Some(Value::Null) => return Ok(limits),
            Some(Value::Object(map)) => map,
            Some(_) => return Err(EngineError::invalid("action_config.limits", "must be an object")),
        };
        for (name, value) in map {
            let (limit, least, most) = match name.as_str() {
                "memory_mb" => (&mut limits.memory_mb, 16, 64 * 1024),
                "processes" => (&mut limits.processes, 1, 4096),
                "file_mb" => (&mut limits.file_mb, 1, 64 * 1024),
                "open_files" => (&mut limits.open_files, 16, 65_536),
                other => {
                    let other: String = other.chars().take(60).collect();
                    return Err(EngineError::invalid(
                        format!("action_config.limits.{other}"),
                        "is unknown; known are memory_mb, processes, file_mb, open_files",
                    ));
                }
            };
            *limit = value.as_u64().filter(|value| (least..=most).contains(value)).ok_or_else(|| {
                EngineError::invalid(
                    format!("action_config.limits.{name}"),
                    format!("must be a whole number from {least} to {most}"),
                )
            })?;
        }
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_limit_out_of_range_is_named() {
        for (config, field) in [
            (json!(3), "action_config.limits"),
            (json!({"memory_mb": 15}), "action_config.limits.memory_mb"),
            (json!({"memory_mb": 1e9}), "action_config.limits.memory_mb"),
            (json!({"processes": 0}), "action_config.limits.processes"),
            (json!({"processes": -1}), "action_config.limits.processes"),
            (json!({"file_mb": "1"}), "action_config.limits.file_mb"),
            (json!({"open_files": 65_537}), "action_config.limits.open_files"),
            (json!({"cpu": 1}), "action_config.limits.cpu"),
        ] {
            assert_eq!(Limits::read(Some(&config)).unwrap_err().field(), Some(field), "{config}");
        }
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        assert_eq!(Limits::read(None).unwrap(), Limits::default());
        let some = Limits::read(Some(&json!({"processes": 8}))).unwrap();
        assert_eq!(some, Limits { processes: 8, ..Limits::default() });
    }
}
