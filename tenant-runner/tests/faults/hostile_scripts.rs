//! Scripts that mean harm, under the real program: they harm nothing but themselves. The runner's memory stays small, other jobs
//! go on meanwhile, and afterwards nobody whom they started is left in the process table.

use crate::process::{Api, Launch, PATIENCE, Process};
use crate::receiver::Receiver;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// The most memory the runner may ever have held: what it has anyway, and what is kept of outputs.
const MOST_MEMORY_MB: u64 = 256;
/// Other jobs start at once; on a machine with two busy cores this is "at once".
const OTHERS_WITHIN: Duration = Duration::from_secs(10);
/// Of a job whose script was ended by force.
const OVER: [&str; 3] = ["succeeded", "dead", "cancelled"];

struct Stage {
    dir: tempfile::TempDir,
    launch: Launch,
    process: Process,
    api: Api,
    receiver: Receiver,
    slowest: Duration,
}

impl Stage {
    async fn set() -> Self {
        let dir = crate::real_disk();
        let receiver = Receiver::start().await;
        let launch = Launch::on(&dir.path().join("data"));
        let (process, api) = launch.start().await;
        let other = json!({
            "id": "other", "type": "load", "condition_type": "webhook", "action_type": "webhook", "max_retries": 0,
            "action_config": receiver.action(json!({"work": "{{job.id}}"})),
        });
        api.done("POST", "/api/events", Some(other)).await;
        Self { dir, launch, process, api, receiver, slowest: Duration::ZERO }
    }

    async fn begin(&self, name: &str, config: Value) -> String {
        let event = json!({
            "id": name, "type": "hostile", "condition_type": "webhook", "action_type": "script", "action_config": config,
            "max_retries": 0,
        });
        self.api.done("POST", "/api/events", Some(event)).await;
        self.trigger(name).await
    }

    async fn trigger(&self, event: &str) -> String {
        let answer = self.api.done("POST", &format!("/api/events/{event}/trigger"), None).await;
        answer["job_id"].as_str().unwrap().to_owned()
    }

    /// Another job, from asking for it to its effect.
    async fn other_job_goes_on(&mut self) {
        let asked = Instant::now();
        let job = self.trigger("other").await;
        let done = self.receiver.until(PATIENCE, |works| works.get(&job).is_some_and(|work| work.accepted)).await;
        assert!(done, "other jobs stand still: {}", self.process.log());
        self.slowest = self.slowest.max(asked.elapsed());
    }

