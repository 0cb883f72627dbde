//! Which appends to registries were made: an empty file for each that was begun, beside the database. An appended row cannot
//! be told from one that a person wrote, so the registry itself cannot say whether an attempt has added its row already.
//!
//! Always true here: a note is on disk only after the staged file is, and the rename that makes the append takes the staged
//! file away. So a note without its staged file means made, and everything else means not made, wherever the process or the
//! machine ended. A note stays while its job may be taken up again.

use crate::error::{EngineError, Kind, Result};
use crate::queue::{JobId, JobState, Queue};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Appends between two sweeps; the first one of a process sweeps as well.
const BETWEEN_SWEEPS: u32 = 256;

#[derive(Debug)]
pub(super) struct Notes {
    folder: PathBuf,
    appends: AtomicU32,
}

/// One append: the same whenever this very thing is done again.
#[derive(Debug, Clone)]
pub(super) struct Once {
    folder: PathBuf,
    name: String,
}

impl Notes {
    pub fn new(database: &Path) -> Self {
        let folder = database.parent().unwrap_or(Path::new("")).join("appends");
        Self { folder, appends: AtomicU32::new(0) }
    }

    /// `key` names the attempt, and within it the step.
    pub fn of(&self, job: JobId, key: &str) -> Once {
        Once { folder: self.folder.clone(), name: format!("{job}.{key}") }
    }

    /// Now and then, forgets the appends of jobs that have ended: those are never taken up again under the same key.
    pub async fn sweep_at_times(&self, workspace: &Path, queue: &Queue) {
        if !self.appends.fetch_add(1, Ordering::Relaxed).is_multiple_of(BETWEEN_SWEEPS) {
            return;
        }
        if let Err(error) = self.sweep(workspace, queue).await {
            tracing::error!(error = error.chain(), "notes of appends to registries could not be removed");
        }
    }

    async fn sweep(&self, workspace: &Path, queue: &Queue) -> Result<()> {
        let (folder, root) = (self.folder.clone(), workspace.to_owned());
        let names = blocking(move || {
            let mut names = notes_in(&folder)?;
            names.extend(staged_in(&Dir::open_ambient_dir(root, ambient_authority())?)?);
            names.sort();
            names.dedup();
            Ok(names)
        })
        .await?;
        for name in names {
            // A staged file of another kind of change is not ours.
            let Some(Ok(job)) = name.split_once('.').map(|(job, _)| job.parse::<JobId>()) else { continue };
            if is_over(queue, job).await? {
                let (once, root) = (Once { folder: self.folder.clone(), name }, workspace.to_owned());
                blocking(move || {
                    once.remove_note()?;
                    gone(Dir::open_ambient_dir(root, ambient_authority())?.remove_file(once.staged()))
                })
                .await?;
            }
        }
        Ok(())
    }
}

/// Before the name of a file of `registries/` that is to take another's place.
pub(super) const STAGED: &str = ".nexaas-";

impl Once {
    /// Where the registry with the new row is written before it takes the file's place.
    pub fn staged(&self) -> String {
        format!("registries/{STAGED}{}", self.name)
    }

    /// Whether the append was made.
    pub fn is_made(&self, workspace: &Dir) -> io::Result<bool> {
        Ok(self.note().try_exists()? && !self.is_staged(workspace)?)
    }

    /// Comes between the staged file and the rename.
    pub fn begin(&self, workspace: &Dir) -> io::Result<()> {
        workspace.open("registries")?.sync_all()?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        if let Some(above) = self.folder.parent().filter(|above| !above.as_os_str().is_empty()) {
            fs::File::open(above)?.sync_all()?;
        }
        fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(self.note())?;
        fs::File::open(&self.folder)?.sync_all()
    }

    /// Takes back what was begun; an append that was made stays so.
    pub fn undo(&self, workspace: &Dir) -> io::Result<()> {
        if self.is_staged(workspace)? {
            // In this order: a note alone would say that it was made.
            self.remove_note()?;
            workspace.remove_file(self.staged())?;
        }
        Ok(())
    }

