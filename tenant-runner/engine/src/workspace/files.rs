//! Reading beneath one directory handle. The files are a tenant's, so nothing here trusts them: a link cannot lead out of the
//! root, a pipe cannot block, a large file is not read, and a folder with too many entries is cut off with a problem.

use super::problem::Problem;
use super::yaml::{LARGEST_FILE, too_large};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Entries that are looked at in one folder.
const MOST_ENTRIES: usize = 1_000;

/// One root: the framework or the workspace, or what is remembered of one.
#[derive(Debug)]
pub struct Root {
    files: Files,
    /// Every text that was handed out, by path.
    read: Mutex<BTreeMap<String, String>>,
}

#[derive(Debug)]
enum Files {
    Dir(Dir),
    Remembered(BTreeMap<String, String>),
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub is_dir: bool,
}

impl Root {
    pub fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self::from_dir(Dir::open_ambient_dir(path, ambient_authority())?))
    }

    pub fn from_dir(dir: Dir) -> Self {
        Self { files: Files::Dir(dir), read: Mutex::default() }
    }

    /// Files that only exist as texts by path.
    pub fn remembered(texts: BTreeMap<String, String>) -> Self {
        Self { files: Files::Remembered(texts), read: Mutex::default() }
    }

    /// Everything that was read.
    pub fn into_read(self) -> BTreeMap<String, String> {
        self.read.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// The text of a file, `None` when there is no such file, or the reason why it cannot be used.
    pub fn text(&self, path: &str) -> Result<Option<String>, Problem> {
        let text = match &self.files {
            Files::Dir(dir) => read(dir, path)?,
            Files::Remembered(texts) => texts.get(path).cloned(),
        };
        if let Some(text) = &text {
            self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), text.clone());
        }
        Ok(text)
    }

    /// The names in a folder, sorted; hidden ones left out. A folder that does not exist is empty.
    pub fn list(&self, path: &str, problems: &mut Vec<Problem>) -> Vec<Entry> {
        match &self.files {
            Files::Dir(dir) => list(dir, path, problems),
            Files::Remembered(texts) => {
                let mut entries: BTreeMap<String, bool> = BTreeMap::new();
                for below in texts.keys().filter_map(|p| p.strip_prefix(path)?.strip_prefix('/')) {
                    match below.split_once('/') {
                        Some((folder, _)) => entries.insert(folder.to_owned(), true),
                        None => entries.insert(below.to_owned(), false),
                    };
                }
                entries.into_iter().map(|(name, is_dir)| Entry { name, is_dir }).collect()
            }
        }
    }
}

fn read(dir: &Dir, path: &str) -> Result<Option<String>, Problem> {
    let mut options = OpenOptions::new();
    // Without NONBLOCK, opening a named pipe would wait for a writer.
    options.read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    let file = match dir.open_with(path, &options) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => return Ok(None),
        Err(error) => return Err(Problem::error(path, 0, format!("cannot be read: {error}"))),
    };
    let unreadable = |error: std::io::Error| Problem::error(path, 0, format!("cannot be read: {error}"));
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Problem::error(path, 0, "is not a regular file"));
    }
    if metadata.len() > LARGEST_FILE {
        return Err(too_large(path));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(too_large(path));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].iter().filter(|b| **b == b'\n').count() + 1;
        Problem::error(path, u32::try_from(line).unwrap_or(0), "is not UTF-8 text")
    })?;
    Ok(Some(text))
}

