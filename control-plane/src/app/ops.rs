//! Metrics and health on an address of their own. `/healthz`: this process works; `/readyz`: it can serve now.

use crate::reconcile::Reconciler;
use crate::store::Store;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use nexaas_common::task::{Ended, Supervisor};

#[derive(Clone)]
pub struct Ops {
    pub metrics: PrometheusHandle,
    pub supervisor: Supervisor,
    pub store: Store,
    pub reconciler: Reconciler,
}

pub fn router(ops: Ops) -> Router {
    Router::new()
        .route(
            "/metrics",
            get(async |State(ops): State<Ops>| {
                metrics::gauge!("nexaas_leads").set(if ops.reconciler.leads() { 1.0 } else { 0.0 });
                ops.metrics.render()
            }),
        )
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(ops)
}

async fn healthz(State(ops): State<Ops>) -> impl IntoResponse {
    let dead: Vec<String> =
        ops.supervisor.status().into_iter().filter(|s| s.state != Ended::Running).map(|s| s.name).collect();
    if ops.supervisor.healthy() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not running: {}\n", dead.join(", ")))
    }
}

async fn readyz(State(ops): State<Ops>) -> impl IntoResponse {
    match ops.store.ping().await {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", error.public())),
    }
}
