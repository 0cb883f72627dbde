//! Signing in.

use crate::layout::Bare;
use askama::Template;

#[derive(Debug, Clone, Default, Template)]
#[template(path = "console/login/login.html")]
pub struct LoginPage {
    pub page: Bare,
    pub username: String,
    /// Why it was refused; empty at first.
    pub error: String,
    /// Where to go afterwards; already checked.
    pub next: String,
}
