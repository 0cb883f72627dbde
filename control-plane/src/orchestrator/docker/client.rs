//! The connection to the engine: found, made at first use, its API version negotiated, every call with a time-out.

use super::error::{About, ENGINE, map, unreachable};
use crate::error::{Error, Result};
use bollard::{API_DEFAULT_VERSION, Docker};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::OnceCell;

const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// The transport's own limit lies above every limit set per call.
const TRANSPORT_TIMEOUT_S: u64 = 600;
const CONNECT: Duration = Duration::from_secs(5);

/// Where the engine is: what was configured, else the first socket that exists, else Docker's (so that an error names it).
pub fn resolve_host(configured: Option<&str>) -> String {
    if let Some(host) = configured.map(str::trim).filter(|h| !h.is_empty()) {
        return if host.starts_with('/') { format!("unix://{host}") } else { host.to_owned() };
    }
    let mut candidates = vec![PathBuf::from(DOCKER_SOCKET)];
    if let Some(runtime) = std::env::var_os("XDG_RUNTIME_DIR") {
        candidates.push(Path::new(&runtime).join("podman/podman.sock"));
    }
    candidates.push(PathBuf::from("/run/podman/podman.sock"));
    let found = candidates.iter().find(|p| p.exists()).unwrap_or(&candidates[0]);
    format!("unix://{}", found.display())
}

#[derive(Debug)]
pub(super) struct Client {
    host: String,
    docker: OnceCell<Docker>,
}

impl Client {
    pub(super) fn new(host: String) -> Self {
        Self { host, docker: OnceCell::new() }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The connected client. A failure is not remembered: the next call tries again.
    pub(super) async fn docker(&self) -> Result<&Docker> {
        self.docker
            .get_or_try_init(|| async {
                let docker = self.open().map_err(|e| map("connect", &self.host, About::default(), e))?;
                match tokio::time::timeout(CONNECT, docker.negotiate_version()).await {
                    Ok(Ok(docker)) => Ok(docker),
                    Ok(Err(error)) => Err(map("tell its version", &self.host, About::default(), error)),
                    Err(_) => Err(unreachable(&self.host, "no answer within 5 s")),
                }
            })
            .await
    }

    fn open(&self) -> Result<Docker, bollard::errors::Error> {
        if self.host.starts_with("unix://") {
            return Docker::connect_with_unix(&self.host, TRANSPORT_TIMEOUT_S, API_DEFAULT_VERSION);
        }
        if self.host.starts_with("tcp://") || self.host.starts_with("http://") {
            return Docker::connect_with_http(&self.host, TRANSPORT_TIMEOUT_S, API_DEFAULT_VERSION);
        }
        Err(bollard::errors::Error::UnsupportedURISchemeError { uri: self.host.clone() })
    }

    /// Runs one call within `limit`; the outer result is the control plane's error, the inner one the engine's own answer
    /// for callers that know a refusal which is no failure.
    pub(super) async fn attempt<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<Result<T, bollard::errors::Error>> {
        tokio::time::timeout(limit, call).await.map_err(|_| {
            tracing::warn!(host = self.host, limit_s = limit.as_secs(), "the container engine did not answer in time");
            Error::timeout(ENGINE)
        })
    }

    /// The same when every refusal is a failure.
    pub(super) async fn call<T>(
        &self,
        verb: &str,
        about: About,
        limit: Duration,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T> {
        self.attempt(limit, call).await?.map_err(|e| map(verb, &self.host, about, e))
    }

    /// `None` when there is no such object.
    pub(super) async fn find<T>(
        &self,
        verb: &str,
        limit: Duration,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<Option<T>> {
        match self.attempt(limit, call).await? {
            Ok(found) => Ok(Some(found)),
            Err(error) if super::error::is_not_found(&error) => Ok(None),
            Err(error) => Err(map(verb, &self.host, About::default(), error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_bare_path_is_a_unix_socket() {
        assert_eq!(resolve_host(Some("/tmp/d.sock")), "unix:///tmp/d.sock");
        assert_eq!(resolve_host(Some("tcp://127.0.0.1:2375")), "tcp://127.0.0.1:2375");
        assert!(resolve_host(Some("  ")).starts_with("unix://"));
    }

    #[tokio::test]
    async fn a_socket_that_is_not_there_is_named() {
        let error = Client::new("unix:///nowhere/docker.sock".into()).docker().await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable { what: ENGINE });
        assert!(error.public().contains("/nowhere/docker.sock"), "{error}");
    }

    #[tokio::test]
    async fn an_address_of_another_kind_is_a_setting_to_correct() {
        let error = Client::new("ssh://host".into()).docker().await.unwrap_err();
        assert_eq!(error.kind, Kind::Invalid { field: "docker_host".into() });
    }
}
