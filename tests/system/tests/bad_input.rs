//! Bad input is refused in one line that names the field, loses nothing and stops nothing.

use nexaas_test_system::{Backend, Installation, JsonBody as _, Result};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn process_every_refusal_names_the_field() -> Result<()> {
    let installation = Installation::start(Backend::Process).await?;
    installation.create_tenant("taken", "fresh").await?;
    installation.wait_healthy("taken", Duration::from_secs(60)).await?;
    let cases = [
        (json!({ "slug": "taken" }), StatusCode::CONFLICT, "slug"),
        (json!({ "slug": "console" }), StatusCode::UNPROCESSABLE_ENTITY, "slug"),
        (json!({ "slug": "Acme!" }), StatusCode::UNPROCESSABLE_ENTITY, "slug"),
        (json!({ "slug": "$(reboot)" }), StatusCode::UNPROCESSABLE_ENTITY, "slug"),
        (json!({ "slug": "../../etc" }), StatusCode::UNPROCESSABLE_ENTITY, "slug"),
        (json!({ "slug": "acme", "template": "nope" }), StatusCode::UNPROCESSABLE_ENTITY, "template"),
        (json!({ "slug": "acme", "template": "../secrets" }), StatusCode::UNPROCESSABLE_ENTITY, "template"),
        (json!({ "slug": "acme", "memory_mb": 1 }), StatusCode::UNPROCESSABLE_ENTITY, "memory_mb"),
    ];
    for (body, status, field) in cases {
        let response = installation.api(Method::POST, "/tenants")?.json_body(&body).send().await?;
        let seen = response.status();
        let kind = response.headers().get("content-type").cloned();
        let problem: Value = serde_json::from_str(&response.text().await?)?;
        assert_eq!(seen, status, "{body}: {problem}");
        assert_eq!(kind.as_ref().map(|k| k.as_bytes()), Some(b"application/problem+json".as_slice()), "{body}");
        assert!(problem.to_string().contains(field), "{body} must name {field}: {problem}");
    }
    for body in ["", "{", "[]", "null", "{\"slug\": 7}", "{\"slug\": \"acme\", \"unknown\": 1}"] {
        let request = installation.api(Method::POST, "/tenants")?.header("content-type", "application/json").body(body);
        let response = request.send().await?;
        assert!(response.status().is_client_error(), "{body:?}: {}", response.status());
    }

    for (args, word) in [
        (vec!["tenant", "create", "console"], "slug"),
        (vec!["tenant", "create", "x"], "slug"),
        (vec!["tenant", "create", "taken"], "taken"),
        (vec!["tenant", "create", "acme", "--template", "nope"], "template"),
        (vec!["tenant", "show", "nobody-here"], "nobody-here"),
        (vec!["no-such-verb"], "no-such-verb"),
    ] {
        let output = installation.cli_output(&args)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(word), "{args:?} must say {word}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }

    // A wrong password is refused like an unknown name.
    let mut answers = Vec::new();
    for username in ["owner", "nobody"] {
        let response = installation
            .request(Method::POST, "console", "/login")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "same-origin")
            .body(format!("username={username}&password=wrong-password"))
            .send()
            .await?;
        answers.push(response.status());
    }
    assert_eq!(answers, [StatusCode::UNAUTHORIZED; 2]);

    // After all this, what was there is still there.
    assert!(installation.request(Method::GET, "taken", "/api/health").send().await?.status().is_success());
    installation.finish().await
}

#[tokio::test]
async fn process_a_broken_workspace_is_shown_and_the_last_good_version_stays() -> Result<()> {
    let installation = Installation::start(Backend::Process).await?;
    let accepted = installation.create_tenant("files", "demo").await?;
    installation.wait_healthy("files", Duration::from_secs(60)).await?;
    let id = accepted["tenant"]["id"].as_str().ok_or("no id")?;
    let workspace = installation.data_dir().join("process").join(id).join("data/workspace");
    let body = json!({ "company_name": "Files Ltd", "username": "ada", "password": "correct horse battery" });
    let session = installation.request(Method::POST, "files", "/api/auth/register").json_body(&body).send().await?;
    let session: Value = serde_json::from_str(&session.text().await?)?;
    let token = session["token"].as_str().ok_or("no token")?;
    let perspectives = |v: &Value| v["perspectives"].as_array().map_or(0, Vec::len);
    let workspace_now = || async {
        let response = installation.request(Method::GET, "files", "/api/workspace").bearer_auth(token).send().await?;
        Ok::<Value, Box<dyn std::error::Error + Send + Sync>>(serde_json::from_str(&response.text().await?)?)
    };
    let good = perspectives(&workspace_now().await?);
    assert!(good > 0);
    let original = std::fs::read(workspace.join("workspace.yaml"))?;
    let bomb = {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for n in 1..12 {
            let previous = format!("*a{}", n - 1);
            text.push_str(&format!("a{n}: &a{n} [{}]\n", vec![previous; 9].join(",")));
        }
        text.into_bytes()
    };
    let huge = vec![b'#'; 50 << 20];
    for (what, content) in
        [("a tab", b"name: x\nperspectives:\n\t- id: a\n".to_vec()), ("a bomb of aliases", bomb), ("50 MB", huge)]
    {
        std::fs::write(workspace.join("workspace.yaml"), content)?;
        let end = std::time::Instant::now() + Duration::from_secs(15);
        loop {
            let seen = workspace_now().await?;
            assert_eq!(perspectives(&seen), good, "{what}: the last good version stays");
            if seen["problems"].as_array().is_some_and(|p| p.iter().any(|p| p.to_string().contains("workspace.yaml"))) {
                break;
            }
            assert!(std::time::Instant::now() < end, "{what} is not reported: {}", seen["problems"]);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    std::fs::write(workspace.join("workspace.yaml"), original)?;
    let end = std::time::Instant::now() + Duration::from_secs(15);
    while workspace_now().await?["problems"].as_array().is_some_and(|p| !p.is_empty()) {
        assert!(std::time::Instant::now() < end, "the mended file is not seen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    installation.finish().await
}
