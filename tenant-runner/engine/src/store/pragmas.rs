//! How connections are opened. What durability rests on is set and read back, because SQLite ignores what it cannot do.

use crate::error::{EngineError, Result};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

const BUSY: Duration = Duration::from_secs(5);
/// What is kept of the log's file when it begins anew.
const LOG_BYTES: i64 = 16 * 1024 * 1024;
const WRITER_CACHE_KIB: i64 = 16 * 1024;
/// Statements kept prepared per connection.
const CACHED_STATEMENTS: usize = 128;

/// Creates the file for its owner alone; the log beside it inherits the mode.
pub(super) fn create_private(path: &Path) -> Result<()> {
    let fail = |error: std::io::Error| {
        EngineError::unavailable(format!("The database file {} cannot be opened", path.display())).with_source(error)
    };
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(fail)?;
    Ok(())
}

pub(super) fn open_writer(path: &Path) -> Result<Connection> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Only takes effect before the first table exists; lets retention give space back in small steps.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    make_durable(&connection)?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    expect(&connection, "foreign_keys", "1")?;
    Ok(connection)
}

pub(super) fn open_reader(path: &Path) -> Result<Connection> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "query_only", "ON")?;
    expect(&connection, "query_only", "1")?;
    expect(&connection, "journal_mode", "wal")?;
    Ok(connection)
}

/// For whoever brings the log back into the file; durable, as the writer is.
pub(super) fn open_helper(path: &Path) -> Result<Connection> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    make_durable(&connection)?;
    Ok(connection)
}

fn make_durable(connection: &Connection) -> Result<()> {
    connection.pragma_update(None, "synchronous", "FULL")?;
    expect(connection, "journal_mode", "wal")?;
    expect(connection, "synchronous", "2")
}

fn open(path: &Path, access: OpenFlags) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    // A statement's plan does not depend on what is bound; otherwise SQLite parses it anew at each use with a bound LIMIT.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(connection)
}

fn expect(connection: &Connection, pragma: &'static str, wanted: &str) -> Result<()> {
    use rusqlite::types::Value;
    let found = connection.pragma_query_value(None, pragma, |row| row.get::<_, Value>(0))?;
    let found = match found {
        Value::Text(text) => text,
        Value::Integer(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    if found == wanted {
        return Ok(());
    }
    Err(EngineError::unavailable(format!("The database cannot be opened safely: {pragma} is {found}, not {wanted}")))
}
