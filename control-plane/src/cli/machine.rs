//! Verbs that work on the machine itself: the image, health, teardown.

use super::client::{Client, local};
use super::output::line;
use crate::app;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::orchestrator::docker::{DockerBackend, DockerOptions};
use crate::orchestrator::image::{HostFiles, ImageInputs};
use clap::Subcommand;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub enum ImageVerb {
    /// Make the runners' image from the runner program, through the engine's own interface and without a registry
    #[command(after_help = "Example:\n  nexaas image build --runner ./target/release/nexaas-runner")]
    Build {
        /// The statically linked runner program [default: --runner-binary]
        #[arg(long, value_name = "FILE")]
        runner: Option<PathBuf>,
    },
}

pub async fn image(settings: &Settings, verb: ImageVerb) -> Result<ExitCode> {
    let ImageVerb::Build { runner } = verb;
    let runner_binary = runner
        .or_else(|| settings.runner_binary.clone())
        .ok_or_else(|| Error::invalid("runner", "was not found beside this program; give --runner FILE"))?;
    if !runner_binary.is_file() {
        return Err(Error::invalid("runner", format!("'{}' is not a file", runner_binary.display())));
    }
    let folder = |path: &PathBuf| path.is_dir().then(|| path.clone());
    let backend = DockerBackend::new(DockerOptions {
        // The image belongs to no installation.
        install: crate::domain::InstallId::generate(),
        host: settings.docker_host.clone(),
        runtime: settings.docker_runtime.clone(),
        image: settings.runner_image.clone(),
    });
    let built = backend
        .build_image(ImageInputs {
            runner_binary,
            framework_dir: folder(&settings.framework_dir),
            templates_dir: folder(&settings.templates_dir),
            version: nexaas_common::VERSION.to_owned(),
            host: HostFiles::find()?,
        })
        .await?;
    let megabytes = built.size_bytes as f64 / 1e6;
    let done = if built.built { "made" } else { "is up to date" };
    line(&format!("{} {done}: {megabytes:.1} MB, {}", built.reference, built.id));
    Ok(ExitCode::SUCCESS)
}

pub async fn health(settings: &Settings, quiet: bool) -> Result<ExitCode> {
    let say = |text: String| {
        if !quiet {
            line(&text);
        }
    };
    let http =
        reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().map_err(Error::internal)?;
    let mut healthy = true;
    for path in ["healthz", "readyz"] {
        let answer = http.get(format!("http://{}/{path}", local(settings.ops_listen))).send().await;
        let (ok, text) = match answer {
            Ok(response) => {
                let ok = response.status().is_success();
                (ok, response.text().await.unwrap_or_default().trim().to_owned())
            }
            Err(_) => (false, "does not answer; is the server running? (nexaas serve)".to_owned()),
        };
        healthy &= ok;
        say(format!("server {path:<8} {text}"));
    }
    if healthy && !quiet {
        let page = Client::new(settings)?.get("/tenants?limit=200").await?;
        for t in page["items"].as_array().into_iter().flatten() {
            let phase = t["phase"].as_str().unwrap_or("unknown");
            healthy &= !matches!(phase, "failed" | "unknown" | "recovering");
            say(format!("client {:<20} {phase}", t["slug"].as_str().unwrap_or_default()));
        }
    }
    if healthy {
        return Ok(ExitCode::SUCCESS);
    }
    if quiet {
        return Ok(ExitCode::FAILURE);
    }
    Err(Error::new(Kind::Unavailable { what: "the server" }, "not everything is healthy"))
}

pub async fn teardown(settings: Settings, purge: bool) -> Result<ExitCode> {
    let removed = app::teardown::teardown(settings, purge).await?;
    line(&format!(
        "removed {} runners, {} networks and {} volumes{}",
        removed.runners,
        removed.networks,
        removed.volumes,
        if purge { "" } else { "; the clients' data stays" }
    ));
    Ok(ExitCode::SUCCESS)
}
