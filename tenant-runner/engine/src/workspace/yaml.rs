//! YAML under limits. A document is parsed twice: into its type, so that a wrong type is reported with its line, and into
//! JSON, so that whatever the type does not know is kept.
//!
//! Always true here: no input panics, recurses without bound or expands without bound; every failure has a reason and,
//! where the parser knows it, a line.

use super::problem::Problem;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The largest YAML file that is read, in bytes.
pub const LARGEST_FILE: u64 = 1024 * 1024;
const DEEPEST: usize = 32;
const MOST_NODES: usize = 100_000;
const MOST_ALIASES: usize = 500;

/// A file's content both ways.
#[derive(Debug, Clone)]
pub struct Document<T> {
    pub typed: T,
    pub json: Value,
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEEPEST,
            flow_nesting_limit: DEEPEST,
            max_nodes: MOST_NODES,
            max_events: 4 * MOST_NODES,
            max_aliases: MOST_ALIASES,
            max_anchors: MOST_ALIASES,
            max_recorded_anchor_events: MOST_NODES,
            max_recorded_anchor_bytes: 4 * 1024 * 1024,
            max_documents: 1,
            max_merge_keys: MOST_ALIASES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MOST_NODES,
            max_replay_stack_depth: 16,
        },
        with_snippet: false,
        // As in YAML 1.2: `no` and `y` are texts.
        strict_booleans: true,
    }
}

fn one<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, Problem> {
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| {
        let line = error.location().and_then(|l| u32::try_from(l.line()).ok()).unwrap_or(0);
        let mut reason = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
        // The line is a field of its own.
        if let Some(at) = reason.rfind(" at line ") {
            reason.truncate(at);
        }
        if tab_on(text, line) {
            reason.push_str(" (a tab is not allowed as indentation in YAML; use spaces)");
        }
        Problem::error(file, line, reason)
    })
}

/// Whether the line, or the next one (parsers differ in which they blame), is indented with a tab.
fn tab_on(text: &str, line: u32) -> bool {
    let first = (line as usize).saturating_sub(1);
    text.lines().skip(first).take(2).any(|l| l.trim_start_matches(' ').starts_with('\t'))
}

/// Parses `text` as a `T`. An empty file is `T`'s default.
pub fn parse<T: DeserializeOwned + Default>(file: &str, text: &str) -> Result<Document<T>, Problem> {
    if text.len() as u64 > LARGEST_FILE {
        return Err(too_large(file));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#')) {
        return Ok(Document { typed: T::default(), json: Value::Object(serde_json::Map::new()) });
    }
    // The general form first: it applies every limit before a visitor of ours sees anything.
    let json: Value = one(file, text)?;
    if !json.is_object() {
        return Err(Problem::error(file, 1, "must be a mapping of names to values"));
    }
    let typed = one(file, text)?;
    Ok(Document { typed, json })
}

pub fn too_large(file: &str) -> Problem {
    Problem::error(file, 0, format!("is larger than {} KiB and was not read", LARGEST_FILE / 1024))
}

/// `key:` with nothing after it means the default, not an error.
pub fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize)]
    struct Sample {
        #[serde(default, deserialize_with = "or_default")]
        name: String,
        #[serde(default, deserialize_with = "or_default")]
        items: Vec<String>,
    }

    fn refused(text: &str) -> Problem {
        parse::<Sample>("workspace.yaml", text).unwrap_err()
    }

    #[test]
    fn what_the_type_does_not_know_is_kept_as_json() {
        let doc = parse::<Sample>("a.yaml", "name: x\nother: {deep: [1, two]}\nitems:\n").unwrap();
        assert_eq!(doc.typed.name, "x");
        assert!(doc.typed.items.is_empty());
        assert_eq!(doc.json["other"]["deep"][1], "two");
    }

    #[test]
    fn a_tab_is_reported_with_its_line() {
        let problem = refused("name: x\nitems:\n\t- a\n");
        assert_eq!(problem.severity, super::super::problem::Severity::Error);
        assert!((2..=3).contains(&problem.line), "{problem:?}");
        assert!(problem.reason.contains("tab"), "{problem:?}");
    }

    #[test]
    fn a_wrong_type_is_reported_with_its_line() {
        let problem = refused("name: x\nitems: 7\n");
        assert_eq!(problem.line, 2, "{problem:?}");
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for n in 1..12 {
            let before = format!("*a{}", n - 1);
            text.push_str(&format!("a{n}: &a{n} [{}]\n", vec![before; 9].join(", ")));
        }
        let problem = refused(&text);
        assert!(!problem.reason.is_empty());
    }

    #[test]
    fn deep_nesting_is_refused() {
        refused(&format!("name: {}{}", "[".repeat(10_000), "]".repeat(10_000)));
        let block: String = (0..500).map(|n| format!("{}k:\n", " ".repeat(n))).collect();
        refused(&block);
    }

    #[test]
    fn fifty_megabytes_are_refused_without_being_parsed() {
        let problem = refused(&format!("name: {}", "x".repeat(50 * 1024 * 1024)));
        assert!(problem.reason.contains("larger than 1024 KiB"), "{problem:?}");
    }

    #[test]
    fn a_list_at_the_top_or_two_documents_are_refused() {
        assert!(refused("- a\n- b\n").reason.contains("mapping"));
        refused("name: a\n---\nname: b\n");
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(parse::<Sample>("a.yaml", "# nothing yet\n\n").unwrap().typed.name, "");
    }

    #[test]
    fn a_megabyte_of_any_one_thing_is_answered() {
        let units = [
            "- ",
            "[",
            "{a: ",
            "? ",
            "&a ",
            "*a ",
            "a: b\n",
            "\"",
            "'",
            "|\n ",
            "\n",
            "[a,",
            "#\n",
            "!a ",
            "---\n",
            "aaaaaaa",
            "k: &x {<<: *x}\n",
            "- a\n",
            "%YAML 1.2\n",
            "\\u0000",
            "? a\n: b\n",
            "a:\n  b:\n    - c\n",
        ];
        for unit in units {
            for prefix in ["", "x: ", "x: [", "x: \""] {
                let text = format!("{prefix}{}", unit.repeat(1_000_000 / unit.len()));
                // Whatever the answer is: there is one, and the parser does not overflow the stack on its way.
                let _ = parse::<Sample>("a.yaml", &text);
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[ \\t\\n:\\-\\[\\]{}&*!|>'\"a-c0-9#%@`,?]{0,200}") {
            let _ = parse::<Sample>("a.yaml", &text);
        }
    }
}
