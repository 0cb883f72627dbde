//! A look into the database's file while no program has it open, without changing what the next start will find: what is
//! looked at is a copy.

use rusqlite::Connection;
use std::path::Path;

/// A copy of the database as a crash left it: the file and its log. SQLite makes the rest anew.
pub struct Copy {
    pub connection: Connection,
    _folder: tempfile::TempDir,
}

pub fn copy_of(database: &Path) -> Copy {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy.db");
    std::fs::copy(database, &path).unwrap();
    let log = |path: &Path| {
        let mut name = path.as_os_str().to_owned();
        name.push("-wal");
        std::path::PathBuf::from(name)
    };
    if log(database).exists() {
        std::fs::copy(log(database), log(&path)).unwrap();
    }
    Copy { connection: Connection::open(&path).unwrap(), _folder: folder }
}

impl Copy {
    /// Nothing is broken: neither pages and indices nor references.
    pub fn assert_whole(&self) {
        let said: String = self.connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(said, "ok");
        let mut dangling = self.connection.prepare("PRAGMA foreign_key_check").unwrap();
        assert!(!dangling.exists([]).unwrap(), "a reference leads nowhere");
    }

    pub fn count(&self, sql: &str) -> u64 {
        self.connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }
}
