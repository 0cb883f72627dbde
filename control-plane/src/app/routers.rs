//! The pages and the API, each behind the rules that hold for all of them.

use crate::console;
use crate::dashboard::{self, DashboardDeps};
use crate::http::PublicUrl;
use crate::runner_client::RunnerClients;
use crate::service::Services;
use axum::Router;
use std::sync::Arc;

/// What answers on the console's host, and what answers on a tenant's.
pub fn routers(services: &Services, clients: &RunnerClients, public: &PublicUrl) -> (Router, Router) {
    let console = console::router(services.clone());
    let tenant = dashboard::router(DashboardDeps {
        channels: Arc::new(clients.clone()),
        public: public.clone(),
        clock: services.clock.clone(),
    });
    (console, tenant)
}
