//! Making a workspace from a template: once, and wholly or not at all as far as anyone can tell.
//!
//! Always true here: files that somebody else put into the workspace are never touched; an attempt that a crash cut short is
//! finished by the next one; nothing is written outside the workspace's root.

use crate::error::{EngineError, Result};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// A folder of the template that is not part of the workspace.
pub const SEED: &str = "seed";
const LARGEST_FILE: u64 = 16 * 1024 * 1024;
const MOST_FILES: usize = 5_000;
const DEEPEST: usize = 16;
/// Files that are brought to the disk together, and by how many threads.
const AT_ONCE: usize = 64;
const LANES: usize = 16;

/// Names are as in a folder listing; nothing else reaches the file system.
pub fn check_name(name: &str) -> Result<()> {
    let good = !name.is_empty()
        && name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
    if good {
        Ok(())
    } else {
        Err(EngineError::invalid("template", "must be a template's name: lower-case letters, digits and dashes"))
    }
}

/// Opens the template's folder.
pub fn open(templates: &Path, name: &str) -> Result<Dir> {
    check_name(name)?;
    let unavailable = |error| EngineError::unavailable("The templates cannot be read").with_source(error);
    let all = Dir::open_ambient_dir(templates, ambient_authority()).map_err(unavailable)?;
    all.open_dir(name).map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            return EngineError::new(crate::error::Kind::NotFound, format!("template '{name}' does not exist"));
        }
        unavailable(error)
    })
}

/// Whether the workspace has anything of its own. What file systems put there by themselves does not count.
pub fn has_files(workspace: &Dir) -> std::io::Result<bool> {
    for entry in workspace.entries()? {
        let name = entry?.file_name();
        if name != "lost+found" {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Copies everything but the seed. Repeatable: a file that is there already is written again.
pub fn copy(template: &Dir, workspace: &Dir) -> std::io::Result<usize> {
    let mut copy = Copy::default();
    for entry in template.entries()? {
        let name = entry?.file_name();
        if name != SEED {
            copy.entry(template, workspace, Path::new(&name), 0)?;
        }
    }
    copy.flush()?;
    // The folders people expect exist even where the template's version control left them out for being empty.
    for folder in ["agents", "skills", "registries", "memory"] {
        workspace.create_dir_all(folder)?;
    }
    Ok(copy.files)
}

/// Files are written beside their names, brought to the disk together, and renamed: each is there whole or not at all.
#[derive(Default)]
struct Copy {
    files: usize,
    staged: Vec<Staged>,
}

struct Staged {
    folder: Dir,
    staged: String,
    name: PathBuf,
    file: File,
}

impl Copy {
    fn entry(&mut self, from: &Dir, to: &Dir, name: &Path, depth: usize) -> std::io::Result<()> {
        let too_much = |what: &str| std::io::Error::other(format!("the template has {what}: {}", name.display()));
        let metadata = from.symlink_metadata(name)?;
        if metadata.is_dir() {
            if depth == DEEPEST {
                return Err(too_much("folders nested too deeply"));
            }
            to.create_dir_all(name)?;
            let (from, to) = (from.open_dir(name)?, to.open_dir(name)?);
            for entry in from.entries()? {
                self.entry(&from, &to, Path::new(&entry?.file_name()), depth + 1)?;
            }
            return Ok(());
        }
        if !metadata.is_file() {
            return Err(too_much("something that is neither a file nor a folder"));
        }
        self.files += 1;
        if metadata.len() > LARGEST_FILE || self.files > MOST_FILES {
            return Err(too_much("too large a file or too many of them"));
        }
        let staged = format!(".nexaas-copy-{}", self.files);
        let mut file = to.create(&staged)?;
        file.write_all(&from.read(name)?)?;
        self.staged.push(Staged { folder: to.try_clone()?, staged, name: name.to_owned(), file });
        if self.staged.len() >= AT_ONCE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        // Side by side: the disk then takes many files in one of its own commits, where one after the other each waits for its own.
        std::thread::scope(|scope| {
            let lanes: Vec<_> = self
                .staged
                .chunks(AT_ONCE.div_ceil(LANES))
                .map(|lane| scope.spawn(|| lane.iter().try_for_each(|s| s.file.sync_all())))
                .collect();
            lanes
                .into_iter()
                .try_for_each(|lane| lane.join().unwrap_or_else(|_| Err(std::io::Error::other("a copy failed"))))
        })?;
        for done in self.staged.drain(..) {
            done.folder.rename(&done.staged, &done.folder, &done.name)?;
        }
        Ok(())
    }
}
