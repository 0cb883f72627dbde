//! Table `leader`: the epoch that fences every write of a reconciler. The lock itself is an advisory lock held by one
//! connection; it falls with the connection, and the next holder's higher epoch makes the old one's writes void.

use super::{Store, bounded, from_sqlx};
use crate::error::Result;
use nexaas_common::id::BootId;
use sqlx::{Connection as _, PgConnection};

const LOCK: i64 = 7_239_000;

/// Leadership, as long as its connection lives.
#[derive(Debug)]
pub struct Leadership {
    connection: PgConnection,
    pub epoch: i64,
}

impl Store {
    /// Takes the lead if nobody has it.
    pub async fn try_lead(&self, boot: BootId) -> Result<Option<Leadership>> {
        // A connection of its own: the pool may close idle ones, and with the connection the lock would go.
        let mut connection = bounded(PgConnection::connect_with(
            &self.pool().connect_options().as_ref().clone().application_name("nexaas-leader"),
        ))
        .await?;
        let won = bounded(
            sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "won!""#, LOCK).fetch_one(&mut connection),
        )
        .await?;
        if !won {
            // Closing politely frees the server's slot; failing to changes nothing.
            let _ = connection.close().await;
            return Ok(None);
        }
        let now = self.clock().now();
        let epoch = bounded(
            sqlx::query_scalar!(
                "INSERT INTO leader (epoch, holder, since) VALUES (1, $1, $2)
                 ON CONFLICT (singleton) DO UPDATE SET epoch = leader.epoch + 1, holder = $1, since = $2 RETURNING epoch",
                boot.uuid(),
                now
            )
            .fetch_one(&mut connection),
        )
        .await?;
        Ok(Some(Leadership { connection, epoch }))
    }
}

impl Leadership {
    /// Fails when the connection (and with it the lock) is lost.
    pub async fn check(&mut self) -> Result<()> {
        bounded(self.connection.ping()).await
    }

    /// Gives the lead back at once, for whoever waits.
    pub async fn resign(self) -> Result<()> {
        self.connection.close().await.map_err(from_sqlx)
    }
}
