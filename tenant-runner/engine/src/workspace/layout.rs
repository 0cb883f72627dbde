//! `workspace.yaml`: the name of the workspace and what its dashboard shows. A component's `config` belongs to its widget and
//! is kept as JSON, unread.

use super::problem::Problem;
use super::yaml::{self, or_default};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_saphyr::Spanned;

/// What `workspace.yaml` says, checked.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Layout {
    pub name: String,
    pub description: String,
    pub registries: Vec<String>,
    pub mcp_servers: Vec<String>,
    pub perspectives: Vec<Perspective>,
    /// The whole file as JSON, with what this type does not know.
    #[serde(skip)]
    pub raw: Value,
    /// The most the models may cost in a calendar month (UTC), in US dollars; none: no limit.
    #[serde(skip)]
    pub monthly_budget_usd: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Perspective {
    pub id: String,
    pub name: String,
    pub icon: String,
    pub default_page: String,
    pub pages: Vec<Page>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Page {
    pub id: String,
    pub name: String,
    pub icon: String,
    /// `grid` or `single`.
    pub layout: String,
    pub components: Vec<Component>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Component {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    /// 1 to 12 columns.
    pub span: u32,
    pub config: Value,
}

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    description: String,
    #[serde(default, deserialize_with = "or_default")]
    registries: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    mcp_servers: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    perspectives: Vec<PerspectiveFile>,
    #[serde(default, deserialize_with = "or_default")]
    budget: BudgetFile,
}

#[derive(Debug, Default, Deserialize)]
struct BudgetFile {
    #[serde(default)]
    monthly_usd: Option<Spanned<f64>>,
}

#[derive(Debug, Deserialize)]
struct PerspectiveFile {
    id: Spanned<String>,
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    icon: String,
    #[serde(default, deserialize_with = "or_default")]
    default_page: String,
    #[serde(default, deserialize_with = "or_default")]
    pages: Vec<PageFile>,
}

#[derive(Debug, Deserialize)]
struct PageFile {
    id: Spanned<String>,
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    icon: String,
    #[serde(default)]
    layout: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "or_default")]
    components: Vec<ComponentFile>,
}

#[derive(Debug, Deserialize)]
struct ComponentFile {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, deserialize_with = "or_default")]
    title: String,
    #[serde(default)]
    span: Option<Spanned<i64>>,
    #[serde(default, deserialize_with = "or_default")]
    config: Value,
}

pub(super) fn line_of<T>(spanned: &Spanned<T>) -> u32 {
    u32::try_from(spanned.referenced.line()).unwrap_or(0)
}

/// Reads `workspace.yaml`. What is out of range is corrected with a warning; what cannot be read at all is the error.
pub fn parse(file: &str, text: &str, problems: &mut Vec<Problem>) -> Result<Layout, Problem> {
    let document = yaml::parse::<File>(file, text)?;
    let typed = document.typed;
    let mut perspectives: Vec<Perspective> = Vec::new();
    for perspective in typed.perspectives {
        let line = line_of(&perspective.id);
        let id = perspective.id.value;
        if perspectives.iter().any(|p| p.id == id) {
            problems.push(Problem::warning(
                file,
                line,
                format!("perspective '{id}' appears twice; the second is ignored"),
            ));
            continue;
        }
        let mut pages: Vec<Page> = Vec::new();
        for page in perspective.pages {
            if pages.iter().any(|p| p.id == page.id.value) {
                let reason =
                    format!("page '{}' appears twice in perspective '{id}'; the second is ignored", page.id.value);
                problems.push(Problem::warning(file, line_of(&page.id), reason));
                continue;
            }
            pages.push(checked_page(file, page, problems));
        }
        if !perspective.default_page.is_empty() && pages.iter().all(|p| p.id != perspective.default_page) {
            let reason =
                format!("default_page '{}' of perspective '{id}' is none of its pages", perspective.default_page);
            problems.push(Problem::warning(file, line, reason));
        }
        perspectives.push(Perspective {
            name: or_else(perspective.name, &id),
            icon: perspective.icon,
            default_page: perspective.default_page,
            pages,
            id,
        });
    }
    let monthly_budget_usd = typed.budget.monthly_usd.and_then(|budget| {
        if budget.value.is_finite() && budget.value >= 0.0 {
            return Some(budget.value);
        }
        problems.push(Problem::warning(
            file,
            line_of(&budget),
            "budget.monthly_usd must be 0 or more; no budget is in force",
        ));
        None
    });
    Ok(Layout {
        name: typed.name,
        description: typed.description,
        registries: typed.registries,
        mcp_servers: typed.mcp_servers,
        perspectives,
        raw: document.json,
        monthly_budget_usd,
    })
}

