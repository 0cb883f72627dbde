//! The signature of the Standard Webhooks convention, for calls that come and calls that go: HMAC-SHA256 over
//! `id.timestamp.body`. Which secrets are good enough is decided where they are set.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Before the base64 of a secret.
pub const PREFIX: &str = "whsec_";

/// The key that a secret stands for: the base64 of 24 to 64 bytes, after `whsec_` or alone.
pub fn key(secret: &str) -> Option<Vec<u8>> {
    let key = STANDARD.decode(secret.strip_prefix(PREFIX).unwrap_or(secret)).ok()?;
    (24..=64).contains(&key.len()).then_some(key)
}

/// The value of `webhook-signature`; none, if the key cannot be used.
pub fn sign(key: &[u8], id: &str, stamp: &str, body: &[u8]) -> Option<String> {
    let mac = mac(key, id, stamp, body)?;
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

/// Whether one of `signatures`, separated by spaces, is right. Takes a time that does not depend on where one differs.
pub fn verify(key: &[u8], id: &str, stamp: &str, body: &[u8], signatures: &str) -> bool {
    let Some(mac) = mac(key, id, stamp, body) else { return false };
    signatures
        .split(' ')
        .filter_map(|signature| signature.strip_prefix("v1,"))
        .filter_map(|signature| STANDARD.decode(signature).ok())
        .any(|given| mac.clone().verify_slice(&given).is_ok())
}

fn mac(key: &[u8], id: &str, stamp: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    for part in [id.as_bytes(), b".", stamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    /// The example of the Standard Webhooks specification's libraries.
    #[test]
    fn a_signature_is_the_one_of_the_standards_example() {
        let (key, body) = (key(SECRET).unwrap(), br#"{"test": 2432232314}"#);
        let signature = sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body).unwrap();
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(verify(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body, &format!("v2,x {signature}")));
        assert!(!verify(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265331", body, &signature));
    }

    #[test]
    fn a_weak_secret_is_no_key() {
        for weak in ["", "secret", "whsec_", "whsec_YWJj", "whsec_%%%"] {
            assert_eq!(key(weak), None, "{weak}");
        }
    }
}
