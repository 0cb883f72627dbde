//! From the command line to an exit code: 0 done, 1 not well or failed, 2 refused. The runtime is small on purpose: a
//! runner's work is waiting, and its blocking work (SQLite, password hashes) is bounded elsewhere.

use crate::app::{Render, Runner, StartError};
use crate::cli::{Cli, Command, HealthcheckArgs, ServeArgs, ValidateArgs, one_line};
use crate::config::Config;
use crate::probe;
use clap::Parser as _;
use nexaas_common::clock::SystemClock;
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

const REFUSED: u8 = 2;

/// Everything `main` does.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{}", one_line(&error));
            return ExitCode::from(REFUSED);
        }
    };
    match cli.command {
        Command::Version => say(format_args!("nexaas-runner {}", nexaas_common::VERSION)),
        Command::Serve(args) => serve(&args),
        Command::Healthcheck(args) => healthcheck(&args),
        Command::Validate(args) => validate(&args),
        Command::ScriptHost(args) => nexaas_engine::action::script_host(args.starter),
    }
}

fn say(text: std::fmt::Arguments<'_>) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn failed(why: impl std::fmt::Display) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::FAILURE
}

fn refused(why: impl std::fmt::Display) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(REFUSED)
}

fn runtime(workers: usize) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(16)
        .thread_keep_alive(Duration::from_secs(5))
        .thread_stack_size(1024 * 1024)
        .thread_name("runner")
        .enable_all()
        .build()
}

fn serve(args: &ServeArgs) -> ExitCode {
    let mut config = match Config::resolve(args, &|name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(refusal) => return refused(refusal),
    };
    // This very program, also when its file is replaced meanwhile.
    config.script_host = Some("/proc/self/exe".into());
    // Fails only when a provider is installed already, which is then the one to use.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match runtime(2) {
        Ok(runtime) => runtime.block_on(serve_until_told(config, args)),
        Err(error) => failed(format_args!("the runtime does not start: {error}")),
    }
}

async fn serve_until_told(config: Config, args: &ServeArgs) -> ExitCode {
    let _telemetry = match nexaas_common::telemetry::init("nexaas-runner", args.log_format, &args.log_filter) {
        Ok(guard) => guard,
        Err(error) => return refused(error),
    };
    let (mut term, mut int) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(term), Ok(int)) => (term, int),
        (Err(error), _) | (_, Err(error)) => return failed(format_args!("signals cannot be received: {error}")),
    };
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    let metrics: Option<Render> = match nexaas_common::telemetry::install_metrics() {
        Ok(handle) => Some(Arc::new(move || handle.render())),
        Err(error) => {
            tracing::warn!(%error, "metrics are not recorded");
            None
        }
    };
    let runner = tokio::select! {
        started = Runner::start(config, SystemClock::shared(), metrics) => match started {
            Ok(runner) => runner,
            Err(StartError::Refused(refusal)) => return refused(refusal),
            Err(error) => return failed(error),
        },
        _ = term.recv() => return ExitCode::SUCCESS,
        _ = int.recv() => return ExitCode::SUCCESS,
    };
    tracing::info!(address = %runner.address(), version = nexaas_common::VERSION, boot = %runner.app().engine().boot_id(), "ready");
    let asked = tokio::select! {
        _ = term.recv() => true,
        _ = int.recv() => true,
        () = runner.broken() => false,
    };
    tracing::info!("stopping");
    if let Err(error) = runner.stop().await {
        tracing::warn!(%error, "stopped late");
    }
    if asked { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn healthcheck(args: &HealthcheckArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(error),
    };
    match runtime.block_on(probe::ask(&args.data_dir)) {
        Ok(()) => say(format_args!("ok")),
        Err(why) => failed(why),
    }
}

fn validate(args: &ValidateArgs) -> ExitCode {
    if !args.workspace.is_dir() {
        return refused(format_args!("{} is not a directory", args.workspace.display()));
    }
    let problems = nexaas_engine::workspace::validate(&args.workspace);
    let mut out = std::io::stdout().lock();
    for problem in &problems {
        let line = if problem.line == 0 { String::new() } else { format!(":{}", problem.line) };
        let _ = writeln!(out, "{}{line}: {}: {}", problem.file, problem.severity.as_str(), problem.reason);
    }
    if problems.iter().any(|p| p.severity.as_str() == "error") { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
