//! The client's people: registration, login, and tokens that name exactly one tenant and can be ended.
//!
//! Always true here: a login with an unknown name costs the same work as one with a wrong password; a token is accepted only
//! with HS256, this tenant as audience, an expiry in the future and the user's present token version.

mod limits;
mod password;
mod token;

use crate::bus::{Bus, Fact};
use crate::config::{EngineConfig, Registration, Settings};
use crate::error::{EngineError, Result};
use crate::store::{Store, to_micros};
use arc_swap::ArcSwapOption;
use chrono::{DateTime, Utc};
use limits::Limits;
use nexaas_common::clock::SharedClock;
use nexaas_common::secret::{ExposeSecret as _, SecretString};
use password::Hasher;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;
use token::Tokens;
use uuid::Uuid;

const SHORTEST_PASSWORD: usize = 8;
const LONGEST_PASSWORD: usize = 256;
const LONGEST_NAME: usize = 64;
const MOST_USERS: i64 = 10_000;

/// What the pages before login need to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    pub has_company: bool,
    pub company: Option<String>,
    pub registration_open: bool,
}

/// One of the client's people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct User {
    pub id: String,
    pub username: String,
    /// `admin` or `member`.
    pub role: String,
    pub company_id: String,
    pub company: String,
}

impl User {
    pub fn is_admin(&self) -> bool {
        self.role == "admin"
    }
}

/// Who asks to be let in.
#[derive(Debug, Clone)]
pub struct NewUser {
    pub company_name: Option<String>,
    pub username: String,
    pub password: SecretString,
    /// Where the request comes from, for limits.
    pub remote_address: Option<String>,
}

/// A login.
#[derive(Debug, Clone)]
pub struct Session {
    pub token: String,
    pub expires_at: DateTime<Utc>,
    pub user: User,
}

/// Clones share one set of accounts.
#[derive(Debug, Clone)]
pub struct Users(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    bus: Bus,
    clock: SharedClock,
    settings: Arc<ArcSwapOption<Settings>>,
    hasher: Hasher,
    tokens: Tokens,
    limits: Limits,
}

struct Row {
    user: User,
    password: String,
    token_version: i64,
}

fn invalid_credentials() -> EngineError {
    EngineError::unauthenticated("Invalid credentials")
}

impl Users {
    pub(crate) async fn open(
        config: &EngineConfig,
        settings: Arc<ArcSwapOption<Settings>>,
        store: Store,
        bus: Bus,
        clock: SharedClock,
    ) -> Result<Self> {
        let key = match &config.jwt_secret {
            Some(secret) => secret.expose_secret().as_bytes().to_vec(),
            None => store.write(own_key).await?,
        };
        let tokens = Tokens::new(&key, config.tenant.clone());
        let hasher = Hasher::new();
        Ok(Self(Arc::new(Inner { store, bus, clock, settings, hasher, tokens, limits: Limits::default() })))
    }

    fn registration(&self) -> Registration {
        self.0.settings.load().as_ref().map(|s| s.registration).unwrap_or_default()
    }

    pub async fn status(&self) -> Result<Status> {
        let company = self.0.store.read(company).await?.map(|(_, name)| name);
        // Somebody has to be the first.
        let registration_open = company.is_none() || self.registration() == Registration::Open;
        Ok(Status { has_company: company.is_some(), company, registration_open })
    }

    /// Makes an account. The first one makes the company and is its admin.
    pub async fn register(&self, new: NewUser) -> Result<Session> {
        let now = self.0.clock.now();
        self.0.limits.registration(new.remote_address.as_deref(), now)?;
        let username = checked_name(&new.username)?;
        check_password(&new.password)?;
        let company_name = new.company_name.as_deref().map(str::trim).filter(|n| !n.is_empty()).map(str::to_owned);
        if company_name.as_ref().is_some_and(|n| n.chars().count() > 200 || n.chars().any(char::is_control)) {
            return Err(EngineError::invalid(
                "company_name",
                "must be at most 200 characters, without control characters",
            ));
        }
        let has_company = self.status().await?.has_company;
        self.may_register(has_company)?;
        if !has_company && company_name.is_none() {
            return Err(EngineError::invalid("company_name", "is required for the first registration"));
        }
        let phc = self.0.hasher.hash(new.password).await?;
        let (bus, policy) = (self.0.bus.clone(), self.registration());
        let user = self
            .0
            .store
            .write(move |tx| {
                let (company_id, company, role) = match company(tx)? {
                    // Somebody else was first while the password was hashed.
                    Some(_) if policy != Registration::Open => return Err(refused(policy)),
                    Some((id, name)) => (id, name, "member"),
                    None => {
                        let name = company_name.ok_or_else(|| {
                            EngineError::invalid("company_name", "is required for the first registration")
                        })?;
                        let id = Uuid::now_v7().to_string();
                        tx.execute(
                            "INSERT INTO company (only, id, name, created_at) VALUES (1, ?1, ?2, ?3)",
                            params![id, name, to_micros(now)],
                        )?;
                        (id, name, "admin")
                    }
                };
                let count: i64 = tx.query_row("SELECT count(*) FROM users", [], |r| r.get(0))?;
                if count >= MOST_USERS {
                    return Err(EngineError::forbidden(format!("This workspace has its {MOST_USERS} users already")));
                }
                let user =
                    User { id: Uuid::now_v7().to_string(), username, role: role.to_owned(), company_id, company };
                let made = tx.execute(
                    "INSERT INTO users (id, username, username_key, role, password, created_at, last_login_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6) ON CONFLICT (username_key) DO NOTHING",
                    params![user.id, user.username, user.username.to_lowercase(), role, phc, to_micros(now)],
                )?;
                if made == 0 {
                    return Err(EngineError::conflict("The username is taken"));
                }
                bus.publish(
                    tx,
                    &Fact::new("user.registered", "users", json!({"username": user.username, "role": user.role})),
                )?;
                Ok(user)
            })
            .await?;
        self.session(user, 1)
    }

