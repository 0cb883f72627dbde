//! How an image's health check asks: a Unix socket in the data directory that answers `ok` or the reason. The port itself
//! cannot serve for this, because a tenant's runner talks to nobody but its control plane.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(5);

pub fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join("health.sock")
}

/// Binds the socket, in place of one that a killed process left behind.
pub fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = socket_path(data_dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers one question after the other until `stop`.
pub async fn serve<F, Fut>(listener: UnixListener, stop: CancellationToken, healthy: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<(), String>>,
{
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((mut stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let answer = async {
            let text = match healthy().await {
                Ok(()) => "ok\n".to_owned(),
                Err(why) => format!("{why}\n"),
            };
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
        };
        let _ = tokio::time::timeout(PATIENCE, answer).await;
    }
}

/// Asks the runner that serves `data_dir`.
pub async fn ask(data_dir: &Path) -> Result<(), String> {
    let path = socket_path(data_dir);
    let question = async {
        let mut stream = UnixStream::connect(&path).await?;
        let mut text = String::new();
        (&mut stream).take(4096).read_to_string(&mut text).await?;
        Ok::<_, io::Error>(text)
    };
    match tokio::time::timeout(PATIENCE, question).await {
        Ok(Ok(text)) if text == "ok\n" => Ok(()),
        Ok(Ok(text)) if text.trim().is_empty() => Err("the runner gave no answer".to_owned()),
        Ok(Ok(text)) => Err(text.trim().to_owned()),
        Ok(Err(error)) => Err(format!("no runner answers at {}: {error}", path.display())),
        Err(_) => Err(format!("the runner did not answer within {} s", PATIENCE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_probe_passes_on_what_the_runner_says() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ask(dir.path()).await.unwrap_err().contains("no runner answers"));
        for verdict in [Ok(()), Err("database: disk full".to_owned())] {
            let listener = bind(dir.path()).unwrap();
            let stop = CancellationToken::new();
            let (_, heard) =
                tokio::join!(serve(listener, stop.clone(), || std::future::ready(verdict.clone())), async {
                    let heard = ask(dir.path()).await;
                    stop.cancel();
                    heard
                });
            assert_eq!(heard, verdict);
        }
    }
}
