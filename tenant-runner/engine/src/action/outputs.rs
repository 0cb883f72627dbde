//! What scripts wrote, where it was more than an answer holds: one file for each attempt, beside the database.
//!
//! Always true here: a file holds no secret and ends at its cap with a line that says so; no name comes from outside; what
//! nobody can ask for any more, is too old, or is beyond the total is removed.

use crate::bus::Bus;
use crate::config::OutputsConfig;
use crate::error::{EngineError, Kind, Result};
use crate::queue::{JobId, Queue};
use crate::retention;
use chrono::{DateTime, Utc};
use nexaas_common::clock::SharedClock;
use nexaas_common::task::Supervisor;
use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Read in one go.
const MOST_AT_ONCE: u64 = 1024 * 1024;

/// Clones share one folder.
#[derive(Debug, Clone)]
pub struct Outputs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    limits: OutputsConfig,
}

/// A piece of an attempt's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub bytes: Vec<u8>,
    pub offset: u64,
    /// Where to go on, if there is more now.
    pub next: Option<u64>,
    pub total: u64,
}

impl Outputs {
    pub fn new(database: &Path, limits: OutputsConfig) -> Self {
        let folder = database.parent().unwrap_or(Path::new("")).join("outputs");
        Self(Arc::new(Inner { folder, limits }))
    }

    /// A piece of what the attempt wrote; `None` where everything it wrote is in its result.
    pub async fn read(&self, job: JobId, attempt: u32, offset: u64, limit: u64) -> Result<Option<Part>> {
        let path = self.file(job, attempt);
        blocking(move || {
            let mut file = match fs::File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            let total = file.metadata()?.len();
            let offset = offset.min(total);
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            file.take(limit.clamp(1, MOST_AT_ONCE)).read_to_end(&mut bytes)?;
            let end = offset + bytes.len() as u64;
            Ok(Some(Part { bytes, offset, next: (end < total).then_some(end), total }))
        })
        .await
    }

    /// The most that is kept of one attempt.
    pub(super) fn cap(&self) -> u64 {
        self.0.limits.most_per_attempt
    }

    /// Opens the attempt's file to go on at its end; answers what is in it already.
    pub(super) async fn append(&self, job: JobId, attempt: u32) -> io::Result<(tokio::fs::File, u64)> {
        let path = self.file(job, attempt);
        let opened = tokio::task::spawn_blocking(move || {
            if let Some(folder) = path.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            }
            let file = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
            let length = file.metadata()?.len();
            Ok::<_, io::Error>((file, length))
        });
        let (file, length) = opened.await.map_err(io::Error::other)??;
        Ok((tokio::fs::File::from_std(file), length))
    }

    fn file(&self, job: JobId, attempt: u32) -> PathBuf {
        self.0.folder.join(job.to_string()).join(format!("{attempt}.log"))
    }

    /// Removes what is kept no longer; answers how many files that was.
    pub async fn sweep(&self, queue: &Queue, now: DateTime<Utc>) -> Result<u64> {
        let folder = self.0.folder.clone();
        let mut files = blocking(move || list(&folder)).await?;
        let oldest = SystemTime::from(now - self.0.limits.longest);
        let mut gone = Vec::new();
        let mut kept = Vec::new();
        for group in files.chunk_by_mut(|a, b| a.job == b.job) {
            let known = match group[0].job {
                Some(job) => is_known(queue, job).await?,
                None => false,
            };
            for file in group {
                if known && file.changed >= oldest { kept.push(file.clone()) } else { gone.push(file.clone()) }
            }
        }
        kept.sort_by_key(|file| file.changed);
        let mut total: u64 = kept.iter().map(|file| file.length).sum();
        for file in kept {
            if total <= self.0.limits.most_in_total {
                break;
            }
            total -= file.length;
            gone.push(file);
        }
        let removed = gone.len() as u64;
        blocking(move || {
            for file in gone {
                match fs::remove_file(&file.path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
                // Fails while there are others in it.
                let _ = file.path.parent().map(fs::remove_dir);
            }
            Ok(())
        })
        .await?;
        Ok(removed)
    }

    /// Sweeps after activity, at most once an hour.
    pub(crate) fn start(&self, queue: Queue, bus: &Bus, clock: SharedClock, supervisor: &Supervisor) {
        let outputs = self.clone();
        let sweep = move || {
            let (outputs, queue, now) = (outputs.clone(), queue.clone(), clock.now());
            async move { outputs.sweep(&queue, now).await }
        };
        retention::after_activity("outputs", bus, supervisor, sweep);
    }
}

