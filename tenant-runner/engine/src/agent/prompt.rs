//! What a model is told before the message: the context every agent shares, then the agent itself. Pure functions of a snapshot.
//!
//! Always true here: files under `reference/` are named, and only those the message asks for are included.

use crate::model::{Message, Role, estimate_tokens};
use crate::workspace::{Agent, Skill, Snapshot};

/// The text of one reference file.
pub(super) type Reference = (String, String);

/// The instructions, of whatever is known.
pub(super) fn system(snapshot: &Snapshot, agent: Option<&Agent>, references: &[Reference]) -> String {
    let mut parts: Vec<String> = Vec::new();
    for context in [&snapshot.framework_claude_md, &snapshot.claude_md] {
        if !context.trim().is_empty() {
            parts.push(context.trim().to_owned());
        }
    }
    if let Some(agent) = agent {
        parts.push(identity(agent));
        if !agent.prompt.trim().is_empty() {
            parts.push(agent.prompt.trim().to_owned());
        }
        let team: Vec<&Agent> =
            snapshot.agents.values().filter(|a| a.parent.as_deref() == Some(agent.name.as_str())).collect();
        if !team.is_empty() {
            let lines: Vec<String> = team.iter().map(|a| line(&a.name, &a.description)).collect();
            parts.push(format!("## Agents that report to you\n\n{}", lines.join("\n")));
        }
        let named: Vec<String> = agent
            .references
            .iter()
            .filter(|r| references.iter().all(|(n, _)| n != *r))
            .map(|r| format!("- reference/{r}"))
            .collect();
        if !named.is_empty() {
            parts.push(format!(
                "## Reference files\n\nNot included here. When you need one, say so by its name; it is included when a message names it.\n\n{}",
                named.join("\n")
            ));
        }
        for (name, text) in references {
            parts.push(format!("## reference/{name}\n\n{}", text.trim()));
        }
    }
    if !snapshot.skills.is_empty() {
        let lines: Vec<String> = snapshot.skills.iter().map(|s| line(&s.filename, &s.description)).collect();
        parts.push(format!("## Skills of this workspace\n\n{}", lines.join("\n")));
    }
    parts.join("\n\n")
}

fn line(name: &str, description: &str) -> String {
    if description.is_empty() { format!("- {name}") } else { format!("- {name}: {description}") }
}

fn identity(agent: &Agent) -> String {
    let mut text = format!("# You are the agent {}", agent.name);
    if !agent.role.is_empty() {
        text.push_str(&format!("\n\nRole: {}", agent.role));
    }
    if !agent.description.is_empty() {
        text.push_str(&format!("\n\n{}", agent.description));
    }
    if !agent.capabilities.is_empty() {
        text.push_str(&format!("\n\nCapabilities: {}", agent.capabilities.join(", ")));
    }
    text
}

/// The reference files that a text asks for by name, with or without the ending.
pub(super) fn wanted_references(agent: &Agent, text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let asked = |name: &str| {
        text.match_indices(name).any(|(at, _)| {
            let before = text[..at].chars().next_back();
            let after = text[at + name.len()..].chars().next();
            let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
            !inside(before) && !inside(after)
        })
    };
    agent
        .references
        .iter()
        .filter(|file| {
            let file = file.to_lowercase();
            let stem = file.rsplit_once('.').map_or(file.as_str(), |(stem, _)| stem);
            asked(&file) || asked(stem)
        })
        .cloned()
        .collect()
}

/// A skill and its input, as the message that carries it.
pub(super) fn skill_message(skill: &Skill, input: &str) -> String {
    let mut text =
        format!("Carry out this skill.\n\n<skill name=\"{}\">\n{}\n</skill>", skill.filename, skill.body.trim());
    if !input.trim().is_empty() {
        text.push_str(&format!("\n\nInput:\n\n{}", input.trim()));
    }
    text
}

/// The latest messages that fit in `tokens`, oldest first, beginning with one of the user.
pub(super) fn bounded(history: Vec<Message>, tokens: u64) -> Vec<Message> {
    let mut left = tokens;
    let mut kept: Vec<Message> = Vec::new();
    for message in history.into_iter().rev() {
        let size = estimate_tokens(&message.content) + 4;
        if size > left {
            break;
        }
        left -= size;
        kept.push(message);
    }
    while kept.last().is_some_and(|m| m.role != Role::User) {
        kept.pop();
    }
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Source;
    use std::collections::BTreeMap;

    fn agent() -> Agent {
        Agent {
            name: "writer".into(),
            dir: "agents/writer".into(),
            config: serde_json::Value::Null,
            prompt: "Write short sentences.".into(),
            parent: None,
            source: Source::Client,
            role: "Copywriter".into(),
            description: "Writes.".into(),
            capabilities: vec!["headlines".into()],
            model: None,
            sub_agents: vec![],
            references: vec!["style-guide.md".into(), "formats.md".into()],
            parent_line: 0,
        }
    }

    fn snapshot() -> Snapshot {
        let skill = Skill {
            name: "Weekly report".into(),
            filename: "weekly-report".into(),
            description: "Sums up the week.".into(),
            path: "skills/weekly-report.md".into(),
            source: Source::Client,
            body: "# Weekly report\nSum up the week.".into(),
        };
        Snapshot {
            framework_claude_md: "Shared rules.".into(),
            claude_md: "We are Acme.".into(),
            agents: BTreeMap::from([("writer".to_owned(), agent())]),
            skills: vec![skill],
            ..Snapshot::default()
        }
    }

    #[test]
    fn the_context_comes_before_the_agent_and_references_are_only_named() {
        let snapshot = snapshot();
        let text = system(&snapshot, snapshot.agent("writer"), &[]);
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} is missing in {text}"));
        assert!(at("Shared rules.") < at("We are Acme."));
        assert!(at("We are Acme.") < at("You are the agent writer"));
        assert!(at("You are the agent writer") < at("Write short sentences."));
        assert!(at("- reference/style-guide.md") > 0);
        assert!(at("- weekly-report: Sums up the week.") > 0);
    }

    #[test]
    fn a_reference_is_included_once_it_is_asked_for() {
        let agent = agent();
        assert_eq!(wanted_references(&agent, "Please follow the Style-Guide."), ["style-guide.md"]);
        assert_eq!(wanted_references(&agent, "see reference/formats.md"), ["formats.md"]);
        assert!(wanted_references(&agent, "reformats the text").is_empty());
        let snapshot = snapshot();
        let text = system(&snapshot, Some(&agent), &[("formats.md".into(), "A headline has 40 characters.".into())]);
        assert!(text.contains("A headline has 40 characters.") && !text.contains("- reference/formats.md"));
    }

    #[test]
    fn a_skills_body_is_in_the_message() {
        let message = skill_message(&snapshot().skills[0], " last week ");
        assert!(message.contains("Sum up the week.") && message.ends_with("last week"));
    }

    #[test]
    fn history_is_bounded_and_begins_with_the_user() {
        let message = |role, n: usize| Message { role, content: "x".repeat(n) };
        let history = vec![
            message(Role::User, 4000),
            message(Role::Assistant, 40),
            message(Role::User, 40),
            message(Role::Assistant, 40),
        ];
        let kept = bounded(history.clone(), 100);
        assert_eq!(kept, history[2..].to_vec());
        assert!(bounded(history.clone(), 5).is_empty());
        assert_eq!(bounded(history.clone(), 5_000), history);
    }
}
