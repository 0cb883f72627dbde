//! Finding PostgreSQL's programs: the newest of Debian's versioned folders, else what the path offers.

use crate::error::{Error, Kind, Result};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    pub initdb: PathBuf,
    pub postgres: PathBuf,
}

impl Binaries {
    pub fn find() -> Result<Self> {
        let mut folders = versioned(Path::new("/usr/lib/postgresql"));
        for other in ["/usr/pgsql-18/bin", "/usr/pgsql-17/bin", "/usr/pgsql-16/bin", "/usr/local/pgsql/bin"] {
            folders.push(PathBuf::from(other));
        }
        if let Some(path) = std::env::var_os("PATH") {
            folders.extend(std::env::split_paths(&path));
        }
        folders.iter().find_map(|dir| Self::in_folder(dir)).ok_or_else(|| {
            Error::new(
                Kind::Unavailable { what: "the database" },
                "no PostgreSQL server is installed; install it (Debian: apt-get install postgresql) or set DATABASE_URL",
            )
        })
    }

    /// Both programs of one folder, as real paths: a link on the path would hide where the server's files are.
    fn in_folder(dir: &Path) -> Option<Self> {
        let program = |name: &str| std::fs::canonicalize(dir.join(name)).ok().filter(|p| p.is_file());
        Some(Self { initdb: program("initdb")?, postgres: program("postgres")? })
    }

    /// The programs of one major version.
    pub fn of_version(major: &str) -> Option<Self> {
        major
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| Path::new("/usr/lib/postgresql").join(major).join("bin"))
            .and_then(|dir| Self::in_folder(&dir))
    }
}

/// Debian's `<major>/bin`, newest first.
fn versioned(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    let mut found: Vec<u32> =
        entries.flatten().filter_map(|e| e.file_name().to_str().and_then(|n| n.parse().ok())).collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|major| root.join(major.to_string()).join("bin")).collect()
}
