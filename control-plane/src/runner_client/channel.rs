//! gRPC channels over the runner's TLS, and what every call carries: a deadline, the trace, and on whose behalf it is made.

use super::tls::{Connector, Protocol};
use crate::domain::{OperatorId, TenantId};
use crate::error::{Error, Kind, Result};
use crate::pki::runner_dns_name;
use http::Uri;
use hyper_util::rt::TokioIo;
use nexaas_common::telemetry;
use std::time::Duration;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// Metadata in which a runner names the field that a refused request must correct.
const FIELD_METADATA: &str = "x-nexaas-field";
/// A connection on which nothing answers for this long is remade.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn build(connector: Connector, tenant: TenantId, port: u16) -> Result<Channel> {
    let name = runner_dns_name(tenant);
    // The scheme keeps the channel from adding a TLS of its own; the origin is what the requests say.
    let endpoint = Endpoint::from_shared(format!("http://{name}")).map_err(Error::internal)?;
    let origin: Uri = format!("https://{name}").parse().map_err(Error::internal)?;
    let endpoint = endpoint
        .origin(origin)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .tcp_nodelay(true);
    let service = tower::service_fn(move |_: Uri| {
        let connector = connector.clone();
        async move { connector.connect(tenant, port, Protocol::Http2).await.map(TokioIo::new) }
    });
    Ok(endpoint.connect_with_connector_lazy(service))
}

/// On whose behalf the control plane calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor<'a> {
    /// The control plane itself; only for the Control and Health services and before a login.
    None,
    /// An operator of the control plane.
    Operator(OperatorId),
    /// A user of the tenant, by the token the runner gave them.
    User(&'a str),
}

/// A request with its deadline, the current trace and the actor.
pub fn request<T>(message: T, deadline: Duration, actor: Actor<'_>) -> Result<tonic::Request<T>> {
    let mut headers = http::HeaderMap::new();
    telemetry::inject(&mut headers);
    match actor {
        Actor::None => {}
        Actor::Operator(id) => {
            let value = http::HeaderValue::from_str(&format!("operator:{}", id.uuid())).map_err(Error::internal)?;
            headers.insert(nexaas_proto::ACTOR_METADATA, value);
        }
        Actor::User(token) => {
            let mut value = http::HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| Error::unauthenticated("the session is not valid; log in again"))?;
            value.set_sensitive(true);
            headers.insert(http::header::AUTHORIZATION, value);
        }
    }
    let mut request = tonic::Request::new(message);
    *request.metadata_mut() = MetadataMap::from_headers(headers);
    request.set_timeout(deadline);
    Ok(request)
}

/// Runs one call with its deadline enforced on this side too, so that a runner that never answers cannot hold its caller.
pub async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = std::result::Result<tonic::Response<T>, Status>>,
) -> Result<T> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(error_of(status)),
        Err(_) => Err(Error::timeout("runner")),
    }
}

/// A runner's refusal in the control plane's terms. The runner's messages are written for people and are kept.
pub fn error_of(status: Status) -> Error {
    let message = status.message().to_owned();
    let field = status.metadata().get(FIELD_METADATA).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let kind = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => {
            Kind::Invalid { field: field.unwrap_or_else(|| "request".to_owned()) }
        }
        Code::NotFound => Kind::NotFound,
        Code::AlreadyExists | Code::Aborted => Kind::Conflict,
        Code::FailedPrecondition => Kind::PreconditionFailed,
        Code::Unauthenticated => Kind::Unauthenticated,
        Code::PermissionDenied => Kind::Forbidden,
        Code::ResourceExhausted => {
            let retry = status.metadata().get("retry-after").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
            Kind::RateLimited { retry_after_s: retry.unwrap_or(1) }
        }
        Code::DeadlineExceeded => return Error::timeout("runner").with_source(status),
        Code::Unavailable | Code::Cancelled => return Error::unavailable("runner", status),
        // A connection that could not be made arrives as Unknown with its cause attached.
        Code::Unknown if std::error::Error::source(&status).is_some() => return Error::unavailable("runner", status),
        Code::Ok | Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => {
            return Error::internal(status);
        }
    };
    Error::new(kind, message).with_source(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_carries_the_actor_and_a_deadline() {
        let operator = OperatorId::generate();
        let request = request((), Duration::from_secs(3), Actor::Operator(operator)).unwrap();
        let actor = request.metadata().get(nexaas_proto::ACTOR_METADATA).unwrap();
        assert_eq!(actor.to_str().unwrap(), format!("operator:{}", operator.uuid()));
        assert!(request.metadata().contains_key("grpc-timeout"));
        let user = super::request((), Duration::from_secs(3), Actor::User("abc")).unwrap();
        assert_eq!(user.metadata().get("authorization").unwrap().to_str().unwrap(), "Bearer abc");
        assert!(!user.metadata().contains_key(nexaas_proto::ACTOR_METADATA));
    }

    #[test]
    fn a_token_that_cannot_be_a_header_is_not_a_session() {
        let error = request((), Duration::from_secs(3), Actor::User("a\r\nx-nexaas-actor: operator:1")).unwrap_err();
        assert_eq!(error.kind, Kind::Unauthenticated);
    }

    #[test]
    fn a_refusal_keeps_its_kind_and_message() {
        let mut status = Status::invalid_argument("name must not be empty");
        status.metadata_mut().insert(FIELD_METADATA, "name".parse().unwrap());
        let error = error_of(status);
        assert_eq!(error.kind, Kind::Invalid { field: "name".into() });
        assert_eq!(error.public(), "name must not be empty");
        assert_eq!(error_of(Status::unauthenticated("no")).kind, Kind::Unauthenticated);
        assert_eq!(error_of(Status::unavailable("x")).kind, Kind::Unavailable { what: "runner" });
        // What a defect says inside is for the log.
        assert!(!error_of(Status::internal("secret detail")).public().contains("secret"));
    }

    #[tokio::test]
    async fn a_runner_that_never_answers_is_a_timeout() {
        let silence = std::future::pending::<std::result::Result<tonic::Response<()>, Status>>();
        let error = within(Duration::from_millis(1), silence).await.unwrap_err();
        assert_eq!(error.kind, Kind::Timeout { what: "runner" });
    }
}
