//! Leading: taking the lock, turning news into passes, and giving the lead up when the lock or the process goes.

use super::{Outcome, Reconciler, Slot};
use crate::domain::TenantId;
use crate::store::leader::Leadership;
use futures::StreamExt as _;
use futures::stream::{BoxStream, SelectAll};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    Wish,
    Hint,
}

/// The tasks of the tenants that have work.
#[derive(Default)]
struct Crew {
    slots: Arc<Mutex<HashMap<TenantId, Arc<Slot>>>>,
    tasks: JoinSet<()>,
}

/// How long passes may take to end when the lead is given up. A verb of the backend is not cut off in the middle.
const HAND_OVER: Duration = Duration::from_secs(20);

impl Reconciler {
    pub(super) async fn run(self, token: CancellationToken) {
        let mut failures = 0;
        while !token.is_cancelled() {
            match self.core.store.try_lead(self.boot).await {
                Ok(Some(leadership)) => {
                    failures = 0;
                    tracing::info!(epoch = leadership.epoch, "this control plane leads");
                    self.leading.store(true, Ordering::Relaxed);
                    self.lead(leadership, &token).await;
                    self.leading.store(false, Ordering::Relaxed);
                }
                Ok(None) => failures = 0,
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(error = %error.chain(), "could not ask for the lead");
                    }
                    failures += 1;
                }
            }
            let _ = token.run_until_cancelled(tokio::time::sleep(self.core.timing.lead)).await;
        }
    }

    async fn lead(&self, mut leadership: Leadership, outer: &CancellationToken) {
        let token = outer.child_token();
        let epoch = leadership.epoch;
        // Registered before the first look, so that nothing falls between.
        let mut intents = self.changes.intents();
        let mut watches: SelectAll<BoxStream<'static, (&'static str, Option<TenantId>)>> = SelectAll::new();
        for (name, backend) in self.core.backends.iter() {
            watches.push(watch(name, backend));
        }
        let mut crew = Crew::default();
        self.kick_all(&mut crew, epoch, &token, News::Wish).await;

        let timing = self.core.timing;
        let every = |period: Duration, first: Duration| {
            let mut timer = interval_at(Instant::now() + first, period);
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            timer
        };
        let mut check = every(timing.lead, timing.lead);
        let mut sweep = every(timing.sweep, timing.sweep);
        let mut health = every(timing.health, timing.health);
        let mut retention = every(Duration::from_secs(3600), Duration::from_secs(60));
        // Side tasks of the leader: one look at everything at a time.
        let mut looks: JoinSet<Vec<TenantId>> = JoinSet::new();
        self.look_for_orphans(&mut looks, &token);
        loop {
            tokio::select! {
                () = outer.cancelled() => break,
                _ = check.tick() => {
                    if let Err(error) = leadership.check().await {
                        tracing::warn!(error = %error.chain(), epoch, "the lead is lost");
                        break;
                    }
                }
                news = intents.recv() => match news {
                    Ok(id) => self.kick(&mut crew, id, epoch, &token, News::Wish),
                    Err(RecvError::Lagged(_)) => self.kick_all(&mut crew, epoch, &token, News::Wish).await,
                    Err(RecvError::Closed) => break,
                },
                Some((name, change)) = watches.next() => match change {
                    Some(id) => self.kick(&mut crew, id, epoch, &token, News::Hint),
                    // The backend's stream ended: news may have been missed from here on.
                    None => {
                        if let Some(backend) = self.core.backends.get(name) {
                            watches.push(Box::pin(again(name, backend.clone())));
                        }
                        self.kick_all(&mut crew, epoch, &token, News::Hint).await;
                    }
                },
                _ = sweep.tick() => {
                    self.kick_all(&mut crew, epoch, &token, News::Hint).await;
                    self.look_for_orphans(&mut looks, &token);
                }
                _ = health.tick(), if looks.is_empty() => self.look_at_health(&mut looks, &token),
                Some(found) = looks.join_next() => {
                    for id in found.unwrap_or_default() {
                        self.kick(&mut crew, id, epoch, &token, News::Hint);
                    }
                }
                _ = retention.tick() => {
                    if let Err(error) = self.core.store.sweep_retention().await {
                        tracing::warn!(error = %error.chain(), "old rows could not be dropped");
                    }
                }
            }
            while crew.tasks.try_join_next().is_some() {}
        }
        token.cancel();
        looks.abort_all();
        let joined = tokio::time::timeout(HAND_OVER, async { while crew.tasks.join_next().await.is_some() {} }).await;
        if joined.is_err() {
            tracing::warn!("passes did not end in time; they are cut off");
            crew.tasks.abort_all();
        }
        // With the connection the lock goes either way.
        let _ = tokio::time::timeout(Duration::from_secs(2), leadership.resign()).await;
    }

    async fn kick_all(&self, crew: &mut Crew, epoch: i64, token: &CancellationToken, news: News) {
        match self.core.store.tenants().await {
            Ok(records) => {
                for record in records {
                    self.kick(crew, record.tenant.id, epoch, token, news);
                }
            }
            Err(error) => {
                tracing::warn!(error = %error.chain(), "the tenants could not be read; the next sweep tries again")
            }
        }
    }

    fn kick(&self, crew: &mut Crew, id: TenantId, epoch: i64, token: &CancellationToken, news: News) {
        let mut slots = crew.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&id) {
            match news {
                News::Wish => slot.wish(),
                News::Hint => slot.hint(),
            }
            return;
        }
        let slot = Arc::new(Slot::default());
        slots.insert(id, slot.clone());
        drop(slots);
        let (this, slots, token) = (self.clone(), crew.slots.clone(), token.clone());
        crew.tasks.spawn(async move { this.attend(id, epoch, &slot, &slots, &token).await });
    }

    /// One tenant's passes, one after the other, until nothing is left to do.
    async fn attend(
        &self,
        id: TenantId,
        epoch: i64,
        slot: &Slot,
        slots: &Mutex<HashMap<TenantId, Arc<Slot>>>,
        token: &CancellationToken,
    ) {
        let mut failures: u32 = 0;
        loop {
            slot.dirty.store(false, Ordering::SeqCst);
            let outcome = {
                let permit = tokio::select! {
                    () = token.cancelled() => return,
                    permit = self.core.permits.acquire() => permit,
                };
                let Ok(_permit) = permit else { return };
                match self.core.pass(id, epoch, slot, token).await {
                    Ok(outcome) => outcome,
                    Err(error) => {
                        tracing::warn!(tenant = %id, error = %error.chain(), "a pass could not be finished");
                        Outcome::Retry
                    }
                }
            };
            if token.is_cancelled() {
                return;
            }
            let pause = match outcome {
                Outcome::Settled => {
                    let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
                    // Under the lock: whoever kicks finds either this task or none.
                    if !slot.dirty.load(Ordering::SeqCst) {
                        slots.remove(&id);
                        return;
                    }
                    failures = 0;
                    continue;
                }
                Outcome::Again => {
                    failures += 1;
                    // At once, but not for ever: something that changes all the time is waited for.
                    if failures < 5 { Duration::ZERO } else { self.core.timing.retry.delay(failures - 5) }
                }
                Outcome::Retry => {
                    failures += 1;
                    self.core.timing.retry.delay(failures - 1)
                }
                Outcome::Slowly => self.core.timing.slow,
                Outcome::After(pause) => pause,
            };
            tokio::select! {
                () = token.cancelled() => return,
                () = slot.wished() => failures = 0,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// A backend's changes, then `None` once when they end.
fn watch(
    name: &'static str,
    backend: &crate::orchestrator::SharedBackend,
) -> BoxStream<'static, (&'static str, Option<TenantId>)> {
    let changes = backend.watch().map(move |change| (name, Some(change.tenant_id)));
    Box::pin(changes.chain(futures::stream::once(async move { (name, None) })))
}

/// Watches again after a pause: a backend that went away takes a while to come back.
fn again(
    name: &'static str,
    backend: crate::orchestrator::SharedBackend,
) -> impl futures::Stream<Item = (&'static str, Option<TenantId>)> + Send + 'static {
    futures::stream::once(async { tokio::time::sleep(Duration::from_secs(1)).await })
        .flat_map(move |()| watch(name, &backend))
}
