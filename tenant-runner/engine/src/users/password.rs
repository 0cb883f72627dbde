//! Password hashes: Argon2id at the recommended strength, on a few blocking threads, the same work whether or not the name exists.

use crate::error::{EngineError, Result};
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use nexaas_common::secret::{ExposeSecret as _, SecretString};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Each hash holds 19 MiB while it is computed.
const AT_ONCE: usize = 2;
const PATIENCE: Duration = Duration::from_secs(10);

fn argon2() -> Result<Argon2<'static>> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|e| EngineError::internal(e.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &str) -> Result<String> {
    let hash: PasswordHash =
        argon2()?.hash_password(password.as_bytes()).map_err(|e| EngineError::internal(e.to_string()))?;
    Ok(hash.to_string())
}

/// Stands in for the hash of an account that does not exist: the same parameters, a salt and an output of the same lengths.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[derive(Debug)]
pub(super) struct Hasher {
    turns: Arc<Semaphore>,
}

impl Hasher {
    pub fn new() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let turn = tokio::time::timeout(PATIENCE, self.turns.clone().acquire_owned())
            .await
            .map_err(|_| EngineError::unavailable("Too many logins at once; try again in a moment"))?
            .map_err(EngineError::internal)?;
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        })
        .await
        .map_err(EngineError::internal)?
    }

    pub async fn hash(&self, password: SecretString) -> Result<String> {
        self.run(move || hash(password.expose_secret())).await
    }

    /// Whether the password belongs to the hash; without a hash, no, after the same work.
    pub async fn verify(&self, password: SecretString, phc: Option<String>) -> Result<bool> {
        let known = phc.is_some();
        let phc = phc.unwrap_or_else(|| NOBODY.to_owned());
        self.run(move || {
            let hash = PasswordHash::new(&phc).map_err(|e| EngineError::internal(e.to_string()))?;
            let right = argon2()?.verify_password(password.expose_secret().as_bytes(), &hash).is_ok();
            Ok(right && known)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_stored_hash_is_argon2id_of_the_required_strength() {
        let hasher = Hasher::new();
        let phc = hasher.hash(SecretString::from("correct horse")).await.unwrap();
        // Whoever does not exist costs the same as whoever does.
        for text in [phc.as_str(), NOBODY] {
            let parsed = PasswordHash::new(text).unwrap();
            assert_eq!(parsed.algorithm.as_str(), "argon2id");
            assert_eq!(parsed.version, Some(0x13));
            assert_eq!(parsed.params.get_decimal("m"), Some(19_456));
            assert_eq!(parsed.params.get_decimal("t"), Some(2));
            assert_eq!(parsed.params.get_decimal("p"), Some(1));
            assert_eq!(parsed.salt.as_ref().map(|s| s.len()), Some(16));
            assert_eq!(parsed.hash.as_ref().map(|h| h.len()), Some(32));
        }
        assert!(hasher.verify(SecretString::from("correct horse"), Some(phc.clone())).await.unwrap());
        assert!(!hasher.verify(SecretString::from("wrong horse"), Some(phc)).await.unwrap());
    }

    #[tokio::test]
    async fn no_password_fits_an_account_that_does_not_exist() {
        let hasher = Hasher::new();
        assert!(!hasher.verify(SecretString::from("any password"), None).await.unwrap());
    }
}
