//! The entries of a registry.

use super::stat_cards::{matches, plain};
use super::{Place, settings};
use crate::dashboard::shell::segment;
use crate::error::{Error, Result};
use crate::runner_client::model::{Component, Registry};
use nexaas_dashboard::widgets::registry_table::{Cell, Column, Kind, RegistryTable};
use nexaas_dashboard::widgets::{Html, html};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::cmp::Ordering;

/// A page with more rows than this would not be quick any more; it says how many there are.
const MAX_ROWS: usize = 1000;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    registry: String,
    columns: Option<Vec<String>>,
    r#where: Map<String, Value>,
    sort: Option<String>,
    limit: Option<usize>,
}

pub async fn draw(place: &Place<'_>, component: &Component) -> Result<Html> {
    let config: Config = settings(component)?;
    if config.registry.is_empty() {
        return Err(Error::invalid("registry", "must name the registry to show"));
    }
    let limit = config.limit.unwrap_or(100);
    if !(1..=500).contains(&limit) {
        return Err(Error::invalid("limit", "must be between 1 and 500"));
    }
    let registry = place.api.registry(&config.registry).await?;
    let fields = chosen(&registry, config.columns.as_deref())?;
    let mut entries: Vec<_> = registry.entries.iter().filter(|e| matches(e, &config.r#where)).collect();
    if let Some(sort) = &config.sort {
        let (field, descending) = sort.strip_prefix('-').map_or((sort.as_str(), false), |f| (f, true));
        if !registry.fields.iter().any(|(name, _)| name == field) {
            return Err(Error::invalid("sort", format!("names no field of '{}': '{field}'", config.registry)));
        }
        entries.sort_by(|a, b| {
            let order = compare(a.get(field), b.get(field));
            if descending { order.reverse() } else { order }
        });
    }
    let mut table = table(&format!("{}-{}", place.index, config.registry), &fields, &entries, limit);
    table.href = format!("/workspace/registries/{}", segment(&config.registry));
    Ok(html(&table))
}

/// The whole registry, for its own page.
pub fn whole(registry: &Registry) -> RegistryTable {
    let entries: Vec<_> = registry.entries.iter().collect();
    table(&registry.name, &registry.fields, &entries, MAX_ROWS)
}

fn chosen(registry: &Registry, columns: Option<&[String]>) -> Result<Vec<(String, String)>> {
    let Some(columns) = columns else { return Ok(registry.fields.clone()) };
    columns
        .iter()
        .map(|name| {
            registry
                .fields
                .iter()
                .find(|(field, _)| field == name)
                .cloned()
                .ok_or_else(|| Error::invalid("columns", format!("names no field of '{}': '{name}'", registry.name)))
        })
        .collect()
}

fn table(id: &str, fields: &[(String, String)], entries: &[&Map<String, Value>], limit: usize) -> RegistryTable {
    RegistryTable {
        id: id.to_owned(),
        columns: fields.iter().map(|(name, kind)| Column::of_field(name, Kind::of(kind))).collect(),
        rows: entries
            .iter()
            .take(limit)
            .map(|entry| {
                let cell =
                    |(name, kind): &(String, String)| Cell::of(entry.get(name).unwrap_or(&Value::Null), Kind::of(kind));
                fields.iter().map(cell).collect()
            })
            .collect(),
        total: entries.len(),
        href: String::new(),
    }
}

fn compare(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (None | Some(Value::Null), None | Some(Value::Null)) => Ordering::Equal,
        // What has no value comes last.
        (None | Some(Value::Null), _) => Ordering::Greater,
        (_, None | Some(Value::Null)) => Ordering::Less,
        (Some(a), Some(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(x), Some(y)) => x.total_cmp(&y),
            _ => plain(a).to_lowercase().cmp(&plain(b).to_lowercase()),
        },
    }
}
