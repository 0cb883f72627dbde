//! Editing a registry of the workspace: rows are changed, added or removed in its file, which is replaced as a whole.
//!
//! Always true here: nothing outside the workspace is touched; a value fits its field's type or nothing is written; a change that
//! somebody made meanwhile is not overwritten; what is written reads back as what was meant; one run of an attempt appends
//! once, over any crash (`once.rs`). Comments in the file are lost.

use super::Failure;
use super::config::{Change, RegistryUpdate};
use super::once::{Once, STAGED};
use super::template::{self, Values};
use crate::workspace::{Registry, read_registry};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use serde_json::{Map, Value, json};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Mutex;
use url::Url;

/// Somebody else may be editing the file; so often we begin anew.
const MOST_TRIES: usize = 5;
const MOST_ENTRIES: usize = 20_000;

#[derive(Debug)]
pub(super) struct Registries {
    workspace: PathBuf,
    /// One change at a time.
    turn: Arc<Mutex<()>>,
}

type Row = Map<String, Value>;

/// A change with its templates filled in.
struct Wanted {
    registry: String,
    op: Change,
    matching: Row,
    set: Row,
    /// For what must not be done again.
    once: Option<Once>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Done {
    added: usize,
    changed: usize,
    removed: usize,
}

impl Registries {
    pub(super) fn new(workspace: PathBuf) -> Self {
        Self { workspace, turn: Arc::default() }
    }

    pub(super) fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// `once` names this very run; an append that was made under it is not made again.
    pub(super) async fn update(&self, update: &RegistryUpdate, values: &Values, once: Once) -> Result<String, Failure> {
        let wanted = Wanted {
            registry: update.registry.clone(),
            op: update.op,
            matching: filled(&update.matching, values)?,
            set: filled(&update.set, values)?,
            once: (update.op == Change::Append).then_some(once),
        };
        let workspace = self.workspace.clone();
        let turn = self.turn.clone().lock_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let folder = Dir::open_ambient_dir(workspace, ambient_authority())
                .map_err(|error| Failure::passing(format!("the workspace cannot be opened: {error}")))?;
            change_file(&folder, &wanted)
        });
        let done = done.await.map_err(|_| Failure::passing("the change of the registry broke off"))??;
        Ok(json!({"added": done.added, "changed": done.changed, "removed": done.removed}).to_string())
    }
}

fn filled(row: &Row, values: &Values) -> Result<Row, Failure> {
    match template::fill(&Value::Object(row.clone()), values)? {
        Value::Object(row) => Ok(row),
        _ => Ok(Row::new()),
    }
}

fn change_file(workspace: &Dir, wanted: &Wanted) -> Result<Done, Failure> {
    let name = &wanted.registry;
    let unreadable = |error: io::Error| Failure::passing(format!("the registry '{name}' cannot be read: {error}"));
    if let Some(once) = &wanted.once
        && once.is_made(workspace).map_err(unreadable)?
    {
        return Ok(Done { added: 1, ..Done::default() });
    }
    for _ in 0..MOST_TRIES {
        let Some((path, text)) = find(workspace, name).map_err(unreadable)? else {
            return Err(Failure::permanent(format!("the registry '{name}' does not exist in the workspace")));
        };
        let registry = parse(&path, name, &text)?;
        let (rows, done) = apply(&registry, wanted)?;
        if done == Done::default() {
            return Ok(done);
        }
        let next = written(&path, &registry, rows)?;
        let replaced = replace(workspace, &path, &text, &next, wanted.once.as_ref())
            .map_err(|error| Failure::passing(format!("the registry '{name}' cannot be written: {error}")))?;
        if replaced {
            return Ok(done);
        }
    }
    Err(Failure::passing(format!("the registry '{name}' is being changed by somebody else")))
}

