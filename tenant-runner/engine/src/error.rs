//! The engine's one error. It knows no transport: HTTP and gRPC map the kind to their own codes. The public message helps
//! whoever asked; the source is for the log and never leaves the process.

use std::fmt;

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What went wrong, in the terms of whoever must act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The request breaks a rule; `field` names what to correct.
    Invalid { field: String },
    /// Nothing of that name.
    NotFound,
    /// The name is taken, or the state changed meanwhile.
    Conflict,
    /// No valid credentials.
    Unauthenticated,
    /// Valid credentials, but not for this.
    Forbidden,
    /// Too many tries; come back after so many seconds.
    RateLimited { retry_after_s: u64 },
    /// Something needed does not answer, or is full.
    Unavailable,
    /// A defect, or an answer nobody expected.
    Internal,
}

#[derive(Debug)]
pub struct EngineError {
    pub kind: Kind,
    message: String,
    source: Option<Source>,
}

pub type Result<T, E = EngineError> = std::result::Result<T, E>;

impl EngineError {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }
    /// `rule` continues the sentence that the field's name begins: `must be …`. A name that could not be seen is quoted.
    pub fn invalid(field: impl Into<String>, rule: impl fmt::Display) -> Self {
        let mut field = field.into();
        if field.trim().is_empty() {
            field = format!("{field:?}");
        }
        let message = format!("{field} {rule}");
        Self::new(Kind::Invalid { field }, message)
    }
    pub fn not_found(what: impl fmt::Display) -> Self {
        Self::new(Kind::NotFound, format!("{what} does not exist"))
    }
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(Kind::Unauthenticated, message)
    }
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(Kind::Forbidden, message)
    }
    pub fn rate_limited(retry_after_s: u64, message: impl Into<String>) -> Self {
        Self::new(Kind::RateLimited { retry_after_s }, message)
    }
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }
    pub fn internal(source: impl Into<Source>) -> Self {
        Self::new(Kind::Internal, "Something went wrong on our side; the log has the details").with_source(source)
    }
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }
    /// The message for the caller.
    pub fn public(&self) -> &str {
        &self.message
    }
    /// The field at fault, when there is one.
    pub fn field(&self) -> Option<&str> {
        match &self.kind {
            Kind::Invalid { field } => Some(field),
            _ => None,
        }
    }
    /// The whole chain, for the log only.
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut next: Option<&(dyn std::error::Error + 'static)> = self.source.as_deref().map(|s| s as _);
        while let Some(error) = next {
            text.push_str(": ");
            text.push_str(&error.to_string());
            next = error.source();
        }
        text
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EngineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as _)
    }
}

/// A failed statement is our defect, unless the database itself cannot work just now.
impl From<rusqlite::Error> for EngineError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        match error.sqlite_error_code() {
            Some(Code::DiskFull) => {
                Self::unavailable("The disk is full: nothing can be stored until there is space").with_source(error)
            }
            Some(
                Code::DatabaseBusy
                | Code::DatabaseLocked
                | Code::SystemIoFailure
                | Code::ReadOnly
                | Code::CannotOpen
                | Code::DatabaseCorrupt
                | Code::NotADatabase
                | Code::OutOfMemory,
            ) => Self::unavailable("The database cannot be used at the moment").with_source(error),
            _ => Self::internal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_in_the_chain_but_not_in_the_public_message() {
        let error = EngineError::internal(std::io::Error::other("secret path"));
        assert!(!error.public().contains("secret path"));
        assert!(error.chain().ends_with(": secret path"));
    }

    #[test]
    fn an_invalid_field_is_named() {
        let error = EngineError::invalid("condition_expr", "must be a cron expression");
        assert_eq!(error.field(), Some("condition_expr"));
        assert_eq!(error.public(), "condition_expr must be a cron expression");
        let unseen = EngineError::invalid("", "is not a field of a job");
        assert_eq!((unseen.field(), unseen.public()), (Some("\"\""), "\"\" is not a field of a job"));
    }
}
