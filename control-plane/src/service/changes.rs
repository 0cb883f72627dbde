//! News from the database: which tenant changed. One connection listens for the whole process and everybody else
//! subscribes here. After a lost connection every tenant counts as changed, because news may have been missed.

use crate::domain::TenantId;
use crate::store::{Store, from_sqlx};
use nexaas_common::backoff::Backoff;
use nexaas_common::task::{OnExit, Supervisor};
use sqlx::postgres::PgListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// Slow subscribers lose the oldest news and are told so; they then look at everything.
const BACKLOG: usize = 1024;

#[derive(Debug, Clone)]
pub struct Changes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Any change of a tenant's row, leases, operations or events.
    any: broadcast::Sender<TenantId>,
    /// Changes that are work for the reconciler.
    intent: broadcast::Sender<TenantId>,
}

impl Default for Changes {
    fn default() -> Self {
        Self(Arc::new(Inner { any: broadcast::channel(BACKLOG).0, intent: broadcast::channel(BACKLOG).0 }))
    }
}

impl Changes {
    pub fn any(&self) -> broadcast::Receiver<TenantId> {
        self.0.any.subscribe()
    }
    pub fn intents(&self) -> broadcast::Receiver<TenantId> {
        self.0.intent.subscribe()
    }
    /// Tells this process at once what the database will tell everybody a moment later.
    pub fn nudge(&self, tenant: TenantId) {
        // Nobody listening is fine: the sweep finds it.
        let _ = self.0.intent.send(tenant);
    }

    /// Listens until the supervisor stops.
    pub fn start(&self, store: &Store, supervisor: &Supervisor) {
        let (this, store) = (self.clone(), store.clone());
        supervisor.spawn("changes", OnExit::Shutdown, move |token| async move { this.listen(store, token).await });
    }

    async fn listen(self, store: Store, token: CancellationToken) {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut attempt = 0;
        while !token.is_cancelled() {
            let session = tokio::select! {
                () = token.cancelled() => return,
                ended = self.session(&store, &mut attempt) => ended,
            };
            if let Err(error) = session {
                tracing::warn!(error = %from_sqlx(error).chain(), "lost the database's notifications; listening again");
            }
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(backoff.delay(attempt)) => attempt += 1,
            }
        }
    }

    async fn session(&self, store: &Store, attempt: &mut u32) -> Result<(), sqlx::Error> {
        let mut listener = PgListener::connect_with(store.pool()).await?;
        listener.listen_all(["nexaas_change", "nexaas_intent"]).await?;
        // Registered first, then looked: nothing falls between.
        self.everything(store).await;
        *attempt = 0;
        loop {
            match listener.try_recv().await? {
                Some(news) => {
                    if let Ok(id) = news.payload().parse::<TenantId>() {
                        let sender = if news.channel() == "nexaas_intent" { &self.0.intent } else { &self.0.any };
                        let _ = sender.send(id);
                    }
                }
                None => self.everything(store).await,
            }
        }
    }

    async fn everything(&self, store: &Store) {
        match store.tenants().await {
            Ok(records) => {
                for record in records {
                    let _ = self.0.any.send(record.tenant.id);
                    let _ = self.0.intent.send(record.tenant.id);
                }
            }
            Err(error) => tracing::warn!(error = %error.chain(), "could not read the tenants after reconnecting"),
        }
    }
}
