//! The walk a person takes with a new installation: log in at the console, create a client, watch it come up, open it,
//! register, press a quick action and see its job finish, and talk with an agent. Pictures of each page stay in
//! `target/screenshots`.

use nexaas_browser_tests::{Browser, Tab, browser_or_skip};
use nexaas_test_system::{Backend, Installation, Result, engine_or_skip};
use std::path::PathBuf;

const PERSON: &str = "correct horse battery staple";

/// The first operator's name and password, as the command line prints them once.
fn owner(installation: &Installation) -> Result<(String, String)> {
    let said = installation.cli(&["operator", "bootstrap"])?;
    let value = |name: &str| -> Result<String> {
        said.lines()
            .find_map(|l| l.trim().strip_prefix(name))
            .map(|rest| rest.trim().to_owned())
            .ok_or_else(|| format!("no {name} in: {said}").into())
    };
    Ok((value("Username")?, value("Password")?))
}

async fn walk(program: PathBuf, backend: Backend) -> Result<()> {
    let installation = Installation::start(backend).await?;
    let (username, password) = owner(&installation)?;
    let at = |name: &str, path: &str| format!("http://{name}.localhost:{}{path}", installation.listen.port());
    let browser = Browser::open(program).await?;

    // The operator.
    let console = browser.tab(&format!("{}-console", backend.name())).await?;
    console.visit(&at("console", "/")).await?;
    console.finds("input[name=password]").await?;
    console.shots("login").await?;
    console.fill("username", &username).await?;
    console.fill("password", "not the password").await?;
    console.press("Log in").await?;
    console.finds("[role=alert]").await?;
    console.fill("username", &username).await?;
    console.fill("password", &password).await?;
    console.press("Log in").await?;
    console.sees("Tenants").await?;
    console.shots("empty").await?;

    console.visit(&at("console", "/tenants/new")).await?;
    console.fill("slug", "console").await?;
    console.press("Create").await?;
    console.sees("reserved").await?;
    console.shot("refused").await?;
    console.fill("slug", "acme").await?;
    console.choose("template", "demo").await?;
    console.press("Create").await?;
    console.finds(".steps").await?;
    console.shot("provisioning").await?;
    console
        .until("every step to turn green", "(() => { const s = [...document.querySelectorAll('.steps .step')]; return s.length >= 8 && s.every(e => e.classList.contains('done')); })()")
        .await?;
    console.sees("ready").await?;
    console.shots("tenant").await?;

    // The client's first person.
    let client = browser.tab(&format!("{}-acme", backend.name())).await?;
    client.visit(&at("acme", "/")).await?;
    client.finds("input[name=company_name]").await?;
    client.shots("register").await?;
    client.fill("company_name", "Acme Ltd").await?;
    client.fill("username", "ada").await?;
    client.fill("password", PERSON).await?;
    client.press("Create the company").await?;
    client.sees("At a glance").await?;
    client.sees("Account director").await?;
    client.until("every widget to be filled", "!document.querySelector('.skeleton')").await?;
    client.shots("today").await?;

    // A job runs to its end before the person's eyes: the page must not be loaded again for it.
    client.eval("window.__loaded_once = true").await?;
    client.press("Run a health check").await?;
    client.sees("is on the queue").await?;
    client
        .until(
            "the job to finish in the queue's widget",
            "[...document.querySelectorAll('.card')].some(c => /^work in the queue/i.test(c.innerText.trim()) && [...c.querySelectorAll('li, tr, a')].some(r => /health check/i.test(r.innerText) && /done/i.test(r.innerText)))",
        )
        .await?;
    assert_eq!(client.eval("window.__loaded_once === true").await?, true, "the page was loaded again");
    client.shot("after-quick-action").await?;

    talk(&client, &at("acme", "/p/studio/talk")).await?;

    for page in ["/p/clients/accounts", "/workspace/agents", "/workspace/queue", "/workspace/events"] {
        client.visit(&at("acme", page)).await?;
        client
            .until(
                "every widget to be filled",
                "document.readyState === 'complete' && !document.querySelector('.skeleton')",
            )
            .await?;
        client.shots(&page.trim_start_matches('/').replace('/', "-")).await?;
    }

    for tab in [&console, &client] {
        let complaints: Vec<String> = tab
            .complaints()
            .into_iter()
            // The refused login and the refused form are meant to be refused.
            .filter(|c| {
                let refused = c.contains("401") && c.contains("/login") || c.contains("422") && c.contains("/tenants");
                !refused
            })
            .collect();
        assert_eq!(complaints, Vec::<String>::new(), "the browser has nothing to complain about");
    }
    browser.close().await?;
    installation.finish().await
}

/// A question, and an answer that grows while it is watched; it is still there after the page is loaded again.
async fn talk(client: &Tab, url: &str) -> Result<()> {
    client.visit(url).await?;
    client.finds(".chat-form textarea").await?;
    client
        .eval(
            "window.__lengths = []; new MutationObserver(() => { const m = [...document.querySelectorAll('.chat-log .message.assistant .text')].pop(); if (m) window.__lengths.push(m.innerText.length); }).observe(document.querySelector('.chat-log'), { subtree: true, childList: true, characterData: true })",
        )
        .await?;
    client.fill("Message", "Which client needs me first today?").await?;
    client.press("Send").await?;
    client
        .until(
            "an answer that says it is offline",
            "[...document.querySelectorAll('.chat-log .message.assistant')].some(m => /offline/i.test(m.innerText))",
        )
        .await?;
    client.until("the answer to arrive in pieces", "new Set(window.__lengths).size >= 2").await?;
    client.until("the turn to end", "!document.querySelector('.chat-form button[disabled]')").await?;
    client.shots("chat").await?;
    client.page.reload().await?;
    client
        .until("the conversation to be there again", "[...document.querySelectorAll('.chat-log .message')].length >= 2")
        .await?;
    Ok(())
}

#[tokio::test]
async fn docker_a_person_walks_from_the_console_to_an_answer() -> Result<()> {
    let Some(program) = browser_or_skip("the walk with containers") else { return Ok(()) };
    if !engine_or_skip("the walk with containers") {
        return Ok(());
    }
    walk(program, Backend::Docker).await
}

#[tokio::test]
async fn process_a_person_walks_from_the_console_to_an_answer() -> Result<()> {
    let Some(program) = browser_or_skip("the walk with processes") else { return Ok(()) };
    walk(program, Backend::Process).await
}
