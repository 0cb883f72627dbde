//! The command line. Verbs that change something talk to the running server through its API, like everybody else; only
//! `serve`, `teardown`, `image` and `doctor` work on the machine itself.
//!
//! Always true: bad input is one line on standard error and exit code 2; results go to standard output; colours only on a
//! terminal; no secret is an argument.

mod client;
mod doctor;
mod machine;
mod operator;
mod output;
mod tenant;

use crate::config::{Partial, Settings};
use crate::error::{Error, Kind, Result};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(
    name = "nexaas",
    version = nexaas_common::VERSION,
    about = "Hosts an isolated AI-agent workspace for each of your clients",
    after_help = "Examples:\n  nexaas serve\n  nexaas tenant create acme --template demo --wait\n  nexaas tenant list\n  nexaas doctor\n\nEvery setting is a flag, an environment variable and a key of nexaas.yaml; the flag wins.",
    arg_required_else_help = true
)]
struct Cli {
    /// A settings file [default: nexaas.yaml in the data folder, if there]
    #[arg(long, env = "NEXAAS_CONFIG", global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Partial,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the control plane until it is told to stop
    #[command(after_help = "Examples:\n  nexaas serve\n  NEXAAS_BACKEND=process nexaas serve --listen 0.0.0.0:8080")]
    Serve,
    /// Create, look at and change clients
    #[command(subcommand, visible_alias = "tenants")]
    Tenant(tenant::Verb),
    /// The people who run this installation
    #[command(subcommand)]
    Operator(operator::Verb),
    /// The runners' image
    #[command(subcommand)]
    Image(machine::ImageVerb),
    /// Check everything this installation needs, and say what to do about what is missing
    Doctor,
    /// Whether the server and its clients answer (exit code 0) or not (1)
    Health {
        /// Say nothing, only set the exit code
        #[arg(long, short)]
        quiet: bool,
    },
    /// Remove this installation's runners and networks from the host, while the server is stopped
    #[command(
        after_help = "Examples:\n  nexaas teardown            keeps the clients' data\n  nexaas teardown --purge    deletes it"
    )]
    Teardown {
        /// Also delete the clients' data
        #[arg(long)]
        purge: bool,
    },
    /// Print the version
    Version,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // Fails only when one is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(cli));
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            // Once, here: for the person who typed the command.
            output::complain(error.public());
            exit_code(&error)
        }
    }
}

/// Help and version are answers; anything else is one line and exit code 2.
fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        // Nothing sensible is left to do when even that cannot be written.
        let _ = error.print();
        return if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            ExitCode::from(2)
        } else {
            ExitCode::SUCCESS
        };
    }
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    let first = lines.next().unwrap_or("the arguments are not valid").trim_start_matches("error: ").to_owned();
    // What was required follows on lines of its own.
    let first = if first.ends_with(':') { format!("{first} {}", lines.next().unwrap_or_default()) } else { first };
    output::complain(&format!("{first} (see --help)"));
    ExitCode::from(2)
}

fn exit_code(error: &Error) -> ExitCode {
    match error.kind {
        Kind::Invalid { .. } | Kind::NotFound | Kind::Conflict | Kind::PreconditionFailed | Kind::Forbidden => {
            ExitCode::from(2)
        }
        _ => ExitCode::FAILURE,
    }
}

fn settle(config: Option<PathBuf>, given: Partial) -> Result<Settings> {
    let mut given = given;
    if given.database_url.is_none()
        && let Some(url) = std::env::var("DATABASE_URL").ok().filter(|u| !u.is_empty())
    {
        given.database_url = Some(url.into());
    }
    let file = match config {
        Some(path) => Partial::from_file(&path)?,
        None => {
            // The file's own place depends on flags and environment only.
            let data_dir = given.clone().complete()?.data_dir;
            let path = data_dir.join("nexaas.yaml");
            if path.is_file() { Partial::from_file(&path)? } else { Partial::default() }
        }
    };
    given.or(file).complete()
}

async fn run(cli: Cli) -> Result<ExitCode> {
    if matches!(cli.verb, Verb::Version) {
        output::line(&format!("nexaas {}", nexaas_common::VERSION));
        return Ok(ExitCode::SUCCESS);
    }
    let settings = settle(cli.config, cli.settings)?;
    // A server logs; a command answers, and logs only what goes wrong.
    let filter = if matches!(cli.verb, Verb::Serve) { settings.log_filter.clone() } else { "error".to_owned() };
    let _telemetry = nexaas_common::telemetry::init("nexaas", settings.log_format, &filter)
        .map_err(|e| Error::invalid("log_filter", e))?;
    match cli.verb {
        Verb::Serve => {
            let served = crate::app::serve(settings).await;
            if let Err(error) = &served {
                tracing::error!(error = %error.chain(), "the server ends");
            }
            served.map(|()| ExitCode::SUCCESS)
        }
        Verb::Tenant(verb) => tenant::run(&settings, verb).await,
        Verb::Operator(verb) => operator::run(&settings, verb).await,
        Verb::Image(verb) => machine::image(&settings, verb).await,
        Verb::Doctor => doctor::run(&settings).await,
        Verb::Health { quiet } => machine::health(&settings, quiet).await,
        Verb::Teardown { purge } => machine::teardown(settings, purge).await,
        Verb::Version => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_tenants_are_made_with_is_read() {
        for args in [
            vec!["nexaas", "tenant", "create", "acme", "--template", "demo", "--wait"],
            vec!["nexaas", "tenant", "secret", "set", "acme", "ANTHROPIC_API_KEY"],
            vec!["nexaas", "tenant", "logs", "acme", "--lines", "5"],
            vec!["nexaas", "operator", "bootstrap"],
            vec!["nexaas", "image", "build", "--runner", "/x"],
            vec!["nexaas", "health", "--quiet"],
            vec!["nexaas", "teardown", "--purge"],
            vec!["nexaas", "serve", "--listen", "127.0.0.1:1"],
        ] {
            assert!(Cli::try_parse_from(&args).is_ok(), "{args:?}");
        }
        assert!(Cli::try_parse_from(["nexaas", "no-such-verb"]).is_err());
    }
}
