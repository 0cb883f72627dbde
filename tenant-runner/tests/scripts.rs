//! Scripts as real processes under the real launcher: whatever they do, they harm nobody but themselves, and nobody is left.
//!
//! Every test here fails when a process of its scripts is alive at its end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it measured"
)]

use nexaas_common::clock::{SharedClock, SystemClock};
use nexaas_common::id::BootId;
use nexaas_common::secret::SecretString;
use nexaas_engine::action::{ActionType, Actions, NoAgents, SystemNames};
use nexaas_engine::queue::{Claimed, NewJob, Outcome, Queue};
use nexaas_engine::{Bus, EngineConfig, Settings, Store};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

const RUNNER: &str = env!("CARGO_BIN_EXE_nexaas-runner");
/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    dir: tempfile::TempDir,
    actions: Actions,
    queue: Queue,
}

impl Bench {
    async fn new() -> Self {
        Self::with(|_| {}, Settings::default()).await
    }

    async fn with(change: impl FnOnce(&mut EngineConfig), settings: Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let workspace = dir.path().join("workspace");
        std::fs::create_dir(&workspace).unwrap();
        // Whoever a script runs as may work there.
        for folder in [dir.path(), &workspace] {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        let mut config = EngineConfig::new("standalone", dir.path().join("db/nexaas.db"), workspace);
        config.script_host = Some(PathBuf::from(RUNNER));
        change(&mut config);
        std::fs::create_dir(dir.path().join("db")).unwrap();
        let clock: SharedClock = SystemClock::shared();
        let store = Store::open(&config.database_path, &clock).await.unwrap();
        let bus = Bus::open(store.clone(), clock.clone()).await.unwrap();
        let queue = Queue::open(store, bus, clock.clone(), BootId::generate()).await.unwrap();
        let settings = Arc::new(Some(Arc::new(settings)).into());
        let actions = Actions::new(&config, settings, Arc::new(NoAgents), Arc::new(SystemNames), clock).unwrap();
        Self { dir, actions, queue }
    }

    fn workspace(&self) -> PathBuf {
        self.dir.path().join("workspace")
    }

    async fn job(&self, config: Value, payload: Option<Value>) -> Claimed {
        self.queue.enqueue(NewJob { payload, ..NewJob::new(ActionType::Script, config) }).await.unwrap();
        self.queue.claim(1).await.unwrap().jobs.remove(0)
    }

    async fn run(&self, config: Value) -> Outcome {
        let job = self.job(config, None).await;
        let outcome = tokio::time::timeout(PATIENCE, self.actions.run(&job)).await.expect("the script does not end");
        assert_eq!(living(self.dir.path()), Vec::<String>::new(), "left behind by {:?}", job.action_config);
        outcome
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(living(self.dir.path()), Vec::<String>::new(), "processes are left");
        }
    }
}

/// Processes that work beneath `folder`, whatever they did to their session, parent and environment.
fn living(folder: &Path) -> Vec<String> {
    let folder = folder.canonicalize().unwrap();
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let at = process.path();
        if std::fs::read_link(at.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder)) {
            let stat = std::fs::read_to_string(at.join("stat")).unwrap_or_default();
            // One that is dead already waits to be reaped.
            if !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')) {
                found.push(stat.split_whitespace().take(4).collect::<Vec<_>>().join(" "));
            }
        }
    }
    found
}

