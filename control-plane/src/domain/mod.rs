//! What the control plane talks about, free of SQL, HTTP and Docker. Every state is an enum with exhaustive matches.

pub mod condition;
pub mod operation;
pub mod operator;
pub mod tenant;

pub use nexaas_common::id::{InstallId, OperationId, OperatorId, TenantId};
pub use nexaas_common::slug::Slug;
