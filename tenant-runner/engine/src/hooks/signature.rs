//! Signed calls, the receiving side. Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature` prove that
//! whoever called knows the event's secret, that the body is theirs, and that the call is not old. GitHub's way proves
//! the first two. Whether a call is a repetition is known by the id that is answered here.
//!
//! Always true here: only what the sender signed is accepted, with the borders between id, time and body where the sender set
//! them.

use crate::standard_webhooks;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::header::HeaderMap;
use sha2::Sha256;

/// How far the sender's clock may be off, in seconds.
const TOLERANCE_S: i64 = 300;
pub const STANDARD_WEBHOOKS: &str = "webhook-signature";
pub const GITHUB: &str = "x-hub-signature-256";

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
    let signatures = header(STANDARD_WEBHOOKS, "webhook-signature is required once")?;
    if id.is_empty() || id.len() > 256 {
        return Err("webhook-id must have 1 to 256 characters");
    }
    // The parts are signed with dots between them; with one in the id, a part of a signed body could pass for the whole.
    if id.contains('.') {
        return Err("webhook-id must not contain a dot");
    }
    let at: i64 = stamp.parse().map_err(|_| "webhook-timestamp must be Unix seconds")?;
    if now_s.abs_diff(at) > TOLERANCE_S.unsigned_abs() {
        return Err("webhook-timestamp is more than five minutes off");
    }
    let key = standard_webhooks::key(secret).ok_or("the event's secret is not whsec_ and base64 of 24 to 64 bytes")?;
    let valid = standard_webhooks::verify(&key, id, stamp, body, signatures);
    if valid { Ok(id) } else { Err("webhook-signature does not fit") }
}

/// Verifies a body signed as GitHub does: `X-Hub-Signature-256: sha256=<hex>` over the body alone. Such a call has no time of
/// its own; its id (`X-GitHub-Delivery`) is not covered, so a repetition is known by the signature.
pub fn verify_github(secret: &str, headers: &HeaderMap, body: &[u8]) -> Result<String, &'static str> {
    let mut values = headers.get_all(GITHUB).iter();
    let given = match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().and_then(|text| text.strip_prefix("sha256=")),
        _ => None,
    };
    let given = given.ok_or("x-hub-signature-256 must be sha256= and hexadecimal digits, once")?;
    let bytes = hex::decode(given).map_err(|_| "x-hub-signature-256 is not hexadecimal")?;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(|_| "the event's secret cannot be used")?;
    mac.update(body);
    mac.verify_slice(&bytes).map_err(|_| "x-hub-signature-256 does not fit")?;
    Ok(format!("github:{}", hex::encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use reqwest::header::HeaderValue;

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
    fn the_borders_between_the_signed_parts_cannot_be_moved() {
        let now = 1_700_000_000;
        let mut headers = signed("msg_1", now, b"{\"said\": \"see .1700000001.evil\"}");
        headers.insert("webhook-id", HeaderValue::from_static("msg_1.1700000000.{\"said\": \"see "));
        headers.insert("webhook-timestamp", HeaderValue::from(now + 1));
        assert_eq!(verify(SECRET, &headers, b"evil\"}", now), Err("webhook-id must not contain a dot"));
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
    fn a_github_signature_covers_the_body() {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"It's a Secret to Everybody").unwrap();
        mac.update(b"Hello, World!");
        let signature = hex::encode(mac.finalize().into_bytes());
        // The example of GitHub's own documentation.
        assert_eq!(signature, "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");
        let mut headers = HeaderMap::new();
        headers.insert(GITHUB, HeaderValue::from_str(&format!("sha256={signature}")).unwrap());
        let verify = |headers: &HeaderMap, body: &[u8]| verify_github("It's a Secret to Everybody", headers, body);
        assert_eq!(verify(&headers, b"Hello, World!"), Ok(format!("github:{signature}")));
        assert!(verify(&headers, b"Hello, World").is_err());
        headers.insert(GITHUB, HeaderValue::from_str(&signature).unwrap());
        assert!(verify(&headers, b"Hello, World!").is_err());
        assert!(verify(&HeaderMap::new(), b"").is_err());
    }
}
