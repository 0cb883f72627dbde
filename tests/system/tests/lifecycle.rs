//! What an operator relies on, against the real programs: a tenant survives the death of the control plane and of its own
//! runner, two tenants are apart, and a deleted tenant leaves nothing.

use nexaas_test_system::{Backend, Installation, JsonBody as _, Result, engine_or_skip};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

async fn json_of(response: reqwest::Response) -> Result<Value> {
    let text = response.text().await?;
    serde_json::from_str(&text).map_err(|e| format!("{e}: {text}").into())
}

/// Registers the first person of a tenant through its own subdomain and answers their token.
async fn register(installation: &Installation, slug: &str, username: &str) -> Result<String> {
    let body =
        json!({ "company_name": format!("{slug} Ltd"), "username": username, "password": "correct horse battery" });
    let response = installation
        .request(Method::POST, slug, "/api/auth/register")
        .json_body(&body)
        .send()
        .await?
        .error_for_status()?;
    let session = json_of(response).await?;
    Ok(session["token"].as_str().ok_or("no token")?.to_owned())
}

async fn get_as(installation: &Installation, token: &str, slug: &str, path: &str) -> Result<(StatusCode, Value)> {
    let response = installation.request(Method::GET, slug, path).bearer_auth(token).send().await?;
    let status = response.status();
    Ok((status, json_of(response).await.unwrap_or(Value::Null)))
}

