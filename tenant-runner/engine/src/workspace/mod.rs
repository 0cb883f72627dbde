//! What a tenant's files say: the framework's and the workspace's, merged, always loaded, hot.
//!
//! Always true here: the files are read beneath one directory handle and under limits; a broken file is a problem with file,
//! line and reason, and costs neither a crash nor the last good version of what it held; `snapshot()` never waits.

mod agents;
pub(crate) mod files;
mod good;
mod layout;
mod load;
mod mcp;
mod memory;
mod problem;
mod registries;
mod skills;
mod sync;
pub(crate) mod template;
mod watch;
mod yaml;

pub use agents::{Agent, AgentNode, Source};
pub use layout::{Component, Layout, Page, Perspective};
pub use load::{Snapshot, validate};
pub use mcp::CatalogEntry;
pub(crate) use mcp::REDACTED;
pub use problem::{Problem, Severity};
pub use registries::{Field, Registry};
pub use skills::Skill;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use load::tried;
pub(crate) use registries::read as read_registry;
pub(crate) use yaml::{LARGEST_FILE, or_default, parse as parse_yaml};

use crate::bus::{Bus, Fact};
use crate::config::{EngineConfig, Settings};
use crate::error::{EngineError, Result};
use crate::event::Events;
use crate::history;
use crate::store::{Store, to_micros};
use arc_swap::{ArcSwap, ArcSwapOption};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use nexaas_common::clock::SharedClock;
use nexaas_common::task::Supervisor;
use rusqlite::{OptionalExtension as _, params};
use serde::Serialize;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, watch as channel};

/// Where the files are.
#[derive(Debug, Clone)]
pub(crate) struct Roots {
    pub workspace: PathBuf,
    pub framework: Option<PathBuf>,
    pub templates: Option<PathBuf>,
}

/// The answer to `initialize`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Initialized {
    pub created: bool,
    pub detail: String,
}

/// Clones share one workspace.
#[derive(Debug, Clone)]
pub struct Workspace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    roots: Roots,
    default_zone: chrono_tz::Tz,
    settings: Arc<ArcSwapOption<Settings>>,
    current: ArcSwap<Snapshot>,
    revision: channel::Sender<u64>,
    /// One load, and one initialisation, at a time.
    loading: tokio::sync::Mutex<good::Remembered>,
    initializing: tokio::sync::Mutex<()>,
    store: Store,
    bus: Bus,
    events: Events,
    clock: SharedClock,
    changes: Arc<Changes>,
}

/// What the watcher heard.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Asks the watching task to look again.
    nudged: Notify,
    /// Counts what was heard.
    count: AtomicU64,
}

impl Changes {
    pub fn heard(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        self.nudged.notify_one();
    }

    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    pub async fn notified(&self) {
        self.nudged.notified().await;
    }
}

impl Workspace {
    /// Loads the files once. What is wrong with them is a problem, not an error.
    pub(crate) async fn open(
        config: &EngineConfig,
        settings: Arc<ArcSwapOption<Settings>>,
        (store, bus, events): (Store, Bus, Events),
        clock: SharedClock,
    ) -> Result<Self> {
        let roots = Roots {
            workspace: config.workspace_root.clone(),
            framework: config.framework_root.clone(),
            templates: config.templates_root.clone(),
        };
        let root = roots.workspace.clone();
        let made =
            tokio::task::spawn_blocking(move || std::fs::create_dir_all(root)).await.map_err(EngineError::internal)?;
        if let Err(error) = made {
            tracing::error!(%error, path = %roots.workspace.display(), "the workspace's folder cannot be made");
        }
        let (texts, hashes) = good::recall(&store).await?;
        let zone = config.default_timezone;
        let last =
            tokio::task::spawn_blocking(move || load::remembered(texts, zone)).await.map_err(EngineError::internal)?;
        let workspace = Self(Arc::new(Inner {
            roots,
            default_zone: config.default_timezone,
            settings,
            current: ArcSwap::from_pointee(Snapshot { workspace: Arc::new(last), ..Snapshot::default() }),
            revision: channel::Sender::new(0),
            loading: tokio::sync::Mutex::new(hashes),
            initializing: tokio::sync::Mutex::default(),
            store,
            bus,
            events,
            clock,
            changes: Arc::default(),
        }));
        workspace.load(false).await?;
        Ok(workspace)
    }

    /// Watches the files from now on, and keeps the memory files' events in step with them.
    pub(crate) fn watch(&self, supervisor: &Supervisor) {
        watch::start(self, supervisor);
    }

