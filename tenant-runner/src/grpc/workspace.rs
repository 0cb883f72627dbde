//! What the tenant's files say, and running a skill of theirs.

use super::convert::{given, json as text};
use super::{Service, status, wire};
use nexaas_engine::action::ActionType;
use nexaas_engine::queue::NewJob;
use nexaas_engine::workspace::{self, AgentNode, Skill};
use serde_json::json;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl wire::workspace_server::Workspace for Service {
    async fn get_workspace(
        &self,
        _: Request<wire::GetWorkspaceRequest>,
    ) -> Result<Response<wire::WorkspaceView>, Status> {
        let snapshot = self.app.engine().workspace().snapshot();
        Ok(Response::new(wire::WorkspaceView {
            name: snapshot.layout.name.clone(),
            description: snapshot.layout.description.clone(),
            perspectives: snapshot.layout.perspectives.iter().map(perspective).collect(),
            problems: snapshot.problems.iter().map(problem).collect(),
            claude_md: snapshot.claude_md.clone(),
            revision: snapshot.revision,
        }))
    }

    async fn list_agents(
        &self,
        _: Request<wire::ListAgentsRequest>,
    ) -> Result<Response<wire::ListAgentsResponse>, Status> {
        let snapshot = self.app.engine().workspace().snapshot();
        Ok(Response::new(wire::ListAgentsResponse { agents: snapshot.tree.iter().map(agent).collect() }))
    }

    async fn get_agent(&self, request: Request<wire::GetAgentRequest>) -> Result<Response<wire::Agent>, Status> {
        let snapshot = self.app.engine().workspace().snapshot();
        let node =
            snapshot.node(&request.get_ref().name).ok_or_else(|| Status::not_found("The agent does not exist"))?;
        Ok(Response::new(agent(node)))
    }

    async fn list_skills(
        &self,
        _: Request<wire::ListSkillsRequest>,
    ) -> Result<Response<wire::ListSkillsResponse>, Status> {
        let snapshot = self.app.engine().workspace().snapshot();
        Ok(Response::new(wire::ListSkillsResponse { skills: snapshot.skills.iter().map(skill).collect() }))
    }

    async fn get_skill(&self, request: Request<wire::GetSkillRequest>) -> Result<Response<wire::Skill>, Status> {
        let snapshot = self.app.engine().workspace().snapshot();
        let found =
            snapshot.skill(&request.get_ref().name).ok_or_else(|| Status::not_found("The skill does not exist"))?;
        Ok(Response::new(wire::Skill { body: found.body.clone(), ..skill(found) }))
    }

    async fn execute_skill(
        &self,
        request: Request<wire::ExecuteSkillRequest>,
    ) -> Result<Response<wire::ExecuteSkillResponse>, Status> {
        let wire::ExecuteSkillRequest { name, input, agent, enqueue } = request.into_inner();
        let agent = given(agent);
        let skills = self.app.engine().skills();
        if enqueue {
            let skill = skills.get(&name).map_err(status::of)?.name;
            let config = json!({ "skill": name, "input": given(input), "agent": agent });
            let job = NewJob { description: Some(skill.clone()), agent, ..NewJob::new(ActionType::Skill, config) };
            let job_id = self.app.engine().queue().enqueue(job).await.map_err(status::of)?.to_string();
            return Ok(Response::new(wire::ExecuteSkillResponse { skill, result: String::new(), job_id }));
        }
        let run = skills.execute(&name, &input, agent.as_deref()).await.map_err(status::of)?;
        Ok(Response::new(wire::ExecuteSkillResponse { skill: run.skill, result: run.result, job_id: String::new() }))
    }

    async fn list_registries(
        &self,
        _: Request<wire::ListRegistriesRequest>,
    ) -> Result<Response<wire::ListRegistriesResponse>, Status> {
        let snapshot = self.app.engine().workspace().snapshot();
        let registries = snapshot.registries.values().map(|r| wire::RegistrySummary {
            name: r.name.clone(),
            path: r.path.clone(),
            description: r.description.clone(),
            entry_count: u32::try_from(r.entries.len()).unwrap_or(u32::MAX),
        });
        Ok(Response::new(wire::ListRegistriesResponse { registries: registries.collect() }))
    }

    async fn get_registry(
        &self,
        request: Request<wire::GetRegistryRequest>,
    ) -> Result<Response<wire::Registry>, Status> {
        let snapshot = self.app.engine().workspace().snapshot();
        let found = snapshot
            .registry(&request.get_ref().name)
            .ok_or_else(|| Status::not_found("The registry does not exist"))?;
        let fields =
            found.fields.iter().map(|f| wire::RegistryField { name: f.name.clone(), r#type: f.kind.clone() }).collect();
        Ok(Response::new(wire::Registry {
            name: found.name.clone(),
            description: found.description.clone(),
            fields,
            entries_json: found.entries.iter().map(text).collect(),
        }))
    }

    async fn get_mcp_catalog(
        &self,
        _: Request<wire::GetMcpCatalogRequest>,
    ) -> Result<Response<wire::McpCatalog>, Status> {
        let snapshot = self.app.engine().workspace().snapshot();
        let entries = snapshot.mcp_catalog.iter().map(|e| wire::McpCatalogEntry {
            name: e.name.clone(),
            description: e.description.clone(),
            category: e.category.clone(),
            requires_env: e.requires_env.clone(),
            config_json: text(&e.config),
        });
        Ok(Response::new(wire::McpCatalog { entries: entries.collect() }))
    }
}

fn perspective(p: &workspace::Perspective) -> wire::Perspective {
    wire::Perspective {
        id: p.id.clone(),
        name: p.name.clone(),
        icon: p.icon.clone(),
        default_page: p.default_page.clone(),
        pages: p.pages.iter().map(page).collect(),
    }
}

fn page(p: &workspace::Page) -> wire::Page {
    let components = p.components.iter().map(|c| wire::Component {
        r#type: c.kind.clone(),
        title: c.title.clone(),
        span: c.span,
        config_json: text(&c.config),
    });
    wire::Page {
        id: p.id.clone(),
        name: p.name.clone(),
        icon: p.icon.clone(),
        layout: p.layout.clone(),
        components: components.collect(),
    }
}

fn problem(p: &workspace::Problem) -> wire::Problem {
    wire::Problem {
        file: p.file.clone(),
        line: p.line,
        reason: p.reason.clone(),
        severity: p.severity.as_str().to_owned(),
    }
}

fn agent(node: &AgentNode) -> wire::Agent {
    let a = &node.agent;
    wire::Agent {
        name: a.name.clone(),
        role: a.role.clone(),
        description: a.description.clone(),
        capabilities: a.capabilities.clone(),
        parent: a.parent.clone().unwrap_or_default(),
        source: a.source.as_str().to_owned(),
        model: a.model.clone().unwrap_or_default(),
        prompt: a.prompt.clone(),
        config_json: text(&a.config),
        children: node.children.iter().map(agent).collect(),
    }
}

fn skill(s: &Skill) -> wire::Skill {
    wire::Skill {
        name: s.name.clone(),
        filename: s.filename.clone(),
        description: s.description.clone(),
        path: s.path.clone(),
        source: s.source.as_str().to_owned(),
        body: String::new(),
    }
}