fn find(workspace: &Dir, name: &str) -> io::Result<Option<(String, String)>> {
    for ending in ["yaml", "yml"] {
        let path = format!("registries/{name}.{ending}");
        // A pipe must not block us.
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
        match workspace.open_with(&path, &options) {
            Ok(file) => {
                let metadata = file.metadata()?;
                if !metadata.is_file() || metadata.len() > crate::workspace::LARGEST_FILE {
                    return Err(io::Error::other("it is not a regular file of at most 1 MiB"));
                }
                return Ok(Some((path, io::read_to_string(file)?)));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn parse(path: &str, name: &str, text: &str) -> Result<Registry, Failure> {
    read_registry(path, name, text)
        .map_err(|problem| Failure::permanent(format!("the registry '{name}' is broken: {problem}")))
}

fn apply(registry: &Registry, wanted: &Wanted) -> Result<(Vec<Row>, Done), Failure> {
    let Wanted { op, matching, set, .. } = wanted;
    for (what, row) in [("match", matching), ("set", set)] {
        for (field, value) in row {
            check(registry, field, value)
                .map_err(|rule| Failure::permanent(format!("action_config.{what}.{field} {rule}")))?;
        }
    }
    if let Some((field, _)) = matching.iter().find(|(_, value)| value.is_null()) {
        return Err(Failure::permanent(format!("action_config.match.{field} is empty; it would match by accident")));
    }
    let is_meant = |row: &Row| matching.iter().all(|(field, value)| row.get(field) == Some(value));
    let mut rows = registry.entries.clone();
    let mut done = Done::default();
    match op {
        Change::Remove => {
            rows.retain(|row| !is_meant(row));
            done.removed = registry.entries.len() - rows.len();
        }
        Change::Append => {
            rows.push(set.clone());
            done.added = 1;
        }
        Change::Upsert => {
            let mut met = false;
            for row in rows.iter_mut().filter(|row| is_meant(row)) {
                met = true;
                let before = row.clone();
                row.extend(set.clone());
                done.changed += usize::from(*row != before);
            }
            if !met {
                let mut row = matching.clone();
                row.extend(set.clone());
                rows.push(row);
                done.added = 1;
            }
        }
    }
    if rows.len() > MOST_ENTRIES {
        return Err(Failure::permanent(format!("a registry holds at most {MOST_ENTRIES} entries")));
    }
    Ok((rows, done))
}

/// Whether `value` fits the field; a registry that names no fields takes any.
fn check(registry: &Registry, field: &str, value: &Value) -> Result<(), String> {
    if registry.fields.is_empty() {
        return Ok(());
    }
    let Some(found) = registry.fields.iter().find(|known| known.name == field) else {
        let known: Vec<&str> = registry.fields.iter().map(|field| field.name.as_str()).collect();
        return Err(format!("is no field of the registry; its fields are {}", known.join(", ")));
    };
    let fits = match (found.kind.as_str(), value) {
        (_, Value::Null) => true,
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => true,
        ("date", Value::String(text)) => {
            text.parse::<chrono::NaiveDate>().is_ok() || chrono::DateTime::parse_from_rfc3339(text).is_ok()
        }
        ("url", Value::String(text)) => Url::parse(text).is_ok(),
        ("string", Value::String(_)) => true,
        _ => false,
    };
    if fits {
        return Ok(());
    }
    let rule = match found.kind.as_str() {
        "number" => "must be a number",
        "boolean" => "must be true or false",
        "date" => "must be a date such as 2026-01-31",
        "url" => "must be a URL",
        _ => "must be a text",
    };
    Err(rule.to_owned())
}

/// The file with other rows; everything else in it stays, but for comments.
fn written(path: &str, registry: &Registry, rows: Vec<Row>) -> Result<String, Failure> {
    let mut data = registry.data.clone();
    data["entries"] = Value::Array(rows.into_iter().map(Value::Object).collect());
    let text = serde_saphyr::to_string(&data)
        .map_err(|error| Failure::permanent(format!("the registry cannot be written as YAML: {error}")))?;
    if text.len() as u64 > crate::workspace::LARGEST_FILE {
        return Err(Failure::permanent("the registry would be larger than 1 MiB"));
    }
    // What another reader of YAML would take for something else is not written at all.
    match parse(path, &registry.name, &text) {
        Ok(again) if again.data == data => Ok(text),
        _ => Err(Failure::permanent("the registry cannot be written so that it reads back the same")),
    }
}

/// Puts `next` in the file's place unless it is no longer what was read; answers whether it did.
fn replace(workspace: &Dir, path: &str, read: &str, next: &str, once: Option<&Once>) -> io::Result<bool> {
    let staged = once.map_or_else(|| format!("registries/{STAGED}{}", std::process::id()), Once::staged);
    let permissions = workspace.metadata(path)?.permissions();
    let mut file = workspace.create(&staged)?;
    let outcome = (|| {
        file.write_all(next.as_bytes())?;
        file.set_permissions(permissions)?;
        file.sync_all()?;
        if let Some(once) = once {
            once.begin(workspace)?;
        }
        if workspace.read_to_string(path)? != read {
            return Ok(false);
        }
        workspace.rename(&staged, workspace, path)?;
        workspace.open("registries")?.sync_all()?;
        Ok(true)
    })();
    if !matches!(outcome, Ok(true)) {
        let undone = match once {
            Some(once) => once.undo(workspace),
            None => workspace.remove_file(&staged),
        };
        if let Err(error) = undone {
            tracing::warn!(%error, staged, "a staged registry could not be removed");
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::super::config::Action;
    use super::super::once::Notes;
    use super::super::template::Within;
    use super::super::{ActionType, Fails};
    use super::*;
    use crate::queue::JobId;
    use proptest::prelude::*;

    const CLIENTS: &str = "# who pays\nname: Clients\nextra: {kept: true}\nfields:\n  - {name: id, type: number}\n  - {name: name}\n  - {name: since, type: date}\n  - {name: active, type: boolean}\n  - {name: site, type: url}\nentries:\n  - {id: 1, name: Ada, since: 2026-01-02}\n  - {id: 2, name: \"no\", active: true}\n";

    struct Bench(tempfile::TempDir, Registries);

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("registries")).unwrap();
            std::fs::write(dir.path().join("registries/clients.yaml"), CLIENTS).unwrap();
            let registries = Registries::new(dir.path().to_owned());
            Self(dir, registries)
        }

        async fn update(&self, config: Value) -> Result<Value, Failure> {
            let action = Action::read(ActionType::RegistryUpdate, &config, Within::Nothing).unwrap();
            let Action::RegistryUpdate(update) = action else { panic!("another action") };
            let values = Values::new(json!({"payload": {"id": 2, "name": "Bea: #1", "n": "5"}}));
            let once = Notes::new(&self.0.path().join("nexaas.db")).of(JobId::generate(), "1");
            self.1.update(&update, &values, once).await.map(|text| serde_json::from_str(&text).unwrap())
        }

        fn data(&self) -> Value {
            let text = std::fs::read_to_string(self.0.path().join("registries/clients.yaml")).unwrap();
            read_registry("registries/clients.yaml", "clients", &text).unwrap().data
        }
    }

    #[tokio::test]
    async fn an_upsert_changes_what_matches_and_adds_what_is_not_there() {
        let bench = Bench::new();
        let known = json!({"registry": "clients", "op": "upsert", "match": {"id": "{{payload.id}}"}, "set": {"name": "{{payload.name}}"}});
        assert_eq!(bench.update(known.clone()).await.unwrap(), json!({"added": 0, "changed": 1, "removed": 0}));
        assert_eq!(bench.update(known).await.unwrap(), json!({"added": 0, "changed": 0, "removed": 0}));
        let new = json!({"registry": "clients", "op": "upsert", "match": {"id": 3}, "set": {"name": "yes", "since": "2026-02-03", "site": "https://example.com/"}});
        assert_eq!(bench.update(new).await.unwrap()["added"], 1);
        let data = bench.data();
        assert_eq!(data["extra"], json!({"kept": true}));
        assert_eq!(data["entries"][0], json!({"id": 1, "name": "Ada", "since": "2026-01-02"}));
        assert_eq!(data["entries"][1], json!({"id": 2, "name": "Bea: #1", "active": true}));
        assert_eq!(
            data["entries"][2],
            json!({"id": 3, "name": "yes", "since": "2026-02-03", "site": "https://example.com/"})
        );
        assert_eq!(
            std::fs::read_dir(bench.0.path().join("registries")).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[tokio::test]
    async fn rows_are_appended_and_removed() {
        let bench = Bench::new();
        let row = json!({"registry": "clients", "op": "append", "set": {"id": 1, "name": "again"}});
        assert_eq!(bench.update(row).await.unwrap()["added"], 1);
        let gone = json!({"registry": "clients", "op": "remove", "match": {"id": 1}});
        assert_eq!(bench.update(gone.clone()).await.unwrap()["removed"], 2);
        assert_eq!(bench.update(gone).await.unwrap()["removed"], 0);
        assert_eq!(bench.data()["entries"].as_array().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_value_that_does_not_fit_changes_nothing_and_is_named() {
        let bench = Bench::new();
        let before = bench.data();
        for (set, said) in [
            (json!({"id": "{{payload.n}}"}), "action_config.set.id must be a number"),
            (json!({"since": "soon"}), "action_config.set.since must be a date"),
            (json!({"active": "yes"}), "action_config.set.active must be true or false"),
            (json!({"site": "nowhere"}), "action_config.set.site must be a URL"),
            (json!({"name": [1]}), "action_config.set.name must be a text"),
            (json!({"nick": "x"}), "action_config.set.nick is no field of the registry; its fields are id, name"),
        ] {
            let failure = bench.update(json!({"registry": "clients", "op": "append", "set": set})).await.unwrap_err();
            assert!(failure.error.starts_with(said) && failure.kind == Fails::Permanent, "{failure:?}");
        }
        let empty = json!({"registry": "clients", "op": "remove", "match": {"id": "{{payload.none}}"}});
        assert!(bench.update(empty).await.unwrap_err().error.contains("would match by accident"));
        let missing = json!({"registry": "nobody", "op": "append", "set": {"a": 1}});
        assert!(bench.update(missing).await.unwrap_err().error.contains("does not exist in the workspace"));
        assert_eq!(bench.data(), before);
    }

    #[tokio::test]
    async fn a_link_out_of_the_workspace_is_not_followed() {
        let (bench, outside) = (Bench::new(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("secret.yaml"), CLIENTS).unwrap();
        let link = bench.0.path().join("registries/linked.yaml");
        std::os::unix::fs::symlink(outside.path().join("secret.yaml"), link).unwrap();
        bench.update(json!({"registry": "linked", "op": "append", "set": {"id": 9}})).await.unwrap_err();
        assert_eq!(std::fs::read_to_string(outside.path().join("secret.yaml")).unwrap(), CLIENTS);
    }

    #[tokio::test]
    async fn changes_at_the_same_time_are_all_made() {
        let bench = Bench::new();
        let all = (10..30).map(|id| bench.update(json!({"registry": "clients", "op": "append", "set": {"id": id}})));
        for done in futures::future::join_all(all).await {
            done.unwrap();
        }
        assert_eq!(bench.data()["entries"].as_array().unwrap().len(), 22);
    }

    proptest! {
        #[test]
        fn whatever_text_is_written_reads_back_the_same(text in "(\\PC|[\\n\\t:#'\"\\\\|>&*!%@`{}\\[\\],?-]){0,40}") {
            let registry = read_registry("registries/c.yaml", "c", "fields: []\nentries: []\n").unwrap();
            let row: Row = [("text".to_owned(), Value::String(text))].into_iter().collect();
            prop_assert!(written("registries/c.yaml", &registry, vec![row]).is_ok());
        }
    }
}
