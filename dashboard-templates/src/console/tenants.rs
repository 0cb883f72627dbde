//! All tenants, and the form that makes one.

use crate::layout::{Shell, Tone};
use askama::Template;

#[derive(Debug, Clone, Template)]
#[template(path = "console/tenants/list.html")]
pub struct TenantsPage {
    pub page: Shell,
    pub table: TenantTable,
    pub may_create: bool,
}

/// Renewed live.
#[derive(Debug, Clone, Default, PartialEq, Eq, Template)]
#[template(path = "console/tenants/table.html")]
pub struct TenantTable {
    pub rows: Vec<TenantRow>,
    pub may_create: bool,
    /// Why the list cannot be shown; empty when it can.
    pub problem: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TenantRow {
    pub slug: String,
    pub name: String,
    pub url: String,
    pub phase: String,
    pub tone: Tone,
    /// What a person should know about the phase.
    pub detail: String,
    pub template: String,
    pub backend: String,
    /// RFC 3339.
    pub created_at: String,
}

#[derive(Debug, Clone, Default, Template)]
#[template(path = "console/tenants/new.html")]
pub struct NewTenantPage {
    pub page: Shell,
    /// As it was typed.
    pub form: NewTenantForm,
    pub errors: NewTenantErrors,
    pub templates: Vec<String>,
    pub backends: Vec<String>,
    /// What follows the slug in the address.
    pub suffix: String,
    /// Makes a form that is sent twice one request.
    pub key: String,
    pub default_memory_mb: u64,
    pub default_cpu_millis: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewTenantForm {
    pub slug: String,
    pub display_name: String,
    pub template: String,
    pub backend: String,
    pub memory_mb: String,
    pub cpu_millis: String,
}

/// The rule that each field broke; empty when it broke none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewTenantErrors {
    pub slug: String,
    pub display_name: String,
    pub template: String,
    pub backend: String,
    pub memory_mb: String,
    pub cpu_millis: String,
    /// What belongs to no field.
    pub general: String,
}

impl NewTenantErrors {
    /// Places a message beside the field it is about.
    pub fn put(&mut self, field: &str, message: String) {
        match field {
            "slug" => self.slug = message,
            "display_name" => self.display_name = message,
            "template" => self.template = message,
            "backend" => self.backend = message,
            "memory_mb" => self.memory_mb = message,
            "cpu_millis" => self.cpu_millis = message,
            _ => self.general = message,
        }
    }
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

impl NewTenantPage {
    fn memory_hint(&self) -> String {
        format!("{} if left empty.", self.default_memory_mb)
    }
    fn cpu_hint(&self) -> String {
        format!("{} if left empty.", self.default_cpu_millis)
    }
}