    /// Lets other jobs run until this one is over; answers its row.
    async fn over(&mut self, job: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.other_job_goes_on().await;
            let row = self.api.get(&format!("/api/queue/{job}")).await;
            if OVER.contains(&row["state"].as_str().unwrap()) {
                return row;
            }
            assert!(Instant::now() < deadline, "it is not over: {row}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the script had in its environment and nobody else has.
    fn mark(&self) -> &Path {
        self.dir.path()
    }

    async fn nobody_is_left(&self, after: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let left = marked(self.mark());
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{after}: these are left: {left:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn most_memory_mb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid().as_raw_nonzero())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() / 1024
    }
}

/// Processes whose environment names `mark`: a script's home is there.
fn marked(mark: &Path) -> Vec<String> {
    let mark = mark.to_str().unwrap().as_bytes();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        // Others come and go, and belong to others.
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
        if environment.windows(mark.len()).any(|part| part == mark) {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push(format!(
                "{} {}",
                entry.file_name().display(),
                String::from_utf8_lossy(&line).replace('\0', " ")
            ));
        }
    }
    found
}

/// Bytes below a folder.
fn size_of(folder: &Path) -> u64 {
    std::fs::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|entry| {
            let Ok(about) = entry.path().symlink_metadata() else { return 0 };
            if about.is_dir() { size_of(&entry.path()) } else { about.len() }
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_scripts_harm_nothing_but_themselves() {
    let mut stage = Stage::set().await;
    let deaf = "trap '' TERM INT HUP QUIT; while :; do sleep 1000; done";

    let job = stage.begin("floods", json!({"command": "head -c 2000000000 /dev/zero", "timeout_s": 50})).await;
    let flooded = stage.over(&job).await;
    stage.nobody_is_left("a flood of output").await;
    let kept = size_of(stage.dir.path()) / (1024 * 1024);
    assert!(kept < 200, "{kept} MiB are on disk after a flood of output");

    let forks = json!({"command": "while :; do sleep 1000 & done", "timeout_s": 2, "limits": {"processes": 100}});
    let job = stage.begin("forks", forks).await;
    let row = stage.over(&job).await;
    assert_eq!(row["state"], "dead", "{row}");
    stage.nobody_is_left("forks without end").await;

    let job = stage.begin("deaf", json!({"command": deaf, "timeout_s": 2})).await;
    let row = stage.over(&job).await;
    assert_eq!(row["state"], "dead", "{row}");
    stage.nobody_is_left("deafness to SIGTERM").await;

    let job = stage.begin("deaf-cancelled", json!({"command": deaf, "timeout_s": 300})).await;
    stage.until_running(&job).await;
    stage.api.done("POST", &format!("/api/queue/{job}/cancel"), None).await;
    let row = stage.over(&job).await;
    assert_eq!(row["state"], "cancelled", "{row}");
    stage.nobody_is_left("a cancelled deaf script").await;

    let leaves = format!(
        "setsid sleep 1000 & setsid sh -c \"{deaf}\" >/dev/null 2>&1 </dev/null & (setsid sleep 1000 >/dev/null 2>&1 &); sleep 0.2"
    );
    let job = stage.begin("leaves", json!({"command": leaves, "timeout_s": 30})).await;
    let row = stage.over(&job).await;
    assert_eq!(row["state"], "succeeded", "{row}");
    stage.nobody_is_left("children in sessions of their own").await;

    // tail keeps a line until it ends, and this one does not.
    let allocates =
        json!({"command": "head -c 400000000 /dev/zero | tail | wc -c", "timeout_s": 50, "limits": {"memory_mb": 64}});
    let job = stage.begin("allocates", allocates).await;
    let allocated = stage.over(&job).await;
    let counted = allocated["result"].as_str().unwrap_or_default().trim().to_owned();
    assert_ne!(counted, "400000000", "the limit on memory does not hold: {allocated}");
    stage.nobody_is_left("memory without end").await;

    let memory = stage.most_memory_mb();
    assert!(memory < MOST_MEMORY_MB, "the runner has held {memory} MiB");
    assert!(stage.slowest < OTHERS_WITHIN, "another job took {:?}", stage.slowest);
    stage.api.get("/api/health").await;
    println!(
        "hostile scripts: 6, left over 0; the runner's peak {memory} MiB, on disk after 2 GB of output {kept} MiB ({}), \
         slowest other job {} ms",
        flooded["state"].as_str().unwrap(),
        stage.slowest.as_millis(),
    );
    stage.process.terminate().await;
}

impl Stage {
    async fn until_running(&self, job: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.api.get(&format!("/api/queue/{job}")).await["state"] != "running" || marked(self.mark()).is_empty() {
            assert!(Instant::now() < deadline, "{job} does not run");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_does_not_outlive_a_runner_that_is_killed() {
    let mut stage = Stage::set().await;
    let script = "trap '' TERM INT HUP; setsid sleep 1000 & while :; do sleep 1000; done";
    let job = stage.begin("stays", json!({"command": script, "timeout_s": 600})).await;
    stage.until_running(&job).await;
    stage.process.kill().await;
    let left = Instant::now();
    while !marked(stage.dir.path()).is_empty() {
        assert!(left.elapsed() < Duration::from_secs(20), "these outlive the runner: {:?}", marked(stage.dir.path()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let gone = left.elapsed();

    (stage.process, stage.api) = stage.launch.start().await;
    stage.until_running(&job).await;
    stage.api.done("POST", &format!("/api/queue/{job}/cancel"), None).await;
    let row = stage.over(&job).await;
    assert_eq!(row["state"], "cancelled", "{row}");
    stage.nobody_is_left("a cancelled script").await;
    println!("a killed runner's script and its children are gone after {} ms", gone.as_millis());
    stage.process.terminate().await;
}
