//! The command line: every setting is a flag and an environment variable of the same meaning. Secrets are the exception:
//! they come from the environment or from a file, never from a flag, because arguments are visible to every process.
//! A refusal is one line on standard error and exit code 2.

use crate::monitor::MonitorArgs;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

use nexaas_common::telemetry::LogFormat;

/// One client's runner: agents, schedules and jobs behind one port.
#[derive(Debug, Parser)]
#[command(name = "nexaas-runner", version = nexaas_common::VERSION, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve one client, until SIGTERM.
    Serve(Box<ServeArgs>),
    /// Ask the runner that serves this data directory whether it is well (exit 0) or not (exit 1).
    Healthcheck(HealthcheckArgs),
    /// Print the version.
    Version,
    /// Read a workspace and print its problems as `file:line: reason`; exit 1 when one of them is an error.
    Validate(ValidateArgs),
    /// Launches a script of the runner that started it.
    #[command(hide = true)]
    ScriptHost(ScriptHostArgs),
}

#[derive(Debug, Args)]
pub struct ScriptHostArgs {
    /// Be the process that becomes the script.
    #[arg(long)]
    pub starter: bool,
}

#[derive(Debug, Args)]
pub struct HealthcheckArgs {
    /// The data directory of the runner to ask.
    #[arg(long, env = "NEXAAS_DATA_DIR", default_value = "/data")]
    pub data_dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// The workspace's directory.
    pub workspace: PathBuf,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The tenant's id. With it the runner speaks mutual TLS to its control plane; without it, it stands alone on plain HTTP.
    #[arg(long, env = "NEXAAS_TENANT", value_name = "UUID")]
    pub tenant: Option<String>,
    /// Which version of the tenant's intent this runner was started for.
    #[arg(long, env = "NEXAAS_GENERATION", default_value_t = 0)]
    pub generation: u64,
    /// Where cert.pem, key.pem and ca.pem are [default: <data-dir>/identity].
    #[arg(long, env = "NEXAAS_IDENTITY_DIR")]
    pub identity_dir: Option<PathBuf>,
    /// Where everything of this client is kept [default: /data for a tenant, ./data standing alone].
    #[arg(long, env = "NEXAAS_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// The address to listen on [default: 0.0.0.0:8400 for a tenant, HOST:PORT standing alone].
    #[arg(long, env = "NEXAAS_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Host to listen on when standing alone.
    #[arg(long, env = "HOST", default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on when standing alone.
    #[arg(long, env = "PORT", default_value_t = 8400)]
    pub port: u16,
    /// The workspace [default: <data-dir>/workspace].
    #[arg(long, env = "WORKSPACE_ROOT")]
    pub workspace_root: Option<PathBuf>,
    /// The framework's agents and skills, which a workspace overrides [default: /usr/share/nexaas/framework if it exists].
    #[arg(long, env = "FRAMEWORK_ROOT")]
    pub framework_root: Option<PathBuf>,
    /// Templates a workspace can start from [default: /usr/share/nexaas/templates if it exists].
    #[arg(long, env = "NEXAAS_TEMPLATES_ROOT")]
    pub templates_root: Option<PathBuf>,
    /// Standing alone: the template that an empty workspace starts from.
    #[arg(long, env = "NEXAAS_TEMPLATE")]
    pub template: Option<String>,
    /// The database file [default: <data-dir>/nexaas.db].
    #[arg(long, env = "DATABASE_PATH")]
    pub database_path: Option<PathBuf>,
    /// How many jobs run at once.
    #[arg(long, env = "WORKER_POOL_SIZE", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub worker_pool_size: u16,
    /// The zone of schedules that name none, such as Europe/Berlin.
    #[arg(long, env = "NEXAAS_DEFAULT_TIMEZONE", default_value = "UTC")]
    pub default_timezone: String,
    /// The shell of script actions.
    #[arg(long, env = "NEXAAS_SHELL", default_value = "/bin/sh")]
    pub shell: PathBuf,
    /// Networks with private addresses that webhook actions may reach, comma-separated, such as 10.0.0.0/24.
    #[arg(long, env = "NEXAAS_ALLOW_PRIVATE_WEBHOOK_TARGETS", value_delimiter = ',')]
    pub allow_private_webhook_targets: Vec<String>,
    /// Origins whose pages may call this API, comma-separated and exact, such as https://app.example.com.
    #[arg(long, env = "CORS_ORIGINS", value_delimiter = ',')]
    pub cors_origins: Vec<String>,
    /// Standing alone: the address people reach this runner at, for Origin checks.
    #[arg(long, env = "NEXAAS_PUBLIC_URL")]
    pub public_url: Option<String>,
    /// Standing alone: who may register (open, invite, closed).
    #[arg(long, env = "NEXAAS_REGISTRATION", default_value = "open")]
    pub registration: String,
    /// Where the Anthropic API is.
    #[arg(long, env = "ANTHROPIC_BASE_URL", default_value = "https://api.anthropic.com")]
    pub anthropic_base_url: String,
    #[command(flatten)]
    pub monitor: MonitorArgs,
    /// Seconds that open requests and running jobs get to finish after SIGTERM.
    #[arg(long, env = "NEXAAS_SHUTDOWN_SECONDS", default_value_t = 9, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub shutdown_seconds: u64,
    /// Logs: auto (pretty on a terminal), json, pretty.
    #[arg(long, env = "NEXAAS_LOG_FORMAT", default_value = "auto")]
    pub log_format: LogFormat,
    /// Which logs to write.
    #[arg(long, env = "NEXAAS_LOG", default_value = "info")]
    pub log_filter: String,
    /// A file with the API key; the key itself may be in API_KEY.
    #[arg(long, env = "API_KEY_FILE")]
    pub api_key_file: Option<PathBuf>,
    /// A file with the secret that signs user tokens; the secret itself may be in JWT_SECRET.
    #[arg(long, env = "JWT_SECRET_FILE")]
    pub jwt_secret_file: Option<PathBuf>,
    /// A file with the Anthropic API key; the key itself may be in ANTHROPIC_API_KEY.
    #[arg(long, env = "ANTHROPIC_API_KEY_FILE")]
    pub anthropic_api_key_file: Option<PathBuf>,
}

/// What clap said, as one line.
pub fn one_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "error: a command is required: serve, healthcheck, version or validate (--help tells more)".to_owned();
    }
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    first.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_line_that_names_the_flag() {
        let error = Cli::try_parse_from(["nexaas-runner", "serve", "--port", "70000"]).unwrap_err();
        let line = one_line(&error);
        assert!(line.starts_with("error: invalid value '70000' for '--port <PORT>'"), "{line}");
        assert!(!line.contains('\n'));
    }

    #[test]
    fn secrets_have_no_flag() {
        for flag in ["--api-key", "--jwt-secret", "--anthropic-api-key"] {
            assert!(Cli::try_parse_from(["nexaas-runner", "serve", flag, "x"]).is_err(), "{flag}");
        }
    }
}
