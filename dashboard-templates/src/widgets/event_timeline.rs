//! What happened, newest first.

use crate::layout::Tone;
use askama::Template;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineRow {
    pub tone: Tone,
    pub title: String,
    pub detail: String,
    pub at: String,
    /// Empty: no link.
    pub href: String,
}

#[derive(Debug, Clone, Template)]
#[template(path = "widgets/event_timeline.html")]
pub struct EventTimeline {
    pub rows: Vec<TimelineRow>,
    pub empty_title: String,
    pub empty_text: String,
}