    fn note(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    fn is_staged(&self, workspace: &Dir) -> io::Result<bool> {
        match workspace.symlink_metadata(self.staged()) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn remove_note(&self) -> io::Result<()> {
        match fs::remove_file(self.note()) {
            Ok(()) => fs::File::open(&self.folder)?.sync_all(),
            other => gone(other),
        }
    }
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The names of the notes; a folder that does not exist has none.
fn notes_in(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

/// What the staged files of a workspace are staged for; nothing of it lies outside.
fn staged_in(workspace: &Dir) -> io::Result<Vec<String>> {
    let entries = match workspace.read_dir("registries") {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Some(name) = entry?.file_name().to_str().and_then(|name| name.strip_prefix(STAGED)) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

async fn is_over(queue: &Queue, job: JobId) -> Result<bool> {
    match queue.get(job).await {
        Ok(job) => Ok(!matches!(job.state, JobState::Ready | JobState::Running)),
        Err(error) if error.kind == Kind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await.map_err(EngineError::internal)?;
    done.map_err(|error| EngineError::unavailable("Notes of appends cannot be read or removed").with_source(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::{ActionType, Actions, Settings, SystemNames, tests::Echo};
    use crate::config::EngineConfig;
    use crate::queue::{Claimed, NewJob, Outcome};
    use crate::testing::Rig;
    use arc_swap::ArcSwapOption;
    use serde_json::{Value, json};
    use std::sync::Arc;

    const ADDED: &str = r#"{"added":1,"changed":0,"removed":0}"#;

    fn append() -> NewJob {
        NewJob::new(ActionType::RegistryUpdate, config())
    }

    fn config() -> Value {
        json!({"registry": "log", "op": "append", "set": {"text": "once"}})
    }

    /// A workspace and what lies beside the database, over restarts.
    struct Bench {
        dir: tempfile::TempDir,
        rig: Rig,
        actions: Actions,
    }

    impl Bench {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("workspace/registries")).unwrap();
            fs::write(dir.path().join("workspace/registries/log.yaml"), "name: Log\nentries: []\n").unwrap();
            let rig = Rig::new().await;
            let actions = actions(dir.path(), &rig);
            Self { dir, rig, actions }
        }

        /// The process ends and another one takes the job up.
        async fn die(self) -> (Self, Claimed) {
            let rig = self.rig.restart().await;
            let actions = actions(self.dir.path(), &rig);
            let job = rig.claim(1).await.remove(0);
            (Self { dir: self.dir, rig, actions }, job)
        }

        fn text(&self) -> String {
            fs::read_to_string(self.dir.path().join("workspace/registries/log.yaml")).unwrap()
        }

        fn rows(&self) -> usize {
            self.text().matches("once").count()
        }

        /// Names beside the registry, and notes.
        fn left(&self) -> (usize, usize) {
            let workspace = Dir::open_ambient_dir(self.dir.path().join("workspace"), ambient_authority()).unwrap();
            (staged_in(&workspace).unwrap().len(), notes_in(&self.dir.path().join("appends")).unwrap().len())
        }

        fn once(&self, job: &Claimed) -> (Once, Dir) {
            let notes = Notes::new(&self.dir.path().join("nexaas.db"));
            let workspace = Dir::open_ambient_dir(self.dir.path().join("workspace"), ambient_authority()).unwrap();
            (notes.of(job.id, &job.attempt_id.to_string()), workspace)
        }
    }

    fn actions(dir: &Path, rig: &Rig) -> Actions {
        let config = EngineConfig::new("standalone", dir.join("nexaas.db"), dir.join("workspace"));
        let settings = Arc::new(ArcSwapOption::from_pointee(Settings::default()));
        let actions = Actions::new(&config, settings, Arc::new(Echo), Arc::new(SystemNames), rig.clock.clone());
        actions.unwrap().with_queue(rig.queue.clone())
    }

    #[tokio::test]
    async fn a_row_is_appended_once_when_the_process_dies_before_the_end_is_recorded() {
        let mut bench = Bench::new().await;
        bench.rig.queue.enqueue(append()).await.unwrap();
        let mut job = bench.rig.claim(1).await.remove(0);
        let first = job.attempt_id;
        for _ in 0..3 {
            assert_eq!(bench.actions.run(&job).await, Outcome::Succeeded(ADDED.into()));
            assert_eq!((bench.rows(), bench.left()), (1, (0, 1)));
            (bench, job) = bench.die().await;
            assert_eq!(job.attempt_id, first);
        }
        let registry = bench.dir.path().join("workspace/registries/log.yaml");
        fs::write(&registry, "name: Log\nentries: []\n").unwrap();
        assert_eq!(bench.actions.run(&job).await, Outcome::Succeeded(ADDED.into()));
        assert_eq!(bench.rows(), 0, "a row that a person took away meanwhile stays away");
    }

    #[tokio::test]
    async fn a_row_is_appended_when_the_process_died_before_the_file_was_replaced() {
        for noted in [false, true] {
            let bench = Bench::new().await;
            bench.rig.queue.enqueue(append()).await.unwrap();
            let job = bench.rig.claim(1).await.remove(0);
            let (once, workspace) = bench.once(&job);
            workspace.write(once.staged(), "half a fi").unwrap();
            if noted {
                once.begin(&workspace).unwrap();
            }
            let (bench, job) = bench.die().await;
            assert_eq!(bench.actions.run(&job).await, Outcome::Succeeded(ADDED.into()));
            assert_eq!((bench.rows(), bench.left()), (1, (0, 1)));
        }
    }

    #[tokio::test]
    async fn each_step_and_each_job_appends_its_own_row() {
        let bench = Bench::new().await;
        let step = |name: &str| json!({"name": name, "action_type": "registry_update", "action_config": config()});
        let steps = NewJob::new(ActionType::Steps, json!({"steps": [step("a"), step("b")]}));
        for job in [steps, append()] {
            bench.rig.queue.enqueue(job).await.unwrap();
            let job = bench.rig.claim(1).await.remove(0);
            assert_eq!(bench.actions.run(&job).await, Outcome::Succeeded(ADDED.into()));
        }
        assert_eq!((bench.rows(), bench.left()), (3, (0, 3)));
    }

    #[tokio::test]
    async fn what_was_begun_and_failed_leaves_nothing() {
        let bench = Bench::new().await;
        bench.rig.queue.enqueue(append()).await.unwrap();
        let job = bench.rig.claim(1).await.remove(0);
        let (once, workspace) = bench.once(&job);
        workspace.write(once.staged(), "").unwrap();
        once.begin(&workspace).unwrap();
        once.undo(&workspace).unwrap();
        assert_eq!(bench.left(), (0, 0));
        assert!(!once.is_made(&workspace).unwrap());
    }

    #[tokio::test]
    async fn notes_go_with_the_end_of_their_jobs() {
        let bench = Bench::new().await;
        let mut jobs = Vec::new();
        for _ in 0..2 {
            bench.rig.queue.enqueue(append()).await.unwrap();
            let job = bench.rig.claim(1).await.remove(0);
            bench.actions.run(&job).await;
            let (once, workspace) = bench.once(&job);
            jobs.push((once, job));
            // Left by an append that never came to its end.
            let lost = Notes::new(&bench.dir.path().join("nexaas.db")).of(JobId::generate(), "x");
            workspace.write(lost.staged(), "").unwrap();
        }
        fs::write(bench.dir.path().join("workspace/registries/.nexaas-7"), "").unwrap();
        assert_eq!(bench.left(), (3, 2));
        bench.rig.queue.finish(&jobs[0].1, Outcome::Succeeded(String::new())).await.unwrap();
        let notes = Notes::new(&bench.dir.path().join("nexaas.db"));
        notes.sweep_at_times(&bench.dir.path().join("workspace"), &bench.rig.queue).await;
        assert_eq!(bench.left(), (1, 1), "the note of the running job, and a file that is not ours");
        let (_, workspace) = bench.once(&jobs[1].1);
        assert!(jobs[1].0.is_made(&workspace).unwrap());
    }
}
