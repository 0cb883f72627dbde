//! The program as a child process: started on a folder, ended as one likes, started again on what it left. What it writes to
//! its log is read all the time (it must never wait for us) and its end is kept for whoever must explain a failure.

use reqwest::Client as Http;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

pub const API_KEY: &str = "test-key-0123456789abcdef";
/// For what happens at once on an idle machine, on one that is anything but idle.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOG_LINES: usize = 60;

/// How to start the program on one folder.
#[derive(Debug, Clone)]
pub struct Launch {
    data: PathBuf,
    environment: Vec<(String, String)>,
}

impl Launch {
    /// Alone, on a free port of the loopback, allowed to call receivers there.
    pub fn on(data: &Path) -> Self {
        let launch = Self { data: data.to_owned(), environment: Vec::new() };
        launch
            .with("API_KEY", API_KEY)
            .with("NEXAAS_LISTEN", "127.0.0.1:0")
            .with("NEXAAS_ALLOW_PRIVATE_WEBHOOK_TARGETS", "127.0.0.1")
            .with("NEXAAS_LOG_FORMAT", "json")
            .with("NEXAAS_LOG", "warn,nexaas_runner::run=info")
            .with("WORKER_POOL_SIZE", "8")
            .with("PATH", &std::env::var("PATH").unwrap_or_default())
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn spawn(&self) -> Process {
        let mut child = Command::new(env!("CARGO_BIN_EXE_nexaas-runner"))
            .arg("serve")
            .arg("--data-dir")
            .arg(&self.data)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let (tell, ready) = oneshot::channel();
        let mut reader = JoinSet::new();
        let kept = log.clone();
        reader.spawn(async move {
            let mut tell = Some(tell);
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains("\"message\":\"ready\"")
                    && let Some(tell) = tell.take()
                {
                    let address = line.split_once("\"address\":\"").and_then(|(_, rest)| rest.split('"').next());
                    let _ = tell.send(address.and_then(|text| text.parse().ok()).expect("an address in the log"));
                }
                let mut kept = kept.lock().unwrap();
                if kept.len() == LOG_LINES {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
        });
        Process { child, ready, log, reader }
    }

    /// Started, and ready to be asked.
    pub async fn start(&self) -> (Process, Api) {
        let mut process = self.spawn();
        let api = process.ready().await;
        (process, api)
    }
}

pub struct Process {
    child: Child,
    ready: oneshot::Receiver<SocketAddr>,
    log: Arc<Mutex<VecDeque<String>>>,
    reader: JoinSet<()>,
}

impl Process {
    pub async fn ready(&mut self) -> Api {
        self.ready_or_ended().await.unwrap_or_else(|(status, log)| panic!("it ended, {status}: {log}"))
    }

    /// Ready, or ended before it was: with the status and the log.
    pub async fn ready_or_ended(&mut self) -> Result<Api, (ExitStatus, String)> {
        match tokio::time::timeout(PATIENCE, &mut self.ready).await {
            Ok(Ok(address)) => Ok(Api::at(address)),
            Ok(Err(_)) => Err(self.end().await),
            Err(_) => panic!("the program is neither ready nor ended: {}", self.log()),
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().expect("still running").try_into().unwrap()).unwrap()
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().iter().map(|line| format!("\n  {line}")).collect()
    }

    /// SIGKILL; when this returns, the process is gone.
    pub async fn kill(&mut self) {
        kill_process(self.pid(), Signal::KILL).unwrap();
        self.child.wait().await.unwrap();
    }

    /// SIGTERM, and its regular end.
    pub async fn terminate(mut self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
        let (status, log) = self.end().await;
        assert!(status.success(), "{status}: {log}");
    }

    /// Waits until it has ended by itself; answers how, with the whole end of its log.
    pub async fn end(&mut self) -> (ExitStatus, String) {
        let status = tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("the program does not end: {}", self.log()))
            .unwrap();
        while self.reader.join_next().await.is_some() {}
        (status, self.log())
    }
}

/// A client of one running program. A call may fail: that is what these tests are about.
#[derive(Debug, Clone)]
pub struct Api {
    base: String,
    http: Http,
}

impl Api {
    fn at(address: SocketAddr) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { base: format!("http://{address}"), http: Http::new() }
    }

    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Result<(u16, Value), reqwest::Error> {
        let mut request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.base));
        request = request.bearer_auth(API_KEY).timeout(PATIENCE);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let text = response.text().await?;
        Ok((status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") }))
    }

    /// A call that must succeed.
    pub async fn done(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.call(method, path, body).await.unwrap();
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    pub async fn get(&self, path: &str) -> Value {
        self.done("GET", path, None).await
    }

    /// Waits until nothing runs and no more than `waiting` jobs wait.
    pub async fn idle(&self, waiting: u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let counts = self.get("/api/queue").await["counts"].take();
            if counts["running"] == 0 && counts["queued"].as_u64().unwrap() <= waiting {
                return;
            }
            assert!(Instant::now() < deadline, "jobs are left over: {counts}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
