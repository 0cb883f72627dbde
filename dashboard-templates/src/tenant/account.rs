//! Signing in and signing up.

use crate::layout::Bare;
use askama::Template;

#[derive(Debug, Clone, Default, Template)]
#[template(path = "tenant/account/login.html")]
pub struct LoginPage {
    pub page: Bare,
    /// Where to go afterwards; already checked.
    pub next: String,
    pub username: String,
    /// Why it was refused; empty at first.
    pub error: String,
    pub registration_open: bool,
}

#[derive(Debug, Clone, Default, Template)]
#[template(path = "tenant/account/register.html")]
pub struct RegisterPage {
    pub page: Bare,
    /// The first person names the company and becomes its administrator.
    pub first: bool,
    pub company: String,
    pub username: String,
    pub company_error: String,
    pub username_error: String,
    pub password_error: String,
    /// A refusal that belongs to no field.
    pub error: String,
}
