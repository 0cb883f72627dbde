//! `nexaas doctor`: everything the installation needs, checked without changing anything.

use super::client::local;
use super::output::{colour, fancy, line};
use crate::config::Settings;
use crate::domain::InstallId;
use crate::domain::tenant::BackendKind;
use crate::error::Result;
use crate::orchestrator::RunnerBackend as _;
use crate::orchestrator::docker::{DockerBackend, DockerOptions};
use crate::postgres::Binaries;
use std::process::ExitCode;
use std::time::Duration;

struct Report {
    failed: usize,
}

impl Report {
    fn check(&mut self, what: &str, outcome: std::result::Result<String, String>) {
        let (mark, text) = match outcome {
            Ok(text) => (colour("✔", 32, fancy()), text),
            Err(text) => {
                self.failed += 1;
                (colour("✘", 31, fancy()), text)
            }
        };
        line(&format!("{mark} {what:<12} {text}"));
    }
}

pub async fn run(settings: &Settings) -> Result<ExitCode> {
    let mut report = Report { failed: 0 };
    let dir = &settings.data_dir;
    report.check(
        "data folder",
        match std::fs::metadata(dir) {
            Ok(m) if m.is_dir() => Ok(dir.display().to_string()),
            Ok(_) => Err(format!("'{}' is not a folder", dir.display())),
            Err(_) => Ok(format!("{} (made at the first start)", dir.display())),
        },
    );
    report.check(
        "database",
        match &settings.database_url {
            Some(_) => Ok("a server given by DATABASE_URL".to_owned()),
            None => Binaries::find()
                .map(|b| format!("private, with {}", b.postgres.display()))
                .map_err(|e| e.public().to_owned()),
        },
    );
    match settings.backend {
        BackendKind::Docker => {
            let backend = DockerBackend::new(DockerOptions {
                install: InstallId::generate(),
                host: settings.docker_host.clone(),
                runtime: settings.docker_runtime.clone(),
                image: settings.runner_image.clone(),
            });
            let engine = backend.ping().await;
            let answers = engine.is_ok();
            report.check("engine", engine.map_err(|e| format!("{}; start it, or use --backend process", e.public())));
            if answers {
                let image = backend.refresh_image().await;
                report.check("image", image.map_err(|e| format!("{}; make it with: nexaas image build", e.public())));
            }
        }
        BackendKind::Process => report.check(
            "runner",
            match &settings.runner_binary {
                Some(path) if path.is_file() => Ok(path.display().to_string()),
                Some(path) => Err(format!("'{}' is not a file", path.display())),
                None => Err("nexaas-runner was not found beside this program; give --runner-binary".to_owned()),
            },
        ),
        BackendKind::Fake => report.check("backend", Ok("in memory".to_owned())),
    }
    for (what, path) in [("templates", &settings.templates_dir), ("framework", &settings.framework_dir)] {
        report.check(
            what,
            if path.is_dir() {
                Ok(path.display().to_string())
            } else {
                Err(format!("'{}' is not a folder", path.display()))
            },
        );
    }
    let url = format!("http://{}/readyz", local(settings.ops_listen));
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build();
    let server = match http {
        Ok(http) => http.get(&url).send().await.ok(),
        Err(_) => None,
    };
    report.check(
        "server",
        match server {
            Some(response) if response.status().is_success() => {
                Ok(format!("ready, console at {}", settings.public_url("console")))
            }
            Some(response) => Err(format!("not ready: {}", response.text().await.unwrap_or_default().trim())),
            None => Err("not running; start it with: nexaas serve".to_owned()),
        },
    );
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
