//! What a client that does nothing costs.

use crate::processes::resident_mb;
use nexaas_test_system::{Backend, Installation, Result, processes};
use std::time::Duration;

pub async fn run(seconds: u64) -> Result<()> {
    eprintln!("starting an installation with one tenant from the demo template");
    let installation = Installation::start(Backend::Docker).await?;
    installation.create_tenant("idle-demo", "demo").await?;
    installation.wait_healthy("idle-demo", Duration::from_secs(60)).await?;
    eprintln!("leaving it alone for {seconds} s");
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let shown = installation.api(reqwest::Method::GET, "/tenants/idle-demo")?.send().await?.text().await?;
    let tenant: serde_json::Value = serde_json::from_str(&shown)?;
    let id = tenant["id"].as_str().ok_or("the tenant has no id")?.to_owned();
    let runner = processes()
        .find(|(_, command)| {
            command.contains("nexaas-runner") && command.contains(&id) && !command.contains("docker-init")
        })
        .ok_or("the runner's process was not found")?
        .0;
    let control_plane = installation.server_pid().ok_or("the server does not run")?;
    println!("runner_rss_mb: {:.1}", resident_mb(runner, "VmRSS")?);
    println!("runner_anonymous_mb: {:.1}", resident_mb(runner, "RssAnon")?);
    println!("control_plane_rss_mb: {:.1}", resident_mb(control_plane, "VmRSS")?);
    println!("control_plane_anonymous_mb: {:.1}", resident_mb(control_plane, "RssAnon")?);
    installation.finish().await
}
