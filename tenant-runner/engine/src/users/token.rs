//! Tokens: HS256 and nothing else, for one audience, with an expiry and the user's token version.

use crate::error::{EngineError, Result};
use chrono::{DateTime, Duration, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

const VALID_HOURS: i64 = 12;
const LONGEST: usize = 4_096;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    pub sub: String,
    pub aud: String,
    pub iat: i64,
    pub exp: i64,
    pub ver: i64,
}

pub(super) struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    audience: String,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("audience", &self.audience).finish_non_exhaustive()
    }
}

fn refused() -> EngineError {
    EngineError::unauthenticated("The token is not valid")
}

impl Tokens {
    pub fn new(key: &[u8], audience: String) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[&audience]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        // Checked below, by the clock that was handed in.
        validation.validate_exp = false;
        Self { encoding: EncodingKey::from_secret(key), decoding: DecodingKey::from_secret(key), validation, audience }
    }

    pub fn issue(&self, user: &str, version: i64, now: DateTime<Utc>) -> Result<(String, DateTime<Utc>)> {
        let expires = now + Duration::hours(VALID_HOURS);
        let claims = Claims {
            sub: user.to_owned(),
            aud: self.audience.clone(),
            iat: now.timestamp(),
            exp: expires.timestamp(),
            ver: version,
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
            .map_err(EngineError::internal)?;
        Ok((token, expires))
    }

    pub fn verify(&self, token: &str, now: DateTime<Utc>) -> Result<Claims> {
        if token.len() > LONGEST {
            return Err(refused());
        }
        let claims =
            jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation).map_err(|_| refused())?.claims;
        if claims.exp <= now.timestamp() {
            return Err(EngineError::unauthenticated("The session has expired; log in again"));
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    const KEY: &[u8] = b"a key of thirty-two bytes, or so";

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn tokens() -> Tokens {
        Tokens::new(KEY, "tenant-a".to_owned())
    }

    fn unsigned(header: serde_json::Value, claims: &serde_json::Value) -> String {
        let part = |v: &serde_json::Value| URL_SAFE_NO_PAD.encode(v.to_string());
        format!("{}.{}.", part(&header), part(claims))
    }

    #[test]
    fn a_token_is_accepted_until_it_expires() {
        let (token, expires) = tokens().issue("u1", 3, now()).unwrap();
        let claims = tokens().verify(&token, now()).unwrap();
        assert_eq!((claims.sub.as_str(), claims.ver), ("u1", 3));
        tokens().verify(&token, expires - Duration::seconds(1)).unwrap();
        tokens().verify(&token, expires).unwrap_err();
    }

    #[test]
    fn another_tenants_token_is_refused_even_under_the_same_key() {
        let (token, _) = Tokens::new(KEY, "tenant-b".to_owned()).issue("u1", 1, now()).unwrap();
        tokens().verify(&token, now()).unwrap_err();
    }

    #[test]
    fn no_algorithm_and_other_algorithms_are_refused() {
        let claims = json!({"sub": "u1", "aud": "tenant-a", "iat": 0, "exp": 1_900_000_000, "ver": 1});
        for alg in ["none", "None", "NONE", "HS256", ""] {
            tokens().verify(&unsigned(json!({"alg": alg, "typ": "JWT"}), &claims), now()).unwrap_err();
        }
        for alg in [Algorithm::HS384, Algorithm::HS512] {
            let token = jsonwebtoken::encode(&Header::new(alg), &claims, &EncodingKey::from_secret(KEY)).unwrap();
            tokens().verify(&token, now()).unwrap_err();
        }
    }

    #[test]
    fn a_token_without_audience_expiry_or_version_is_refused() {
        for missing in ["aud", "exp", "ver", "sub"] {
            let mut claims = json!({"sub": "u1", "aud": "tenant-a", "iat": 0, "exp": 1_900_000_000, "ver": 1});
            claims.as_object_mut().unwrap().remove(missing);
            let token =
                jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(KEY)).unwrap();
            tokens().verify(&token, now()).unwrap_err();
        }
    }

    #[test]
    fn another_key_a_changed_body_and_garbage_are_refused() {
        let (token, _) = Tokens::new(b"other", "tenant-a".to_owned()).issue("u1", 1, now()).unwrap();
        tokens().verify(&token, now()).unwrap_err();
        let (token, _) = tokens().issue("u1", 1, now()).unwrap();
        let mut parts: Vec<&str> = token.split('.').collect();
        let forged = URL_SAFE_NO_PAD
            .encode(json!({"sub":"u2","aud":"tenant-a","iat":0,"exp":1_900_000_000,"ver":1}).to_string());
        parts[1] = &forged;
        tokens().verify(&parts.join("."), now()).unwrap_err();
        for garbage in ["", ".", "..", "a.b.c", &"x".repeat(10_000)] {
            tokens().verify(garbage, now()).unwrap_err();
        }
    }
}
