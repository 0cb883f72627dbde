//! The people who run the control plane: passwords, sessions, API tokens.
//!
//! Always true: an unknown name costs the same work as a wrong password; a session ends with the operator's token version;
//! a token never gives more than its operator may do today.

use super::tenants::commit;
use super::{require, validate};
use crate::domain::OperatorId;
use crate::domain::operator::{Operator, Principal, Role, Via};
use crate::error::{Error, Kind, Result};
use crate::store::Store;
use crate::store::api_tokens::ApiToken;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use chrono::{DateTime, Duration, Utc};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use nexaas_common::secret::{self, ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, PoisonError, RwLock};
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;

const AUDIENCE: &str = "console";
const SESSION: Duration = Duration::hours(12);
const MAX_PASSWORD: usize = 1024;
const MIN_PASSWORD: usize = 10;
pub const MAX_TOKEN_LIFE: Duration = Duration::days(366);
/// Each hash takes 19 MiB; more at once would let strangers exhaust memory.
const PARALLEL_HASHES: usize = 4;

/// A new session, for the cookie.
#[derive(Debug, Clone)]
pub struct Session {
    pub token: SecretString,
    pub expires: DateTime<Utc>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: OperatorId,
    aud: String,
    ver: i64,
    iat: i64,
    exp: i64,
}

#[derive(Clone)]
pub struct OperatorService(Arc<Inner>);

struct Inner {
    store: Store,
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    /// Verified against when the name is unknown, so that the answer takes as long.
    dummy: String,
    by_address: DefaultKeyedRateLimiter<IpAddr>,
    by_account: DefaultKeyedRateLimiter<String>,
    hashing: Arc<Semaphore>,
    /// The command line of this machine; changes with every start.
    local: RwLock<Option<[u8; 32]>>,
}

impl std::fmt::Debug for OperatorService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OperatorService")
    }
}

