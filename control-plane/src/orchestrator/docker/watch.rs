//! Changes as the engine reports them. A broken stream is taken up again from the moment of its last event; when the engine
//! stays away, the stream ends and the caller lists anew.

use super::DockerBackend;
use super::error::{About, map};
use crate::domain::TenantId;
use crate::orchestrator::{Change, label};
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use nexaas_common::backoff::Backoff;
use std::time::Duration;

const RETRY: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(2));
const ATTEMPTS: u32 = 4;
/// What can change how a runner is; `exec_*` and the like would only be noise.
const ACTIONS: [&str; 6] = ["start", "die", "oom", "destroy", "pause", "unpause"];

pub(super) fn changes(backend: DockerBackend) -> BoxStream<'static, Change> {
    async_stream::stream! {
        let mut since: Option<String> = None;
        let mut failures = 0;
        while failures < ATTEMPTS {
            match backend.0.client.docker().await {
                Ok(docker) => {
                    let mut filters = backend.filter();
                    filters.insert("type".to_owned(), vec!["container".to_owned()]);
                    filters.insert("event".to_owned(), ACTIONS.iter().map(|a| (*a).to_owned()).collect());
                    let options = EventsOptions { since: since.clone(), until: None, filters: Some(filters) };
                    let mut events = Box::pin(docker.events(Some(options)));
                    while let Some(event) = events.next().await {
                        match event {
                            Ok(event) => {
                                failures = 0;
                                since = moment(&event).or(since);
                                if let Some(tenant_id) = tenant(&event) {
                                    yield Change { tenant_id };
                                }
                            }
                            Err(error) => {
                                let error = map("report changes", backend.0.client.host(), About::default(), error);
                                tracing::warn!(error = error.chain(), "the engine's event stream broke");
                                break;
                            }
                        }
                    }
                }
                Err(error) => tracing::warn!(error = error.chain(), "the engine cannot be watched"),
            }
            tokio::time::sleep(RETRY.delay(failures)).await;
            failures += 1;
        }
    }
    .boxed()
}

/// The engine's own clock, so that nothing between two subscriptions is missed.
fn moment(event: &EventMessage) -> Option<String> {
    event.time_nano.map(|n| format!("{}.{:09}", n / 1_000_000_000, n % 1_000_000_000))
}

fn tenant(event: &EventMessage) -> Option<TenantId> {
    event.actor.as_ref()?.attributes.as_ref()?.get(label::TENANT)?.parse().ok()
}
