//! The framework's manifest says what ships. These tests hold it to the files, and the files to the shape the engine reads.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail this way, in its helpers too")]

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const MANIFEST: &str = "FRAMEWORK-MANIFEST.yaml";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn framework() -> PathBuf {
    repository().join("framework")
}

fn files_below(dir: &Path, root: &Path, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with('.') || name == MANIFEST {
            continue;
        }
        if path.is_dir() {
            files_below(&path, root, into);
        } else {
            into.insert(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
        }
    }
}

fn yaml(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap();
    serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn text<'a>(value: &'a Value, key: &str, path: &Path) -> &'a str {
    value[key]
        .as_str()
        .filter(|s| !s.is_empty())
        .unwrap_or_else(|| panic!("{}: '{key}' must be a text", path.display()))
}

/// Path → (kind, sha256), as the manifest says.
fn manifest() -> BTreeMap<String, (String, String)> {
    let path = framework().join(MANIFEST);
    let value = yaml(&path);
    let parts: Vec<_> = text(&value, "version", &path).split('.').map(str::parse::<u32>).collect();
    assert!(parts.len() == 3 && parts.iter().all(Result::is_ok), "version must be three numbers");
    let items = value["items"].as_array().unwrap();
    let listed: BTreeMap<_, _> = items
        .iter()
        .map(|i| {
            (
                text(i, "path", &path).to_owned(),
                (text(i, "kind", &path).to_owned(), text(i, "sha256", &path).to_owned()),
            )
        })
        .collect();
    assert_eq!(listed.len(), items.len(), "a path is listed twice");
    listed
}

#[test]
fn the_manifest_lists_every_file_and_no_other() {
    let mut present = BTreeSet::new();
    files_below(&framework(), &framework(), &mut present);
    let listed: BTreeSet<_> = manifest().into_keys().collect();
    assert_eq!(listed, present, "run scripts/framework-manifest.sh --write");
}

#[test]
fn every_checksum_in_the_manifest_is_that_of_the_file() {
    for (path, (_, expected)) in manifest() {
        let found = hex::encode(Sha256::digest(fs::read(framework().join(&path)).unwrap()));
        assert_eq!(found, expected, "{path}: run scripts/framework-manifest.sh --write");
    }
}

#[test]
fn every_item_has_the_kind_of_its_folder() {
    for (path, (kind, _)) in manifest() {
        let expected = match path.split_once('/').map(|(folder, _)| folder) {
            Some("agents") => "agent",
            Some("skills") => "skill",
            Some("playbooks") => "playbook",
            Some("templates") => "template",
            Some("mcp-servers") => "mcp-server",
            Some("packages") => "package",
            Some(other) => panic!("{path}: nothing reads the folder '{other}'"),
            None => "document",
        };
        assert_eq!(kind, expected, "{path}");
    }
}

#[test]
fn every_catalogue_entry_names_what_it_needs_and_carries_no_secret() {
    let reference = regex::Regex::new(r"\$\{([A-Z][A-Z0-9_]*)\}").unwrap();
    for path in manifest().keys().filter(|p| p.starts_with("mcp-servers/")) {
        let file = framework().join(path);
        let entry = yaml(&file);
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        assert_eq!(text(&entry, "name", &file), stem);
        text(&entry, "description", &file);
        text(&entry, "category", &file);
        let declared: BTreeSet<_> =
            entry["requires_env"].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect();
        let config = serde_json::to_string(&entry["config"]).unwrap();
        let used: BTreeSet<_> = reference.captures_iter(&config).map(|c| c[1].to_owned()).collect();
        assert_eq!(used, declared, "{path}: requires_env and the references in config differ");
        let local = entry["config"]["command"].is_string();
        let remote = entry["config"]["url"].is_string();
        assert!(local != remote, "{path}: config needs either command or url");
    }
}

#[test]
fn skills_in_the_framework_and_the_templates_have_a_name_a_description_and_a_body() {
    let roots = [framework(), repository().join("templates/demo")];
    for root in roots {
        for entry in fs::read_dir(root.join("skills")).unwrap() {
            let path = entry.unwrap().path();
            let body = fs::read_to_string(&path).unwrap();
            let mut lines = body.lines().filter(|l| !l.trim().is_empty());
            assert!(lines.next().unwrap().starts_with("# "), "{}: the first line must be a heading", path.display());
            assert!(!lines.next().unwrap().starts_with('#'), "{}: a description must follow", path.display());
            assert!(lines.next().is_some(), "{}: has no body", path.display());
        }
    }
}

#[test]
fn what_a_template_refers_to_exists() {
    for template in ["fresh", "demo"] {
        let root = repository().join("templates").join(template);
        let path = root.join("workspace.yaml");
        let exists = |relative: String| root.join(&relative).exists() || framework().join(&relative).exists();
        let workspace = yaml(&path);
        for perspective in workspace["perspectives"].as_array().unwrap() {
            let pages = perspective["pages"].as_array().unwrap();
            assert!(
                pages.iter().any(|p| p["id"] == perspective["default_page"]),
                "{template}: default_page must be one of the pages"
            );
            for component in pages.iter().flat_map(|p| p["components"].as_array().unwrap()) {
                let span = component["span"].as_u64().unwrap();
                assert!((1..=12).contains(&span), "{template}: span {span}");
                let config = &component["config"];
                let actions = config["actions"].as_array().cloned().unwrap_or_default();
                for item in std::iter::once(config).chain(&actions) {
                    if let Some(agent) = item["agent"].as_str() {
                        assert!(exists(format!("agents/{agent}/config.yaml")), "{template}: no agent {agent}");
                    }
                    if let Some(skill) = item["skill"].as_str() {
                        assert!(exists(format!("skills/{skill}.md")), "{template}: no skill {skill}");
                    }
                    if let Some(registry) = item["registry"].as_str() {
                        assert!(exists(format!("registries/{registry}.yaml")), "{template}: no registry {registry}");
                    }
                }
            }
        }
        for file in ["followups", "checks"] {
            for entry in yaml(&root.join(format!("memory/{file}.yaml")))[file].as_array().unwrap() {
                let agent = entry["agent"].as_str().unwrap();
                assert!(exists(format!("agents/{agent}/config.yaml")), "{template}: {file}: no agent {agent}");
            }
        }
    }
}

#[test]
fn the_demonstration_names_no_real_address() {
    let mut files = BTreeSet::new();
    let root = repository().join("templates/demo");
    files_below(&root, &root, &mut files);
    let mail = regex::Regex::new(r"[A-Za-z0-9._-]+@([A-Za-z0-9.-]+)").unwrap();
    let link = regex::Regex::new(r"https?://([A-Za-z0-9.-]+)").unwrap();
    for file in files {
        let body = fs::read_to_string(root.join(&file)).unwrap();
        for host in mail.captures_iter(&body).chain(link.captures_iter(&body)).map(|c| c[1].to_owned()) {
            assert!(host.ends_with(".example.com"), "{file}: {host}");
        }
    }
}