fn list(dir: &Dir, path: &str, problems: &mut Vec<Problem>) -> Vec<Entry> {
    let reading = match dir.read_dir(path) {
        Ok(reading) => reading,
        Err(error) => {
            if !matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) {
                problems.push(Problem::error(path, 0, format!("cannot be listed: {error}")));
            }
            return Vec::new();
        }
    };
    let mut entries = Vec::new();
    for entry in reading.flatten() {
        if entries.len() == MOST_ENTRIES {
            problems.push(Problem::warning(
                path,
                0,
                format!("has more than {MOST_ENTRIES} entries; the rest is ignored"),
            ));
            break;
        }
        let Ok(name) = entry.file_name().into_string() else {
            problems.push(Problem::warning(path, 0, "has a name that is not UTF-8; it is ignored"));
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        // Follows a link, but only to what lies beneath the root.
        let is_dir = dir.metadata(Path::new(path).join(&name)).is_ok_and(|m| m.is_dir());
        entries.push(Entry { name, is_dir });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}

/// The name without its ending, if it has one of `endings`.
pub fn stem<'a>(name: &'a str, endings: &[&str]) -> Option<&'a str> {
    endings.iter().find_map(|e| name.strip_suffix(e)).filter(|s| !s.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_out_of_the_root_is_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret.yaml"), "key: value").unwrap();
        let inside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret.yaml"), inside.path().join("a.yaml")).unwrap();
        std::os::unix::fs::symlink(outside.path(), inside.path().join("agents")).unwrap();
        let root = Root::open(inside.path()).unwrap();
        assert!(root.text("a.yaml").is_err());
        let mut problems = Vec::new();
        assert!(root.list("agents", &mut problems).is_empty());
        assert!(root.text("../secret.yaml").is_err() || root.text("../secret.yaml").unwrap().is_none());
    }

    #[test]
    fn a_link_that_is_swapped_while_it_is_read_never_leads_outside() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("config.yaml"), "secret").unwrap();
        let inside = tempfile::tempdir().unwrap();
        let at = |name: &str| inside.path().join(name);
        std::fs::create_dir(at("real")).unwrap();
        std::fs::write(at("real/config.yaml"), "harmless").unwrap();
        std::os::unix::fs::symlink("real", at("agent")).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    for target in ["real", outside.path().to_str().unwrap()] {
                        let _ = std::fs::remove_file(at("next"));
                        std::os::unix::fs::symlink(target, at("next")).unwrap();
                        std::fs::rename(at("next"), at("agent")).unwrap();
                    }
                }
            });
            let root = Root::open(inside.path()).unwrap();
            let (mut read, mut refused) = (0u32, 0u32);
            // Until the swaps were met in both states, or the test has shown nothing.
            while read + refused < 1_000_000 && (read < 500 || refused < 500) {
                match root.text("agent/config.yaml") {
                    Ok(Some(text)) => {
                        assert_eq!(text, "harmless");
                        read += 1;
                    }
                    _ => refused += 1,
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(read >= 500 && refused >= 500, "read {read}, refused {refused}");
        });
    }

    #[test]
    fn what_is_remembered_reads_like_a_folder() {
        let texts = [("a.yaml", "x"), ("agents/b/config.yaml", "y"), ("agents/c.txt", "z")];
        let root = Root::remembered(texts.map(|(p, t)| (p.to_owned(), t.to_owned())).into());
        let names: Vec<_> = root.list("agents", &mut vec![]).into_iter().map(|e| (e.name, e.is_dir)).collect();
        assert_eq!(names, [("b".to_owned(), true), ("c.txt".to_owned(), false)]);
        assert_eq!(root.text("agents/b/config.yaml").unwrap().as_deref(), Some("y"));
        assert!(root.text("agents/b").unwrap().is_none());
        assert_eq!(root.into_read().len(), 1);
    }

    #[test]
    fn a_pipe_neither_blocks_nor_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("workspace.yaml");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        let problem = Root::open(dir.path()).unwrap().text("workspace.yaml").unwrap_err();
        assert!(problem.reason.contains("regular file"), "{problem:?}");
    }

    #[test]
    fn a_file_of_fifty_megabytes_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::File::create(dir.path().join("big.yaml")).unwrap().set_len(50 * 1024 * 1024).unwrap();
        let problem = Root::open(dir.path()).unwrap().text("big.yaml").unwrap_err();
        assert!(problem.reason.contains("larger"), "{problem:?}");
    }

    #[test]
    fn text_that_is_not_utf8_is_reported_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.yaml"), b"name: x\nother: \xff\n").unwrap();
        assert_eq!(Root::open(dir.path()).unwrap().text("a.yaml").unwrap_err().line, 2);
    }
}