async fn is_known(queue: &Queue, job: JobId) -> Result<bool> {
    match queue.get(job).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind == Kind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[derive(Debug, Clone)]
struct File {
    path: PathBuf,
    job: Option<JobId>,
    changed: SystemTime,
    length: u64,
}

/// Every file, those of one job beside each other.
fn list(folder: &Path) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    let jobs = match fs::read_dir(folder) {
        Ok(jobs) => jobs,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(error),
    };
    for entry in jobs {
        let entry = entry?;
        let job = entry.file_name().to_str().and_then(|name| name.parse::<JobId>().ok());
        if !entry.file_type()?.is_dir() {
            continue;
        }
        for entry in fs::read_dir(entry.path())? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_file() {
                let (changed, length) = (metadata.modified()?, metadata.len());
                files.push(File { path: entry.path(), job, changed, length });
            }
        }
    }
    Ok(files)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await.map_err(EngineError::internal)?;
    done.map_err(|error| EngineError::unavailable("Kept outputs cannot be read or removed").with_source(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Rig, job};
    use tokio::io::AsyncWriteExt as _;

    async fn rig(most_in_total: u64) -> (Rig, Outputs) {
        let rig = Rig::new().await;
        let limits = OutputsConfig { most_in_total, ..OutputsConfig::default() };
        let outputs = Outputs::new(&rig.path().join("nexaas.db"), limits);
        (rig, outputs)
    }

    async fn keep(rig: &Rig, outputs: &Outputs, job: JobId, attempt: u32, text: &str) {
        let (mut file, _) = outputs.append(job, attempt).await.unwrap();
        file.write_all(text.as_bytes()).await.unwrap();
        file.flush().await.unwrap();
        let changed = SystemTime::from(rig.now());
        fs::File::options().append(true).open(outputs.file(job, attempt)).unwrap().set_modified(changed).unwrap();
    }

    #[tokio::test]
    async fn an_output_is_read_in_pieces_and_nothing_is_there_for_others() {
        let (rig, outputs) = rig(1000).await;
        let id = JobId::generate();
        keep(&rig, &outputs, id, 1, "0123456789").await;
        let part = outputs.read(id, 1, 2, 5).await.unwrap().unwrap();
        assert_eq!(part, Part { bytes: b"23456".to_vec(), offset: 2, next: Some(7), total: 10 });
        let part = outputs.read(id, 1, 7, 5).await.unwrap().unwrap();
        assert_eq!((part.bytes.as_slice(), part.next), (b"789".as_slice(), None));
        assert_eq!(outputs.read(id, 1, 99, 5).await.unwrap().unwrap().bytes, b"");
        assert_eq!(outputs.read(id, 2, 0, 5).await.unwrap(), None);
        assert_eq!(outputs.read(JobId::generate(), 1, 0, 5).await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_output_goes_with_its_job_with_its_age_and_when_there_is_too_much() {
        let (rig, outputs) = rig(25).await;
        let mut jobs = Vec::new();
        for _ in 0..4 {
            jobs.push(rig.queue.enqueue(job()).await.unwrap());
        }
        let stranger = JobId::generate();
        keep(&rig, &outputs, stranger, 1, "whose?").await;
        keep(&rig, &outputs, jobs[0], 1, "ancient").await;
        rig.advance(29 * 24 * 3600);
        for (number, id) in jobs[1..].iter().enumerate() {
            rig.advance(60);
            keep(&rig, &outputs, *id, number as u32 + 1, "0123456789").await;
        }
        rig.advance(2 * 24 * 3600);
        // A stranger's, one that is too old, and the oldest of thirty bytes where twenty-five may be.
        assert_eq!(outputs.sweep(&rig.queue, rig.now()).await.unwrap(), 3);
        for (id, attempt, there) in
            [(stranger, 1, false), (jobs[0], 1, false), (jobs[1], 1, false), (jobs[2], 2, true), (jobs[3], 3, true)]
        {
            assert_eq!(outputs.read(id, attempt, 0, 1).await.unwrap().is_some(), there, "{attempt}");
        }
        let folders = fs::read_dir(rig.path().join("outputs")).unwrap().count();
        assert_eq!((folders, outputs.sweep(&rig.queue, rig.now()).await.unwrap()), (2, 0));
    }

    #[tokio::test]
    async fn where_nothing_was_kept_there_is_nothing_to_sweep() {
        let (rig, outputs) = rig(25).await;
        assert_eq!(outputs.sweep(&rig.queue, rig.now()).await.unwrap(), 0);
    }
}
