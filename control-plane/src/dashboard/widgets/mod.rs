//! From a component of `workspace.yaml` to a drawn widget: its settings are parsed strictly, its data fetched, its frame set up.
//!
//! Always true: whatever goes wrong with one widget is said in its own place.

mod agent_chat;
mod agent_tree;
mod event_timeline;
mod queue_status;
mod quick_actions;
mod registry_table;
mod stat_cards;

pub use agent_chat::conversation;
pub use quick_actions::{Deed, action_at};

use super::failure::said;
use super::shell::segment;
use crate::error::{Error, Kind, Result};
use crate::http::problem;
use crate::runner_client::TenantApi;
use crate::runner_client::model::{Agent, Component, Page, Registry};
use chrono::{DateTime, Utc};
use futures::future::join_all;
use nexaas_dashboard::tenant::Grid;
use nexaas_dashboard::widgets::agent_tree::AgentTree;
use nexaas_dashboard::widgets::registry_table::RegistryTable;
use nexaas_dashboard::widgets::{Dress, Failed, Frame, Html, Unknown, Waiting, html};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::time::Duration;

/// A page waits this long for its widgets' data; what is slower follows by itself.
const PATIENCE: Duration = Duration::from_millis(1500);
/// More components than anybody can look at; the rest is not drawn.
const MAX_COMPONENTS: usize = 60;

/// The perspective of the fixed pages under "Workspace". Ids of real perspectives are never empty of letters.
pub const FIXED: &str = "-";

/// Where a widget stands, and for whom it is drawn.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    pub api: &'a TenantApi,
    pub now: DateTime<Utc>,
    pub perspective: &'a str,
    pub page: &'a str,
    pub index: usize,
    /// The path of the page itself, for links that come back to it.
    pub path: &'a str,
    /// The page's query: which conversation is open.
    pub query: &'a HashMap<String, String>,
    pub single: bool,
}

impl Place<'_> {
    fn url(&self) -> String {
        format!("/-/partial/widget/{}/{}/{}", segment(self.perspective), segment(self.page), self.index)
    }
}

/// The strictly parsed settings of a widget: an unknown or wrongly typed key is refused by its name.
fn settings<T: DeserializeOwned + Default>(component: &Component) -> Result<T> {
    if component.config.is_null() {
        return Ok(T::default());
    }
    serde_json::from_value(component.config.clone()).map_err(|e| Error::invalid("config", format!("is not right: {e}")))
}

/// The inside of a widget, or why there is none.
pub async fn inside(place: &Place<'_>, component: &Component) -> Html {
    let drawn = match component.kind.as_str() {
        "stat-cards" => stat_cards::draw(place, component).await,
        "agent-tree" => agent_tree::draw(place, component).await,
        "event-timeline" => event_timeline::draw(place, component).await,
        "queue-status" => queue_status::draw(place, component).await,
        "registry-table" => registry_table::draw(place, component).await,
        "quick-actions" => quick_actions::draw(place, component),
        "agent-chat" => agent_chat::draw(place, component).await,
        other => Ok(html(&Unknown { kind: other.chars().take(80).collect() })),
    };
    drawn.unwrap_or_else(|error| {
        problem::log(&error);
        // Trying again helps only where nobody has to change a file first.
        let url = if matches!(error.kind, Kind::Invalid { .. }) { String::new() } else { place.url() };
        let text = match error.kind {
            Kind::Unauthenticated => "Your session has ended. Load the page again to log in.".to_owned(),
            _ => said(&error),
        };
        html(&Failed { text, url })
    })
}

/// What makes a widget stale, as names of the stream's events.
fn topics(component: &Component) -> &'static [&'static str] {
    match component.kind.as_str() {
        "stat-cards" => &["queue", "events", "workspace", "alerts", "usage"],
        "agent-tree" | "registry-table" => &["workspace"],
        "event-timeline" => &["queue", "events", "workspace", "alerts"],
        "queue-status" => &["queue"],
        _ => &[],
    }
}

fn dress(component: &Component) -> Dress {
    match component.kind.as_str() {
        "stat-cards" => Dress::Plain,
        "registry-table" => Dress::Flush,
        _ => Dress::Card,
    }
}

fn more(component: &Component) -> Option<(String, String)> {
    let link = |label: &str, href: &str| Some((label.to_owned(), href.to_owned()));
    match component.kind.as_str() {
        "agent-tree" => link("Agents", "/workspace/agents"),
        "queue-status" => link("Queue", "/workspace/queue"),
        "event-timeline" => link("Schedules", "/workspace/events"),
        "registry-table" => {
            let name = component.config.get("registry")?.as_str()?;
            link("Open", &format!("/workspace/registries/{}", segment(name)))
        }
        _ => None,
    }
}

async fn frame(place: Place<'_>, component: &Component) -> Frame {
    let mut trigger: Vec<String> = topics(component).iter().map(|t| format!("sse:{t}")).collect();
    let inside = match tokio::time::timeout(PATIENCE, inside(&place, component)).await {
        Ok(inside) => inside,
        Err(_) => {
            trigger.insert(0, "load".to_owned());
            html(&Waiting)
        }
    };
    Frame {
        id: format!("w{}", place.index),
        title: component.title.clone(),
        span: if place.single { 12 } else { component.span },
        dress: dress(component),
        url: place.url(),
        trigger: trigger.join(", "),
        // Not to where one is already.
        more: more(component).filter(|(_, href)| href != place.path),
        inside,
    }
}

/// A page of widgets, all fetched at once.
pub async fn grid(place: &Place<'_>, page: &Page) -> Grid {
    let frames = page.components.iter().take(MAX_COMPONENTS).enumerate().map(|(index, component)| {
        let place = Place { index, single: page.single, ..place.clone() };
        frame(place, component)
    });
    let url =
        format!("/-/partial/page/{}/{}?seen={}", segment(place.perspective), segment(place.page), fingerprint(page));
    let url = if place.perspective == FIXED { String::new() } else { url };
    Grid { url, single: page.single, frames: join_all(frames).await }
}

/// Identifies what a page's description says, so that only a change redraws it.
pub fn fingerprint(page: &Page) -> String {
    let mut hasher = Sha256::new();
    hasher.update([u8::from(page.single)]);
    for c in &page.components {
        hasher.update(serde_json::to_vec(&(&c.kind, &c.title, c.span, &c.config)).unwrap_or_default());
        hasher.update([0]);
    }
    hex::encode(&hasher.finalize()[..8])
}

/// The same for one component.
fn fingerprint_of(component: &Component) -> String {
    fingerprint(&Page { components: vec![component.clone()], ..Page::default() })
}

/// The agents as a tree.
pub fn agent_page(agents: &[Agent]) -> AgentTree {
    AgentTree { roots: agents.iter().map(agent_tree::node).collect() }
}

/// The names of all agents of a tree.
pub fn agent_names(agents: &[Agent]) -> Vec<String> {
    let mut names = Vec::new();
    agent_chat::flatten(agents, &mut names);
    names
}

/// A whole registry as a table.
pub fn registry_page(registry: &Registry) -> RegistryTable {
    registry_table::whole(registry)
}
