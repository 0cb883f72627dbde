//! How long a client waits for a workspace, as a multiple of what the container engine alone needs for it.

use crate::figures::percentile;
use crate::floor::Floor;
use nexaas_test_system::{Backend, Installation, JsonBody as _, Result};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

pub async fn run(rounds: usize) -> Result<()> {
    eprintln!("starting an installation");
    let installation = Installation::start(Backend::Docker).await?;
    let floor = Floor::connect("nexaas-runner-test:current")?;
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    // The first round warms caches on both sides and is not counted.
    for round in 0..=rounds {
        // Taken in turn, and each goes first as often as second.
        let (a, b) = if round % 2 == 0 {
            let a = once(&installation, round).await?;
            (a, floor.once().await?)
        } else {
            let b = floor.once().await?;
            (once(&installation, round).await?, b)
        };
        eprintln!("round {round}: ours {a:.0} ms, floor {b:.0} ms");
        if round > 0 {
            ours.push(a);
            plain.push(b);
        }
    }
    installation.finish().await?;
    ours.sort_by(f64::total_cmp);
    plain.sort_by(f64::total_cmp);
    println!("rounds: {rounds}");
    println!("provision_p50_ms: {:.1}", percentile(&ours, 50.0));
    println!("provision_p99_ms: {:.1}", percentile(&ours, 99.0));
    println!("floor_p50_ms: {:.1}", percentile(&plain, 50.0));
    println!("floor_p99_ms: {:.1}", percentile(&plain, 99.0));
    println!("ratio: {:.2}", percentile(&ours, 50.0) / percentile(&plain, 50.0));
    Ok(())
}

/// From the request to the first 200 of the tenant's own subdomain, in milliseconds; the tenant is deleted afterwards.
async fn once(installation: &Installation, round: usize) -> Result<f64> {
    let slug = format!("bench-{round}");
    let started = Instant::now();
    installation.create_tenant(&slug, "fresh").await?;
    installation.wait_healthy(&slug, PATIENCE).await?;
    let took = started.elapsed().as_secs_f64() * 1000.0;

    let delete = installation.api(reqwest::Method::DELETE, &format!("/tenants/{slug}"))?;
    let response = delete.json_body(&serde_json::json!({})).send().await?.error_for_status()?;
    drop(response);
    let end = Instant::now() + PATIENCE;
    while !installation.engine_objects()?.is_empty() {
        if Instant::now() > end {
            return Err(format!("{slug} was not removed within {PATIENCE:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(took)
}
