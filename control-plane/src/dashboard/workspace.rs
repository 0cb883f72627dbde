//! The fixed pages under "Workspace": agents, skills, registries, schedules, jobs and problems, whatever the pages describe.

use super::AppState;
use super::describe::{events_table, job_detail, job_path};
use super::failure::Failure;
use super::pages::{Opened, html};
use super::session::Session;
use super::shell::{Around, segment};
use super::widgets::{self, FIXED, Place};
use axum::extract::{Path, Query, State};
use axum::response::Html;
use nexaas_dashboard::layout::Tone;
use nexaas_dashboard::tenant::{
    AgentPage, AgentsPage, EventsPage, JobPage, ProblemRow, ProblemsPage, RegistriesPage, RegistryPage, RegistryRow,
    SkillPage, SkillRow, SkillsPage,
};

pub const MAX_EVENTS: u32 = 500;

fn origin(from_framework: bool) -> String {
    if from_framework { "built in".to_owned() } else { String::new() }
}

pub async fn agents(session: Session) -> Result<Html<String>, Failure> {
    let (around, agents) = tokio::try_join!(Around::fetch(&session), session.api.agents())?;
    let page = around.shell(&session, "Agents", "/workspace/agents");
    html(&AgentsPage { page, tree: widgets::agent_page(&agents) })
}

pub async fn agent(
    State(state): State<AppState>,
    session: Session,
    Path(name): Path<String>,
    Query(opened): Query<Opened>,
) -> Result<Html<String>, Failure> {
    let (around, agent) = tokio::try_join!(Around::fetch(&session), session.api.agent(&name))?;
    let path = format!("/workspace/agents/{}", segment(&name));
    let place = Place {
        api: &session.api,
        now: state.clock.now(),
        perspective: FIXED,
        page: "agent",
        index: 0,
        path: &path,
        query: &opened,
        single: true,
    };
    let chat = match widgets::conversation(&place, vec![agent.name.clone()], String::new()).await {
        Ok(chat) => chat,
        Err(error) => {
            crate::http::problem::log(&error);
            let text = super::failure::said(&error);
            nexaas_dashboard::widgets::html(&nexaas_dashboard::widgets::Failed { text, url: String::new() })
        }
    };
    let mut facts = Vec::new();
    for (key, value) in [("Reports to", &agent.parent), ("Model", &agent.model)] {
        if !value.is_empty() {
            facts.push((key.to_owned(), value.clone()));
        }
    }
    facts.push((
        "Comes from".to_owned(),
        if agent.from_framework { "the framework" } else { "this workspace" }.to_owned(),
    ));
    let mut page = around.shell(&session, &agent.name, &path);
    page.crumb = Some(("Agents".to_owned(), "/workspace/agents".to_owned()));
    let config = serde_json::from_str::<serde_json::Value>(&agent.config_json)
        .ok()
        .filter(|v| !v.is_null())
        .and_then(|v| serde_json::to_string_pretty(&v).ok())
        .unwrap_or_default();
    html(&AgentPage {
        page,
        role: agent.role,
        description: agent.description,
        capabilities: agent.capabilities,
        facts,
        prompt: agent.prompt,
        config,
        chat,
    })
}

pub async fn skills(session: Session) -> Result<Html<String>, Failure> {
    let (around, skills) = tokio::try_join!(Around::fetch(&session), session.api.skills())?;
    let skills = skills
        .into_iter()
        .map(|s| SkillRow {
            href: format!("/workspace/skills/{}", segment(&s.name)),
            name: s.name,
            description: s.description,
            origin: origin(s.from_framework),
        })
        .collect();
    html(&SkillsPage { page: around.shell(&session, "Skills", "/workspace/skills"), skills })
}

pub async fn skill(session: Session, Path(name): Path<String>) -> Result<Html<String>, Failure> {
    let (around, skill, agents) =
        tokio::try_join!(Around::fetch(&session), session.api.skill(&name), session.api.agents())?;
    let mut page = around.shell(&session, &skill.name, &format!("/workspace/skills/{}", segment(&name)));
    page.crumb = Some(("Skills".to_owned(), "/workspace/skills".to_owned()));
    html(&SkillPage {
        page,
        description: skill.description,
        file: skill.filename,
        origin: origin(skill.from_framework),
        body: skill.body,
        run_url: format!("/-/skill/{}/run", segment(&skill.name)),
        agents: widgets::agent_names(&agents),
    })
}

pub async fn registries(session: Session) -> Result<Html<String>, Failure> {
    let (around, registries) = tokio::try_join!(Around::fetch(&session), session.api.registries())?;
    let registries = registries
        .into_iter()
        .map(|r| RegistryRow {
            href: format!("/workspace/registries/{}", segment(&r.name)),
            name: r.name,
            description: r.description,
            entries: r.entry_count,
        })
        .collect();
    html(&RegistriesPage { page: around.shell(&session, "Registries", "/workspace/registries"), registries })
}

pub async fn registry(session: Session, Path(name): Path<String>) -> Result<Html<String>, Failure> {
    let (around, registry) = tokio::try_join!(Around::fetch(&session), session.api.registry(&name))?;
    let mut page = around.shell(&session, &registry.name, &format!("/workspace/registries/{}", segment(&name)));
    page.crumb = Some(("Registries".to_owned(), "/workspace/registries".to_owned()));
    html(&RegistryPage { page, table: widgets::registry_page(&registry), description: registry.description })
}

pub async fn events(session: Session) -> Result<Html<String>, Failure> {
    let (around, events) = tokio::try_join!(Around::fetch(&session), session.api.events(MAX_EVENTS))?;
    html(&EventsPage { page: around.shell(&session, "Schedules", "/workspace/events"), table: events_table(events) })
}

pub async fn job(session: Session, Path(id): Path<String>) -> Result<Html<String>, Failure> {
    let (around, job) = tokio::try_join!(Around::fetch(&session), session.api.job(&id))?;
    let mut page = around.shell(&session, &super::describe::job_name(&job), &job_path(&id));
    page.crumb = Some(("Queue".to_owned(), "/workspace/queue".to_owned()));
    html(&JobPage { page, job: job_detail(job) })
}

pub async fn problems(session: Session) -> Result<Html<String>, Failure> {
    let around = Around::fetch(&session).await?;
    let problems = around
        .workspace
        .problems
        .iter()
        .map(|p| ProblemRow {
            file: p.file.clone(),
            line: p.line,
            reason: p.reason.clone(),
            tone: if p.is_error { Tone::Bad } else { Tone::Warn },
            severity: if p.is_error { "Error" } else { "Note" }.to_owned(),
        })
        .collect();
    html(&ProblemsPage { page: around.shell(&session, "Problems", "/workspace/problems"), problems })
}
