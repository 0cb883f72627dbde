//! The engine as one tenant meets it: real files, the real database, a real HTTP peer where a model is asked.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking, their helpers too"
)]

mod chat;
mod model;
mod support;
mod users;
mod workspace;
