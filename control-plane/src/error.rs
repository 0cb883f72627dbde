//! The control plane's one error. It is free of any transport: each edge (HTTP, command line) maps the kind to its own form.
//! The public message helps the person it reaches; the source is for the log and is never shown.

use std::fmt;

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What went wrong, in the terms of whoever must act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The request breaks a rule; `field` names what to correct.
    Invalid { field: String },
    /// Nothing of that name, or nothing the caller may see.
    NotFound,
    /// The name or resource is taken, or the state changed meanwhile.
    Conflict,
    /// A precondition (`If-Match`) did not hold.
    PreconditionFailed,
    /// No valid credentials.
    Unauthenticated,
    /// Valid credentials, but not for this.
    Forbidden,
    /// Too many tries; come back after so many seconds.
    RateLimited { retry_after_s: u64 },
    /// A limit of the installation is reached: ports, subnets, memory.
    Exhausted { resource: &'static str },
    /// Something we depend on does not answer: the database, the engine, the runner.
    Unavailable { what: &'static str },
    /// It took longer than its deadline.
    Timeout { what: &'static str },
    /// A defect or an unexpected answer of a dependency.
    Internal,
}

impl Kind {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn retryable(&self) -> bool {
        match self {
            Self::RateLimited { .. } | Self::Unavailable { .. } | Self::Timeout { .. } | Self::Exhausted { .. } => true,
            Self::Invalid { .. }
            | Self::NotFound
            | Self::Conflict
            | Self::PreconditionFailed
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::Internal => false,
        }
    }
}

#[derive(Debug)]
pub struct Error {
    pub kind: Kind,
    message: String,
    source: Option<Source>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }
    pub fn invalid(field: impl Into<String>, rule: impl fmt::Display) -> Self {
        let field = field.into();
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
    pub fn unavailable(what: &'static str, source: impl Into<Source>) -> Self {
        Self::new(Kind::Unavailable { what }, format!("{what} does not answer")).with_source(source)
    }
    pub fn timeout(what: &'static str) -> Self {
        Self::new(Kind::Timeout { what }, format!("{what} did not answer in time"))
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

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as _)
    }
}
