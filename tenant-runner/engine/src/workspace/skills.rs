//! Skills: a markdown file each, or a folder with a `SKILL.md` and YAML front matter.

use super::agents::Source;
use super::files::{Root, stem};
use super::problem::Problem;
use super::yaml::{self, or_default};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One skill. The body is not part of lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skill {
    pub name: String,
    /// The file's stem, or the folder's name.
    pub filename: String,
    pub description: String,
    pub path: String,
    pub source: Source,
    #[serde(skip)]
    pub body: String,
}

impl Skill {
    /// A skill answers to its heading and to its file's name.
    pub fn answers_to(&self, name: &str) -> bool {
        self.filename.eq_ignore_ascii_case(name) || self.name.eq_ignore_ascii_case(name)
    }
}

#[derive(Debug, Default, Deserialize)]
struct FrontMatter {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    description: String,
}

/// Reads every skill of one root; for a broken file, `last_good` is asked by path.
pub fn load(
    root: &Root,
    source: Source,
    last_good: &BTreeMap<String, Skill>,
    problems: &mut Vec<Problem>,
) -> Vec<Skill> {
    let mut skills: Vec<Skill> = Vec::new();
    for entry in root.list("skills", problems) {
        let (path, filename) = if entry.is_dir {
            (format!("skills/{}/SKILL.md", entry.name), entry.name.clone())
        } else if let Some(stem) = stem(&entry.name, &[".md"]) {
            (format!("skills/{}", entry.name), stem.to_owned())
        } else {
            continue;
        };
        let read = root.text(&path).and_then(|text| text.map(|t| parse(&path, &filename, source, &t)).transpose());
        match read {
            Ok(Some(skill)) if skills.iter().any(|s| s.filename == skill.filename) => {
                problems.push(Problem::warning(
                    path,
                    0,
                    format!("skill '{}' exists twice; this one is ignored", skill.filename),
                ));
            }
            Ok(skill) => skills.extend(skill),
            Err(problem) => {
                problems.push(problem);
                skills.extend(last_good.get(&path).cloned());
            }
        }
    }
    skills
}

fn parse(path: &str, filename: &str, source: Source, text: &str) -> Result<Skill, Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (front, body) = split_front_matter(path, text)?;
    let mut lines = body.lines().map(str::trim).filter(|l| !l.is_empty());
    let heading = body.lines().find_map(|l| l.strip_prefix("# ")).map(|h| h.trim().to_owned());
    let first = lines.find(|l| !l.starts_with('#')).unwrap_or_default();
    let name = Some(front.name).filter(|n| !n.is_empty()).or(heading).unwrap_or_else(|| filename.to_owned());
    let description = Some(front.description).filter(|d| !d.is_empty()).unwrap_or_else(|| first.to_owned());
    Ok(Skill {
        name,
        filename: filename.to_owned(),
        description: description.chars().take(500).collect(),
        path: path.to_owned(),
        source,
        body: body.to_owned(),
    })
}

/// `---`, YAML, `---`, then the body. A file without it is all body.
fn split_front_matter<'a>(path: &str, text: &'a str) -> Result<(FrontMatter, &'a str), Problem> {
    let mut lines = text.split_inclusive('\n');
    let Some(first) = lines.next().filter(|l| l.trim_end() == "---") else { return Ok((FrontMatter::default(), text)) };
    let start = first.len();
    let mut at = start;
    for line in lines {
        if line.trim_end() == "---" {
            let yaml = &text[start..at];
            let document = yaml::parse::<FrontMatter>(path, yaml).map_err(|mut p| {
                // Lines count from the top of the file, where the opening dashes are line 1.
                p.line = if p.line == 0 { 0 } else { p.line + 1 };
                p
            })?;
            return Ok((document.typed, &text[at + line.len()..]));
        }
        at += line.len();
    }
    Err(Problem::error(path, 1, "front matter is opened with --- but never closed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heading_names_it_and_the_first_other_line_describes_it() {
        let skill =
            parse("skills/a.md", "a", Source::Client, "# Weekly report\n\nCollects the week.\n\n## Steps\n1. x\n")
                .unwrap();
        assert_eq!((skill.name.as_str(), skill.description.as_str()), ("Weekly report", "Collects the week."));
        assert!(skill.answers_to("a") && skill.answers_to("weekly report") && !skill.answers_to("b"));
    }

    #[test]
    fn front_matter_names_and_describes_it_and_is_not_part_of_the_body() {
        let text = "---\nname: audit\ndescription: Looks at things\nlicense: MIT\n---\n# Audit\nDo it.\n";
        let skill = parse("skills/audit/SKILL.md", "audit", Source::Client, text).unwrap();
        assert_eq!((skill.name.as_str(), skill.description.as_str()), ("audit", "Looks at things"));
        assert_eq!(skill.body, "# Audit\nDo it.\n");
    }

    #[test]
    fn broken_front_matter_is_reported_with_its_line() {
        let wrong = parse("s.md", "s", Source::Client, "---\nname: ok\ndescription: [1\n---\nbody\n").unwrap_err();
        assert!(wrong.line >= 3, "{wrong:?}");
        assert_eq!(parse("s.md", "s", Source::Client, "---\nname: x\n").unwrap_err().line, 1);
    }

    #[test]
    fn a_file_without_a_heading_is_named_by_its_file() {
        assert_eq!(parse("s.md", "s", Source::Client, "Just text.").unwrap().name, "s");
    }
}
