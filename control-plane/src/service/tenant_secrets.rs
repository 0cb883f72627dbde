//! A tenant's secrets and API key. Values go in and are never shown again; the runner is told anew after each change.

use super::tenants::{TenantService, commit};
use super::{require, validate};
use crate::domain::operator::{Principal, Role};
use crate::domain::{Slug, TenantId};
use crate::error::{Error, Result};
use nexaas_common::secret::{self, ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

const MAX_VALUE: usize = 16 << 10;
const MAX_SECRETS: usize = 100;

impl TenantService {
    async fn live(&self, slug: &Slug) -> Result<TenantId> {
        Ok(self.get(slug).await?.id)
    }

    pub async fn set_secret(&self, by: &Principal, slug: &Slug, name: &str, value: SecretString) -> Result<()> {
        require(by, Role::Operator)?;
        let name = validate::secret_name(name)?;
        let length = value.expose_secret().len();
        if length == 0 || length > MAX_VALUE {
            return Err(Error::invalid("value", format!("must be 1 to {MAX_VALUE} bytes long")));
        }
        if value.expose_secret().contains('\0') {
            return Err(Error::invalid("value", "must not contain a zero byte"));
        }
        let id = self.live(slug).await?;
        let names = self.secret_names(slug).await?;
        if names.len() >= MAX_SECRETS && !names.iter().any(|n| n == name) {
            return Err(Error::invalid(
                "name",
                format!("would be secret number {}; a tenant has at most {MAX_SECRETS}", names.len() + 1),
            ));
        }
        let sealed = self.0.cipher.seal(id, name, &value)?;
        let mut tx = self.0.store.begin().await?;
        self.0.store.put_secret(&mut tx, id, name, &sealed).await?;
        self.0.store.bump_settings(&mut tx, id).await?;
        self.0.store.audit(&mut tx, by, "tenant.secret.set", slug.as_str(), name).await?;
        commit(tx).await?;
        self.0.changes.nudge(id);
        Ok(())
    }

    pub async fn secret_names(&self, slug: &Slug) -> Result<Vec<String>> {
        let id = self.live(slug).await?;
        Ok(self.0.store.secrets_of(id).await?.into_iter().map(|(name, _)| name).collect())
    }

    pub async fn delete_secret(&self, by: &Principal, slug: &Slug, name: &str) -> Result<()> {
        require(by, Role::Operator)?;
        let name = validate::secret_name(name)?;
        let id = self.live(slug).await?;
        let mut tx = self.0.store.begin().await?;
        if !self.0.store.remove_secret(&mut tx, id, name).await? {
            return Err(Error::not_found(format!("secret {name}")));
        }
        self.0.store.bump_settings(&mut tx, id).await?;
        self.0.store.audit(&mut tx, by, "tenant.secret.delete", slug.as_str(), name).await?;
        commit(tx).await?;
        self.0.changes.nudge(id);
        Ok(())
    }

    /// A new API key for the tenant's HTTP API; the one before it ends. Shown once, only its hash is kept.
    pub async fn rotate_api_key(&self, by: &Principal, slug: &Slug) -> Result<SecretString> {
        require(by, Role::Operator)?;
        let id = self.live(slug).await?;
        let key = SecretString::from(format!("nxt_{}", secret::generate(40).expose_secret()));
        let hash = Sha256::digest(key.expose_secret().as_bytes());
        let mut tx = self.0.store.begin().await?;
        self.0.store.set_api_key(&mut tx, id, &hash).await?;
        self.0.store.audit(&mut tx, by, "tenant.api_key.rotate", slug.as_str(), "").await?;
        commit(tx).await?;
        self.0.changes.nudge(id);
        Ok(key)
    }
}
