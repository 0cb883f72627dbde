//! A private PostgreSQL cluster from the binaries that the system has: made once, reachable over a Unix socket only,
//! started again when it ends, stopped with us.
//!
//! Always true: the server never runs as root; nobody but its own user and root reaches its socket; a server that outlived
//! a killed control plane is taken over, not started twice.

mod binaries;
mod files;
mod process;

pub use binaries::Binaries;

use crate::error::{Error, Kind, Result};
use files::Layout;
use nexaas_common::backoff::Backoff;
use nexaas_common::task::{OnExit, Supervisor};
use process::Server;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use std::path::Path;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

const USER: &str = "nexaas";
const DATABASE: &str = "nexaas";
const READY: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(15);
const RESTART: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));

/// The running cluster. `stop` ends it; dropped without, it is left running and adopted at the next start.
#[derive(Debug)]
pub struct Cluster {
    options: PgConnectOptions,
    stop: CancellationToken,
    ended: Option<oneshot::Receiver<()>>,
}

impl Cluster {
    /// Makes the cluster in `data_dir` if there is none, starts it if it does not run, and waits until it answers.
    pub async fn start(data_dir: &Path, supervisor: &Supervisor) -> Result<Self> {
        let binaries = Binaries::find()?;
        let layout = Layout::prepare(data_dir)?;
        if !layout.initialized() {
            process::initialize(&binaries, &layout).await?;
        }
        layout.check_version(&binaries)?;
        let options = PgConnectOptions::new_without_pgpass()
            .host(&layout.socket_dir.to_string_lossy())
            .port(5432)
            .username(USER)
            .database(DATABASE);
        let server = Server::adopt_or_start(&binaries, &layout).await?;
        let server = wait_ready(&options, &layout, server).await?;
        let stop = CancellationToken::new();
        let (sender, ended) = oneshot::channel();
        let (token, owned) = (stop.clone(), layout.clone());
        supervisor.spawn("postgres", OnExit::Shutdown, move |_| async move {
            keep(binaries, owned, server, token).await;
            // Nobody waiting is fine.
            let _ = sender.send(());
        });
        Ok(Self { options, stop, ended: Some(ended) })
    }

    pub fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// Ends the server: its clients are cut off, its files are complete.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(ended) = self.ended.take() {
            let _ = tokio::time::timeout(STOP * 2, ended).await;
        }
    }
}

/// Starts the server again whenever it ends, until told to stop it.
async fn keep(binaries: Binaries, layout: Layout, mut server: Server, stop: CancellationToken) {
    let mut failures = 0;
    loop {
        let began = tokio::time::Instant::now();
        tokio::select! {
            () = stop.cancelled() => return server.stop(STOP).await,
            how = server.ended() => tracing::error!(how, log = %layout.log.display(), "the private PostgreSQL server ended; starting it again"),
        }
        if began.elapsed() > Duration::from_secs(60) {
            failures = 0;
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RESTART.delay(failures)) => failures += 1,
            }
            match Server::adopt_or_start(&binaries, &layout).await {
                Ok(next) => {
                    server = next;
                    break;
                }
                Err(error) => tracing::error!(error = %error.chain(), "the private PostgreSQL server does not start"),
            }
        }
    }
}

/// Tries to connect until the server answers, it ends, or patience does.
async fn wait_ready(options: &PgConnectOptions, layout: &Layout, mut server: Server) -> Result<Server> {
    let pauses = Backoff::new(Duration::from_millis(5), Duration::from_millis(200));
    let deadline = tokio::time::Instant::now() + READY;
    let admin = options.clone().database("postgres");
    let mut tries = 0;
    loop {
        match tokio::time::timeout(Duration::from_secs(5), PgConnection::connect_with(&admin)).await {
            Ok(Ok(mut connection)) => {
                create_database(&mut connection).await?;
                // It served its purpose; how it closes does not matter.
                let _ = connection.close().await;
                return Ok(server);
            }
            Ok(Err(error)) if tokio::time::Instant::now() >= deadline => {
                return Err(failed(layout, "does not answer").with_source(error));
            }
            Err(_) if tokio::time::Instant::now() >= deadline => return Err(failed(layout, "does not answer")),
            Ok(Err(_)) | Err(_) => {}
        }
        tokio::select! {
            how = server.ended() => return Err(failed(layout, &format!("ended while starting ({how})"))),
            () = tokio::time::sleep(pauses.delay(tries)) => tries += 1,
        }
    }
}

async fn create_database(connection: &mut PgConnection) -> Result<()> {
    let there: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = $1")
        .bind(DATABASE)
        .fetch_optional(&mut *connection)
        .await
        .map_err(crate::store::from_sqlx)?;
    if there.is_none() {
        sqlx::query("CREATE DATABASE nexaas").execute(connection).await.map_err(crate::store::from_sqlx)?;
    }
    Ok(())
}

fn failed(layout: &Layout, what: &str) -> Error {
    let mut message = format!("the private PostgreSQL server {what}; its log is {}", layout.log.display());
    if let Some(last) = files::last_line(&layout.log) {
        message.push_str(": ");
        message.push_str(&last);
    }
    Error::new(Kind::Unavailable { what: "the database" }, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answers(options: &PgConnectOptions) -> i32 {
        let mut connection = PgConnection::connect_with(options).await.unwrap();
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        pid
    }

    async fn postmaster(data_dir: &Path) -> i32 {
        let text = tokio::fs::read_to_string(data_dir.join("postgres/postmaster.pid")).await.unwrap();
        text.lines().next().unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn it_is_made_once_survives_a_kill_is_adopted_and_stops() {
        let dir = tempfile::tempdir().unwrap();
        let first = Supervisor::new();
        let cluster = Cluster::start(dir.path(), &first).await.unwrap();
        answers(&cluster.options()).await;
        let pid = postmaster(dir.path()).await;

        // Killed hard, it comes back by itself.
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
        let back = async {
            loop {
                if PgConnection::connect_with(&cluster.options()).await.is_ok() && postmaster(dir.path()).await != pid {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), back).await.unwrap();

        // Another control plane finds it running and takes it over.
        let pid = postmaster(dir.path()).await;
        let second = Supervisor::new();
        let adopted = Cluster::start(dir.path(), &second).await.unwrap();
        assert_eq!(postmaster(dir.path()).await, pid);
        // The first one must not start it again once the second has stopped it.
        cluster.stop.cancel();
        adopted.stop().await;
        assert!(!dir.path().join("postgres/postmaster.pid").exists());
        first.shutdown(Duration::from_secs(30)).await.unwrap();
        second.shutdown(Duration::from_secs(30)).await.unwrap();
    }

    #[tokio::test]
    async fn a_long_path_gets_a_short_socket() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        let supervisor = Supervisor::new();
        let cluster = Cluster::start(&deep, &supervisor).await.unwrap();
        answers(&cluster.options()).await;
        let socket = Layout::prepare(&deep).unwrap().socket_dir;
        cluster.stop().await;
        supervisor.shutdown(Duration::from_secs(30)).await.unwrap();
        assert!(!socket.starts_with(&deep));
        std::fs::remove_dir_all(socket).unwrap();
    }
}
