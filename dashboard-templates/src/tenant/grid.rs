//! A page of widgets.

use crate::layout::Shell;
use crate::widgets::Frame;
use askama::Template;

/// The grid alone: what is swapped when the page's description changed.
#[derive(Debug, Clone, Template)]
#[template(path = "tenant/grid/grid.html")]
pub struct Grid {
    /// Answers with nothing while the description is the one that was drawn.
    pub url: String,
    pub single: bool,
    pub frames: Vec<Frame>,
}

/// The discreet line about files that could not be read; empty when there is none.
#[derive(Debug, Clone, Copy, Default, Template)]
#[template(path = "tenant/grid/problems_banner.html")]
pub struct ProblemsBanner {
    pub errors: usize,
    pub warnings: usize,
}

#[derive(Debug, Clone, Template)]
#[template(path = "tenant/grid/page.html")]
pub struct GridPage {
    pub page: Shell,
    pub problems: ProblemsBanner,
    pub grid: Grid,
}
