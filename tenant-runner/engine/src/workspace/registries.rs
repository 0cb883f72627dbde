//! Registries: tables of a client's data, one YAML file each.

use super::agents::Source;
use super::files::{Root, stem};
use super::layout::line_of;
use super::problem::Problem;
use super::yaml::{self, or_default};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;
use std::collections::BTreeMap;

/// The types a field may have.
const TYPES: [&str; 5] = ["string", "number", "date", "boolean", "url"];

/// One registry.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Registry {
    /// The file's stem: what widgets and addresses call it.
    pub name: String,
    /// `name` in the file, for people.
    pub title: String,
    pub description: String,
    pub path: String,
    pub source: Source,
    pub fields: Vec<Field>,
    pub entries: Vec<Map<String, Value>>,
    /// The whole file.
    #[serde(skip)]
    pub data: Value,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Field {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
}

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    description: String,
    #[serde(default, deserialize_with = "or_default")]
    fields: Vec<FieldFile>,
    #[serde(default, deserialize_with = "or_default")]
    entries: Vec<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
struct FieldFile {
    name: String,
    #[serde(default, rename = "type")]
    kind: Option<Spanned<String>>,
}

/// Reads every registry of one root; for a broken file, `last_good` is asked by path.
pub fn load(
    root: &Root,
    source: Source,
    last_good: &BTreeMap<String, Registry>,
    problems: &mut Vec<Problem>,
) -> Vec<Registry> {
    let mut registries: Vec<Registry> = Vec::new();
    for entry in root.list("registries", problems).into_iter().filter(|e| !e.is_dir) {
        let Some(stem) = stem(&entry.name, &[".yaml", ".yml"]) else { continue };
        let path = format!("registries/{}", entry.name);
        let mut found = Vec::new();
        let read = root.text(&path).and_then(|t| t.map(|t| parse(&path, stem, source, &t, &mut found)).transpose());
        problems.extend(found);
        match read {
            Ok(Some(registry)) if registries.iter().any(|r| r.name == registry.name) => {
                problems.push(Problem::warning(
                    path,
                    0,
                    format!("registry '{}' exists twice; this one is ignored", registry.name),
                ));
            }
            Ok(registry) => registries.extend(registry),
            Err(problem) => {
                problems.push(problem);
                registries.extend(last_good.get(&path).cloned());
            }
        }
    }
    registries
}

/// Reads the text of one registry of the workspace.
pub fn read(path: &str, stem: &str, text: &str) -> Result<Registry, Problem> {
    parse(path, stem, Source::Client, text, &mut Vec::new())
}

fn parse(path: &str, stem: &str, source: Source, text: &str, problems: &mut Vec<Problem>) -> Result<Registry, Problem> {
    let document = yaml::parse::<File>(path, text)?;
    let typed = document.typed;
    let fields: Vec<Field> = typed
        .fields
        .into_iter()
        .map(|f| {
            let kind = match f.kind {
                None => "string".to_owned(),
                Some(k) if TYPES.contains(&k.value.as_str()) => k.value,
                Some(k) => {
                    let reason = format!(
                        "field '{}' has type '{}'; it must be one of {} (string is used)",
                        f.name,
                        k.value,
                        TYPES.join(", ")
                    );
                    problems.push(Problem::warning(path, line_of(&k), reason));
                    "string".to_owned()
                }
            };
            Field { name: f.name, kind }
        })
        .collect();
    let title = if typed.name.is_empty() { stem.to_owned() } else { typed.name };
    Ok(Registry {
        name: stem.to_owned(),
        title,
        description: typed.description,
        path: path.to_owned(),
        source,
        fields,
        entries: typed.entries,
        data: document.json,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_entries_are_read_in_their_order() {
        let text = "name: Clients\nfields:\n  - {name: id, type: number}\n  - {name: since, type: date}\n  - {name: note}\nentries:\n  - {id: 1, since: 2026-01-02, note: x}\n";
        let mut problems = vec![];
        let r = parse("registries/clients.yaml", "clients", Source::Client, text, &mut problems).unwrap();
        assert!(problems.is_empty());
        assert_eq!(r.fields.iter().map(|f| f.kind.as_str()).collect::<Vec<_>>(), ["number", "date", "string"]);
        assert_eq!(r.entries[0].keys().collect::<Vec<_>>(), ["id", "since", "note"]);
        assert_eq!(r.entries[0]["since"], "2026-01-02");
        assert_eq!((r.name.as_str(), r.title.as_str()), ("clients", "Clients"));
    }

    #[test]
    fn an_unknown_type_is_a_warning_and_a_wrong_shape_an_error_with_lines() {
        let mut problems = vec![];
        parse("r.yaml", "r", Source::Client, "fields:\n  - name: a\n    type: money\n", &mut problems).unwrap();
        assert_eq!(problems[0].line, 3);
        let wrong =
            parse("r.yaml", "r", Source::Client, "fields: []\nentries:\n  - just text\n", &mut problems).unwrap_err();
        assert_eq!(wrong.line, 3, "{wrong:?}");
    }
}
