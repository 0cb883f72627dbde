//! One client's runner: the engine behind one port. The binary is a thin shell around this library, so that tests start
//! the same thing in their own process.
//!
//! Always true here: prost types stay in `grpc/`, HTTP types in `http/` and `listener`; a secret never reaches a flag, a
//! log or an answer; every path and every call is closed unless its row in a table says otherwise.

pub mod app;
pub mod cli;
pub mod config;
pub mod grpc;
pub mod http;
pub mod listener;
pub mod monitor;
pub mod principal;
pub mod probe;
pub mod run;
pub mod tls;
