//! The control plane. Dependencies point one way: `cli` → `app` → (`edge`, `console`, `api`, `dashboard`) → `service` /
//! `reconcile` → `store` / `orchestrator` / `runner_client` → `domain`.
//!
//! Always true: SQL lives in `store`, the container engine in `orchestrator::docker`, wire types in `runner_client`.

pub mod api;
pub mod app;
pub mod cipher;
pub mod cli;
pub mod config;
pub mod console;
pub mod dashboard;
pub mod domain;
pub mod edge;
pub mod error;
pub mod http;
pub mod orchestrator;
pub mod pki;
pub mod postgres;
pub mod reconcile;
pub mod runner_client;
pub mod service;
pub mod store;

#[cfg(test)]
mod testing;
