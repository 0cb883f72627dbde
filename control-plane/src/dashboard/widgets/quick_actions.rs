//! Buttons. What a button runs is read from the workspace when it is pressed, so a page cannot ask for anything else.

use super::{Place, fingerprint_of, settings};
use crate::dashboard::shell::segment;
use crate::error::{Error, Kind, Result};
use crate::runner_client::model::Component;
use nexaas_dashboard::widgets::quick_actions::{Action, QuickActions};
use nexaas_dashboard::widgets::{Html, html};
use serde::Deserialize;

const MAX_ACTIONS: usize = 40;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    actions: Vec<Entry>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Entry {
    label: String,
    description: String,
    icon: Option<String>,
    skill: Option<String>,
    agent: Option<String>,
    input: Option<String>,
    event: Option<String>,
    prompt: Option<String>,
}

/// What a button does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    Skill { name: String, input: String, agent: String },
    Event { id: String },
    Prompt { agent: String, prompt: String },
}

impl Entry {
    fn deed(&self) -> std::result::Result<Deed, String> {
        if self.label.trim().is_empty() {
            return Err("needs a label".to_owned());
        }
        match (&self.skill, &self.event, &self.prompt) {
            (Some(skill), None, None) => Ok(Deed::Skill {
                name: skill.clone(),
                input: self.input.clone().unwrap_or_default(),
                agent: self.agent.clone().unwrap_or_default(),
            }),
            (None, Some(event), None) => Ok(Deed::Event { id: event.clone() }),
            (None, None, Some(prompt)) => match &self.agent {
                Some(agent) => Ok(Deed::Prompt { agent: agent.clone(), prompt: prompt.clone() }),
                None => Err("has a prompt and needs the agent it is for".to_owned()),
            },
            _ => Err("needs exactly one of skill, event or prompt".to_owned()),
        }
    }

    fn icon(&self) -> String {
        let usual = match (&self.skill, &self.event) {
            (Some(_), _) => "sparkles",
            (None, Some(_)) => "calendar-clock",
            (None, None) => "message-square",
        };
        self.icon.clone().unwrap_or_else(|| usual.to_owned())
    }
}

pub fn draw(place: &Place<'_>, component: &Component) -> Result<Html> {
    let entries = entries(component)?;
    let seen = fingerprint_of(component);
    let actions = entries
        .iter()
        .enumerate()
        .map(|(i, entry)| Action {
            label: entry.label.clone(),
            description: entry.description.clone(),
            icon: entry.icon(),
            url: format!(
                "/-/action/{}/{}/{}/{i}?seen={seen}",
                segment(place.perspective),
                segment(place.page),
                place.index
            ),
            problem: entry.deed().err().map(|rule| format!("Action {} {rule}.", i + 1)).unwrap_or_default(),
        })
        .collect();
    Ok(html(&QuickActions { actions }))
}

fn entries(component: &Component) -> Result<Vec<Entry>> {
    let config: Config = settings(component)?;
    if config.actions.len() > MAX_ACTIONS {
        return Err(Error::invalid("actions", format!("may have at most {MAX_ACTIONS} entries")));
    }
    Ok(config.actions)
}

/// The label and deed of the button at `index`, as the workspace says now. A page drawn from an older description is refused.
pub fn action_at(component: &Component, index: usize, seen: &str) -> Result<(String, Deed)> {
    if component.kind != "quick-actions" || fingerprint_of(component) != seen {
        return Err(Error::conflict("This page has changed meanwhile. Load it again."));
    }
    let entries = entries(component)?;
    let entry = entries.get(index).ok_or_else(|| Error::new(Kind::NotFound, "This action does not exist any more"))?;
    let deed = entry.deed().map_err(|rule| Error::invalid(format!("actions[{index}]"), rule))?;
    Ok((entry.label.clone(), deed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn component(actions: serde_json::Value) -> Component {
        Component { kind: "quick-actions".into(), config: json!({"actions": actions}), ..Component::default() }
    }

    #[test]
    fn a_button_does_exactly_one_thing() {
        let deed = |v: serde_json::Value| {
            let c = component(json!([v]));
            action_at(&c, 0, &fingerprint_of(&c)).map(|(_, deed)| deed)
        };
        assert_eq!(
            deed(json!({"label": "x", "skill": "s", "agent": "a"})).unwrap(),
            Deed::Skill { name: "s".into(), input: String::new(), agent: "a".into() }
        );
        assert_eq!(deed(json!({"label": "x", "event": "e"})).unwrap(), Deed::Event { id: "e".into() });
        for bad in [
            json!({"label": "x"}),
            json!({"label": "x", "skill": "s", "event": "e"}),
            json!({"label": "x", "prompt": "p"}),
            json!({"skill": "s"}),
            json!({"label": "x", "script": "rm -rf /"}),
        ] {
            assert!(matches!(deed(bad.clone()).unwrap_err().kind, Kind::Invalid { .. }), "{bad}");
        }
    }

    #[test]
    fn a_page_drawn_before_a_change_presses_nothing() {
        let before = fingerprint_of(&component(json!([{"label": "a", "skill": "harmless"}])));
        let now = component(json!([{"label": "b", "skill": "costly"}]));
        assert_eq!(action_at(&now, 0, &before).unwrap_err().kind, Kind::Conflict);
    }
}
