//! Host → destination. The table is a pure function of the tenant rows and the base domain, swapped in whole, so a request
//! sees either the old table or the new one and never something between.

use super::host::Authority;
use crate::domain::tenant::{Desired, Phase, Tenant};
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::Arc;

/// Where a host leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    Console,
    /// The bare base domain: leads on to the console.
    Base,
    Tenant(Arc<Tenant>),
    /// A name of ours that no tenant has.
    NoSuchTenant,
    /// Not one of our names at all.
    Foreign,
}

#[derive(Debug, Default)]
pub struct RouteTable {
    base: String,
    tenants: HashMap<String, Arc<Tenant>>,
}

impl RouteTable {
    pub fn build(base_domain: &str, tenants: impl IntoIterator<Item = Tenant>) -> Self {
        let tenants = tenants
            .into_iter()
            .filter(|t| t.desired != Desired::Deleted)
            .map(|t| (t.slug.as_str().to_owned(), Arc::new(t)))
            .collect();
        Self { base: base_domain.trim_end_matches('.').to_ascii_lowercase(), tenants }
    }

    /// The port a client names says nothing about the tenant and is not looked at.
    pub fn resolve(&self, authority: &Authority) -> Route {
        if authority.host == self.base {
            return Route::Base;
        }
        let label = authority.host.strip_suffix(&self.base).and_then(|rest| rest.strip_suffix('.'));
        match label {
            None => Route::Foreign,
            Some("console") => Route::Console,
            Some(label) => self.tenants.get(label).map_or(Route::NoSuchTenant, |t| Route::Tenant(t.clone())),
        }
    }

    pub fn len(&self) -> usize {
        self.tenants.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }

    pub fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.tenants.values()
    }
}

/// The table in force.
pub type SharedRoutes = Arc<ArcSwap<RouteTable>>;

/// Whether requests for a tenant go to its runner, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Runner,
    /// Not now, but soon.
    Soon(&'static str),
    /// Not until somebody acts.
    Closed(&'static str),
}

/// A runner that is being healed, or whose backend is silent, may well answer: it is asked. One that was never up, or not yet
/// for this generation (the one before may be stopping), is not.
pub fn reach(tenant: &Tenant) -> Reach {
    match tenant.phase() {
        Phase::Ready | Phase::Recovering | Phase::Unknown if tenant.port.is_some() => Reach::Runner,
        Phase::Ready | Phase::Recovering | Phase::Unknown | Phase::Provisioning => Reach::Soon("is being prepared"),
        Phase::Failed => Reach::Soon("could not be started; its operator has been shown why"),
        Phase::Hibernated => Reach::Soon("is asleep"),
        Phase::Stopping => Reach::Closed("is being stopped"),
        Phase::Suspended => Reach::Closed("is suspended by its operator"),
        Phase::Deleting => Reach::Closed("is being removed"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::TenantId;
    use crate::domain::condition::{Condition, ConditionStatus, ConditionType};
    use crate::domain::tenant::{BackendKind, Limits};

    pub(crate) fn tenant(slug: &str) -> Tenant {
        let at = chrono::DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let condition = |r#type| Condition {
            r#type,
            status: ConditionStatus::True,
            reason: "Probed".into(),
            message: "It answers".into(),
            last_transition_time: at,
            observed_generation: 1,
        };
        Tenant {
            id: TenantId::generate(),
            slug: slug.parse().unwrap(),
            display_name: slug.to_owned(),
            desired: Desired::Running,
            generation: 1,
            observed_generation: 1,
            template: "fresh".into(),
            backend: BackendKind::Fake,
            limits: Limits::default(),
            port: Some(20_000),
            subnet: None,
            conditions: vec![condition(ConditionType::Provisioned), condition(ConditionType::Ready)],
            created_at: at,
            updated_at: at,
        }
    }

    #[test]
    fn a_runner_of_an_earlier_generation_is_not_asked() {
        let mut resumed = tenant("acme");
        assert_eq!(reach(&resumed), Reach::Runner);
        resumed.generation += 2;
        assert_eq!(reach(&resumed), Reach::Soon("is being prepared"), "its old runner may still be stopping");
        for condition in &mut resumed.conditions {
            condition.observed_generation = resumed.generation;
            condition.status = match condition.r#type {
                ConditionType::Ready => ConditionStatus::False,
                _ => ConditionStatus::True,
            };
        }
        assert_eq!(reach(&resumed), Reach::Runner, "it exists for this generation and is about to be probed");
    }

    #[test]
    fn a_host_leads_where_its_labels_say_and_nowhere_else() {
        let mut gone = tenant("gone");
        gone.desired = Desired::Deleted;
        let table = RouteTable::build("base.example", [tenant("acme"), gone]);
        let resolve = |host: &str| table.resolve(&host.parse().unwrap());
        assert!(matches!(resolve("acme.base.example:8080"), Route::Tenant(t) if t.slug.as_str() == "acme"));
        assert_eq!(resolve("console.base.example"), Route::Console);
        assert_eq!(resolve("BASE.example"), Route::Base);
        for nobody in ["gone.base.example", "other.base.example", "x.acme.base.example", "acme.console.base.example"] {
            assert_eq!(resolve(nobody), Route::NoSuchTenant, "{nobody}");
        }
        for foreign in
            ["acme.base.example.evil.example", "evilbase.example", "acme.evilbase.example", "127.0.0.1", "example"]
        {
            assert_eq!(resolve(foreign), Route::Foreign, "{foreign}");
        }
    }

    #[test]
    fn only_a_runner_that_may_answer_is_asked() {
        let mut t = tenant("acme");
        assert_eq!(reach(&t), Reach::Runner);
        t.generation = 2;
        t.desired = Desired::Suspended;
        t.observed_generation = 2;
        assert!(matches!(reach(&t), Reach::Closed(_)));
        t.desired = Desired::Running;
        t.conditions.clear();
        assert!(matches!(reach(&t), Reach::Soon(_)));
    }
}
