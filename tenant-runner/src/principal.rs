//! Who calls. A caller is the holder of the tenant's API key, a registered user, or (only over the control plane's
//! certificate) an operator; nobody else passes.

use crate::app::App;
use crate::http::error::ApiError;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use nexaas_common::id::OperatorId;
use nexaas_common::secret::{ExposeSecret as _, SecretString};
use nexaas_engine::users::User;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The subprotocol a browser offers for the chat socket, and the one that carries its token, since it cannot set headers.
pub const CHAT_PROTOCOL: &str = "nexaas.chat.v1";
const TOKEN_PROTOCOL: &str = "nexaas.bearer.";

#[derive(Debug, Clone)]
pub enum Principal {
    ApiKey,
    User(Box<User>),
    Operator(OperatorId),
}

impl Principal {
    pub fn is_admin(&self) -> bool {
        match self {
            Self::ApiKey | Self::Operator(_) => true,
            Self::User(user) => user.is_admin(),
        }
    }

    /// Who it is, for records of who did what.
    pub fn name(&self) -> String {
        match self {
            Self::ApiKey => "api_key".to_owned(),
            Self::User(user) => format!("user:{}", user.username),
            Self::Operator(id) => format!("operator:{id}"),
        }
    }

    /// For calls that only make sense for a person with an account here.
    pub fn user(&self) -> Result<&User, ApiError> {
        match self {
            Self::User(user) => Ok(user),
            Self::ApiKey | Self::Operator(_) => Err(ApiError::forbidden("This needs the token of a user, not a key")),
        }
    }
}

/// What a caller showed, kept to be asked about again while a stream runs. An operator shows nothing but the control
/// plane's certificate.
#[derive(Debug, Clone, Default)]
pub struct Credential(pub Option<SecretString>);

/// Returns when a stream must end: the runner stops, or the credential no longer holds (logged out, expired, key changed).
/// Asking again is the only way to find out, since expiry is a matter of time.
pub async fn stream_end(app: App, credential: Credential) {
    let revoked = async {
        let Some(token) = &credential.0 else { return std::future::pending().await };
        loop {
            tokio::time::sleep(app.recheck()).await;
            // A database that does not answer revokes nothing.
            if matches!(identify(&app, token.expose_secret()).await, Err(e) if e.status() == StatusCode::UNAUTHORIZED) {
                return;
            }
        }
    };
    tokio::select! {
        () = app.draining().cancelled() => {}
        () = revoked => {}
    }
}

/// The bearer credential of a request. Two headers of the same name are no credential.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = only(headers, &header::AUTHORIZATION)?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then(|| token.trim())
}

/// The credential a browser's WebSocket offers as a subprotocol.
pub fn socket_token(headers: &HeaderMap) -> Option<&str> {
    only(headers, &header::SEC_WEBSOCKET_PROTOCOL)?.split(',').find_map(|p| p.trim().strip_prefix(TOKEN_PROTOCOL))
}

pub fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// The caller that `token` stands for.
pub async fn identify(app: &App, token: &str) -> Result<Principal, ApiError> {
    let expected = app.engine().settings().api_key_sha256;
    let given: [u8; 32] = Sha256::digest(token.as_bytes()).into();
    if expected.is_some_and(|expected| bool::from(expected.ct_eq(&given))) {
        return Ok(Principal::ApiKey);
    }
    let user = app.engine().users().authenticate(token).await?;
    Ok(Principal::User(Box::new(user)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn only_one_well_formed_bearer_header_is_a_credential() {
        let mut headers = HeaderMap::new();
        assert_eq!(bearer(&headers), None);
        for (text, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic abc", None),
            ("Bearer ", None),
            ("abc", None),
        ] {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(text));
            assert_eq!(bearer(&headers), token, "{text:?}");
        }
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        headers.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer b"));
        assert_eq!(bearer(&headers), None);
    }

    #[test]
    fn a_socket_may_carry_its_token_as_a_subprotocol() {
        let mut headers = HeaderMap::new();
        headers
            .insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("nexaas.chat.v1, nexaas.bearer.a.b-c_d"));
        assert_eq!(socket_token(&headers), Some("a.b-c_d"));
    }
}
