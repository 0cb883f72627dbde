//! The control plane's state in PostgreSQL. Every statement of SQL lives beneath this module, one file per table.
//!
//! Always true: a write of the reconciler carries the generation and the leader's epoch it was decided under and changes
//! nothing when either has moved on; a change of intent and its audit row are one transaction.

pub mod api_tokens;
pub mod audit;
pub mod events;
pub mod idempotency;
pub mod installation;
pub mod leader;
pub mod operations;
pub mod operators;
pub mod ports;
pub mod secrets;
pub mod subnets;
pub mod tenants;

use crate::error::{Error, Kind, Result};
use nexaas_common::clock::SharedClock;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use std::time::Duration;

pub type Tx = sqlx::Transaction<'static, sqlx::Postgres>;

/// What a reconciler's write is fenced by: it applies only while this leader leads and this generation is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    pub epoch: i64,
    pub generation: u64,
}

#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
    clock: SharedClock,
}

static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

impl Store {
    /// Connects and brings the schema up to date. A server that does not answer is refused within seconds.
    pub async fn connect(options: PgConnectOptions, clock: SharedClock) -> Result<Self> {
        let pool = PgPoolOptions::new()
            .max_connections(16)
            .min_connections(2)
            .acquire_timeout(Duration::from_millis(1500))
            .idle_timeout(Duration::from_secs(300))
            .connect_with(options.application_name("nexaas"))
            .await
            .map_err(from_sqlx)?;
        MIGRATOR.run(&pool).await.map_err(|e| {
            Error::new(
                Kind::Unavailable { what: "the database" },
                "the database's schema could not be brought up to date",
            )
            .with_source(e)
        })?;
        Ok(Self { pool, clock })
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }
    pub async fn begin(&self) -> Result<Tx> {
        bounded(self.pool.begin()).await
    }
    /// Whether the database answers now.
    pub async fn ping(&self) -> Result<()> {
        bounded(sqlx::query!("SELECT 1 AS one").fetch_one(&self.pool)).await.map(|_| ())
    }
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Drops what is past its retention, in bounded bites.
    pub async fn sweep_retention(&self) -> Result<()> {
        let now = self.clock.now();
        self.purge_events(now - chrono::Duration::days(30)).await?;
        self.purge_idempotency(now - chrono::Duration::hours(24)).await?;
        self.purge_tokens(now - chrono::Duration::days(7)).await?;
        self.purge_operations(now - chrono::Duration::days(90)).await?;
        self.purge_tenants(now - chrono::Duration::days(30)).await?;
        Ok(())
    }
}

/// How long a single statement may take before the caller hears that the database does not answer.
/// Below two seconds: that is how soon a visitor must hear it while the database is frozen.
const STATEMENT_TIMEOUT: Duration = Duration::from_millis(1800);
/// Housekeeping may look at whole tables, and nobody waits for it.
const HOUSEKEEPING_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs one database call with the time-out that keeps a frozen server from freezing us.
pub async fn bounded<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T> {
    within(STATEMENT_TIMEOUT, work).await
}

/// The same for housekeeping.
async fn patient<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T> {
    within(HOUSEKEEPING_TIMEOUT, work).await
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result.map_err(from_sqlx),
        Err(_) => Err(Error::timeout("the database")),
    }
}

/// The database's failures in the terms of whoever must act.
pub fn from_sqlx(error: sqlx::Error) -> Error {
    match &error {
        sqlx::Error::RowNotFound => Error::not_found("the row").with_source(error),
        sqlx::Error::Database(db) if db.is_unique_violation() => {
            Error::conflict("it already exists or changed meanwhile").with_source(error)
        }
        // 57P: shutting down or starting; 08: connection; 53: out of resources; 40: rolled back, try again.
        sqlx::Error::Database(db)
            if db.code().is_some_and(|c| ["57P", "08", "53", "40"].iter().any(|class| c.starts_with(class))) =>
        {
            Error::unavailable("the database", error)
        }
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_) => Error::unavailable("the database", error),
        _ => Error::internal(error),
    }
}

/// Whether the unique index or constraint `name` was violated.
pub fn violates(error: &sqlx::Error, name: &str) -> bool {
    matches!(error, sqlx::Error::Database(db) if db.constraint() == Some(name))
}

/// Numbers that PostgreSQL holds signed. Values beyond the range are a defect, not an overflow.
pub(crate) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
pub(crate) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
