//! The operators' console: signing in, the list of tenants, creating one, and one tenant's page with its live parts.
//!
//! Always true: no view holds a secret, and every part that changes while it is watched is a template of its own, so that the
//! page and the stream that renews it say the same.

pub mod login;
pub mod tenant;
pub mod tenants;
