//! The engine's failures in the control plane's terms.

use crate::domain::tenant::Subnet;
use crate::error::{Error, Kind};
use bollard::errors::Error as Engine;

pub(super) const ENGINE: &str = "container engine";

/// What a call was about, so that its failure can say so.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct About {
    pub port: Option<u16>,
    pub subnet: Option<Subnet>,
}

/// The socket did not answer: names it and what to do.
pub(super) fn unreachable(host: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let source = source.into();
    let text = source.to_string();
    let hint = if text.contains("ermission denied") {
        "this user may not use it: run as root or join the group that owns the socket"
    } else {
        "start Docker or Podman, or set NEXAAS_DOCKER_HOST to its socket, or use the process backend"
    };
    Error::new(Kind::Unavailable { what: ENGINE }, format!("the container engine at {host} does not answer; {hint}"))
        .with_source(source)
}

pub(super) fn status(error: &Engine) -> Option<u16> {
    match error {
        Engine::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

pub(super) fn is_not_found(error: &Engine) -> bool {
    status(error) == Some(404)
}

/// A start of what runs, or a stop of what does not.
pub(super) fn is_unchanged(error: &Engine) -> bool {
    status(error) == Some(304)
}

pub(super) fn map(verb: &str, host: &str, about: About, error: Engine) -> Error {
    match &error {
        Engine::DockerResponseServerError { status_code, message } => {
            refused(verb, about, *status_code, message).with_source(error)
        }
        Engine::RequestTimeoutError => Error::timeout(ENGINE).with_source(error),
        Engine::SocketNotFoundError(_)
        | Engine::IOError { .. }
        | Engine::HyperResponseError { .. }
        | Engine::HyperLegacyError { .. } => unreachable(host, whole(&error)),
        Engine::UnsupportedURISchemeError { .. } | Engine::URLParseError { .. } | Engine::InvalidURIError { .. } => {
            Error::invalid("docker_host", format!("'{host}' is not a unix:// or tcp:// address")).with_source(error)
        }
        _ => Error::new(Kind::Internal, format!("the container engine gave an unexpected answer when asked to {verb}"))
            .with_source(error),
    }
}

/// The innermost cause says whether it is a permission or an absence; the outer layers only say "client error".
fn whole(error: &Engine) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

fn refused(verb: &str, about: About, status: u16, message: &str) -> Error {
    let lower = message.to_lowercase();
    if ["port is already allocated", "address already in use", "ports are not available"]
        .iter()
        .any(|t| lower.contains(t))
    {
        let port = about.port.map_or_else(|| "of the runner".to_owned(), |p| p.to_string());
        return Error::conflict(format!("port {port} is taken on this host"));
    }
    if ["overlap", "is already used on the host", "conflicts with network", "numerical result out of range"]
        .iter()
        .any(|t| lower.contains(t))
        && (about.subnet.is_some() || lower.contains("subnet"))
    {
        let subnet = about.subnet.map_or_else(|| "of the tenant".to_owned(), |s| s.to_string());
        return Error::conflict(format!("subnet {subnet} overlaps another network of this host"));
    }
    if lower.contains("no such image") || lower.contains("image not known") {
        return image_missing(message);
    }
    if lower.contains("unknown or invalid runtime") || (lower.contains("runtime") && lower.contains("not found")) {
        return Error::invalid("docker_runtime", format!("is not known to the container engine ({message})"));
    }
    match status {
        404 => Error::new(Kind::NotFound, format!("the container engine knows no such object ({message})")),
        409 => Error::conflict(format!("the container engine could not {verb}: {message}")),
        _ => Error::new(Kind::Internal, format!("the container engine could not {verb}: {message}")),
    }
}

pub(super) fn image_missing(what: &str) -> Error {
    Error::new(
        Kind::Unavailable { what: "runner image" },
        format!("the runner image is not on this engine ({what}); build it with 'nexaas image build'"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status_code: u16, message: &str) -> Engine {
        Engine::DockerResponseServerError { status_code, message: message.to_owned() }
    }

    #[test]
    fn a_taken_port_is_a_conflict_that_begins_with_port() {
        for message in [
            "driver failed programming external connectivity on endpoint x: Bind for 127.0.0.1:20000 failed: port is already allocated",
            "driver failed: Error starting userland proxy: listen tcp4 127.0.0.1:20000: bind: address already in use",
        ] {
            let about = About { port: Some(20000), ..About::default() };
            let error = map("start the runner", "unix:///x", about, answer(500, message));
            assert_eq!(error.kind, Kind::Conflict);
            assert!(error.public().starts_with("port 20000"), "{error}");
        }
    }

    #[test]
    fn an_overlapping_subnet_is_a_conflict_that_begins_with_subnet() {
        let subnet = Subnet { base: [10, 209, 0, 0].into(), prefix: 29 };
        let about = About { subnet: Some(subnet), ..About::default() };
        let error = map("make", "unix:///x", about, answer(403, "Pool overlaps with other one on this address space"));
        assert_eq!(error.kind, Kind::Conflict);
        assert!(error.public().starts_with("subnet 10.209.0.0/29"), "{error}");
    }

    #[test]
    fn a_silent_socket_is_named_with_a_hint() {
        let error =
            map("ping", "unix:///nowhere.sock", About::default(), Engine::SocketNotFoundError("/nowhere.sock".into()));
        assert_eq!(error.kind, Kind::Unavailable { what: ENGINE });
        assert!(error.public().contains("/nowhere.sock") && error.public().contains("process backend"), "{error}");
    }
}