fn hasher() -> Result<Argon2<'static>> {
    let params = Params::new(19 * 1024, 2, 1, None).map_err(|e| Error::internal(e.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash_password(password: &SecretString) -> Result<String> {
    let hash =
        hasher()?.hash_password(password.expose_secret().as_bytes()).map_err(|e| Error::internal(e.to_string()))?;
    Ok(hash.to_string())
}

fn verify_password(password: &SecretString, phc: &str) -> bool {
    let Ok(parsed) = PasswordHash::new(phc) else { return false };
    hasher().is_ok_and(|h| h.verify_password(password.expose_secret().as_bytes(), &parsed).is_ok())
}

const fn quota(per_minute: u32, burst: u32) -> Quota {
    let one = NonZeroU32::MIN;
    let per = match NonZeroU32::new(per_minute) {
        Some(n) => n,
        None => one,
    };
    let burst = match NonZeroU32::new(burst) {
        Some(n) => n,
        None => one,
    };
    Quota::per_minute(per).allow_burst(burst)
}

/// An IPv6 customer has a whole /64: it counts as one address.
fn limited_address(remote: IpAddr) -> IpAddr {
    match remote.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
    }
}

impl OperatorService {
    pub fn new(store: Store, session_key: [u8; 32]) -> Result<Self> {
        let mut validation = Validation::new(jsonwebtoken::Algorithm::HS256);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["aud", "exp", "sub"]);
        // Judged by the injected clock below.
        validation.validate_exp = false;
        Ok(Self(Arc::new(Inner {
            store,
            encoding: EncodingKey::from_secret(&session_key),
            decoding: DecodingKey::from_secret(&session_key),
            validation,
            dummy: hash_password(&secret::generate(24))?,
            by_address: RateLimiter::keyed(quota(20, 30)),
            by_account: RateLimiter::keyed(quota(6, 10)),
            hashing: Arc::new(Semaphore::new(PARALLEL_HASHES)),
            local: RwLock::new(None),
        })))
    }

    /// Creates the first operator as owner and answers the password, once; `None` when somebody exists already.
    pub async fn bootstrap(&self, username: &str) -> Result<Option<SecretString>> {
        let username = validate::username(username)?;
        let password = secret::generate(20);
        let hash = self.hash(password.clone()).await?;
        let store = &self.0.store;
        let mut tx = store.begin().await?;
        if store.count_operators(&mut tx).await? > 0 {
            return Ok(None);
        }
        let operator = self.fresh(username, Role::Owner);
        store.insert_operator(&mut tx, &operator, &hash).await?;
        store.audit(&mut tx, &local(), "operator.create", &operator.username, "role=owner first=true").await?;
        commit(tx).await?;
        Ok(Some(password))
    }

    /// A new operator with a generated password, which is answered once.
    pub async fn create(&self, by: &Principal, username: &str, role: Role) -> Result<SecretString> {
        require(by, Role::Owner)?;
        let username = validate::username(username)?;
        let password = secret::generate(20);
        let hash = self.hash(password.clone()).await?;
        let operator = self.fresh(username, role);
        let store = &self.0.store;
        let mut tx = store.begin().await?;
        store.insert_operator(&mut tx, &operator, &hash).await?;
        store.audit(&mut tx, by, "operator.create", &operator.username, &format!("role={}", role.as_str())).await?;
        commit(tx).await?;
        Ok(password)
    }

    /// Gives the operator a new generated password and ends their sessions.
    pub async fn reset_password(&self, by: &Principal, username: &str) -> Result<SecretString> {
        require(by, Role::Owner)?;
        let password = secret::generate(20);
        self.store_password(by, username, &password, "operator.reset-password").await?;
        Ok(password)
    }

    /// Changes the caller's own password; every session ends, this one too.
    pub async fn change_password(&self, by: &Principal, old: &SecretString, new: &SecretString) -> Result<()> {
        let length = new.expose_secret().chars().count();
        if length < MIN_PASSWORD || new.expose_secret().len() > MAX_PASSWORD {
            return Err(Error::invalid(
                "password",
                format!("must be {MIN_PASSWORD} to {MAX_PASSWORD} characters long"),
            ));
        }
        if !self.password_matches(&by.username, old).await? {
            return Err(Error::invalid("old_password", "is not right"));
        }
        self.store_password(by, &by.username, new, "operator.change-password").await
    }

    async fn store_password(
        &self,
        by: &Principal,
        username: &str,
        password: &SecretString,
        action: &str,
    ) -> Result<()> {
        let store = &self.0.store;
        let (operator, _) =
            store.operator_by_name(username).await?.ok_or_else(|| Error::not_found("an operator of that name"))?;
        let hash = self.hash(password.clone()).await?;
        let mut tx = store.begin().await?;
        store.bump_token_version(&mut tx, operator.id, Some(&hash)).await?;
        store.audit(&mut tx, by, action, &operator.username, "").await?;
        commit(tx).await
    }

    fn fresh(&self, username: String, role: Role) -> Operator {
        Operator {
            id: OperatorId::generate(),
            username,
            role,
            token_version: 1,
            created_at: self.0.store.clock().now(),
        }
    }

    pub async fn list(&self, by: &Principal) -> Result<Vec<Operator>> {
        require(by, Role::Owner)?;
        self.0.store.operators().await
    }

    pub async fn login(&self, username: &str, password: &SecretString, remote: IpAddr) -> Result<Session> {
        let limited = |wait: std::time::Duration| {
            let seconds = wait.as_secs() + 1;
            Error::new(
                Kind::RateLimited { retry_after_s: seconds },
                format!("too many attempts to log in; try again in {seconds} s"),
            )
        };
        let now = DefaultClock::default().now();
        self.0.by_address.check_key(&limited_address(remote)).map_err(|e| limited(e.wait_time_from(now)))?;
        let account: String = username.chars().take(64).collect();
        self.0.by_account.check_key(&account).map_err(|e| limited(e.wait_time_from(now)))?;
        self.0.by_address.retain_recent();
        self.0.by_account.retain_recent();

        let matches = self.password_matches(username, password).await?;
        let operator = self.0.store.operator_by_name(&account).await?;
        match (matches, operator) {
            (true, Some((operator, _))) => self.issue(&operator),
            _ => Err(Error::unauthenticated("the username or the password is wrong")),
        }
    }

    async fn password_matches(&self, username: &str, password: &SecretString) -> Result<bool> {
        if password.expose_secret().len() > MAX_PASSWORD {
            return Err(Error::invalid("password", format!("must be at most {MAX_PASSWORD} bytes long")));
        }
        let found = self.0.store.operator_by_name(&username.chars().take(65).collect::<String>()).await?;
        let known = found.is_some();
        let phc = found.map_or_else(|| self.0.dummy.clone(), |(_, phc)| phc);
        let password = password.clone();
        let right = self.blocking(move || Ok(verify_password(&password, &phc))).await?;
        Ok(known && right)
    }

    async fn hash(&self, password: SecretString) -> Result<String> {
        self.blocking(move || hash_password(&password)).await
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let permit = self.0.hashing.clone().acquire_owned().await.map_err(Error::internal)?;
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        })
        .await
        .map_err(Error::internal)?
    }

    fn issue(&self, operator: &Operator) -> Result<Session> {
        let now = self.0.store.clock().now();
        let expires = now + SESSION;
        let claims = Claims {
            sub: operator.id,
            aud: AUDIENCE.to_owned(),
            ver: operator.token_version,
            iat: now.timestamp(),
            exp: expires.timestamp(),
        };
        let token = jsonwebtoken::encode(&Header::new(jsonwebtoken::Algorithm::HS256), &claims, &self.0.encoding)
            .map_err(Error::internal)?;
        Ok(Session { token: SecretString::from(token), expires })
    }

    pub async fn authenticate_session(&self, token: &str) -> Result<Principal> {
        let ended = || Error::unauthenticated("the session has ended; log in again");
        if token.len() > 2048 {
            return Err(ended());
        }
        let claims =
            jsonwebtoken::decode::<Claims>(token, &self.0.decoding, &self.0.validation).map_err(|_| ended())?.claims;
        if claims.exp <= self.0.store.clock().now().timestamp() {
            return Err(ended());
        }
        let operator = self.0.store.operator_by_id(claims.sub).await?.ok_or_else(ended)?;
        if operator.token_version != claims.ver {
            return Err(ended());
        }
        Ok(Principal { operator_id: operator.id, username: operator.username, role: operator.role, via: Via::Session })
    }

    /// Ends every session of the caller.
    pub async fn logout(&self, by: &Principal) -> Result<()> {
        let store = &self.0.store;
        let mut tx = store.begin().await?;
        store.bump_token_version(&mut tx, by.operator_id, None).await?;
        store.audit(&mut tx, by, "operator.logout", &by.username, "").await?;
        commit(tx).await
    }

    /// A token that may do at most `role`, until `expires_in` has passed. The text is answered once.
    pub async fn create_token(
        &self,
        by: &Principal,
        name: &str,
        role: Role,
        expires_in: Duration,
    ) -> Result<(SecretString, ApiToken)> {
        if by.via == Via::Local {
            return Err(Error::forbidden("tokens belong to operators; log in as one"));
        }
        require(by, role)?;
        let name = validate::line("name", name, 80)?;
        if expires_in <= Duration::zero() || expires_in > MAX_TOKEN_LIFE {
            return Err(Error::invalid("expires_in", "must be more than nothing and at most 366 days"));
        }
        let text = SecretString::from(format!("nxo_{}", secret::generate(40).expose_secret()));
        let now = self.0.store.clock().now();
        let token = ApiToken {
            id: uuid::Uuid::now_v7(),
            operator_id: by.operator_id,
            name,
            role,
            created_at: now,
            expires_at: now + expires_in,
            last_used_at: None,
        };
        let store = &self.0.store;
        let mut tx = store.begin().await?;
        store.insert_token(&mut tx, &token, &fingerprint(text.expose_secret())).await?;
        store.audit(&mut tx, by, "token.create", &token.id.to_string(), &format!("role={}", role.as_str())).await?;
        commit(tx).await?;
        Ok((text, token))
    }

    pub async fn authenticate_token(&self, token: &str) -> Result<Principal> {
        let refused = || Error::unauthenticated("the token is not valid or has expired");
        if token.len() > 256 {
            return Err(refused());
        }
        let sha = fingerprint(token);
        let is_local = {
            let local = self.0.local.read().unwrap_or_else(PoisonError::into_inner);
            local.as_ref().is_some_and(|l| bool::from(l.ct_eq(&sha)))
        };
        if is_local {
            return Ok(local());
        }
        let (operator_id, username, own, granted) = self.0.store.token_owner(&sha).await?.ok_or_else(refused)?;
        Ok(Principal { operator_id, username, role: own.min(granted), via: Via::Token })
    }

    pub async fn list_tokens(&self, by: &Principal) -> Result<Vec<ApiToken>> {
        self.0.store.tokens_of(by.operator_id).await
    }

    /// One's own token; another's does not exist.
    pub async fn revoke_token(&self, by: &Principal, id: uuid::Uuid) -> Result<()> {
        let store = &self.0.store;
        let mut tx = store.begin().await?;
        if !store.remove_token(&mut tx, by.operator_id, id).await? {
            return Err(Error::not_found("a token of yours with that id"));
        }
        store.audit(&mut tx, by, "token.revoke", &id.to_string(), "").await?;
        commit(tx).await
    }

    /// The token by which this machine's command line comes in, valid while this process runs.
    pub fn new_local_token(&self) -> SecretString {
        let text = SecretString::from(format!("nxl_{}", secret::generate(40).expose_secret()));
        *self.0.local.write().unwrap_or_else(PoisonError::into_inner) = Some(fingerprint(text.expose_secret()));
        text
    }
}

/// Whoever may read the server's own token file.
pub fn local() -> Principal {
    Principal {
        operator_id: OperatorId::from_uuid(uuid::Uuid::nil()),
        username: "local".to_owned(),
        role: Role::Owner,
        via: Via::Local,
    }
}

fn fingerprint(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
