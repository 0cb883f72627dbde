//! What the engine is told: plain values fixed for one start (`EngineConfig`), and what may change while it runs
//! (`Settings`). Parsing flags, environment and wire formats is the caller's business.

use chrono_tz::Tz;
use nexaas_common::secret::SecretString;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// Fixed for one start of the engine.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The tenant's id, or `standalone`; the audience of user tokens.
    pub tenant: String,
    pub database_path: PathBuf,
    pub workspace_root: PathBuf,
    pub framework_root: Option<PathBuf>,
    pub templates_root: Option<PathBuf>,
    /// How many jobs run at once.
    pub worker_pool_size: usize,
    /// The zone of schedules that name none, until `Settings` say otherwise.
    pub default_timezone: Tz,
    /// Runs scripts that are given as one line of text.
    pub shell: PathBuf,
    /// The whole environment of a script, apart from what names its job.
    pub script_env: Vec<(String, String)>,
    pub ops: OpsConfig,
    /// Private networks that webhook actions may reach nevertheless.
    pub allow_private_webhook_targets: Vec<ipnet::IpNet>,
    /// Signs user tokens; without one, a key is made once and kept in the database.
    pub jwt_secret: Option<SecretString>,
    pub anthropic_base_url: Url,
}

impl EngineConfig {
    /// The defaults of every setting that has one.
    #[expect(clippy::expect_used, reason = "the constant below is a valid URL")]
    pub fn new(tenant: impl Into<String>, database_path: PathBuf, workspace_root: PathBuf) -> Self {
        Self {
            tenant: tenant.into(),
            database_path,
            workspace_root,
            framework_root: None,
            templates_root: None,
            worker_pool_size: 4,
            default_timezone: Tz::UTC,
            shell: PathBuf::from("/bin/sh"),
            script_env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()), ("LANG".into(), "C.UTF-8".into())],
            ops: OpsConfig::default(),
            allow_private_webhook_targets: Vec::new(),
            jwt_secret: None,
            anthropic_base_url: Url::parse("https://api.anthropic.com").expect("a constant"),
        }
    }
}

/// The ops monitor.
#[derive(Debug, Clone)]
pub struct OpsConfig {
    pub enabled: bool,
    pub interval: Duration,
    /// Told of every new critical alert.
    pub webhook_url: Option<Url>,
    /// A job that runs longer than this is reported (never ended) as stuck.
    pub stale_job_timeout: Duration,
    /// More failed jobs than this in an hour raise an alert.
    pub max_failed_jobs_hour: u64,
}

impl Default for OpsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(60),
            webhook_url: None,
            stale_job_timeout: Duration::from_secs(30 * 60),
            max_failed_jobs_hour: 10,
        }
    }
}

/// Who may register after the first user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    #[default]
    Open,
    Invite,
    Closed,
}

impl std::str::FromStr for Registration {
    type Err = crate::EngineError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "open" => Ok(Self::Open),
            "invite" => Ok(Self::Invite),
            "closed" => Ok(Self::Closed),
            _ => Err(crate::EngineError::invalid("registration", "must be one of open, invite, closed")),
        }
    }
}

/// Handed over while the engine runs and kept in memory only; each call replaces the whole.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Name → value, for example `ANTHROPIC_API_KEY`.
    pub secrets: HashMap<String, SecretString>,
    /// SHA-256 of the tenant's API key; without one no API key is accepted.
    pub api_key_sha256: Option<[u8; 32]>,
    pub display_name: String,
    pub public_url: Option<Url>,
    pub registration: Registration,
    /// Overrides `EngineConfig::default_timezone`.
    pub default_timezone: Option<Tz>,
}
