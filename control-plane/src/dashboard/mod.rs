//! A client's dashboard: pages and widgets drawn here, data fetched from that client's runner with the user's own token.
//!
//! Always true: the tenant comes from the host (the edge puts it into the request) and the user from the cookie, never from a
//! path or a body; every route of [`private_routes`] is behind the session; a runner that is down costs a widget, not the page.

mod account;
mod actions;
mod assets;
mod chat;
mod describe;
mod failure;
mod pages;
mod partials;
mod session;
mod shell;
mod stream;
mod widgets;
mod workspace;

#[cfg(test)]
mod tests;

use crate::domain::tenant::Tenant;
use crate::error::Result;
use crate::http::{PublicUrl, harden};
use crate::runner_client::RunnerClients;
use axum::Router;
use axum::middleware;
use axum::routing::{get, post};
use nexaas_common::clock::SharedClock;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tonic::transport::Channel;

/// Where a tenant's runner is reached.
pub trait TenantChannels: Send + Sync + std::fmt::Debug {
    fn channel(&self, tenant: &Tenant) -> Result<Channel>;
}

impl TenantChannels for RunnerClients {
    fn channel(&self, tenant: &Tenant) -> Result<Channel> {
        RunnerClients::channel(self, tenant)
    }
}

/// Pages that are open in browsers at the same time, over all tenants; each holds one stream.
const MAX_STREAMS: usize = 4096;

/// What the dashboard needs from the rest of the control plane.
#[derive(Debug, Clone)]
pub struct DashboardDeps {
    pub channels: Arc<dyn TenantChannels>,
    pub public: PublicUrl,
    pub clock: SharedClock,
}

#[derive(Debug, Clone)]
struct AppState {
    channels: Arc<dyn TenantChannels>,
    cookie_secure: bool,
    clock: SharedClock,
    streams: Arc<Semaphore>,
}

/// The dashboard's router. Requests must carry [`crate::http::TenantContext`].
pub fn router(deps: DashboardDeps) -> Router {
    let state = AppState {
        channels: deps.channels,
        cookie_secure: deps.public.cookie_secure,
        clock: deps.clock,
        streams: Arc::new(Semaphore::new(MAX_STREAMS)),
    };
    let private = private_routes().route_layer(middleware::from_fn_with_state(state.clone(), session::require));
    let app = Router::new()
        .merge(public_routes())
        .merge(private)
        .fallback(failure::not_found)
        .layer(middleware::from_fn(failure::draw))
        .with_state(state);
    harden(app, &deps.public)
}

/// Answered without a session.
fn public_routes() -> Router<AppState> {
    Router::new()
        .route("/login", get(account::login_form).post(account::login))
        .route("/register", get(account::register_form).post(account::register))
        .route("/logout", post(account::logout))
        .route("/-/assets/{name}", get(assets::asset))
}

/// Answered with a session only.
fn private_routes() -> Router<AppState> {
    Router::new()
        .route("/", get(pages::home))
        .route("/p/{perspective}", get(pages::perspective))
        .route("/p/{perspective}/{page}", get(pages::page))
        .route("/workspace", get(pages::overview))
        .route("/workspace/queue", get(pages::queue))
        .route("/workspace/agents", get(workspace::agents))
        .route("/workspace/agents/{name}", get(workspace::agent))
        .route("/workspace/skills", get(workspace::skills))
        .route("/workspace/skills/{name}", get(workspace::skill))
        .route("/workspace/registries", get(workspace::registries))
        .route("/workspace/registries/{name}", get(workspace::registry))
        .route("/workspace/events", get(workspace::events))
        .route("/workspace/jobs/{id}", get(workspace::job))
        .route("/workspace/problems", get(workspace::problems))
        .route("/-/partial/widget/{perspective}/{page}/{index}", get(partials::widget))
        .route("/-/partial/page/{perspective}/{page}", get(partials::grid))
        .route("/-/partial/problems", get(partials::problems))
        .route("/-/partial/events", get(partials::events))
        .route("/-/partial/job/{id}", get(partials::job))
        .route("/-/stream/bus", get(stream::bus))
        .route("/-/stream/chat/{session}", get(chat::stream))
        .route("/-/chat", post(chat::send))
        .route("/-/action/{perspective}/{page}/{widget}/{index}", post(actions::quick_action))
        .route("/-/skill/{name}/run", post(actions::run_skill))
        .route("/-/event/{id}/trigger", post(actions::trigger_event))
        .route("/-/job/{id}/cancel", post(actions::cancel_job))
        .route("/-/job/{id}/retry", post(actions::retry_job))
}
