//! What stands around every page: the company, the navigation and the person.

use super::session::Session;
use crate::error::Result;
use crate::runner_client::model::{User, WorkspaceView};
use nexaas_dashboard::layout::{Brand, NavGroup, NavItem, Person, Shell, Tone};
use nexaas_dashboard::tenant::ProblemsBanner;

/// What every page needs to know first.
#[derive(Debug, Clone)]
pub struct Around {
    pub workspace: WorkspaceView,
    user: User,
}

impl Around {
    pub async fn fetch(session: &Session) -> Result<Self> {
        let (workspace, user) = tokio::try_join!(session.api.workspace(), session.api.me())?;
        Ok(Self { workspace, user })
    }

    pub fn problems(&self) -> ProblemsBanner {
        let errors = self.workspace.problems.iter().filter(|p| p.is_error).count();
        ProblemsBanner { errors, warnings: self.workspace.problems.len() - errors }
    }

    /// The shell of the page at `path`.
    pub fn shell(&self, session: &Session, title: &str, path: &str) -> Shell {
        let mut nav: Vec<NavGroup> = self
            .workspace
            .perspectives
            .iter()
            .map(|perspective| NavGroup {
                label: perspective.name.clone(),
                items: perspective
                    .pages
                    .iter()
                    .map(|page| {
                        let icon = if page.icon.is_empty() { &perspective.icon } else { &page.icon };
                        item(&page.name, page_path(&perspective.id, &page.id), icon, path)
                    })
                    .collect(),
            })
            .filter(|group| !group.items.is_empty())
            .collect();
        nav.push(self.workspace_group(path));
        let company = if self.user.company.is_empty() { &self.workspace.name } else { &self.user.company };
        let name = if company.is_empty() { session.tenant.display_name.clone() } else { company.clone() };
        let detail = if self.workspace.name == name { String::new() } else { self.workspace.name.clone() };
        Shell {
            title: title.to_owned(),
            nonce: session.nonce.clone(),
            brand: Brand { name, detail, href: "/".to_owned(), product: false },
            nav,
            person: Some(Person {
                name: self.user.username.clone(),
                detail: match self.user.role.as_str() {
                    "admin" => "Administrator".to_owned(),
                    "member" => "Member".to_owned(),
                    other => other.to_owned(),
                },
                logout_href: "/logout".to_owned(),
            }),
            banner: None,
            crumb: None,
            stream: Some("/-/stream/bus".to_owned()),
        }
    }

    fn workspace_group(&self, path: &str) -> NavGroup {
        let mut items: Vec<NavItem> = [
            ("Overview", "/workspace", "gauge"),
            ("Agents", "/workspace/agents", "bot"),
            ("Skills", "/workspace/skills", "sparkles"),
            ("Registries", "/workspace/registries", "table"),
            ("Queue", "/workspace/queue", "list-todo"),
            ("Schedules", "/workspace/events", "calendar-clock"),
        ]
        .into_iter()
        .map(|(label, href, icon)| item(label, href.to_owned(), icon, path))
        .collect();
        let problems = self.problems();
        if !self.workspace.problems.is_empty() {
            let mut problem = item("Problems", "/workspace/problems".to_owned(), "triangle-alert", path);
            problem.count = u64::try_from(self.workspace.problems.len()).ok();
            problem.count_tone = if problems.errors > 0 { Tone::Warn } else { Tone::Idle };
            items.push(problem);
        }
        NavGroup { label: "Workspace".to_owned(), items }
    }
}

fn item(label: &str, href: String, icon: &str, path: &str) -> NavItem {
    let below = |h: &str| h != "/workspace" && path.starts_with(h) && path.as_bytes().get(h.len()) == Some(&b'/');
    NavItem {
        label: label.to_owned(),
        active: href == path || below(&href),
        icon: icon.to_owned(),
        href,
        ..NavItem::default()
    }
}

/// The path of a page. Ids come from a file, so they are encoded.
pub fn page_path(perspective: &str, page: &str) -> String {
    format!("/p/{}/{}", segment(perspective), segment(page))
}

/// One segment of a path, whatever the text.
pub fn segment(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
