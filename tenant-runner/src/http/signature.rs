//! Standard Webhooks, the receiving side: `webhook-id`, `webhook-timestamp` and `webhook-signature` prove that whoever
//! called knows the event's secret, that the body is theirs, and that the call is neither old nor a repetition.

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// How far the sender's clock may be off, in seconds.
const TOLERANCE_S: i64 = 300;
/// How many ids are remembered. More calls than this within the tolerance push out the oldest.
const REMEMBERED: usize = 4096;

/// Verifies one call at `now_s` (Unix seconds) and returns its id.
pub fn verify<'a>(secret: &str, headers: &'a HeaderMap, body: &[u8], now_s: i64) -> Result<&'a str, &'static str> {
    let header = |name: &str, why: &'static str| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().map_err(|_| why),
            _ => Err(why),
        }
    };
    let id = header("webhook-id", "webhook-id is required once")?;
    let stamp = header("webhook-timestamp", "webhook-timestamp is required once")?;
    let signatures = header("webhook-signature", "webhook-signature is required once")?;
    if id.is_empty() || id.len() > 256 {
        return Err("webhook-id must have 1 to 256 characters");
    }
    let at: i64 = stamp.parse().map_err(|_| "webhook-timestamp must be Unix seconds")?;
    if now_s.abs_diff(at) > TOLERANCE_S.unsigned_abs() {
        return Err("webhook-timestamp is more than five minutes off");
    }
    let key = STANDARD
        .decode(secret.strip_prefix("whsec_").unwrap_or(secret))
        .ok()
        .filter(|k| (24..=64).contains(&k.len()))
        .ok_or("the event's secret is not whsec_ and base64 of 24 to 64 bytes")?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| "the event's secret cannot be used")?;
    mac.update(id.as_bytes());
    mac.update(b".");
    mac.update(stamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    let valid = signatures
        .split(' ')
        .filter_map(|s| s.strip_prefix("v1,"))
        .filter_map(|s| STANDARD.decode(s).ok())
        .any(|given| mac.clone().verify_slice(&given).is_ok());
    if valid { Ok(id) } else { Err("webhook-signature does not fit") }
}

/// The ids of recent calls. Kept in memory: a repetition across a restart is caught by its age alone.
#[derive(Debug, Default)]
pub struct Seen(Mutex<VecDeque<(i64, String)>>);

impl Seen {
    /// Notes a call; false when it was noted before.
    pub fn first(&self, event: &str, id: &str, now_s: i64) -> bool {
        let key = format!("{event}\n{id}");
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while seen.front().is_some_and(|(at, _)| now_s - at > 2 * TOLERANCE_S) || seen.len() >= REMEMBERED {
            seen.pop_front();
        }
        if seen.iter().any(|(_, known)| *known == key) {
            return false;
        }
        seen.push_back((now_s, key));
        true
    }

    /// Forgets a call whose effect failed, so that the sender may try again.
    pub fn forget(&self, event: &str, id: &str) {
        let key = format!("{event}\n{id}");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(_, known)| *known != key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn signed(id: &str, at: i64, body: &[u8]) -> HeaderMap {
        let key = STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{id}.{at}.").as_bytes());
        mac.update(body);
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", HeaderValue::from_str(id).unwrap());
        headers.insert("webhook-timestamp", HeaderValue::from(at));
        headers.insert("webhook-signature", HeaderValue::from_str(&format!("v2,x v1,AAAA v1,{signature}")).unwrap());
        headers
    }

    #[test]
    fn a_signature_covers_id_time_and_body() {
        let now = 1_700_000_000;
        let headers = signed("msg_1", now, b"{}");
        assert_eq!(verify(SECRET, &headers, b"{}", now), Ok("msg_1"));
        assert!(verify(SECRET, &headers, b"{} ", now).is_err());
        assert!(verify("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", &headers, b"{}", now).is_err());
        let mut other = headers.clone();
        other.insert("webhook-id", HeaderValue::from_static("msg_2"));
        assert!(verify(SECRET, &other, b"{}", now).is_err());
        assert!(verify(SECRET, &HeaderMap::new(), b"{}", now).is_err());
    }

    #[test]
    fn an_old_or_future_call_is_refused() {
        let headers = signed("msg_1", 1_700_000_000, b"");
        assert!(verify(SECRET, &headers, b"", 1_700_000_301).is_err());
        assert!(verify(SECRET, &headers, b"", 1_699_999_699).is_err());
        assert!(verify(SECRET, &headers, b"", i64::MIN).is_err());
    }

    #[test]
    fn a_weak_secret_verifies_nothing() {
        let headers = signed("msg_1", 1_700_000_000, b"");
        assert!(verify("whsec_YWJj", &headers, b"", 1_700_000_000).is_err());
    }

    #[test]
    fn a_repetition_is_noticed_until_it_is_forgotten() {
        let seen = Seen::default();
        assert!(seen.first("e", "1", 0));
        assert!(!seen.first("e", "1", 10));
        assert!(seen.first("f", "1", 10));
        seen.forget("e", "1");
        assert!(seen.first("e", "1", 10));
        assert!(seen.first("f", "1", 2000), "the memory is bounded in time");
    }
}
