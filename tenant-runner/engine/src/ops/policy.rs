//! What the monitor thinks in: severities, readings that may be unknown, findings, and how trouble that lasts becomes worse.
//! No clock, no database, no effect.

use super::remedy::Remedy;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Info => Self::Warning,
            Self::Warning | Self::Critical => Self::Critical,
        }
    }
}

impl std::str::FromStr for Severity {
    type Err = crate::EngineError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|severity| severity.as_str() == text)
            .ok_or_else(|| crate::EngineError::invalid("severity", "must be one of info, warning, critical"))
    }
}

/// What was measured, or why it could not be.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading<T> {
    Known(T),
    Unknown(String),
}

impl<T> Reading<T> {
    pub fn unknown(why: impl Into<String>) -> Self {
        Self::Unknown(why.into())
    }

    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }
}

/// Something that is wrong now.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The check that found it.
    pub category: &'static str,
    /// The same trouble has the same one: the check's name, and what of several things is concerned.
    pub fingerprint: String,
    pub severity: Severity,
    pub message: String,
    pub details: Value,
    /// What may help.
    pub remedy: Option<Remedy>,
}

impl Finding {
    pub fn new(category: &'static str, severity: Severity, message: impl Into<String>) -> Self {
        let fingerprint = category.to_owned();
        Self { category, fingerprint, severity, message: message.into(), details: json!({}), remedy: None }
    }

    /// Of several things that the check looks at, this one.
    #[must_use]
    pub fn about(mut self, what: &str) -> Self {
        self.fingerprint = format!("{}:{what}", self.category);
        self
    }

    #[must_use]
    pub fn details(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    #[must_use]
    pub fn remedy(mut self, remedy: Remedy) -> Self {
        self.remedy = Some(remedy);
        self
    }
}

/// What a check concludes.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Fine,
    /// Nothing can be said, and nothing said before is taken back.
    Unknown(String),
    /// There is nothing to check, and why.
    Off(&'static str),
    Bad(Vec<Finding>),
}

impl Verdict {
    pub fn of(findings: Vec<Finding>) -> Self {
        if findings.is_empty() { Self::Fine } else { Self::Bad(findings) }
    }

    pub fn maybe(finding: Option<Finding>) -> Self {
        Self::of(finding.into_iter().collect())
    }

    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Bad(findings) => findings,
            Self::Fine | Self::Unknown(_) | Self::Off(_) => &[],
        }
    }
}

/// How trouble that lasts or keeps coming back becomes worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Escalation {
    /// Open this long and acknowledged by nobody: one step worse. Open this long again: another step.
    pub after: Option<Duration>,
    /// Come back this often: one step worse.
    pub flaps: Option<u32>,
    /// Never worse than this by itself.
    pub up_to: Severity,
}

impl Escalation {
    pub const NEVER: Self = Self { after: None, flaps: None, up_to: Severity::Critical };

    pub const fn after(hours: u64, up_to: Severity) -> Self {
        Self { after: Some(Duration::from_secs(hours * 3600)), flaps: Some(3), up_to }
    }

    pub const fn after_minutes(minutes: u64, up_to: Severity) -> Self {
        Self { after: Some(Duration::from_secs(minutes * 60)), flaps: Some(3), up_to }
    }

    /// How bad it is by now. Somebody who has acknowledged it is at work: time alone makes it no worse.
    pub fn apply(&self, found: Severity, open_for: Duration, flaps: u32, acknowledged: bool) -> Severity {
        let steps_of_time = match self.after {
            Some(after) if !acknowledged && open_for >= after => {
                if open_for >= after.saturating_mul(2) {
                    2
                } else {
                    1
                }
            }
            _ => 0,
        };
        let steps_of_flaps = u32::from(self.flaps.is_some_and(|limit| flaps >= limit));
        let mut severity = found;
        for _ in 0..steps_of_time.max(steps_of_flaps) {
            if severity < self.up_to {
                severity = severity.next();
            }
        }
        severity
    }

    /// How long after its beginning an alert becomes worse next, if it is `open_for` now.
    pub fn next_after(&self, open_for: Duration) -> Option<Duration> {
        let after = self.after?;
        [after, after.saturating_mul(2)].into_iter().find(|at| *at > open_for)
    }
}

/// How long trouble must be gone before its alert is resolved: the more often it came back, the longer.
pub fn quiet_needed(flaps: u32) -> Duration {
    Duration::from_secs(
        60 * match flaps {
            0 => 0,
            1 => 5,
            2 => 15,
            _ => 60,
        },
    )
}

/// Trouble that comes back within this time after its alert was resolved is the same alert again.
pub const SAME_AGAIN: Duration = Duration::from_secs(30 * 60);

#[cfg(test)]
mod tests {
    use super::Severity::{Critical, Info, Warning};
    use super::*;

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(n * 60)
    }

    #[test]
    fn trouble_that_lasts_or_keeps_coming_back_becomes_worse_as_declared() {
        let hourly = Escalation::after(1, Critical);
        let mild = Escalation::after(1, Warning);
        for (rule, found, open_for, flaps, acknowledged, expected) in [
            (hourly, Info, minutes(59), 0, false, Info),
            (hourly, Info, minutes(60), 0, false, Warning),
            (hourly, Info, minutes(120), 0, false, Critical),
            (hourly, Warning, minutes(60), 0, false, Critical),
            (hourly, Critical, minutes(600), 9, false, Critical),
            (hourly, Info, minutes(600), 0, true, Info),
            (hourly, Warning, minutes(1), 2, false, Warning),
            (hourly, Warning, minutes(1), 3, true, Critical),
            (mild, Info, minutes(600), 9, false, Warning),
            (mild, Critical, minutes(0), 0, false, Critical),
            (Escalation::NEVER, Warning, minutes(6000), 99, false, Warning),
        ] {
            assert_eq!(
                rule.apply(found, open_for, flaps, acknowledged),
                expected,
                "{found:?} open for {open_for:?}, {flaps} flaps, acknowledged: {acknowledged}"
            );
        }
    }

    #[test]
    fn the_next_step_of_an_escalation_is_known_beforehand() {
        let hourly = Escalation::after(1, Critical);
        for (open_for, next) in [(0, Some(60)), (60, Some(120)), (61, Some(120)), (120, None)] {
            assert_eq!(hourly.next_after(minutes(open_for)), next.map(minutes), "{open_for}");
        }
        assert_eq!(Escalation::NEVER.next_after(minutes(5)), None);
    }

    #[test]
    fn the_more_often_trouble_comes_back_the_longer_it_must_be_gone() {
        let waits: Vec<_> = (0..6).map(quiet_needed).collect();
        assert_eq!(waits[0], Duration::ZERO);
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
        assert_eq!(waits[5], minutes(60));
    }

    #[test]
    fn a_severity_survives_its_text() {
        for severity in Severity::ALL {
            assert_eq!(severity.as_str().parse::<Severity>().unwrap(), severity);
        }
        assert_eq!("loud".parse::<Severity>().unwrap_err().field(), Some("severity"));
    }
}
