//! The settings of the ops monitor: each a flag and an environment variable, checked here.

use crate::config::{Refusal, http_url, secret};
use clap::Args;
use clap::builder::BoolishValueParser;
use nexaas_common::secret::ExposeSecret as _;
use nexaas_engine::ops::{Severity, signing_key};
use nexaas_engine::{OpsConfig, OpsLimits};
use std::path::PathBuf;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const DAY: u64 = 86_400;

#[derive(Debug, Clone, Args)]
pub struct MonitorArgs {
    /// Watch over the engine and repair what can be repaired.
    #[arg(long, env = "OPS_MONITOR_ENABLED", default_value = "true", value_parser = BoolishValueParser::new(), action = clap::ArgAction::Set)]
    pub ops_monitor_enabled: bool,
    /// Seconds between two looks of the monitor.
    #[arg(long, env = "OPS_MONITOR_INTERVAL_S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=DAY))]
    pub ops_monitor_interval_s: u64,
    /// Seconds between two looks while nothing happens.
    #[arg(long, env = "NEXAAS_OPS_IDLE_INTERVAL_S", default_value_t = 900, value_parser = clap::value_parser!(u64).range(60..=DAY))]
    pub ops_idle_interval_s: u64,
    /// Where alerts are posted, comma-separated.
    #[arg(long, env = "OPS_WEBHOOK_URL", value_delimiter = ',')]
    pub ops_webhook_url: Vec<String>,
    /// A file with the secret that signs them (whsec_…); the secret itself may be in NEXAAS_OPS_WEBHOOK_SECRET.
    #[arg(long, env = "NEXAAS_OPS_WEBHOOK_SECRET_FILE")]
    pub ops_webhook_secret_file: Option<PathBuf>,
    /// The least severity that is posted: info, warning or critical.
    #[arg(long, env = "NEXAAS_OPS_WEBHOOK_SEVERITY", default_value = "critical")]
    pub ops_webhook_severity: String,
    /// Let remedies that cannot end live work run by themselves.
    #[arg(long, env = "NEXAAS_OPS_HEAL", default_value = "true", value_parser = BoolishValueParser::new(), action = clap::ArgAction::Set)]
    pub ops_heal: bool,
    /// Minutes after which the monitor reports a running job.
    #[arg(long, env = "OPS_STALE_JOB_TIMEOUT_M", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    pub ops_stale_job_timeout_m: u64,
    /// Failed jobs within an hour above which the monitor alerts.
    #[arg(long, env = "OPS_MAX_FAILED_JOBS_HOUR", default_value_t = 10)]
    pub ops_max_failed_jobs_hour: u32,
    /// Per cent of the jobs of an hour that may fail, once 20 have ended.
    #[arg(long, env = "NEXAAS_OPS_MAX_FAILED_PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub ops_max_failed_percent: u8,
    /// Waiting jobs above which the monitor alerts.
    #[arg(long, env = "NEXAAS_OPS_MAX_PENDING_JOBS", default_value_t = 10_000)]
    pub ops_max_pending_jobs: u64,
    /// Seconds that a job which could run may wait.
    #[arg(long, env = "NEXAAS_OPS_MAX_READY_AGE_S", default_value_t = 900, value_parser = clap::value_parser!(u64).range(10..=30 * DAY))]
    pub ops_max_ready_age_s: u64,
    /// Seconds that a schedule may be late.
    #[arg(long, env = "NEXAAS_OPS_SCHEDULER_LATE_S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=DAY))]
    pub ops_scheduler_late_s: u64,
    /// MiB that the database may have.
    #[arg(long, env = "NEXAAS_OPS_MAX_DATABASE_MB", default_value_t = 2048, value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    pub ops_max_database_mb: u64,
    /// MiB that the database's log may have.
    #[arg(long, env = "NEXAAS_OPS_MAX_WAL_MB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub ops_max_wal_mb: u64,
    /// Per cent of the disk that must be free: below it a warning.
    #[arg(long, env = "NEXAAS_OPS_DISK_WARNING_PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub ops_disk_warning_percent: u8,
    /// The same: below it a critical alert.
    #[arg(long, env = "NEXAAS_OPS_DISK_CRITICAL_PERCENT", default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub ops_disk_critical_percent: u8,
    /// Per cent of the memory limit that may be used: above it a warning.
    #[arg(long, env = "NEXAAS_OPS_MEMORY_WARNING_PERCENT", default_value_t = 85, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub ops_memory_warning_percent: u8,
    /// The same: above it a critical alert.
    #[arg(long, env = "NEXAAS_OPS_MEMORY_CRITICAL_PERCENT", default_value_t = 95, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub ops_memory_critical_percent: u8,
    /// Seconds by which the machine's clock may be set without a word.
    #[arg(long, env = "NEXAAS_OPS_CLOCK_JUMP_S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=DAY))]
    pub ops_clock_jump_s: u64,
    /// Days before the runner's certificate ends: a warning.
    #[arg(long, env = "NEXAAS_OPS_CERTIFICATE_DAYS", default_value_t = 21, value_parser = clap::value_parser!(u64).range(1..=365))]
    pub ops_certificate_days: u64,
    /// Hours that the newest backup may be old; without it no backup is expected.
    #[arg(long, env = "NEXAAS_OPS_BACKUP_HOURS", value_parser = clap::value_parser!(u64).range(1..=24 * 365))]
    pub ops_backup_hours: Option<u64>,
}

