//! Tenants' secrets at rest: XChaCha20-Poly1305 under the installation's master key.
//!
//! Always true: a sealed value opens only for the tenant and the name it was sealed for; moved to another row it is refused.

use crate::domain::TenantId;
use crate::error::{Error, Result};
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use nexaas_common::secret::{ExposeSecret as _, SecretString};

const NONCE: usize = 24;
/// The layout of what follows; lets a later layout live beside this one.
const VERSION: u8 = 1;

#[derive(Clone)]
pub struct Cipher(XChaCha20Poly1305);

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher([REDACTED])")
    }
}

fn associated(tenant: TenantId, name: &str) -> Vec<u8> {
    // The id has a fixed length, so tenant and name cannot be cut differently.
    let mut data = tenant.uuid().as_bytes().to_vec();
    data.push(0);
    data.extend_from_slice(name.as_bytes());
    data
}

impl Cipher {
    pub fn new(key: &[u8; 32]) -> Self {
        Self(XChaCha20Poly1305::new(key.into()))
    }

    pub fn seal(&self, tenant: TenantId, name: &str, value: &SecretString) -> Result<Vec<u8>> {
        let nonce: [u8; NONCE] = rand::random();
        let aad = associated(tenant, name);
        let payload = Payload { msg: value.expose_secret().as_bytes(), aad: &aad };
        let sealed = self
            .0
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| Error::internal("a secret could not be sealed"))?;
        let mut out = Vec::with_capacity(1 + NONCE + sealed.len());
        out.push(VERSION);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    pub fn open(&self, tenant: TenantId, name: &str, sealed: &[u8]) -> Result<SecretString> {
        let refused =
            || Error::internal(format!("secret {name} of tenant {tenant} does not open with this master key"));
        let (version, rest) = sealed.split_first().ok_or_else(refused)?;
        if *version != VERSION || rest.len() < NONCE {
            return Err(refused());
        }
        let (nonce, text) = rest.split_at(NONCE);
        let nonce: [u8; NONCE] = nonce.try_into().map_err(|_| refused())?;
        let aad = associated(tenant, name);
        let plain = self.0.decrypt(&XNonce::from(nonce), Payload { msg: text, aad: &aad }).map_err(|_| refused())?;
        String::from_utf8(plain).map(SecretString::from).map_err(|_| refused())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_sealed_opens_for_its_tenant_and_name_only(text in "\\PC{0,200}") {
            let cipher = Cipher::new(&[7; 32]);
            let (tenant, other) = (TenantId::generate(), TenantId::generate());
            let sealed = cipher.seal(tenant, "API_KEY", &SecretString::from(text.clone())).unwrap();
            let opened = cipher.open(tenant, "API_KEY", &sealed).unwrap();
            prop_assert_eq!(opened.expose_secret(), text.as_str());
            prop_assert!(cipher.open(other, "API_KEY", &sealed).is_err());
            prop_assert!(cipher.open(tenant, "API_KEY2", &sealed).is_err());
            prop_assert!(Cipher::new(&[8; 32]).open(tenant, "API_KEY", &sealed).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(Cipher::new(&[7; 32]).open(TenantId::generate(), "A", &bytes).is_err());
        }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let cipher = Cipher::new(&[7; 32]);
        let tenant = TenantId::generate();
        let sealed = cipher.seal(tenant, "A", &SecretString::from("value".to_owned())).unwrap();
        for i in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[i] ^= 1;
            assert!(cipher.open(tenant, "A", &bent).is_err(), "byte {i}");
        }
    }
}
