//! What the engine is told: plain values fixed for one start (`EngineConfig`), and what may change while it runs
//! (`Settings`). Parsing flags, environment and wire formats is the caller's business.

use crate::ops::Severity;
use chrono::{DateTime, Utc};
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
    /// The program whose `script-host` command launches scripts. Without one they run in a process group only: no limit holds,
    /// and what leaves the group is not found again.
    pub script_host: Option<PathBuf>,
    pub outputs: OutputsConfig,
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
            script_host: None,
            outputs: OutputsConfig::default(),
            ops: OpsConfig::default(),
            allow_private_webhook_targets: Vec::new(),
            jwt_secret: None,
            anthropic_base_url: Url::parse("https://api.anthropic.com").expect("a constant"),
        }
    }
}

/// What is kept of scripts' outputs beyond their answers.
#[derive(Debug, Clone)]
pub struct OutputsConfig {
    /// Bytes of one attempt.
    pub most_per_attempt: u64,
    /// Bytes of all together; the oldest go first.
    pub most_in_total: u64,
    pub longest: chrono::Duration,
}

impl Default for OutputsConfig {
    fn default() -> Self {
        Self {
            most_per_attempt: 16 * 1024 * 1024,
            most_in_total: 1024 * 1024 * 1024,
            longest: chrono::Duration::days(30),
        }
    }
}

/// The ops monitor.
#[derive(Debug, Clone)]
pub struct OpsConfig {
    pub enabled: bool,
    /// Between two looks while something happens.
    pub interval: Duration,
    /// Between two looks while nothing happens.
    pub idle_interval: Duration,
    /// Told of alerts, and of their end.
    pub webhooks: Vec<Url>,
    /// Signs what is sent to them (`whsec_…`); without it the settings' secret `OPS_WEBHOOK_SECRET` does, else nothing.
    pub webhook_secret: Option<SecretString>,
    /// Alerts below this are not sent.
    pub webhook_severity: Severity,
    /// Whether remedies that cannot end live work run by themselves.
    pub heal: bool,
    /// A job that runs longer than this is reported (never ended) as stuck.
    pub stale_job_timeout: Duration,
    /// More failed jobs than this in an hour raise an alert.
    pub max_failed_jobs_hour: u64,
    pub limits: OpsLimits,
    /// When the certificate of whoever embeds the engine ends, if it has one.
    pub certificate_not_after: Option<DateTime<Utc>>,
}

impl Default for OpsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(60),
            idle_interval: Duration::from_secs(15 * 60),
            webhooks: Vec::new(),
            webhook_secret: None,
            webhook_severity: Severity::Critical,
            heal: true,
            stale_job_timeout: Duration::from_secs(30 * 60),
            max_failed_jobs_hour: 10,
            limits: OpsLimits::default(),
            certificate_not_after: None,
        }
    }
}

/// From where on a reading is a finding. Parts are of one, not percent.
#[derive(Debug, Clone, PartialEq)]
pub struct OpsLimits {
    /// Of the jobs that ended within an hour, this part failed. Judged once `ratio_from` jobs ended.
    pub max_failure_ratio: f64,
    pub ratio_from: u64,
    pub max_pending_jobs: u64,
    /// A job that could run has waited this long.
    pub max_ready_age: Duration,
    /// A schedule is due for this long and was not fired.
    pub scheduler_late: Duration,
    /// A write and a read took this long.
    pub database_slow: Duration,
    pub max_database_bytes: u64,
    pub max_wal_bytes: u64,
    pub disk_free_warning: f64,
    pub disk_free_critical: f64,
    pub memory_warning: f64,
    pub memory_critical: f64,
    /// The wall clock moved by this much against the machine's own.
    pub clock_jump: Duration,
    pub certificate_warning: Duration,
    pub certificate_critical: Duration,
    /// How old the newest backup may be; none: no backup is expected.
    pub backup_max_age: Option<Duration>,
}

impl Default for OpsLimits {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        Self {
            max_failure_ratio: 0.5,
            ratio_from: 20,
            max_pending_jobs: 10_000,
            max_ready_age: Duration::from_secs(15 * 60),
            scheduler_late: Duration::from_secs(60),
            database_slow: Duration::from_secs(2),
            max_database_bytes: 2 << 30,
            max_wal_bytes: 256 << 20,
            disk_free_warning: 0.10,
            disk_free_critical: 0.03,
            memory_warning: 0.85,
            memory_critical: 0.95,
            clock_jump: Duration::from_secs(60),
            certificate_warning: 21 * 24 * HOUR,
            certificate_critical: 3 * 24 * HOUR,
            backup_max_age: None,
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
    pub backup: BackupState,
}

/// What is known of this tenant's backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackupState {
    pub last: Option<DateTime<Utc>>,
    /// How old the newest one may be; overrides `OpsLimits::backup_max_age`. None of both: no backup is expected.
    pub max_age: Option<Duration>,
}
