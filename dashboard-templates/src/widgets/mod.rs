//! The widgets of a page, one file each. A widget is what stands inside its frame: the frame stays, the inside is fetched
//! anew when the bus says that its data changed.
//!
//! Always true: a widget whose data could not be read says so in its own place; an unknown type is named, never dropped.

pub mod agent_chat;
pub mod agent_tree;
pub mod event_timeline;
pub mod queue_status;
pub mod quick_actions;
pub mod registry_table;
pub mod stat_cards;

use crate::layout::Tone;
use askama::Template;

/// The widget types of existing workspaces that this version names but does not draw yet.
pub const PLANNED: &[&str] = &[
    "data-table",
    "email-preview",
    "email-list",
    "email-drafts",
    "social-media-preview",
    "pipeline-board",
    "draft-list",
    "social-posts-grid",
    "campaign-funnel",
    "automation-panel",
    "analytics-charts",
    "sales-pipeline",
    "chart",
    "calendar",
    "markdown-viewer",
    "agent-skill-bar",
    "content-editor",
];

/// Markup that a template of this crate has rendered; put into a page as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Html(pub String);

/// How a widget stands on the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dress {
    Card,
    /// A card whose body has no padding, for tables.
    Flush,
    /// No card around it: the widget brings its own.
    Plain,
}

impl Dress {
    fn flush(self) -> bool {
        self == Self::Flush
    }
}

/// What stands around a widget.
#[derive(Debug, Clone, Template)]
#[template(path = "widgets/frame.html")]
pub struct Frame {
    pub id: String,
    pub title: String,
    /// 1 to 12.
    pub span: u8,
    pub dress: Dress,
    /// Where the inside is fetched from.
    pub url: String,
    /// The `hx-trigger`; empty for a widget that does not refresh.
    pub trigger: String,
    /// A link at the right of the heading: label and URL.
    pub more: Option<(String, String)>,
    /// The rendered inside.
    pub inside: Html,
}

impl Frame {
    fn columns(&self) -> u8 {
        self.span.clamp(1, 12)
    }
}

/// The data could not be read.
#[derive(Debug, Clone, Template)]
#[template(path = "widgets/failed.html")]
pub struct Failed {
    pub text: String,
    /// Empty: no button to try again.
    pub url: String,
}

/// Data is on its way.
#[derive(Debug, Clone, Template)]
#[template(path = "widgets/waiting.html")]
pub struct Waiting;

/// A type that is not drawn (yet).
#[derive(Debug, Clone, Template)]
#[template(path = "widgets/unknown.html")]
pub struct Unknown {
    pub kind: String,
}

impl Unknown {
    fn planned(&self) -> bool {
        PLANNED.contains(&self.kind.as_str())
    }
}

/// One job in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRow {
    pub name: String,
    pub detail: String,
    pub tone: Tone,
    pub state: String,
    pub at: String,
    pub href: String,
    /// Where a job that ended without its result is given another round of attempts.
    pub retry_url: Option<String>,
}

/// Renders a view; the templates are compiled, so a failure is a defect that the person sees in plain words.
pub fn html(view: &impl Template) -> Html {
    Html(view.render().unwrap_or_else(|_| "<div class=\"notice bad\">This part could not be drawn.</div>".to_owned()))
}
