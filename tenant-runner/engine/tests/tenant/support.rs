//! One engine in folders of its own.

use futures::StreamExt as _;
use nexaas_common::clock::{ManualClock, SharedClock};
use nexaas_common::secret::SecretString;
use nexaas_common::task::Supervisor;
use nexaas_engine::chat::{ChatEvent, ChatEventKind, ChatStream};
use nexaas_engine::workspace::Snapshot;
use nexaas_engine::{Engine, EngineConfig, Settings};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Longer than anything here takes; only a defect reaches it.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct World {
    pub dir: TempDir,
    pub clock: Arc<ManualClock>,
    pub supervisor: Supervisor,
    pub engine: Arc<Engine>,
}

pub fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

pub fn config(dir: &Path) -> EngineConfig {
    let mut config = EngineConfig::new("tenant-a", dir.join("nexaas.db"), dir.join("workspace"));
    config.framework_root = Some(dir.join("framework"));
    config.templates_root = Some(dir.join("templates"));
    config.ops.enabled = false;
    config
}

impl World {
    /// An engine over whatever `files` says, paths being relative to the folder that holds all roots.
    pub async fn new(files: &[(&str, &str)]) -> Self {
        Self::with(files, |_| {}).await
    }

    pub async fn with(files: &[(&str, &str)], change: impl FnOnce(&mut EngineConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for root in ["workspace", "framework", "templates"] {
            std::fs::create_dir_all(dir.path().join(root)).unwrap();
        }
        for (path, text) in files {
            write(dir.path(), path, text);
        }
        let clock = ManualClock::new("2026-05-04T10:00:00Z".parse().unwrap());
        let mut config = config(dir.path());
        change(&mut config);
        let supervisor = Supervisor::new();
        let shared: SharedClock = clock.clone();
        let engine = Engine::start(config, shared, supervisor.clone()).await.unwrap();
        Self { dir, clock, supervisor, engine }
    }

    /// The same folders under a new process, as far as the engine can tell.
    pub async fn restarted(self, change: impl FnOnce(&mut EngineConfig)) -> Self {
        let Self { dir, clock, supervisor, engine } = self;
        supervisor.shutdown(PATIENCE).await.unwrap();
        drop(engine);
        let mut config = config(dir.path());
        change(&mut config);
        let supervisor = Supervisor::new();
        let shared: SharedClock = clock.clone();
        let engine = Engine::start(config, shared, supervisor.clone()).await.unwrap();
        Self { dir, clock, supervisor, engine }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("workspace")
    }

    pub fn write(&self, path: &str, text: &str) {
        write(&self.root(), path, text);
    }

    /// Waits for the snapshot that `wanted` accepts.
    pub async fn until(&self, wanted: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut revisions = self.engine.workspace().revisions();
        let waiting = async {
            loop {
                revisions.borrow_and_update();
                let snapshot = self.engine.workspace().snapshot();
                if wanted(&snapshot) {
                    return snapshot;
                }
                revisions.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(snapshot) => snapshot,
            Err(_) => panic!("the workspace never became so: {:#?}", self.engine.workspace().snapshot()),
        }
    }

    pub fn with_key(&self) {
        let secrets = [("ANTHROPIC_API_KEY".to_owned(), SecretString::from("sk-canary-key"))].into();
        self.engine.configure(Settings { secrets, ..Settings::default() });
    }

    pub async fn stop(self) {
        self.supervisor.shutdown(PATIENCE).await.unwrap();
    }
}

pub async fn collect(stream: ChatStream) -> Vec<ChatEvent> {
    tokio::time::timeout(PATIENCE, stream.collect()).await.expect("the turn never ended")
}

pub fn text(events: &[ChatEvent]) -> String {
    events.iter().filter(|e| e.kind == ChatEventKind::Chunk).map(|e| e.content.as_str()).collect()
}

pub const WRITER: &[(&str, &str)] = &[
    ("workspace/workspace.yaml", "name: Acme\n"),
    ("workspace/CLAUDE.md", "We are Acme, makers of anvils."),
    ("framework/CLAUDE.md", "Rules of the framework."),
    ("workspace/agents/writer/config.yaml", "name: writer\nrole: Copywriter\n"),
    ("workspace/agents/writer/prompt.md", "Write short sentences."),
    ("workspace/agents/writer/reference/style.md", "Never use exclamation marks."),
    ("workspace/skills/report.md", "# Weekly report\n\nSum up the week in three lines.\n"),
];

/// Applies retention rules by the world's clock.
pub async fn keep(world: &World, rules: &'static [nexaas_engine::retention::Keep]) {
    use nexaas_common::clock::Clock as _;
    let now = world.clock.now();
    for rule in rules {
        let before = nexaas_engine::store::to_micros(now - rule.age);
        let removing = world.engine.store().write(move |tx| {
            let limits = rusqlite::named_params! {":before": before, ":rows": rule.rows, ":at_once": 500};
            Ok(tx.execute(rule.sql, limits)?)
        });
        removing.await.unwrap();
    }
}
