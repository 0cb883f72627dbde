//! Hears of changed files and loads them again, within a fraction of a second and without polling.

use super::{Changes, Workspace};
use nexaas_common::task::{OnExit, Supervisor};
use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Config, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Editors write a file in several steps; what follows within this time is loaded together.
pub(super) const SETTLE: Duration = Duration::from_millis(100);
/// How long after a change we hear of it at the latest, as far as a load is concerned that just read the file.
pub(super) const ECHO: Duration = Duration::from_millis(15);
/// A folder that never rests is loaded as it is after so many tries.
pub(super) const MOST_TRIES: u32 = 5;

/// Whether an event can mean that a file has other content. Reading is none: we read ourselves.
fn matters(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

fn watcher(paths: &[&Path], changes: &Arc<Changes>) -> notify::Result<RecommendedWatcher> {
    let changes = changes.clone();
    let heard = move |event: notify::Result<notify::Event>| {
        // An error (such as an overflow of the kernel's queue) means that something was missed: look again.
        if event.map_or(true, |e| e.need_rescan() || matters(&e.kind)) {
            changes.heard();
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
    let changes = workspace.changes();
    let roots = workspace.roots();
    let mut paths = vec![roots.workspace.as_path()];
    paths.extend(roots.framework.as_deref());
    let watching = match watcher(&paths, &changes) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::error!(%error, "files cannot be watched; changes of the workspace are seen only at the next start");
            workspace.cannot_watch(&error.to_string());
            None
        }
    };
    // What changed between the first load and the watch, and whatever memory has to be synchronised.
    workspace.nudge();
    let workspace = workspace.clone();
    supervisor.spawn("workspace-watch", OnExit::Shutdown, move |token| async move {
        let _watching = watching;
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                () = changes.notified() => {}
            }
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(SETTLE) => {}
            }
            if let Err(error) = workspace.reload_settled().await {
                tracing::error!(error = error.chain(), "the changed workspace could not be loaded");
            }
        }
    });
}
