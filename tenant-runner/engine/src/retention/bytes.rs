//! What tables may weigh. A table with few but large rows passes its number and its age, and still fills the disk: where it
//! weighs more than it may, the number of its rows is lowered until it fits.
//!
//! Weighing is exact (SQLite's `dbstat` counts the pages of a table and of its indexes) and reads every page of the table, on a
//! reader. So it is left out as long as the whole database is smaller than the smallest limit: then no table can be too heavy.

use super::Keep;
use crate::error::Result;
use rusqlite::Connection;

const MIB: u64 = 1 << 20;

/// A limit for a table, together with those whose rows go with its own.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    pub table: &'static str,
    pub with: &'static [&'static str],
    pub bytes: u64,
    /// How many of what the rule's `:rows` counts there are.
    pub count: &'static str,
}

/// The usual case: the rule counts rows.
macro_rules! limit {
    ($table:literal, $mib:literal) => {
        Limit { table: $table, with: &[], bytes: $mib * MIB, count: concat!("SELECT count(*) FROM ", $table) }
    };
}

/// Not among them: tables of which a rule keeps what is still needed, however much that is, and those with a row per name.
pub const LIMITS: &[Limit] = &[
    Limit {
        table: "bus_packs",
        with: &[],
        bytes: 128 * MIB,
        count: "SELECT coalesce(max(last_seq) - min(first_seq) + 1, 0) FROM bus_packs",
    },
    Limit {
        table: "jobs",
        with: &["attempts", "job_steps"],
        bytes: 512 * MIB,
        count: "SELECT count(*) FROM jobs WHERE finished_at IS NOT NULL",
    },
    Limit {
        table: "chat_sessions",
        with: &["chat_messages", "chat_events"],
        bytes: 256 * MIB,
        count: "SELECT count(*) FROM chat_sessions",
    },
    limit!("slots", 64),
    limit!("alerts", 32),
    limit!("usage", 256),
    limit!("ops_snapshots", 32),
    limit!("ops_remedies", 32),
    limit!("ops_outbox", 32),
    limit!("ops_silences", 32),
];

/// After lowering, a table has this part of its limit, so that the next row does not lower it again.
const LEAVE: f64 = 0.9;

/// The rules with as many rows as fit into the limits. Tables that are light enough keep their number.
pub(super) fn fit(connection: &Connection, rules: &[Keep], limits: &[Limit]) -> Result<Vec<Keep>> {
    let mut fitting = rules.to_vec();
    let smallest = limits.iter().map(|limit| limit.bytes).min().unwrap_or(u64::MAX);
    if size(connection)? <= smallest {
        return Ok(fitting);
    }
    for rule in &mut fitting {
        let Some(limit) = limits.iter().find(|limit| limit.table == rule.table) else { continue };
        let mut weight = 0;
        for table in std::iter::once(&limit.table).chain(limit.with) {
            weight += weigh(connection, table)?;
        }
        if weight <= limit.bytes {
            continue;
        }
        let rows: i64 = connection.prepare_cached(limit.count)?.query_row([], |row| row.get(0))?;
        let fit = (rows as f64 * (limit.bytes as f64 / weight as f64) * LEAVE) as i64;
        tracing::info!(table = rule.table, weight, limit = limit.bytes, rows, fit, "a table is heavier than it may be");
        rule.rows = rule.rows.min(fit.max(1));
    }
    Ok(fitting)
}

/// Of the whole database, without its free pages.
fn size(connection: &Connection) -> Result<u64> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    Ok((pragma("page_count")?.saturating_sub(pragma("freelist_count")?)) * pragma("page_size")?)
}

/// Bytes of a table and its indexes; none, if there is no such table.
fn weigh(connection: &Connection, table: &str) -> Result<u64> {
    Ok(connection
        .prepare_cached(
            "SELECT coalesce(sum(pgsize), 0) FROM sqlite_schema s JOIN dbstat d ON d.name = s.name AND d.aggregate = TRUE
             WHERE s.tbl_name = ?1 AND s.type IN ('table', 'index')",
        )?
        .query_row([table], |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rig;
    use chrono::Duration;

    const KEEP: Keep = Keep {
        table: "t",
        sql: "DELETE FROM t WHERE id IN (SELECT id FROM t WHERE :before IS NOT NULL
                  AND id <= (SELECT max(id) FROM t) - :rows ORDER BY id LIMIT :at_once)",
        rows: 1_000_000,
        age: Duration::days(1),
    };

    /// A table `t` of 2,000 rows of a kilobyte each, with an index.
    async fn heavy() -> Rig {
        let rig = Rig::new().await;
        rig.store
            .write(|tx| {
                Ok(tx.execute_batch(
                    "CREATE TABLE t (id INTEGER PRIMARY KEY, x); CREATE INDEX t_x ON t (x);
                     WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
                     INSERT INTO t SELECT i, randomblob(1000) FROM n",
                )?)
            })
            .await
            .unwrap();
        rig
    }

    fn limit(bytes: u64) -> Limit {
        Limit { table: "t", with: &[], bytes, count: "SELECT count(*) FROM t" }
    }

    async fn rows_kept(rig: &Rig, bytes: u64) -> i64 {
        rig.store.read(move |c| Ok(fit(c, &[KEEP], &[limit(bytes)])?[0].rows)).await.unwrap()
    }

    #[tokio::test]
    async fn a_table_that_is_light_enough_keeps_its_number() {
        let rig = heavy().await;
        assert_eq!(rows_kept(&rig, 1 << 40).await, KEEP.rows, "the whole database is smaller than that");
        let rows = rig.store.read(|c| {
            // A limit of another table, so that this one is really weighed.
            let other = Limit { table: "other", with: &[], bytes: 1, count: "SELECT 0" };
            Ok(fit(c, &[KEEP], &[other, limit(64 * MIB)])?[0].rows)
        });
        assert_eq!(rows.await.unwrap(), KEEP.rows);
    }

    #[tokio::test]
    async fn a_heavy_table_loses_its_oldest_rows_until_it_fits_and_the_file_shrinks() {
        let rig = heavy().await;
        let bytes = MIB;
        let before: u64 = rig.store.read(|c| weigh(c, "t")).await.unwrap();
        assert!(before > 4 * MIB, "rows and their index: {before}");
        let rules = rig.store.read(move |c| fit(c, &[KEEP], &[limit(bytes)])).await.unwrap();
        super::super::pass(&rig.store, &rules, rig.now()).await.unwrap();
        let (after, free, oldest): (u64, u64, i64) = rig
            .store
            .read(|c| {
                let free = c.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
                Ok((weigh(c, "t")?, free, c.query_row("SELECT min(id) FROM t", [], |row| row.get(0))?))
            })
            .await
            .unwrap();
        // The oldest rows leave whole pages of the table; of the index, whose order is another, they leave gaps.
        assert!(after < before / 2, "{after} of {before}");
        assert!(oldest > 1000, "the oldest went first: {oldest}");
        assert_eq!(free, 0, "what became free was given back");
    }

    #[tokio::test]
    async fn every_limit_names_tables_that_exist_and_a_rule_that_counts() {
        let rig = Rig::new().await;
        rig.store
            .read(|c| {
                for limit in LIMITS {
                    c.query_row(limit.count, [], |row| row.get::<_, i64>(0)).unwrap();
                    for table in std::iter::once(&limit.table).chain(limit.with) {
                        assert!(weigh(c, table)? > 0, "{table}");
                    }
                }
                Ok(())
            })
            .await
            .unwrap();
    }
}
