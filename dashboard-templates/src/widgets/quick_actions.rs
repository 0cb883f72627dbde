//! Buttons that put work on the queue. The button names only its place on the page; what it runs is read from the
//! workspace again when it is pressed.

use askama::Template;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    pub label: String,
    pub description: String,
    pub icon: String,
    /// Where the button posts to.
    pub url: String,
    /// Why it cannot be pressed; empty when it can.
    pub problem: String,
}

#[derive(Debug, Clone, Template)]
#[template(path = "widgets/quick_actions.html")]
pub struct QuickActions {
    pub actions: Vec<Action>,
}
