//! What is wrong with a file of the workspace, in words its author can act on.
//!
//! Always true here: a problem names the file relative to its root, and the line wherever the parser knew it.

use serde::Serialize;

/// Whether the file could be used at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file (or the item in it) is not in force; the last good version is, if there was one.
    Error,
    /// It is in force, but not entirely as written.
    Warning,
}

impl Severity {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing to correct.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    pub file: String,
    /// 1-based; 0 when unknown.
    pub line: u32,
    pub reason: String,
    pub severity: Severity,
}

impl Problem {
    pub fn error(file: impl Into<String>, line: u32, reason: impl Into<String>) -> Self {
        Self { file: file.into(), line, reason: clip(reason.into()), severity: Severity::Error }
    }

    pub fn warning(file: impl Into<String>, line: u32, reason: impl Into<String>) -> Self {
        Self { file: file.into(), line, reason: clip(reason.into()), severity: Severity::Warning }
    }
}

/// A reason may quote the file; a hostile file must not make the list of problems large.
fn clip(reason: String) -> String {
    const LONGEST: usize = 400;
    let mut clean: String = reason.chars().filter(|c| !c.is_control() || *c == ' ').take(LONGEST + 1).collect();
    if clean.chars().count() > LONGEST {
        clean = clean.chars().take(LONGEST).chain(['…']).collect();
    }
    clean
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.reason)
    }
}