    /// What is in force now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.current.load_full()
    }

    /// Hears of every new revision after this call.
    pub fn revisions(&self) -> channel::Receiver<u64> {
        self.0.revision.subscribe()
    }

    /// Has the files looked at again soon, for instance because the settings changed.
    pub(crate) fn nudge(&self) {
        self.0.changes.nudged.notify_one();
    }

    pub(crate) fn changes(&self) -> Arc<Changes> {
        self.0.changes.clone()
    }

    /// The root of the workspace.
    pub fn root(&self) -> &std::path::Path {
        &self.0.roots.workspace
    }

    pub(crate) fn roots(&self) -> &Roots {
        &self.0.roots
    }

    /// The body of `GET /api/workspace`.
    pub fn view(&self) -> serde_json::Value {
        let snapshot = self.snapshot();
        let pages: Vec<&Page> = snapshot.layout.perspectives.iter().flat_map(|p| &p.pages).collect();
        let components: Vec<&Component> = pages.iter().flat_map(|p| &p.components).collect();
        let registries: Vec<_> =
            snapshot.registries.values().map(|r| json!({"name": r.name, "path": r.path})).collect();
        json!({
            "root": self.root().display().to_string(),
            "config": snapshot.layout.raw,
            "perspectives": snapshot.layout.perspectives,
            "pages": pages,
            "components": components,
            "registries": registries,
            "claude_md": snapshot.claude_md,
            "mcp_config": snapshot.mcp_config,
            "problems": snapshot.problems,
            "revision": snapshot.revision,
        })
    }

    /// A file of an agent's `reference` folder, read when it is asked for.
    pub(crate) async fn reference(&self, agent: &Agent, name: &str) -> Result<Option<String>> {
        let root = match agent.source {
            Source::Client => Some(self.0.roots.workspace.clone()),
            Source::Framework => self.0.roots.framework.clone(),
        };
        let (Some(root), true) = (root, agent.references.iter().any(|r| r == name)) else { return Ok(None) };
        let path = format!("{}/reference/{name}", agent.dir);
        tokio::task::spawn_blocking(move || {
            let root = files::Root::open(&root)
                .map_err(|e| EngineError::unavailable("The workspace cannot be read").with_source(e))?;
            root.text(&path).map_err(|problem| EngineError::unavailable(problem.to_string()))
        })
        .await
        .map_err(EngineError::internal)?
    }

    fn zone(&self) -> chrono_tz::Tz {
        self.0.settings.load().as_ref().and_then(|s| s.default_timezone).unwrap_or(self.0.default_zone)
    }

    /// Loads the files. With `settled`, a file that is being written meanwhile is not taken for what it is in that moment:
    /// an editor that truncates a file before it writes it would seem to have emptied it.
    async fn load(&self, settled: bool) -> Result<Arc<Snapshot>> {
        let mut remembered = self.0.loading.lock().await;
        let before = self.snapshot();
        let mut tries = if settled { watch::MOST_TRIES } else { 1 };
        let mut loaded = loop {
            tries -= 1;
            let heard = self.0.changes.count();
            let loaded = self.read(before.clone()).await?;
            if tries == 0 {
                break loaded;
            }
            tokio::time::sleep(watch::ECHO).await;
            if self.0.changes.count() == heard {
                break loaded;
            }
            tokio::time::sleep(watch::SETTLE).await;
        };
        let next = Arc::new(std::mem::take(&mut loaded.snapshot));
        if next.revision != before.revision {
            self.publish(next.clone());
        }
        if let Err(error) = good::remember(&self.0.store, &mut remembered, loaded, to_micros(self.0.clock.now())).await
        {
            tracing::error!(error = error.chain(), "the workspace's last good version could not be stored");
        }
        Ok(next)
    }

    async fn read(&self, last: Arc<Snapshot>) -> Result<load::Loaded> {
        let (roots, zone) = (self.0.roots.clone(), self.zone());
        let started = std::time::Instant::now();
        let loaded =
            tokio::task::spawn_blocking(move || load::load(roots.framework.as_deref(), &roots.workspace, zone, &last))
                .await
                .map_err(EngineError::internal)?;
        metrics::histogram!("nexaas_workspace_load_seconds").record(started.elapsed().as_secs_f64());
        Ok(loaded)
    }

    fn publish(&self, next: Arc<Snapshot>) {
        let revision = next.revision;
        self.0.current.store(next);
        self.0.revision.send_replace(revision);
    }

    /// Reads the files again, tells the bus if that changed anything, and brings the memory files' events in step.
    pub async fn reload(&self) -> Result<Arc<Snapshot>> {
        self.take_over(false).await
    }

    /// `reload`, once the files are quiet.
    pub(crate) async fn reload_settled(&self) -> Result<Arc<Snapshot>> {
        self.take_over(true).await
    }

    async fn take_over(&self, settled: bool) -> Result<Arc<Snapshot>> {
        let before = self.snapshot().revision;
        let next = self.load(settled).await?;
        if next.revision != before {
            tracing::info!(revision = next.revision, problems = next.problems.len(), "the workspace changed");
            let data = json!({"revision": next.revision, "problems": next.problems.len()});
            self.0.bus.announce(Fact::new("workspace.changed", "workspace", data)).await?;
        }
        sync::memory(&self.0.store, &self.0.events, &next.memory, to_micros(self.0.clock.now())).await?;
        Ok(next)
    }

    fn cannot_watch(&self, reason: &str) {
        let mut next = self.snapshot().as_ref().clone();
        next.revision += 1;
        next.problems.push(Problem::warning(".", 0, format!("changes of files are not noticed: {reason}")));
        self.publish(Arc::new(next));
    }

    /// Whether a template was copied, or the workspace had files of its own when it was asked to be made.
    pub async fn is_initialized(&self) -> Result<bool> {
        Ok(self.marker().await?.is_some_and(|(_, state)| state == "done"))
    }

    async fn marker(&self) -> Result<Option<(String, String)>> {
        self.0
            .store
            .read(|c| {
                let found =
                    c.query_row("SELECT template, state FROM workspace_init", [], |r| Ok((r.get(0)?, r.get(1)?)));
                Ok(found.optional()?)
            })
            .await
    }

    async fn mark(&self, template: &str, state: &'static str, history: history::History) -> Result<()> {
        let (template, now, bus, events) =
            (template.to_owned(), self.0.clock.now(), self.0.bus.clone(), self.0.events.clone());
        self.0
            .store
            .write(move |tx| {
                tx.execute(
                    "INSERT INTO workspace_init (only, template, state, at) VALUES (1, ?1, ?2, ?3)
                     ON CONFLICT (only) DO UPDATE SET state = excluded.state, at = excluded.at, template = excluded.template",
                    params![template, state, to_micros(now)],
                )?;
                history.insert(tx, &events, now)?;
                if state == "done" {
                    bus.publish(tx, &Fact::new("workspace.changed", "workspace", json!({"template": template})))?;
                }
                Ok(())
            })
            .await
    }

    /// Copies a template into the workspace and plants its history, once. A workspace that has files of its own is left alone.
    pub async fn initialize(&self, template: &str) -> Result<Initialized> {
        template::check_name(template)?;
        let _one = self.0.initializing.lock().await;
        match self.marker().await? {
            Some((made_from, state)) if state == "done" => {
                let detail = match made_from.as_str() {
                    "" => "The workspace had files of its own and was left alone".to_owned(),
                    name => format!("The workspace was already made from the template '{name}'"),
                };
                return Ok(Initialized { created: false, detail });
            }
            Some((started, _)) if started != template => {
                return Err(EngineError::conflict(format!(
                    "The workspace is being made from the template '{started}'"
                )));
            }
            // An attempt that was cut short: every file it wrote is ours, so it can be done again.
            Some(_) => {}
            None => {
                let root = self.0.roots.workspace.clone();
                if blocking(move || template::has_files(&Dir::open_ambient_dir(root, ambient_authority())?)).await? {
                    self.mark("", "done", history::History::default()).await?;
                    let detail = "The workspace has files of its own and was left alone".to_owned();
                    return Ok(Initialized { created: false, detail });
                }
            }
        }
        let Some(templates) = self.0.roots.templates.clone() else {
            return Err(EngineError::unavailable("This runner has no templates"));
        };
        let name = template.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            let dir = template::open(&templates, &name)?;
            let seed = history::read(&dir)?;
            Ok::<_, EngineError>((dir, seed))
        });
        let (dir, seed) = opened.await.map_err(EngineError::internal)??;
        self.mark(template, "copying", history::History::default()).await?;
        let root = self.0.roots.workspace.clone();
        let files = blocking(move || template::copy(&dir, &Dir::open_ambient_dir(root, ambient_authority())?)).await?;
        self.mark(template, "done", seed).await?;
        self.reload().await?;
        Ok(Initialized { created: true, detail: format!("Copied {files} files from the template '{template}'") })
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(EngineError::internal)?
        .map_err(|e| EngineError::unavailable("The workspace's files cannot be written").with_source(e))
}
