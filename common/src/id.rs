//! One registry of typed ids. An id is a UUID v7 (sortable by creation) that cannot be confused with another kind's.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use uuid::Uuid;

/// Names a kind of id; the name appears in error messages and `Debug`.
pub trait Kind {
    const NAME: &'static str;
}

/// A UUID that names a `K`.
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct Id<K: Kind>(Uuid, #[serde(skip)] PhantomData<fn() -> K>);

impl<K: Kind> Id<K> {
    /// A new id, sortable by the time of this call.
    pub fn generate() -> Self {
        Self(Uuid::now_v7(), PhantomData)
    }

    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid, PhantomData)
    }

    pub const fn uuid(&self) -> Uuid {
        self.0
    }
}

impl<K: Kind> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K: Kind> Copy for Id<K> {}
impl<K: Kind> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<K: Kind> Eq for Id<K> {}
impl<K: Kind> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K: Kind> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
impl<K: Kind> std::hash::Hash for Id<K> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl<K: Kind> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl<K: Kind> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", K::NAME, self.0)
    }
}

/// The text was not a UUID.
#[derive(Debug, thiserror::Error)]
#[error("'{text}' is not a valid {kind} id")]
pub struct InvalidId {
    pub kind: &'static str,
    pub text: String,
}

impl<K: Kind> FromStr for Id<K> {
    type Err = InvalidId;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(s)
            .map(Self::from_uuid)
            .map_err(|_| InvalidId { kind: K::NAME, text: s.chars().take(64).collect() })
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $alias:ident = $kind:ident $name:literal;)*) => {$(
        #[doc(hidden)]
        pub enum $kind {}
        impl Kind for $kind { const NAME: &'static str = $name; }
        $(#[$doc])*
        pub type $alias = Id<$kind>;
    )*};
}

kinds! {
    /// One installation of the control plane; labels every object it makes.
    InstallId = InstallKind "install";
    /// One client.
    TenantId = TenantKind "tenant";
    /// One requested change to a tenant, with its steps.
    OperationId = OperationKind "operation";
    /// One person who runs the control plane.
    OperatorId = OperatorKind "operator";
    /// One start of a process; leases belong to it.
    BootId = BootKind "boot";
    /// One request, for logs.
    RequestId = RequestKind "request";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_text_and_json() {
        let id = TenantId::generate();
        assert_eq!(id.to_string().parse::<TenantId>().ok(), Some(id));
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<TenantId>(&json).unwrap(), id);
    }

    #[test]
    fn a_malformed_id_is_refused_by_its_kind() {
        let error = "../etc".parse::<TenantId>().unwrap_err();
        assert_eq!(error.to_string(), "'../etc' is not a valid tenant id");
    }
}
