//! The HTTP API of the original engine: the same paths and field names, one file per resource. Every path is a row of one
//! table (`routes.rs`) that says who may call it; the router is made from that table and from nothing else.

pub mod agents;
pub mod auth;
pub mod bus;
pub mod chat;
pub mod error;
pub mod events;
pub mod extract;
pub mod guard;
pub mod health;
pub mod hooks;
pub mod mcp_catalog;
pub mod metrics;
pub mod openapi;
pub mod ops;
pub mod origin;
pub mod output;
pub mod queue;
pub mod registries;
pub mod routes;
pub mod skills;
pub mod stream;
pub mod usage;
pub mod workspace;
