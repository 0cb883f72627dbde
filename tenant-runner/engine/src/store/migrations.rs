//! The schema, as a list of steps that are never edited once released. Each runs in a transaction of its own and is recorded
//! with its checksum, so that a database of another history is noticed instead of misread.

use super::to_micros;
use crate::error::{EngineError, Result};
use chrono::{DateTime, Utc};
use rusqlite::{Connection, TransactionBehavior, params};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

struct Migration {
    number: u32,
    name: &'static str,
    sql: &'static str,
}

macro_rules! migrations {
    ($($number:literal $name:literal;)*) => {
        &[$(Migration {
            number: $number,
            name: $name,
            sql: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/", $name, ".sql")),
        }),*]
    };
}

const MIGRATIONS: &[Migration] = migrations! {
    1 "001_bus";
    2 "002_events";
    3 "003_jobs";
    4 "004_ops";
    10 "010_workspace";
    11 "011_users";
    12 "012_usage";
    13 "013_chat";
    14 "014_workspace_good";
    20 "020_queue";
    21 "021_schedules";
    22 "022_ops";
    23 "023_hooks";
    27 "027_events_paused";
    30 "030_cheaper_rules";
    31 "031_slots_by_time";
};

pub(super) fn apply(connection: &mut Connection, now: DateTime<Utc>) -> Result<()> {
    run(connection, MIGRATIONS, now)
}

fn run(connection: &mut Connection, migrations: &[Migration], now: DateTime<Utc>) -> Result<()> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS migrations (
            number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL
         ) STRICT",
    )?;
    let mut recorded = recorded(connection)?;
    for migration in migrations {
        let checksum = hex::encode(Sha256::digest(migration.sql));
        match recorded.remove(&migration.number) {
            Some(known) if known == checksum => {}
            Some(_) => {
                return Err(EngineError::unavailable(format!(
                    "The database was made by another version: its migration {} differs",
                    migration.name
                )));
            }
            None => {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                transaction.execute_batch(migration.sql)?;
                transaction.execute(
                    "INSERT INTO migrations (number, name, checksum, applied_at) VALUES (?1, ?2, ?3, ?4)",
                    params![migration.number, migration.name, checksum, to_micros(now)],
                )?;
                transaction.commit()?;
            }
        }
    }
    match recorded.keys().next() {
        None => Ok(()),
        Some(number) => Err(EngineError::unavailable(format!(
            "The database was made by a newer version: it has migration {number}, which this one does not know"
        ))),
    }
}

fn recorded(connection: &Connection) -> Result<BTreeMap<u32, String>> {
    let mut statement = connection.prepare("SELECT number, checksum FROM migrations")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Migration = Migration { number: 1, name: "first", sql: "CREATE TABLE a (x) ;" };

    fn now() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }

    #[test]
    fn every_migration_applies_to_an_empty_database_and_then_no_more() {
        let mut connection = Connection::open_in_memory().unwrap();
        apply(&mut connection, now()).unwrap();
        apply(&mut connection, now()).unwrap();
        assert_eq!(recorded(&connection).unwrap().len(), MIGRATIONS.len());
    }

    #[test]
    fn numbers_rise() {
        assert!(MIGRATIONS.windows(2).all(|pair| pair[0].number < pair[1].number));
    }

    #[test]
    fn a_broken_migration_leaves_nothing_of_itself() {
        let mut connection = Connection::open_in_memory().unwrap();
        let broken = Migration { number: 2, name: "broken", sql: "CREATE TABLE b (x); CREATE TABLE a (x);" };
        run(&mut connection, &[FIRST, broken], now()).unwrap_err();
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'b'", [], |row| row.get(0)).unwrap();
        assert_eq!(tables, 0);
        assert_eq!(recorded(&connection).unwrap().len(), 1);
    }

    #[test]
    fn an_edited_migration_and_a_newer_database_are_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        run(&mut connection, &[FIRST], now()).unwrap();
        let edited = Migration { sql: "CREATE TABLE a (y);", ..FIRST };
        assert!(run(&mut connection, &[edited], now()).unwrap_err().public().contains("differs"));
        assert!(run(&mut connection, &[], now()).unwrap_err().public().contains("newer version"));
    }
}