async fn delete_and_wait(installation: &Installation, slug: &str) -> Result<()> {
    let request = installation.api(Method::DELETE, &format!("/tenants/{slug}"))?;
    let response = request.json_body(&json!({})).send().await?;
    assert_eq!(response.status(), StatusCode::ACCEPTED, "{}", response.text().await?);
    let end = Instant::now() + PATIENCE;
    loop {
        let shown = installation.api(Method::GET, &format!("/tenants/{slug}"))?.send().await?;
        if shown.status() == StatusCode::NOT_FOUND {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("{slug} still exists: {}\n{}", shown.text().await?, installation.log_tail()).into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Runs a script event to its end and answers the job.
async fn run_script(installation: &Installation, token: &str, slug: &str, script: &str) -> Result<Value> {
    let event = json!({
        "type": "check", "condition_type": "webhook", "condition_expr": "", "status": "active",
        "action_type": "script", "action_config": { "command": script },
    });
    let created =
        installation.request(Method::POST, slug, "/api/events").bearer_auth(token).json_body(&event).send().await?;
    let status = created.status();
    let created = json_of(created).await?;
    assert!(status.is_success(), "{status}: {created}");
    let id = created["id"].as_str().ok_or("no id")?;
    let path = format!("/api/events/{id}/trigger");
    let fired = installation.request(Method::POST, slug, &path).bearer_auth(token).send().await?;
    assert!(fired.status().is_success(), "{}", fired.text().await?);
    let end = Instant::now() + PATIENCE;
    loop {
        let (_, queue) = get_as(installation, token, slug, "/api/queue").await?;
        let job = queue["recent"].as_array().and_then(|r| r.iter().find(|j| j["event_id"] == id)).cloned();
        if let Some(job) = job
            && ["succeeded", "completed", "dead", "failed"]
                .contains(&job["state"].as_str().or(job["status"].as_str()).unwrap_or(""))
        {
            return Ok(job);
        }
        if Instant::now() > end {
            return Err(format!("the job did not finish: {queue}").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn a_tenant_is_made_used_suspended_and_deleted(backend: Backend) -> Result<()> {
    let installation = Installation::start(backend).await?;
    let accepted = installation.create_tenant("acme-one", "demo").await?;
    let operation = &accepted["operation"];
    assert_eq!(operation["kind"], "create", "{accepted}");
    installation.wait_healthy("acme-one", PATIENCE).await?;

    let token = register(&installation, "acme-one", "ada").await?;
    let (status, agents) = get_as(&installation, &token, "acme-one", "/api/agents").await?;
    assert_eq!(status, StatusCode::OK);
    assert!(agents.as_array().is_some_and(|a| !a.is_empty()), "the demo brings agents: {agents}");
    let job = run_script(&installation, &token, "acme-one", "echo it really runs").await?;
    assert!(job.to_string().contains("it really runs"), "{job}");

    let suspend = installation.api(Method::POST, "/tenants/acme-one/suspend")?.json_body(&json!({})).send().await?;
    assert_eq!(suspend.status(), StatusCode::ACCEPTED);
    let end = Instant::now() + PATIENCE;
    while installation.request(Method::GET, "acme-one", "/api/health").send().await?.status().is_success() {
        assert!(Instant::now() < end, "a suspended tenant still answers");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let resume = installation.api(Method::POST, "/tenants/acme-one/resume")?.json_body(&json!({})).send().await?;
    assert_eq!(resume.status(), StatusCode::ACCEPTED);
    installation.wait_healthy("acme-one", PATIENCE).await?;
    let (status, me) = get_as(&installation, &token, "acme-one", "/api/auth/me").await?;
    assert_eq!((status, &me["username"]), (StatusCode::OK, &json!("ada")), "people and data outlive a suspension");

    delete_and_wait(&installation, "acme-one").await?;
    installation.finish().await
}

#[tokio::test]
async fn docker_a_tenant_is_made_used_suspended_and_deleted() -> Result<()> {
    if !engine_or_skip("lifecycle with containers") {
        return Ok(());
    }
    a_tenant_is_made_used_suspended_and_deleted(Backend::Docker).await
}

#[tokio::test]
async fn process_a_tenant_is_made_used_suspended_and_deleted() -> Result<()> {
    a_tenant_is_made_used_suspended_and_deleted(Backend::Process).await
}

/// The control plane dies at several moments of a creation; after each restart the tenant becomes ready and leaves nothing.
async fn a_creation_survives_kill(backend: Backend) -> Result<()> {
    let mut installation = Installation::start(backend).await?;
    for (round, delay) in [0u64, 40, 120, 300].into_iter().enumerate() {
        let slug = format!("killed-{round}");
        installation.create_tenant(&slug, "fresh").await?;
        tokio::time::sleep(Duration::from_millis(delay)).await;
        installation.kill_server()?;
        installation.boot().await?;
        installation.wait_healthy(&slug, PATIENCE).await?;
        delete_and_wait(&installation, &slug).await?;
        if backend == Backend::Docker {
            assert_eq!(installation.engine_objects()?, Vec::<String>::new(), "after round {round}");
        }
    }
    installation.finish().await
}

#[tokio::test]
async fn docker_a_creation_survives_the_death_of_the_control_plane() -> Result<()> {
    if !engine_or_skip("kill -9 while provisioning") {
        return Ok(());
    }
    a_creation_survives_kill(Backend::Docker).await
}

#[tokio::test]
async fn process_a_creation_survives_the_death_of_the_control_plane() -> Result<()> {
    a_creation_survives_kill(Backend::Process).await
}

#[tokio::test]
async fn docker_a_removed_runner_is_back_within_ten_seconds_with_its_data() -> Result<()> {
    if !engine_or_skip("a runner that is removed by force") {
        return Ok(());
    }
    let installation = Installation::start(Backend::Docker).await?;
    installation.create_tenant("phoenix", "fresh").await?;
    installation.wait_healthy("phoenix", PATIENCE).await?;
    let token = register(&installation, "phoenix", "ada").await?;
    let container = installation.containers()?.pop().ok_or("no container")?;
    let removed = Command::new("docker").args(["rm", "-f", &container]).status()?;
    assert!(removed.success());
    // The edge may still hold the last answer for a moment; what counts is another container that answers.
    let started = Instant::now();
    while installation.containers()?.first().is_none_or(|c| *c == container) {
        assert!(started.elapsed() < PATIENCE, "no new container\n{}", installation.log_tail());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    installation.wait_healthy("phoenix", PATIENCE).await?;
    let took = started.elapsed();
    eprintln!("back after {took:?}");
    assert!(took < Duration::from_secs(10), "took {took:?}");
    let (status, me) = get_as(&installation, &token, "phoenix", "/api/auth/me").await?;
    assert_eq!((status, &me["username"]), (StatusCode::OK, &json!("ada")));
    installation.finish().await
}

#[tokio::test]
async fn docker_two_tenants_are_apart() -> Result<()> {
    if !engine_or_skip("two tenants at once") {
        return Ok(());
    }
    let installation = Installation::start(Backend::Docker).await?;
    installation.create_tenant("north", "fresh").await?;
    installation.create_tenant("south", "fresh").await?;
    installation.wait_healthy("north", PATIENCE).await?;
    installation.wait_healthy("south", PATIENCE).await?;
    let north = register(&installation, "north", "nora").await?;
    let south = register(&installation, "south", "sam").await?;

    for path in ["/api/auth/me", "/api/workspace", "/api/queue", "/api/events", "/api/agents", "/api/usage"] {
        assert_eq!(get_as(&installation, &north, "north", path).await?.0, StatusCode::OK, "{path}");
        assert_eq!(
            get_as(&installation, &north, "south", path).await?.0,
            StatusCode::UNAUTHORIZED,
            "{path} with a token of another tenant"
        );
        assert_eq!(
            get_as(&installation, &south, "north", path).await?.0,
            StatusCode::UNAUTHORIZED,
            "{path} with a token of another tenant"
        );
    }
    // A session cookie of one tenant is nothing to the other's dashboard.
    let cookie = format!("__Host-nexaas_session={north}");
    let own = installation.request(Method::GET, "north", "/").header("cookie", &cookie).send().await?;
    let other = installation.request(Method::GET, "south", "/").header("cookie", &cookie).send().await?;
    let to = |r: &reqwest::Response| r.headers().get("location").and_then(|l| l.to_str().ok()).unwrap_or("").to_owned();
    assert!(!to(&own).contains("/login"), "the own dashboard lets its user in: {} {}", own.status(), to(&own));
    assert!(to(&other).contains("/login"), "another's dashboard asks who is there: {} {}", other.status(), to(&other));
    // The operator's cookie and console are no way in either.
    let console = installation.request(Method::GET, "console", "/").header("cookie", &cookie).send().await?;
    assert!(to(&console).contains("/login"), "{}", console.status());

    // Containers: each alone on its network, and nothing answers without the control plane's certificate.
    let containers = installation.containers()?;
    assert_eq!(containers.len(), 2);
    let inspect = |id: &str, format: &str| -> Result<String> {
        let mut command = Command::new("docker");
        command.args(["inspect", "-f", format, id]);
        let output = std::process::Stdio::piped();
        let child = command.stdout(output).spawn()?;
        let done = child.wait_with_output()?;
        Ok(String::from_utf8(done.stdout)?.trim().to_owned())
    };
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let other_ip = inspect(&containers[1], address)?;
    assert!(!other_ip.is_empty());
    let reach = Command::new("docker")
        .args([
            "exec",
            &containers[0],
            "/bin/busybox",
            "timeout",
            "2",
            "/bin/busybox",
            "nc",
            "-w",
            "1",
            &other_ip,
            "8400",
        ])
        .stdin(std::process::Stdio::null())
        .status()?;
    assert!(!reach.success(), "one tenant's container reaches another's");
    let port = inspect(
        &containers[1],
        "{{range $p, $b := .NetworkSettings.Ports}}{{(index $b 0).HostIp}}:{{(index $b 0).HostPort}}{{end}}",
    )?;
    assert!(port.starts_with("127.0.0.1:"), "{port}");
    let bare = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).build()?;
    let answer = bare.get(format!("https://{port}/api/health")).timeout(Duration::from_secs(5)).send().await;
    assert!(answer.is_err(), "a runner answers without a client certificate: {answer:?}");

    delete_and_wait(&installation, "north").await?;
    assert_eq!(
        get_as(&installation, &south, "south", "/api/auth/me").await?.0,
        StatusCode::OK,
        "the neighbour is untouched"
    );
    installation.finish().await
}
