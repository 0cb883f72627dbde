//! Hears of changed files and loads them again, within a fraction of a second and without polling.

use super::Workspace;
use nexaas_common::task::{OnExit, Supervisor};
use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Config, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Editors write a file in several steps; what follows within this time is loaded together.
const SETTLE: Duration = Duration::from_millis(120);

/// Whether an event can mean that a file has other content. Reading is none: we read ourselves.
fn matters(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

fn watcher(paths: &[&Path], changed: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let changed = changed.clone();
    let heard = move |event: notify::Result<notify::Event>| {
        // An error (such as an overflow of the kernel's queue) means that something was missed: look again.
        if event.map_or(true, |e| e.need_rescan() || matters(&e.kind)) {
            changed.notify_one();
        }
    };
    // A link could lead the watcher all over the disk.
    let mut watcher = RecommendedWatcher::new(heard, Config::default().with_follow_symlinks(false))?;
    for path in paths {
        watcher.watch(path, RecursiveMode::Recursive)?;
    }
    Ok(watcher)
}

/// Starts the task. Without a working watcher the workspace stays as it is until something asks for a reload, and the log says so.
pub(super) fn start(workspace: &Workspace, supervisor: &Supervisor) {
    let changed = workspace.nudged();
    let roots = workspace.roots();
    let mut paths = vec![roots.workspace.as_path()];
    paths.extend(roots.framework.as_deref());
    let watching = match watcher(&paths, &changed) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::error!(%error, "files cannot be watched; changes of the workspace are seen only at the next start");
            workspace.cannot_watch(&error.to_string());
            None
        }
    };
    // What changed between the first load and the watch, and whatever memory has to be synchronised.
    changed.notify_one();
    let workspace = workspace.clone();
    supervisor.spawn("workspace-watch", OnExit::Shutdown, move |token| async move {
        let _watching = watching;
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                () = changed.notified() => {}
            }
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(SETTLE) => {}
            }
            if let Err(error) = workspace.reload().await {
                tracing::error!(error = error.chain(), "the changed workspace could not be loaded");
            }
        }
    });
}