impl MonitorArgs {
    /// Checks what was said. The certificate is known later.
    pub fn resolve(&self, env: &dyn Fn(&str) -> Option<String>, notes: &mut Vec<String>) -> Result<OpsConfig, Refusal> {
        let urls = self.ops_webhook_url.iter().map(|url| url.trim()).filter(|url| !url.is_empty());
        let webhooks = urls.map(|url| http_url("OPS_WEBHOOK_URL", url)).collect::<Result<Vec<_>, _>>()?;
        let name = "NEXAAS_OPS_WEBHOOK_SECRET";
        let webhook_secret = secret(env, name, self.ops_webhook_secret_file.as_deref(), 1)?;
        if webhook_secret.as_ref().is_some_and(|secret| signing_key(secret.expose_secret()).is_none()) {
            return Err(Refusal::new(name, "must be whsec_ followed by the base64 of 24 to 64 bytes"));
        }
        if !webhooks.is_empty() && webhook_secret.is_none() {
            notes.push(format!("OPS_WEBHOOK_URL is set without {name}: alerts are posted unsigned"));
        }
        let webhook_severity = self
            .ops_webhook_severity
            .parse::<Severity>()
            .map_err(|_| Refusal::new("NEXAAS_OPS_WEBHOOK_SEVERITY", "must be one of info, warning, critical"))?;
        for (warning, critical, setting, rule) in [
            (
                self.ops_disk_critical_percent,
                self.ops_disk_warning_percent,
                "NEXAAS_OPS_DISK_CRITICAL_PERCENT",
                "must not be above NEXAAS_OPS_DISK_WARNING_PERCENT",
            ),
            (
                self.ops_memory_warning_percent,
                self.ops_memory_critical_percent,
                "NEXAAS_OPS_MEMORY_CRITICAL_PERCENT",
                "must not be below NEXAAS_OPS_MEMORY_WARNING_PERCENT",
            ),
        ] {
            if warning > critical {
                return Err(Refusal::new(setting, rule));
            }
        }
        let part = |percent: u8| f64::from(percent) / 100.0;
        let certificate_warning = Duration::from_secs(self.ops_certificate_days * DAY);
        let defaults = OpsLimits::default();
        let limits = OpsLimits {
            max_failure_ratio: part(self.ops_max_failed_percent),
            max_pending_jobs: self.ops_max_pending_jobs,
            max_ready_age: Duration::from_secs(self.ops_max_ready_age_s),
            scheduler_late: Duration::from_secs(self.ops_scheduler_late_s),
            max_database_bytes: self.ops_max_database_mb * MIB,
            max_wal_bytes: self.ops_max_wal_mb * MIB,
            disk_free_warning: part(self.ops_disk_warning_percent),
            disk_free_critical: part(self.ops_disk_critical_percent),
            memory_warning: part(self.ops_memory_warning_percent),
            memory_critical: part(self.ops_memory_critical_percent),
            clock_jump: Duration::from_secs(self.ops_clock_jump_s),
            certificate_warning,
            certificate_critical: defaults.certificate_critical.min(certificate_warning / 2),
            backup_max_age: self.ops_backup_hours.map(|hours| Duration::from_secs(hours * 3600)),
            ..defaults
        };
        Ok(OpsConfig {
            enabled: self.ops_monitor_enabled,
            interval: Duration::from_secs(self.ops_monitor_interval_s),
            idle_interval: Duration::from_secs(self.ops_idle_interval_s),
            webhooks,
            webhook_secret,
            webhook_severity,
            heal: self.ops_heal,
            stale_job_timeout: Duration::from_secs(self.ops_stale_job_timeout_m * 60),
            max_failed_jobs_hour: u64::from(self.ops_max_failed_jobs_hour),
            limits,
            certificate_not_after: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        monitor: MonitorArgs,
    }

    fn resolve(flags: &[&str], env: &[(&str, &str)]) -> Result<(OpsConfig, Vec<String>), Refusal> {
        let args = Only::try_parse_from(["x"].iter().chain(flags)).unwrap().monitor;
        let mut notes = Vec::new();
        let find = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Ok((args.resolve(&find, &mut notes)?, notes))
    }

    #[test]
    fn the_defaults_are_the_engines() {
        let (config, notes) = resolve(&[], &[]).unwrap();
        let engine = OpsConfig::default();
        assert_eq!(config.limits, engine.limits);
        assert_eq!((config.interval, config.idle_interval), (engine.interval, engine.idle_interval));
        assert_eq!((config.webhook_severity, config.heal), (engine.webhook_severity, engine.heal));
        assert_eq!(notes, Vec::<String>::new());
    }

    #[test]
    fn each_refusal_names_its_setting() {
        let secret = |text| ("NEXAAS_OPS_WEBHOOK_SECRET", text);
        for (flags, env, setting) in [
            (vec!["--ops-webhook-url", "https://a.example,ftp://b"], vec![], "OPS_WEBHOOK_URL"),
            (vec![], vec![secret("not-a-secret")], "NEXAAS_OPS_WEBHOOK_SECRET"),
            (vec![], vec![secret("whsec_c2hvcnQ=")], "NEXAAS_OPS_WEBHOOK_SECRET"),
            (vec!["--ops-webhook-severity", "loud"], vec![], "NEXAAS_OPS_WEBHOOK_SEVERITY"),
            (vec!["--ops-disk-critical-percent", "20"], vec![], "NEXAAS_OPS_DISK_CRITICAL_PERCENT"),
            (vec!["--ops-memory-critical-percent", "80"], vec![], "NEXAAS_OPS_MEMORY_CRITICAL_PERCENT"),
        ] {
            assert_eq!(resolve(&flags, &env).unwrap_err().setting, setting, "{flags:?}");
        }
    }

    #[test]
    fn several_addresses_are_told_and_unsigned_ones_are_said_aloud() {
        let flags = ["--ops-webhook-url", "https://a.example/x, https://b.example"];
        let (config, notes) = resolve(&flags, &[]).unwrap();
        assert_eq!((config.webhooks.len(), notes.len()), (2, 1));
        let secret = ("NEXAAS_OPS_WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        assert!(resolve(&flags, &[secret]).unwrap().1.is_empty());
    }
}
