//! gRPC's own health protocol, answered by the engine itself rather than from a table somebody must remember to update.

use crate::app::App;
use futures::stream::BoxStream;
use std::time::Duration;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// How often a watcher's view is renewed: whether a disk still takes writes can only be found out by trying.
const RENEW: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct Health {
    pub app: App,
}

impl Health {
    async fn status(&self) -> ServingStatus {
        if self.app.draining().is_cancelled() {
            return ServingStatus::NotServing;
        }
        match tokio::time::timeout(Duration::from_secs(2), self.app.engine().healthy()).await {
            Ok(Ok(())) => ServingStatus::Serving,
            Ok(Err(_)) | Err(_) => ServingStatus::NotServing,
        }
    }
}

fn known(service: &str) -> Result<(), Status> {
    if service.is_empty() || service.starts_with("nexaas.runner.v1.") {
        Ok(())
    } else {
        Err(Status::not_found("no such service here"))
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        known(&request.get_ref().service)?;
        Ok(Response::new(HealthCheckResponse { status: self.status().await.into() }))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        known(&request.get_ref().service)?;
        let this = self.clone();
        let stream = async_stream::stream! {
            let mut last = None;
            loop {
                let status = this.status().await;
                if last.replace(status) != Some(status) {
                    yield Ok(HealthCheckResponse { status: status.into() });
                }
                tokio::select! {
                    () = this.app.draining().cancelled() => {
                        yield Ok(HealthCheckResponse { status: ServingStatus::NotServing.into() });
                        return;
                    }
                    () = tokio::time::sleep(RENEW) => {}
                }
            }
        };
        Ok(Response::new(Box::pin(stream)))
    }
}
