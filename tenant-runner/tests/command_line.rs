//! The binary as a person or an init system meets it: one line and exit code 2 for a refusal, a clean end on SIGTERM.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

const KEY: &str = "0123456789abcdef0123";

fn runner(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexaas-runner"));
    command.args(arguments).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn output(command: &mut Command) -> Output {
    tokio::time::timeout(Duration::from_secs(60), command.output()).await.expect("it does not end").unwrap()
}

async fn refusal(command: &mut Command) -> String {
    let output = output(command).await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[tokio::test]
async fn a_refusal_is_one_line_and_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    assert!(refusal(&mut runner(&[])).await.contains("a command is required"));
    assert!(refusal(&mut runner(&["serve", "--nonsense"])).await.contains("--nonsense"));
    assert!(refusal(&mut runner(&["serve", "--data-dir", data])).await.starts_with("error: API_KEY: is required"));
    assert!(refusal(runner(&["serve", "--data-dir", data]).env("PORT", "http")).await.contains("--port"));
    let tenant = "01890a5d-ac96-774b-bcce-b302099a8057";
    let line = refusal(&mut runner(&["serve", "--tenant", tenant, "--data-dir", data])).await;
    assert!(line.contains("--identity-dir") && line.contains("cert.pem"), "{line}");
    assert!(refusal(&mut runner(&["validate", "/nonexistent"])).await.contains("is not a directory"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a refusal leaves nothing behind");
}

#[tokio::test]
async fn a_taken_port_is_named_and_nothing_is_made() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let output = output(runner(&["serve", "--data-dir", data, "--port", &port]).env("API_KEY", KEY)).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains(&format!("cannot listen on 127.0.0.1:{port}")));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn it_serves_says_that_it_is_well_and_ends_on_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let mut command = runner(&["serve", "--data-dir", data, "--listen", "127.0.0.1:0"]);
    let mut child = command.env("API_KEY", KEY).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut seen = String::new();
    loop {
        let line = tokio::time::timeout(Duration::from_secs(60), log.next_line()).await.unwrap().unwrap();
        let line = line.unwrap_or_else(|| panic!("it ended: {seen}"));
        seen.push_str(&line);
        if line.contains("\"message\":\"ready\"") {
            break;
        }
    }
    let healthy = output(&mut runner(&["healthcheck", "--data-dir", data])).await;
    assert_eq!((healthy.status.code(), healthy.stdout.as_slice()), (Some(0), b"ok\n".as_slice()));

    let pid = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = tokio::time::timeout(Duration::from_secs(30), child.wait()).await.expect("it does not stop").unwrap();
    assert_eq!(status.code(), Some(0));
    while let Some(line) = log.next_line().await.unwrap() {
        seen.push_str(&line);
    }
    assert!(!seen.contains(KEY), "the key is in the log: {seen}");
    let gone = output(&mut runner(&["healthcheck", "--data-dir", data])).await;
    assert_eq!(gone.status.code(), Some(1));
}

fn workspace(dir: &Path, config: &str) {
    let agent = dir.join("agents/greeter");
    std::fs::create_dir_all(&agent).unwrap();
    std::fs::write(dir.join("workspace.yaml"), "name: Tea\n").unwrap();
    std::fs::write(agent.join("config.yaml"), config).unwrap();
    std::fs::write(agent.join("prompt.md"), "You greet people.\n").unwrap();
}

#[tokio::test]
async fn validate_names_file_line_and_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    workspace(dir.path(), "name: greeter\nrole: Greets\ndescription: Says hello\n");
    let fine = output(&mut runner(&["validate", path])).await;
    assert_eq!(fine.status.code(), Some(0), "{}", String::from_utf8_lossy(&fine.stdout));
    workspace(dir.path(), "name: greeter\nrole: [unclosed\n");
    let broken = output(&mut runner(&["validate", path])).await;
    let text = String::from_utf8(broken.stdout).unwrap();
    assert_eq!(broken.status.code(), Some(1), "{text}");
    assert!(text.starts_with("agents/greeter/config.yaml:"), "{text}");
}
