//! Numbers in a row.

use crate::layout::Tone;
use askama::Template;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    pub label: String,
    /// Empty: no icon.
    pub icon: String,
    pub value: String,
    pub detail: String,
    pub tone: Tone,
}

#[derive(Debug, Clone, Template)]
#[template(path = "widgets/stat_cards.html")]
pub struct StatCards {
    pub cards: Vec<Stat>,
}
