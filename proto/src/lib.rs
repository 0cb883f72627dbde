//! The wire between the control plane and a runner, and nothing but the wire: these types are converted at once on both
//! sides (`runner_client/` and the runner's `grpc/`) and appear nowhere else.

pub mod runner {
    #[allow(clippy::all, clippy::unwrap_used, clippy::expect_used, missing_docs, rust_2018_idioms)]
    pub mod v1 {
        tonic::include_proto!("nexaas.runner.v1");
    }
}

/// The largest message either side accepts, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// Metadata that names on whose behalf the control plane calls: `operator:<uuid>`. Trusted because only the control
/// plane's certificate passes the runner's TLS. Absent when a client's user calls with `authorization: Bearer <jwt>`.
pub const ACTOR_METADATA: &str = "x-nexaas-actor";

/// Trailing metadata of an `INVALID_ARGUMENT` status: the field that broke a rule.
pub const FIELD_METADATA: &str = "x-nexaas-field";

/// Trailing metadata of a `RESOURCE_EXHAUSTED` status: after how many seconds to come back.
pub const RETRY_AFTER_METADATA: &str = "retry-after";
