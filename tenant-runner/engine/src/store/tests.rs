use super::*;
use nexaas_common::clock::SystemClock;
use std::os::unix::fs::PermissionsExt as _;

async fn store(dir: &tempfile::TempDir) -> Store {
    let store = Store::open(&dir.path().join("deep/nexaas.db"), &SystemClock::shared()).await.unwrap();
    store.write(|tx| Ok(tx.execute_batch("CREATE TABLE IF NOT EXISTS t (x INTEGER PRIMARY KEY)")?)).await.unwrap();
    store
}

async fn count(store: &Store) -> i64 {
    store.read(|c| Ok(c.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?)).await.unwrap()
}

#[tokio::test]
async fn what_durability_rests_on_is_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let pragma = |name: &'static str| {
        let store = store.clone();
        async move {
            store
                .write(move |tx| Ok(tx.pragma_query_value(None, name, |r| r.get::<_, rusqlite::types::Value>(0))?))
                .await
                .unwrap()
        }
    };
    use rusqlite::types::Value::{Integer, Text};
    assert_eq!(pragma("journal_mode").await, Text("wal".into()));
    assert_eq!(pragma("synchronous").await, Integer(2));
    assert_eq!(pragma("foreign_keys").await, Integer(1));
    assert_eq!(pragma("auto_vacuum").await, Integer(2));
    let mode = std::fs::metadata(dir.path().join("deep/nexaas.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn writes_that_wait_together_are_committed_together() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    // The first write holds the writer until all others are in line behind it.
    let (taken, is_taken) = std::sync::mpsc::channel::<()>();
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let held = store.write(move |_| {
        taken.send(()).map_err(EngineError::internal)?;
        gate.recv().map_err(EngineError::internal)
    });
    let signal = store.signal();
    let mut heard = signal.listen();
    let rest = async {
        tokio::task::spawn_blocking(move || is_taken.recv().unwrap()).await.unwrap();
        let many = futures::future::join_all((0..64).map(|n| {
            let signal = signal.clone();
            store.write(move |tx| {
                signal.raise();
                Ok(tx.execute("INSERT INTO t VALUES (?1)", [n])?)
            })
        }));
        // Polled after the others have been sent.
        let release = async { go.send(()).unwrap() };
        tokio::join!(many, release).0
    };
    let (held, many) = tokio::join!(held, rest);
    held.unwrap();
    assert!(many.into_iter().all(|written| written.unwrap() == 1));
    heard.changed().await.unwrap();
    assert_eq!(*heard.borrow(), 1, "one commit, one wake-up");
    assert_eq!(count(&store).await, 64);
}

#[tokio::test]
async fn a_write_that_fails_or_panics_takes_nobody_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let insert = |n: i64| store.write(move |tx| Ok(tx.execute("INSERT INTO t VALUES (?1)", [n])?));
    let refuse = store.write(|tx| {
        tx.execute("INSERT INTO t VALUES (100)", [])?;
        Err::<(), _>(EngineError::conflict("no"))
    });
    let panics = store.write(|tx| -> Result<()> {
        tx.execute("INSERT INTO t VALUES (101)", [])?;
        panic!("boom")
    });
    let (a, b, c, d) = tokio::join!(insert(1), refuse, panics, insert(2));
    a.unwrap();
    assert_eq!(b.unwrap_err().public(), "no");
    assert_eq!(c.unwrap_err().kind, crate::error::Kind::Internal);
    d.unwrap();
    assert_eq!(count(&store).await, 2);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let first = store(&dir).await;
    for n in 0..20 {
        first.write(move |tx| Ok(tx.execute("INSERT INTO t VALUES (?1)", [n])?)).await.unwrap();
    }
    // The files as they are while the process still runs: what a crash leaves behind.
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("deep")).unwrap();
    for name in ["nexaas.db", "nexaas.db-wal"] {
        std::fs::copy(dir.path().join("deep").join(name), copy.path().join("deep").join(name)).unwrap();
    }
    assert_eq!(count(&store(&copy).await).await, 20);
}

#[tokio::test]
async fn a_reader_cannot_write_and_sees_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    store.read(|c| Ok(c.execute("INSERT INTO t VALUES (1)", [])?)).await.unwrap_err();
    let writer = store.clone();
    let (seen, write_now) = std::sync::mpsc::channel::<()>();
    let (written, go_on) = std::sync::mpsc::channel::<()>();
    let reader = store.read(move |c| {
        let count = || c.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
        let before = count()?;
        seen.send(()).map_err(EngineError::internal)?;
        go_on.recv().map_err(EngineError::internal)?;
        Ok((before, count()?))
    });
    let write = async {
        tokio::task::spawn_blocking(move || write_now.recv().unwrap()).await.unwrap();
        writer.write(|tx| Ok(tx.execute("INSERT INTO t VALUES (1)", [])?)).await.unwrap();
        written.send(()).unwrap();
    };
    let (seen, ()) = tokio::join!(reader, write);
    assert_eq!(seen.unwrap(), (0, 0));
    assert_eq!(count(&store).await, 1);
}

#[tokio::test]
async fn the_log_begins_anew_while_the_writer_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    store.write(|tx| Ok(tx.execute_batch("CREATE TABLE big (b BLOB)")?)).await.unwrap();
    let log = dir.path().join("deep/nexaas.db-wal");
    let mut longest = 0;
    for _ in 0..160 {
        store.write(|tx| Ok(tx.execute("INSERT INTO big VALUES (randomblob(1000000))", [])?)).await.unwrap();
        longest = longest.max(std::fs::metadata(&log).unwrap().len());
    }
    // Its bound, and what one write adds.
    assert!(longest < 67_000_000, "the log grew to {longest} bytes");
    drop(store);
}

#[tokio::test]
async fn a_full_disk_is_said_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let limit = |pages: i64| store.write(move |tx| Ok(tx.pragma_update(None, "max_page_count", pages)?));
    limit(1).await.unwrap();
    let fill = || store.write(|tx| Ok(tx.execute_batch("CREATE TABLE big AS SELECT randomblob(1000000) AS b")?));
    assert_eq!(fill().await.unwrap_err().kind, crate::error::Kind::Unavailable);
    store.read(|_| Ok(())).await.unwrap();
    limit(1_000_000).await.unwrap();
    fill().await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nexaas.db");
    std::fs::write(&path, "not a database, but long enough to be looked at as one".repeat(100)).unwrap();
    let error = Store::open(&path, &SystemClock::shared()).await.unwrap_err();
    assert_eq!(error.kind, crate::error::Kind::Unavailable);
}

#[test]
fn times_survive_storage_to_the_microsecond() {
    let at = DateTime::from_timestamp_micros(1_767_225_600_123_456).unwrap();
    assert_eq!(from_micros(to_micros(at)), at);
    assert_eq!(from_micros(i64::MAX), DateTime::<Utc>::MAX_UTC);
}
