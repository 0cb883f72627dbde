//! Table `installation`: the one id that labels everything this installation makes, whichever control plane makes it.

use super::{Store, bounded};
use crate::domain::InstallId;
use crate::error::Result;

impl Store {
    /// The installation's id; `proposed` becomes it when there is none yet.
    pub async fn install_id(&self, proposed: InstallId) -> Result<InstallId> {
        bounded(
            sqlx::query!(
                "INSERT INTO installation (install_id, created_at) VALUES ($1, $2) ON CONFLICT (singleton) DO NOTHING",
                proposed.uuid(),
                self.clock().now()
            )
            .execute(self.pool()),
        )
        .await?;
        bounded(sqlx::query_scalar!("SELECT install_id FROM installation").fetch_one(self.pool()))
            .await
            .map(InstallId::from_uuid)
    }
}