async fn until_nobody_lives(folder: &Path) {
    let end = Instant::now() + PATIENCE;
    while !living(folder).is_empty() {
        assert!(Instant::now() < end, "still there: {:?}", living(folder));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn until_there(path: &Path) {
    let end = Instant::now() + PATIENCE;
    while !path.exists() {
        assert!(Instant::now() < end, "{} does not come", path.display());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn ok(text: &str) -> Outcome {
    Outcome::Succeeded(text.to_owned())
}

fn error(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failed { error, .. } => error,
        other => panic!("not a failure: {other:?}"),
    }
}

/// The most memory this process ever had, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Starts the launcher by way of `line`, a line for the shell that ends in it.
fn by_way_of(dir: &Path, line: &str) -> PathBuf {
    let path = dir.join("host");
    std::fs::write(&path, format!("#!/bin/sh\n{line}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

// ---- The ordinary -----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn output_status_and_input_are_the_programs_own() {
    let bench = Bench::new().await;
    assert_eq!(bench.run(json!({"command": "echo one; echo two"})).await, ok("one\ntwo"));
    assert_eq!(bench.run(json!({"command": ["printf", "%s", "$HOME; rm -rf /"]})).await, ok("$HOME; rm -rf /"));
    assert_eq!(error(bench.run(json!({"command": "echo why >&2; exit 3"})).await), "exit status 3: why");
    assert_eq!(error(bench.run(json!({"command": "kill -KILL $$"})).await), "ended by signal 9");
    assert_eq!(error(bench.run(json!({"command": "exit 127"})).await), "exit status 127");
    let missing = error(bench.run(json!({"command": ["/nonexistent"]})).await);
    assert!(missing.starts_with("the program cannot be started: No such file"), "{missing}");
    let job = bench.job(json!({"command": "cat /dev/stdin"}), Some(json!({"a": "$(id)"}))).await;
    assert_eq!(bench.actions.run(&job).await, ok(r#"{"a":"$(id)"}"#));
    let big = json!({"a": "x".repeat((1 << 20) - 100)});
    let job = bench.job(json!({"command": "true"}), Some(big)).await;
    assert_eq!(bench.actions.run(&job).await, ok(""));
}

#[tokio::test]
async fn the_environment_is_what_the_definition_says_and_secrets_reach_the_program_only() {
    let settings =
        Settings { secrets: [("TOKEN".to_owned(), SecretString::from("s3cret-token"))].into(), ..Settings::default() };
    let bench = Bench::with(|_| {}, settings).await;
    let config = json!({"command": ["env"], "env": {"CRM": "Bearer ${TOKEN}", "LANG": "C"}});
    let Outcome::Succeeded(text) = bench.run(config).await else { panic!("env failed") };
    let mut names: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["CRM", "LANG", "NEXAAS_ATTEMPT", "NEXAAS_ATTEMPT_ID", "NEXAAS_IDEMPOTENCY_KEY", "NEXAAS_JOB_ID", "PATH"]
    );
    assert!(text.contains("CRM=Bearer [REDACTED]") && text.contains("LANG=C\n"), "{text}");
    let config = json!({"command": "printf %s \"$CRM\" | wc -c", "env": {"CRM": "${TOKEN}"}});
    assert_eq!(bench.run(config).await, ok("12"));
    let missing = json!({"command": "true", "env": {"A": "${NOBODY}"}});
    assert_eq!(error(bench.run(missing).await), "the secret NOBODY is not set");
}

#[tokio::test]
async fn a_script_can_run_in_a_folder_of_the_workspace_and_in_no_other() {
    let bench = Bench::new().await;
    std::fs::create_dir_all(bench.workspace().join("tools/bin")).unwrap();
    let here = bench.workspace().canonicalize().unwrap().join("tools/bin");
    let config = json!({"command": "pwd -P", "cwd": "tools/bin"});
    assert_eq!(bench.run(config).await, ok(here.to_str().unwrap()));
    std::os::unix::fs::symlink("/", bench.workspace().join("out")).unwrap();
    for cwd in ["out", "out/etc", "nowhere"] {
        let outcome = bench.run(json!({"command": "pwd", "cwd": cwd})).await;
        assert!(matches!(&outcome, Outcome::Failed { permanent: true, .. }), "{cwd}: {outcome:?}");
        assert!(error(outcome).starts_with("action_config.cwd must be a folder of the workspace"));
    }
}

// ---- Output -----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn two_gigabytes_of_output_fill_neither_memory_nor_the_disk() {
    let bench = Bench::new().await;
    let job = bench.job(json!({"command": "echo begin; head -c 2147483648 /dev/zero; echo; echo end"}), None).await;
    let (before, started) = (peak_mib(), Instant::now());
    let outcome = bench.actions.run(&job).await;
    let Outcome::Succeeded(text) = outcome else { panic!("the flood failed: {outcome:?}") };
    let grown = peak_mib() - before;
    println!("2 GiB in {:.1} s, peak memory grew by {grown} MiB", started.elapsed().as_secs_f64());
    assert!(grown < 32, "{grown} MiB");
    assert!(text.len() < 66_000 && text.starts_with("begin") && text.ends_with("end"), "{} bytes", text.len());
    assert!(text.contains("bytes left out; the output of this attempt is kept"));
    let cap = 16 * 1024 * 1024;
    let outputs = bench.actions.outputs();
    let end = outputs.read(job.id, job.attempt, cap, 1000).await.unwrap().unwrap();
    assert!(String::from_utf8(end.bytes).unwrap().contains("[the output goes on; 16777216 bytes of it are kept]"));
    assert!(end.total < cap + 100, "{}", end.total);
}

#[tokio::test]
async fn what_an_answer_cannot_hold_is_kept_whole_and_without_secrets() {
    let settings =
        Settings { secrets: [("TOKEN".to_owned(), SecretString::from("s3cret-token"))].into(), ..Settings::default() };
    let bench = Bench::with(|_| {}, settings).await;
    // Written in pieces, so that secrets arrive in pieces.
    let line = "i=0; while [ $i -lt 4000 ]; do printf 'line %05d s3cre' $i; echo 't-token.'; i=$((i+1)); done";
    let job = bench.job(json!({"command": line}), None).await;
    let Outcome::Succeeded(text) = bench.actions.run(&job).await else { panic!("failed") };
    assert!(!text.contains("s3cret") && text.contains("[REDACTED]") && text.contains("bytes left out"));
    let (outputs, mut whole, mut at) = (bench.actions.outputs(), Vec::new(), Some(0));
    while let Some(offset) = at {
        let part = outputs.read(job.id, job.attempt, offset, 10_000).await.unwrap().unwrap();
        assert_eq!((part.offset, part.bytes.len() <= 10_000), (offset, true));
        whole.extend(part.bytes);
        at = part.next;
    }
    let expected: String = (0..4000).map(|i| format!("line {i:05} [REDACTED].\n")).collect();
    assert_eq!(String::from_utf8(whole).unwrap(), expected);
    let file = bench.dir.path().join("db/outputs").join(job.id.to_string()).join(format!("{}.log", job.attempt));
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    // An answer that holds everything needs no file.
    let job = bench.job(json!({"command": "echo short"}), None).await;
    bench.actions.run(&job).await;
    assert_eq!(outputs.read(job.id, job.attempt, 0, 10).await.unwrap(), None);
}

// ---- Processes --------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn whoever_a_script_leaves_behind_is_ended_with_it() {
    let bench = Bench::new().await;
    for (line, said) in [
        ("sleep 1000 & echo child", "child"),
        ("setsid sleep 1000 & echo session", "session"),
        ("setsid sh -c 'trap \"\" TERM HUP INT; while :; do sleep 1000; done' & sleep 0.2; echo stubborn", "stubborn"),
        ("( ( setsid sleep 1000 & ) & ); ( nohup sleep 1000 >/dev/null 2>&1 & ); echo twice", "twice"),
        ("env -i setsid setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo bare", "bare"),
        ("sh -c 'kill -STOP $$' & sleep 0.2; echo stopped", "stopped"),
    ] {
        assert_eq!(bench.run(json!({"command": line})).await, ok(said), "{line}");
    }
}

#[tokio::test]
async fn closed_streams_hide_no_status() {
    let bench = Bench::new().await;
    let config = json!({"command": "exec 0<&- 1>&- 2>&-; sleep 0.3; exit 7"});
    assert_eq!(error(bench.run(config).await), "exit status 7");
}

#[tokio::test]
async fn a_time_out_ends_the_whole_tree_even_if_it_ignores_being_told() {
    let bench = Bench::new().await;
    let tree = "setsid sh -c 'trap \"\" TERM; sleep 1000; sleep 1000' & ( setsid sleep 1000 & ); trap '' TERM; \
                while :; do sleep 1; done";
    let outcome = bench.run(json!({"command": tree, "timeout_s": 1})).await;
    assert_eq!(error(outcome), "ended by force after 1 s");
}

#[tokio::test]
async fn a_script_may_tidy_up_when_it_is_told_to_end() {
    let bench = Bench::new().await;
    let config = json!({"command": "trap 'echo tidy >&2; exit 0' TERM; while :; do sleep 0.1; done", "timeout_s": 1});
    let said = error(bench.run(config).await);
    assert!(said.starts_with("ended by force after 1 s: ") && said.ends_with("tidy"), "{said}");
}

#[tokio::test]
async fn a_cancellation_ends_the_whole_tree_before_it_is_reported() {
    let bench = Bench::new().await;
    let tree = "setsid sh -c 'trap \"\" TERM; sleep 1000; sleep 1000' & sleep 0.2; touch up; sleep 1000";
    let job = bench.job(json!({"command": tree}), None).await;
    let (cancel, up) = (job.cancel.clone(), bench.workspace().join("up"));
    let cancelled = async {
        until_there(&up).await;
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(bench.actions.run(&job), cancelled);
    assert_eq!(outcome, Outcome::Cancelled);
    assert_eq!(living(bench.dir.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_run_that_is_dropped_takes_its_tree_with_it() {
    let bench = Bench::new().await;
    let tree = "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 1000' & touch up; sleep 1000; sleep 1000";
    let job = bench.job(json!({"command": tree}), None).await;
    let up = bench.workspace().join("up");
    tokio::select! {
        outcome = bench.actions.run(&job) => panic!("it ended: {outcome:?}"),
        () = until_there(&up) => {}
    }
    until_nobody_lives(bench.dir.path()).await;
}

#[tokio::test]
async fn a_runner_that_is_killed_takes_its_scripts_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut runner = Command::new(RUNNER)
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir", dir.path().to_str().unwrap()])
        .env_clear()
        .env("API_KEY", "0123456789abcdef0123")
        .env("NEXAAS_LOG_FORMAT", "json")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut log = BufReader::new(runner.stderr.take().unwrap()).lines();
    let address = loop {
        let line = tokio::time::timeout(PATIENCE, log.next_line()).await.unwrap().unwrap().expect("it ended");
        let line: Value = serde_json::from_str(&line).unwrap();
        if let Some(address) = find(&line, "address") {
            break address;
        }
    };
    let drained = async { while let Ok(Some(_)) = log.next_line().await {} };
    let act = async {
        let tree = "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 1000; :' & touch up; sleep 1000; :";
        let event = json!({"id": "tree", "type": "flow", "condition_type": "webhook", "action_type": "script",
            "action_config": {"command": tree}});
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        for (path, body) in [("/api/events", event), ("/api/events/tree/trigger", json!({}))] {
            let sent = http.post(format!("http://{address}{path}")).bearer_auth("0123456789abcdef0123");
            let answer = sent.header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
            assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
        }
        let workspace = dir.path().join("workspace");
        until_there(&workspace.join("up")).await;
        assert!(living(&workspace).len() >= 3, "{:?}", living(&workspace));
        runner.start_kill().unwrap();
        until_nobody_lives(&workspace).await;
    };
    tokio::join!(drained, act);
}

fn find(line: &Value, name: &str) -> Option<String> {
    match line {
        Value::Object(map) => map
            .get(name)
            .and_then(|found| found.as_str().map(str::to_owned))
            .or_else(|| map.values().find_map(|value| find(value, name))),
        _ => None,
    }
}

// ---- Limits -----------------------------------------------------------------------------------------------------------

/// A group around everything a test starts, so that a launcher that fails harms its test and not the machine.
struct Fence(PathBuf);

impl Fence {
    fn new() -> Option<Self> {
        let parents = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(PathBuf::from);
        let path = parents
            .iter()
            .find(|path| path.join("cgroup.procs").exists())?
            .join(format!("nexaas-test-{}", std::process::id()));
        std::fs::create_dir(&path).ok()?;
        let fence = Self(path);
        std::fs::write(fence.0.join("pids.max"), "1500").ok().map(|()| fence)
    }

    /// A line for the shell that goes inside.
    fn enter(&self) -> String {
        format!("echo $$ > {}/cgroup.procs || exit 9", self.0.display())
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        let end = Instant::now() + PATIENCE;
        while std::fs::remove_dir(&self.0).is_err() && Instant::now() < end {
            for pid in std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
                if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

const BOMB: &str = "b() { b | b & }; b; sleep 1000";

/// Runs scripts by way of `line`, behind a fence, for whoever may make one.
async fn fenced(line: impl FnOnce(&str) -> String) -> Option<(Bench, Fence, tempfile::TempDir)> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let Some(fence) = Fence::new() else {
        println!("no fence can be made here, so no bomb is thrown");
        return None;
    };
    let runner = dir.path().join("nexaas-runner");
    std::fs::copy(RUNNER, &runner).unwrap();
    let host = by_way_of(dir.path(), &format!("{}\n{}", fence.enter(), line(runner.to_str().unwrap())));
    let bench = Bench::with(|config| config.script_host = Some(host), Settings::default()).await;
    Some((bench, fence, dir))
}

async fn outlives_a_bomb(bench: &Bench) -> String {
    let before = Instant::now();
    let said = error(bench.run(json!({"command": BOMB, "timeout_s": 3, "limits": {"processes": 60}})).await);
    println!("a fork bomb was over after {:.1} s: {}", before.elapsed().as_secs_f64(), said.lines().next().unwrap());
    // The machine still forks, and so does the next script.
    assert_eq!(bench.run(json!({"command": "echo fine | cat"})).await, ok("fine"));
    said
}

#[tokio::test]
async fn a_fork_bomb_harms_itself_only() {
    let Some((bench, _fence, _dir)) = fenced(|runner| format!("exec {runner} \"$@\"")).await else { return };
    let said = outlives_a_bomb(&bench).await;
    assert!(said.contains("ended by force") || said.contains("exit status"), "{said}");
}

#[tokio::test]
async fn without_a_control_group_and_without_privileges_a_fork_bomb_still_harms_itself_only() {
    let line = |runner: &str| format!("exec setpriv --reuid=23456 --regid=23456 --clear-groups {runner} \"$@\"");
    let Some((bench, _fence, _dir)) = fenced(line).await else { return };
    assert_eq!(bench.run(json!({"command": "id -u"})).await, ok("23456"));
    let said = outlives_a_bomb(&bench).await;
    assert!(said.contains("ended by force") || said.contains("exit status"), "{said}");
    let many = "i=0; while [ $i -lt 50 ]; do sleep 5 & i=$((i+1)); done; echo all";
    error(bench.run(json!({"command": many, "limits": {"processes": 20}})).await);
}

#[tokio::test]
async fn without_a_control_group_a_script_is_looked_at() {
    let hidden = |runner: &str| {
        format!("exec unshare --mount sh -c 'mount -t tmpfs none /sys/fs/cgroup && exec \"$@\"' sh {runner} \"$@\"")
    };
    let Some((bench, _fence, _dir)) = fenced(hidden).await else { return };
    let said = outlives_a_bomb(&bench).await;
    // Root's processes nobody counts but the launcher, which may see them only after the time-out.
    assert!(said.starts_with("ended by force"), "{said}");
    let many = "i=0; while [ $i -lt 90 ]; do sleep 100 & i=$((i+1)); done; sleep 100";
    let said = error(bench.run(json!({"command": many, "limits": {"processes": 60}})).await);
    assert!(said.starts_with("ended by force: it had more than 60 processes (limits.processes)"), "{said}");
    let many = "i=0; while [ $i -lt 8 ]; do head -c 20000000 /dev/zero | tail -c 20000000 | sleep 100 & i=$((i+1)); done; sleep 100";
    let said = error(bench.run(json!({"command": many, "limits": {"memory_mb": 64}})).await);
    assert!(said.starts_with("ended by force: it used more than 64 MiB (limits.memory_mb)"), "{said}");
}

#[tokio::test]
async fn memory_files_descriptors_and_cores_are_limited() {
    let bench = Bench::new().await;
    let said = error(bench.run(json!({"command": "tail /dev/zero", "limits": {"memory_mb": 32}})).await);
    assert!(said.contains("exhausted") || said.contains("limits.memory_mb"), "{said}");
    let config = json!({"command": "head -c 3000000 /dev/zero > big", "limits": {"file_mb": 1}});
    let said = error(bench.run(config).await);
    assert!(said.contains("exit status"), "{said}");
    assert!(std::fs::metadata(bench.workspace().join("big")).unwrap().len() <= 1024 * 1024);
    let config = json!({"command": "ulimit -n; ulimit -c", "limits": {"open_files": 64}});
    assert_eq!(bench.run(config).await, ok("64\n0"));
}

#[tokio::test]
async fn a_script_can_neither_end_nor_read_the_processes_above_it() {
    let bench = Bench::new().await;
    let outcome = bench.run(json!({"command": "kill -9 $PPID; echo \"status $?\"; cat /proc/$PPID/environ"})).await;
    match outcome {
        Outcome::Failed { error, .. } => assert!(error.contains("ermission"), "{error}"),
        other => println!("this kernel cannot keep a script's signals inside: {other:?}"),
    }
    let ours = std::process::id();
    let outcome = bench.run(json!({"command": format!("kill -0 {ours} 2>/dev/null || echo refused")})).await;
    println!("signalling the engine: {outcome:?}");
    assert_eq!(outcome, ok("refused"));
}

#[tokio::test]
async fn a_launcher_that_is_killed_takes_its_script_with_it() {
    let bench = Bench::new().await;
    let tree = "setsid sh -c 'trap \"\" TERM; sleep 1000; :' & echo $PPID > keeper; mv keeper up; sleep 1000; :";
    let job = bench.job(json!({"command": tree}), None).await;
    let up = bench.workspace().join("up");
    let kill = async {
        until_there(&up).await;
        let keeper: i32 = std::fs::read_to_string(&up).unwrap().trim().parse().unwrap();
        let keeper = rustix::process::Pid::from_raw(keeper).unwrap();
        rustix::process::kill_process(keeper, rustix::process::Signal::KILL).unwrap();
    };
    let (outcome, ()) = tokio::join!(bench.actions.run(&job), kill);
    assert!(error(outcome).contains("its launcher broke off"));
    until_nobody_lives(bench.dir.path()).await;
}
