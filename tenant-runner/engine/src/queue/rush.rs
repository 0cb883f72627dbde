//! A rush: more slots are due at one moment than one write turns into jobs. First all of them become jobs, and only then is
//! recorded what the first of them came to; else the ends of the first would keep the last waiting.
//!
//! Always true here: nothing is held back for longer than `PATIENCE` after a rush has begun, however long it lasts.

use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

const PATIENCE: Duration = Duration::from_millis(50);

/// Clones share one; it holds when the rush began.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rush(watch::Sender<Option<Instant>>);

/// Ends the rush when dropped.
#[derive(Debug)]
pub(crate) struct Over(Rush);

impl Rush {
    pub fn begin(&self) {
        self.0.send_if_modified(|since| {
            let calm = since.is_none();
            since.get_or_insert_with(Instant::now);
            calm
        });
    }

    /// Over at the latest when what is answered is dropped.
    pub fn over(&self) -> Over {
        Over(self.clone())
    }

    /// Waits until there is no rush, or it has lasted for long.
    pub async fn calm(&self) {
        let mut told = self.0.subscribe();
        loop {
            let since = *told.borrow_and_update();
            let Some(since) = since else { return };
            // The sender lives as long as `self`; either way there is nothing to wait for any more.
            if !matches!(timeout_at(since + PATIENCE, told.changed()).await, Ok(Ok(()))) {
                return;
            }
        }
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        self.0.0.send_if_modified(|since| since.take().is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn who_waits_goes_on_when_the_rush_is_over() {
        let rush = Rush::default();
        assert!(rush.calm().now_or_never().is_some());
        let over = rush.over();
        rush.begin();
        let mut waiting = Box::pin(rush.calm());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(over);
        assert!(waiting.now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_long_rush_holds_nothing_back_for_long() {
        let rush = Rush::default();
        let _over = rush.over();
        rush.begin();
        rush.calm().await;
        rush.begin();
        assert!(rush.calm().now_or_never().is_some(), "it is the same rush");
    }
}
