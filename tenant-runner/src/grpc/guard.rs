//! What stands before every call: HTTP/2, a caller unless the call is open, a deadline, and the span that joins the
//! control plane's trace.

use super::status;
use crate::app::App;
use crate::principal::{self, Credential, Principal, only};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Version, header};
use axum::middleware::Next;
use axum::response::Response;
use nexaas_common::id::OperatorId;
use nexaas_common::secret::SecretString;
use nexaas_proto::ACTOR_METADATA;
use std::time::Duration;
use tonic::Status;
use tracing::Instrument as _;

/// The calls that need no caller: the control plane's own (only its certificate reaches this port), and what a person does
/// before having an account.
pub const OPEN: &[&str] = &[
    "/nexaas.runner.v1.Control/Hello",
    "/nexaas.runner.v1.Control/Configure",
    "/nexaas.runner.v1.Control/InitializeWorkspace",
    "/nexaas.runner.v1.Accounts/Register",
    "/nexaas.runner.v1.Accounts/Login",
    "/nexaas.runner.v1.Accounts/Status",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
];

/// What works before the settings have come: handing them over, and asking how the runner is.
const CONTROL: &str = "/nexaas.runner.v1.Control/";
const HEALTH: &str = "/grpc.health.v1.Health/";

/// Until the answer begins; a stream may then go on.
const USUAL: Duration = Duration::from_secs(30);
const SLOW: &[(&str, Duration)] = &[
    ("/nexaas.runner.v1.Workspace/ExecuteSkill", Duration::from_secs(600)),
    ("/nexaas.runner.v1.Control/InitializeWorkspace", Duration::from_secs(120)),
    ("/nexaas.runner.v1.Ops/Heal", Duration::from_secs(300)),
];

pub async fn enforce(State(app): State<App>, mut request: Request, next: Next) -> Response {
    if request.version() != Version::HTTP_2 {
        return refuse(&Status::unimplemented("gRPC needs HTTP/2"));
    }
    let path = request.uri().path().to_owned();
    let span =
        tracing::info_span!("grpc", otel.name = %path, otel.kind = "server", rpc.system = "grpc", rpc.method = %path);
    nexaas_common::telemetry::adopt(&span, request.headers());
    async {
        if app.awaits_settings() && !path.starts_with(CONTROL) && !path.starts_with(HEALTH) {
            return refuse(&Status::unavailable("the runner has just started and waits for its settings"));
        }
        if !OPEN.contains(&path.as_str()) {
            match caller(&app, request.headers()).await {
                Ok((principal, credential)) => {
                    request.extensions_mut().insert(principal);
                    request.extensions_mut().insert(credential);
                }
                Err(status) => return refuse(&status),
            }
        }
        let deadline = SLOW.iter().find(|(slow, _)| *slow == path).map_or(USUAL, |(_, deadline)| *deadline);
        match tokio::time::timeout(deadline, next.run(request)).await {
            Ok(response) => response,
            Err(_) => refuse(&Status::deadline_exceeded("no answer in time; what was started goes on")),
        }
    }
    .instrument(span)
    .await
}

fn refuse(status: &Status) -> Response {
    status.clone().into_http()
}

async fn caller(app: &App, headers: &HeaderMap) -> Result<(Principal, Credential), Status> {
    if headers.contains_key(header::AUTHORIZATION) {
        let token = principal::bearer(headers)
            .ok_or_else(|| Status::unauthenticated("authorization must be one Bearer token"))?;
        let principal = principal::identify(app, token).await.map_err(|e| status::of_refusal(&e))?;
        return Ok((principal, Credential(Some(SecretString::from(token)))));
    }
    let name = HeaderName::from_static(ACTOR_METADATA);
    only(headers, &name)
        .and_then(|text| text.strip_prefix("operator:"))
        .and_then(|id| id.parse::<OperatorId>().ok())
        .map(|id| (Principal::Operator(id), Credential::default()))
        .ok_or_else(|| Status::unauthenticated("this call needs a user's token or an operator"))
}

/// The caller that `enforce` found.
pub fn principal<T>(request: &tonic::Request<T>) -> Result<Principal, Status> {
    request.extensions().get::<Principal>().cloned().ok_or_else(|| Status::unauthenticated("this call needs a caller"))
}

/// What the caller showed, for streams.
pub fn credential<T>(request: &tonic::Request<T>) -> Credential {
    request.extensions().get::<Credential>().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Every call of the wire, read from its definition.
    fn calls() -> BTreeSet<String> {
        let text = include_str!("../../../proto/proto/nexaas/runner/v1/runner.proto");
        let mut service = "";
        let mut calls = BTreeSet::new();
        for line in text.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("service ") {
                service = rest.split_whitespace().next().unwrap();
            } else if let Some(rest) = line.strip_prefix("rpc ") {
                calls.insert(format!("/nexaas.runner.v1.{service}/{}", rest.split('(').next().unwrap()));
            }
        }
        calls
    }

    #[test]
    fn every_open_or_slow_call_exists_and_few_are_open() {
        let calls = calls();
        assert!(calls.len() > 25, "{calls:?}");
        for name in OPEN.iter().chain(SLOW.iter().map(|(name, _)| name)) {
            assert!(calls.contains(*name) || name.starts_with("/grpc.health.v1."), "{name} is not a call");
        }
        let open: Vec<_> = calls.iter().filter(|c| OPEN.contains(&c.as_str())).collect();
        assert_eq!(open.len(), 6, "{open:?}");
    }
}