fn checked_page(file: &str, page: PageFile, problems: &mut Vec<Problem>) -> Page {
    let layout = match page.layout {
        None => "grid".to_owned(),
        Some(l) if matches!(l.value.as_str(), "grid" | "single") => l.value,
        Some(l) => {
            let reason = format!("layout '{}' is not known; it must be grid or single (grid is used)", l.value);
            problems.push(Problem::warning(file, line_of(&l), reason));
            "grid".to_owned()
        }
    };
    let components = page
        .components
        .into_iter()
        .map(|c| {
            let span = match c.span {
                None => 12,
                Some(s) => {
                    let fits = u32::try_from(s.value.clamp(1, 12)).unwrap_or(12);
                    if i64::from(fits) != s.value {
                        let reason = format!("span is {}; it must be 1 to 12 ({fits} is used)", s.value);
                        problems.push(Problem::warning(file, line_of(&s), reason));
                    }
                    fits
                }
            };
            let config = if c.config.is_null() { Value::Object(serde_json::Map::new()) } else { c.config };
            Component { kind: c.kind, title: c.title, span, config }
        })
        .collect();
    let id = page.id.value;
    Page { name: or_else(page.name, &id), icon: page.icon, layout, components, id }
}

fn or_else(text: String, fallback: &str) -> String {
    if text.is_empty() { fallback.to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perspectives_pages_and_components_are_kept_with_their_config() {
        let text = "name: Acme\nperspectives:\n  - id: ops\n    pages:\n      - id: home\n        components:\n          - type: registry-table\n            title: Clients\n            span: 6\n            config: {registry: clients, columns: [name]}\n";
        let mut problems = Vec::new();
        let layout = parse("workspace.yaml", text, &mut problems).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        let component = &layout.perspectives[0].pages[0].components[0];
        assert_eq!((component.kind.as_str(), component.span), ("registry-table", 6));
        assert_eq!(component.config["columns"][0], "name");
        assert_eq!(layout.perspectives[0].name, "ops");
    }

    #[test]
    fn what_is_out_of_range_is_corrected_and_named_with_its_line() {
        let text = "perspectives:\n  - id: ops\n    default_page: nowhere\n    pages:\n      - id: home\n        layout: mosaic\n        components:\n          - type: chart\n            span: 99\n";
        let mut problems = Vec::new();
        let layout = parse("workspace.yaml", text, &mut problems).unwrap();
        assert_eq!(layout.perspectives[0].pages[0].components[0].span, 12);
        assert!(problems.iter().any(|p| p.line == 9 && p.reason.contains("span")), "{problems:?}");
        assert!(problems.iter().any(|p| p.line == 6 && p.reason.contains("layout")), "{problems:?}");
        assert!(problems.iter().any(|p| p.line == 2 && p.reason.contains("default_page")), "{problems:?}");
    }

    #[test]
    fn a_component_without_a_type_is_an_error_with_its_line() {
        let text =
            "perspectives:\n  - id: ops\n    pages:\n      - id: home\n        components:\n          - title: x\n";
        let problem = parse("workspace.yaml", text, &mut Vec::new()).unwrap_err();
        assert!(problem.line >= 6 && problem.reason.contains("type"), "{problem:?}");
    }
}
