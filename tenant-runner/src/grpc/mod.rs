//! The same runner over gRPC, for the control plane alone: it exists only behind mutual TLS. Prost types are converted here,
//! one file per service, and go no further. Every call needs a caller unless `OPEN` names it; messages are capped; there is
//! no reflection.

mod accounts;
mod chat;
mod control;
mod convert;
mod events;
mod guard;
mod health;
mod ops;
mod queue;
mod status;
mod workspace;

pub use guard::OPEN;

use crate::app::App;
use axum::Router;
use axum::middleware::from_fn_with_state;
use nexaas_proto::MAX_MESSAGE_BYTES;
use nexaas_proto::runner::v1 as wire;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

/// One service's implementation; each file adds the trait it implements.
#[derive(Clone)]
struct Service {
    app: App,
}

/// Every service, behind its guard.
pub fn router(app: &App) -> Router {
    let service = Service { app: app.clone() };
    macro_rules! capped {
        ($server:path) => {{
            use $server as Server;
            Server::new(service.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES)
        }};
    }
    Routes::from(Router::new())
        .add_service(capped!(wire::control_server::ControlServer))
        .add_service(capped!(wire::accounts_server::AccountsServer))
        .add_service(capped!(wire::workspace_server::WorkspaceServer))
        .add_service(capped!(wire::events_server::EventsServer))
        .add_service(capped!(wire::queue_server::QueueServer))
        .add_service(capped!(wire::chat_server::ChatServer))
        .add_service(capped!(wire::ops_server::OpsServer))
        .add_service(HealthServer::new(health::Health { app: app.clone() }))
        .into_axum_router()
        .layer(from_fn_with_state(app.clone(), guard::enforce))
}
