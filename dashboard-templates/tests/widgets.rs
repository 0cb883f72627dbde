//! Every widget as it is drawn, filled with text that would like to be markup. Drawings of icons are left out.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail this way, in its helpers too")]

use nexaas_dashboard::Template;
use nexaas_dashboard::layout::Tone;
use nexaas_dashboard::widgets::agent_chat::{AgentChat, Choice, Message};
use nexaas_dashboard::widgets::agent_tree::{AgentNode, AgentTree};
use nexaas_dashboard::widgets::event_timeline::{EventTimeline, TimelineRow};
use nexaas_dashboard::widgets::queue_status::{Counts, Empty, QueueStatus};
use nexaas_dashboard::widgets::quick_actions::{Action, QuickActions};
use nexaas_dashboard::widgets::registry_table::{Cell, Column, Kind, RegistryTable};
use nexaas_dashboard::widgets::stat_cards::{Stat, StatCards};
use nexaas_dashboard::widgets::{Dress, Failed, Frame, JobRow, Unknown, html};
use serde_json::json;

const HOSTILE: &str = "\"><script>alert(1)</script>'";

fn hostile() -> String {
    HOSTILE.to_owned()
}

/// Draws a view and checks that nothing of the hostile text became markup.
fn drawn(view: &impl Template) -> String {
    let html = view.render().unwrap();
    assert!(!html.contains("<script"), "{html}");
    assert!(!html.contains(" style="), "{html}");
    let tags = html.split('<').skip(1).filter_map(|t| t.split('>').next());
    for tag in tags {
        for handler in ["onerror=", "onclick=", "onload=", "onmouseover="] {
            assert!(!tag.contains(handler), "an event handler in <{tag}>");
        }
        assert!(!tag.to_lowercase().contains("href=\"javascript:"), "a script address in <{tag}>");
    }
    html
}

macro_rules! snapshot {
    ($view:expr) => {
        insta::with_settings!({filters => vec![(r"(?s)<svg.*?</svg>", "<svg/>")]}, {
            insta::assert_snapshot!(drawn(&$view));
        });
    };
}

#[test]
fn stat_cards() {
    let stat = |value: &str, tone: Tone| Stat {
        label: hostile(),
        icon: "users".into(),
        value: value.into(),
        detail: hostile(),
        tone,
    };
    snapshot!(StatCards { cards: vec![stat("42", Tone::Idle), stat(HOSTILE, Tone::Bad)] });
}

#[test]
fn agent_tree() {
    let node = |children: Vec<AgentNode>| AgentNode {
        name: hostile(),
        role: hostile(),
        href: "/workspace/agents/x".into(),
        origin: "built in".into(),
        children,
    };
    snapshot!(AgentTree { roots: vec![node(vec![node(vec![])])] });
}

#[test]
fn event_timeline() {
    let row = TimelineRow {
        tone: Tone::Ok,
        title: hostile(),
        detail: hostile(),
        at: hostile(),
        href: "/workspace/jobs/1".into(),
    };
    snapshot!(EventTimeline { rows: vec![row], empty_title: String::new(), empty_text: String::new() });
}

#[test]
fn queue_status() {
    let job = JobRow {
        name: hostile(),
        detail: hostile(),
        tone: Tone::Busy,
        state: "Running".into(),
        at: "2026-11-24T21:00:00Z".into(),
        href: "/workspace/jobs/1".into(),
        retry_url: None,
    };
    let dead = JobRow {
        tone: Tone::Bad,
        state: "Failed".into(),
        href: "/workspace/jobs/2".into(),
        retry_url: Some("/-/job/2/retry".into()),
        ..job.clone()
    };
    let counts = Some(Counts { queued: 1, running: 2, completed: 3, failed: 4 });
    snapshot!(QueueStatus { counts, jobs: Some(vec![job, dead]), empty: Empty::NothingRan });
}

#[test]
fn registry_table() {
    let kinds = [Kind::Text, Kind::Number, Kind::Date, Kind::Boolean, Kind::Url];
    let row = |values: [serde_json::Value; 5]| values.iter().zip(kinds).map(|(v, k)| Cell::of(v, k)).collect();
    snapshot!(RegistryTable {
        id: "clients".into(),
        columns: kinds.iter().map(|k| Column::of_field(HOSTILE, *k)).collect(),
        rows: vec![
            row([
                json!("Harbour"),
                json!(12500),
                json!("2026-11-24"),
                json!(true),
                json!("https://www.example.com/a?b=1&c=2")
            ]),
            row([json!(HOSTILE), json!(HOSTILE), json!(HOSTILE), json!(HOSTILE), json!("javascript:alert(1)")]),
            row([json!(null), json!(null), json!(null), json!(false), json!("https://x.example/\"><b>")]),
        ],
        total: 9,
        href: "/workspace/registries/clients".into(),
    });
}

#[test]
fn quick_actions() {
    let action = |problem: &str| Action {
        label: hostile(),
        description: hostile(),
        icon: hostile(),
        url: "/-/action/p/q/0/0?seen=1".into(),
        problem: problem.into(),
    };
    snapshot!(QuickActions { actions: vec![action(""), action(HOSTILE)] });
}

#[test]
fn agent_chat() {
    let message = |from_person: bool, text: &str| Message { from_person, who: hostile(), text: text.into() };
    let choice = |selected: bool| Choice { value: hostile(), label: hostile(), selected };
    snapshot!(AgentChat {
        id: "chat-0".into(),
        agents: vec![choice(true), choice(false)],
        session: hostile(),
        last_seq: 7,
        live: true,
        messages: vec![
            message(true, HOSTILE),
            message(false, "**bold** <script>alert(1)</script> <img src=x onerror=alert(1)> [x](javascript:alert(1))"),
        ],
        sessions: vec![choice(true)],
        new_href: "/p/a/b".into(),
        placeholder: hostile(),
        tall: false,
    });
}

#[test]
fn a_frame_with_a_placeholder_that_names_its_type() {
    snapshot!(Frame {
        id: "w0".into(),
        title: hostile(),
        span: 200,
        dress: Dress::Card,
        url: "/-/partial/widget/a/b/0".into(),
        trigger: "sse:queue".into(),
        more: Some((hostile(), "/workspace/queue".into())),
        inside: html(&Unknown { kind: "pipeline-board".into() }),
    });
}

#[test]
fn an_unknown_type_and_a_failure() {
    snapshot!(Unknown { kind: hostile() });
    snapshot!(Failed { text: hostile(), url: "/-/partial/widget/a/b/0".into() });
}