    fn may_register(&self, has_company: bool) -> Result<()> {
        match self.registration() {
            Registration::Open => Ok(()),
            _ if !has_company => Ok(()),
            policy => Err(refused(policy)),
        }
    }

    pub async fn login(&self, username: &str, password: SecretString, remote_address: Option<&str>) -> Result<Session> {
        let now = self.0.clock.now();
        let key = username.trim().to_lowercase();
        self.0.limits.login(&key, remote_address, now)?;
        let wanted = key.clone();
        let found = if key.chars().count() <= LONGEST_NAME {
            self.0.store.read(move |c| by_key(c, &wanted)).await?
        } else {
            None
        };
        let (phc, row) = match found {
            Some(row) => (Some(row.password.clone()), Some(row)),
            None => (None, None),
        };
        let right = self.0.hasher.verify(password, phc).await?;
        let Some(row) = row.filter(|_| right) else {
            self.0.limits.failed(&key, now);
            return Err(invalid_credentials());
        };
        self.0.limits.succeeded(&key);
        let id = row.user.id.clone();
        self.0
            .store
            .write(move |tx| {
                Ok(tx.execute("UPDATE users SET last_login_at = ?2 WHERE id = ?1", params![id, to_micros(now)])?)
            })
            .await?;
        self.session(row.user, row.token_version)
    }

    fn session(&self, user: User, version: i64) -> Result<Session> {
        let (token, expires_at) = self.0.tokens.issue(&user.id, version, self.0.clock.now())?;
        Ok(Session { token, expires_at, user })
    }

    /// The user a token belongs to.
    pub async fn authenticate(&self, token: &str) -> Result<User> {
        let claims = self.0.tokens.verify(token, self.0.clock.now())?;
        let id = claims.sub;
        let row = self.0.store.read(move |c| by_id(c, &id)).await?;
        row.filter(|r| r.token_version == claims.ver)
            .map(|r| r.user)
            .ok_or_else(|| EngineError::unauthenticated("The session has ended; log in again"))
    }

    /// Ends every token of the user.
    pub async fn logout(&self, user: &User) -> Result<()> {
        let id = user.id.clone();
        self.0
            .store
            .write(move |tx| Ok(tx.execute("UPDATE users SET token_version = token_version + 1 WHERE id = ?1", [id])?))
            .await?;
        Ok(())
    }
}

fn refused(policy: Registration) -> EngineError {
    EngineError::forbidden(match policy {
        Registration::Invite => {
            "Registration needs an invitation, and this version cannot send any yet; ask the operator to open registration"
        }
        _ => "Registration is closed",
    })
}

fn own_key(tx: &Connection) -> Result<Vec<u8>> {
    let found = tx.query_row("SELECT value FROM engine_keys WHERE name = 'jwt'", [], |r| r.get(0)).optional()?;
    if let Some(key) = found {
        return Ok(key);
    }
    let key = nexaas_common::secret::key().to_vec();
    tx.execute("INSERT INTO engine_keys (name, value) VALUES ('jwt', ?1)", [&key])?;
    Ok(key)
}

fn company(c: &Connection) -> Result<Option<(String, String)>> {
    Ok(c.query_row("SELECT id, name FROM company", [], |r| Ok((r.get(0)?, r.get(1)?))).optional()?)
}

const SELECT: &str = "SELECT u.id, u.username, u.role, c.id, c.name, u.password, u.token_version FROM users u JOIN company c ON c.only = 1";

fn row(r: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let user = User { id: r.get(0)?, username: r.get(1)?, role: r.get(2)?, company_id: r.get(3)?, company: r.get(4)? };
    Ok(Row { user, password: r.get(5)?, token_version: r.get(6)? })
}

fn by_key(c: &Connection, key: &str) -> Result<Option<Row>> {
    Ok(c.prepare_cached(&format!("{SELECT} WHERE u.username_key = ?1"))?.query_row([key], row).optional()?)
}

fn by_id(c: &Connection, id: &str) -> Result<Option<Row>> {
    Ok(c.prepare_cached(&format!("{SELECT} WHERE u.id = ?1"))?.query_row([id], row).optional()?)
}

fn checked_name(name: &str) -> Result<String> {
    let name = name.trim();
    let good = (2..=LONGEST_NAME).contains(&name.chars().count())
        && name.chars().all(|c| c.is_alphanumeric() || "._-@+".contains(c));
    if good {
        return Ok(name.to_owned());
    }
    Err(EngineError::invalid("username", format!("must be 2 to {LONGEST_NAME} letters, digits or any of . _ - @ +")))
}

fn check_password(password: &SecretString) -> Result<()> {
    let length = password.expose_secret().chars().count();
    if length < SHORTEST_PASSWORD {
        return Err(EngineError::invalid("password", format!("must have at least {SHORTEST_PASSWORD} characters")));
    }
    if password.expose_secret().len() > LONGEST_PASSWORD {
        return Err(EngineError::invalid("password", format!("must have at most {LONGEST_PASSWORD} bytes")));
    }
    Ok(())
}
