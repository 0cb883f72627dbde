//! Real processes.

use super::*;

#[tokio::test]
async fn a_script_answers_with_its_output_in_the_workspaces_folder() {
    let bench = Bench::new().await;
    assert_eq!(bench.script(json!({"command": "echo one; echo two"})).await, ok("one\ntwo"));
    assert_eq!(bench.script(json!({"command": ["printf", "%s", "$HOME; rm -rf /"]})).await, ok("$HOME; rm -rf /"));
    let folder = bench._dir.path().canonicalize().unwrap();
    assert_eq!(bench.script(json!({"command": "pwd -P"})).await, ok(folder.to_str().unwrap()));
}

#[tokio::test]
async fn only_the_exit_status_decides() {
    let bench = Bench::new().await;
    assert_eq!(bench.script(json!({"command": "echo error: none at all"})).await, ok("error: none at all"));
    assert_eq!(error(bench.script(json!({"command": "echo fine; exit 3"})).await), "exit status 3: fine");
    assert_eq!(error(bench.script(json!({"command": "echo out; echo why >&2; exit 1"})).await), "exit status 1: why");
    assert_eq!(error(bench.script(json!({"command": "kill -KILL $$"})).await), "ended by signal 9");
    assert!(
        error(bench.script(json!({"command": ["/nonexistent"]})).await).starts_with("the program cannot be started")
    );
}

#[tokio::test]
async fn nothing_of_our_environment_reaches_a_script() {
    let bench = Bench::new().await;
    let job = bench.job(ActionType::Script, json!({"command": ["env"]}), None).await;
    let Outcome::Succeeded(text) = bench.actions.run(&job).await else { panic!("env failed") };
    let mut names: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["LANG", "NEXAAS_ATTEMPT", "NEXAAS_ATTEMPT_ID", "NEXAAS_IDEMPOTENCY_KEY", "NEXAAS_JOB_ID", "PATH"]
    );
    assert!(text.contains(&format!("NEXAAS_ATTEMPT_ID={}", job.attempt_id)));
}

#[tokio::test]
async fn what_came_with_the_trigger_is_on_standard_input() {
    let bench = Bench::new().await;
    let job = bench.job(ActionType::Script, json!({"command": "cat"}), Some(json!({"a": "$(id)"}))).await;
    assert_eq!(bench.actions.run(&job).await, ok(r#"{"a":"$(id)"}"#));
    let big = json!({"a": "x".repeat((1 << 20) - 100)});
    let job = bench.job(ActionType::Script, json!({"command": "true"}), Some(big)).await;
    assert_eq!(bench.actions.run(&job).await, ok(""));
}

#[tokio::test]
async fn a_flood_of_output_is_cut_to_its_beginning_and_its_end() {
    let bench = Bench::new().await;
    let Outcome::Succeeded(text) =
        bench.script(json!({"command": "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end"})).await
    else {
        panic!("the flood failed")
    };
    assert!(text.len() < 66_000 && text.starts_with("xxx") && text.ends_with("end"), "{} bytes", text.len());
    assert!(
        text.contains("[… 2934725 bytes left out; the output of this attempt is kept …]"),
        "{}",
        &text[32_600..32_900]
    );
}

/// A pipe that a script and its children hold open for writing: it ends when the last of them is gone.
async fn until_all_are_gone(fifo: &std::path::Path, run: impl Future<Output = Outcome>) -> Outcome {
    let watch = async {
        let file = tokio::fs::OpenOptions::new().read(true).open(fifo).await.unwrap();
        let mut lines = BufReader::new(file).lines();
        while lines.next_line().await.unwrap().is_some() {}
    };
    let (outcome, ()) = tokio::join!(run, watch);
    outcome
}

fn fifo(bench: &Bench) -> std::path::PathBuf {
    let path = bench._dir.path().join("alive");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    path
}

#[tokio::test]
async fn a_time_out_ends_the_script_and_its_children() {
    let bench = Bench::new().await;
    let fifo = fifo(&bench);
    let config = json!({"command": "exec 3>alive; sleep 1000 & sleep 1000", "timeout_s": 1});
    let outcome = until_all_are_gone(&fifo, bench.script(config)).await;
    assert_eq!(error(outcome), "ended by force after 1 s");
}

#[tokio::test]
async fn children_that_outlive_their_script_are_ended_with_it() {
    let bench = Bench::new().await;
    let fifo = fifo(&bench);
    let outcome =
        until_all_are_gone(&fifo, bench.script(json!({"command": "exec 3>alive; sleep 1000 & echo started"}))).await;
    assert_eq!(outcome, ok("started"));
}

#[tokio::test]
async fn a_cancelled_script_is_ended_with_its_children() {
    let bench = Bench::new().await;
    let fifo = fifo(&bench);
    let job = bench
        .job(ActionType::Script, json!({"command": "exec 3>alive; echo up >&3; sleep 1000 & sleep 1000"}), None)
        .await;
    let cancel = job.cancel.clone();
    let path = fifo.clone();
    let watch = async move {
        let file = tokio::fs::OpenOptions::new().read(true).open(path).await.unwrap();
        let mut lines = BufReader::new(file).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("up"));
        cancel.cancel();
        assert_eq!(lines.next_line().await.unwrap(), None);
    };
    let (outcome, ()) = tokio::join!(bench.actions.run(&job), watch);
    assert_eq!(outcome, Outcome::Cancelled);
}
