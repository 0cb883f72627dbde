//! The one timer: it sleeps until the earliest due time, and wakes before that only when an event changes or somebody sets
//! the machine's clock. With nothing planned it never wakes.

use crate::event::Events;
use nexaas_common::backoff::Backoff;
use nexaas_common::clock::SharedClock;
use nexaas_common::task::{OnExit, Supervisor};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));

/// Starts it on `supervisor`, with what watches the bus for events that wait for facts.
pub fn start(events: Events, clock: SharedClock, supervisor: &Supervisor) {
    crate::event::watch::start(events.clone(), supervisor);
    supervisor.spawn("scheduler", OnExit::Shutdown, |token| run(events, clock, token));
}

async fn run(events: Events, clock: SharedClock, token: CancellationToken) {
    let mut changed = events.changed().listen();
    let mut failures = 0;
    loop {
        // Marked as seen before looking, so that what changes meanwhile is not missed.
        changed.borrow_and_update();
        let wait = match events.tick().await {
            Ok(tick) => {
                failures = 0;
                tick.next.map(|next| (next - clock.now()).to_std().unwrap_or_default())
            }
            Err(error) => {
                tracing::error!(error = error.chain(), "the scheduler cannot look at what is due");
                failures += 1;
                Some(RETRY.delay(failures - 1))
            }
        };
        let sleep = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = token.cancelled() => return,
            Ok(()) = changed.changed() => {}
            () = sleep => {}
        }
    }
}
