//! A runner's services on behalf of one of its users: each call carries the user's token and a deadline, and answers in the
//! types of [`super::model`].
//!
//! Always true: without the token only the account status, register and login are answered, and that is the runner's decision.

use super::channel::{Actor, error_of, request, within};
use super::model::*;
use crate::error::{Error, Result};
use futures::stream::{BoxStream, StreamExt as _};
use nexaas_common::secret::{ExposeSecret as _, SecretString};
use nexaas_proto::MAX_MESSAGE_BYTES;
use nexaas_proto::runner::v1 as wire;
use nexaas_proto::runner::v1::accounts_client::AccountsClient;
use nexaas_proto::runner::v1::chat_client::ChatClient;
use nexaas_proto::runner::v1::events_client::EventsClient;
use nexaas_proto::runner::v1::ops_client::OpsClient;
use nexaas_proto::runner::v1::queue_client::QueueClient;
use nexaas_proto::runner::v1::workspace_client::WorkspaceClient;
use std::net::IpAddr;
use std::time::Duration;
use tonic::Streaming;
use tonic::transport::Channel;

/// Answers come from memory or SQLite.
const READ: Duration = Duration::from_secs(5);
/// Password hashing takes its time on a small container.
const HASHING: Duration = Duration::from_secs(15);
const WRITE: Duration = Duration::from_secs(10);
/// Until a conversation's first event: the model may think for a while.
const FIRST_WORD: Duration = Duration::from_secs(90);
/// Deeper trees are cut off, so that no file can make a page endless.
const MAX_AGENT_DEPTH: usize = 12;

/// One user's view of one runner.
#[derive(Clone)]
pub struct TenantApi {
    channel: Channel,
    token: Option<SecretString>,
}

impl std::fmt::Debug for TenantApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantApi").field("authenticated", &self.token.is_some()).finish_non_exhaustive()
    }
}

macro_rules! client {
    ($self:ident, $client:ident) => {
        $client::new($self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    };
}
macro_rules! call {
    ($self:ident, $client:ident.$method:ident($message:expr), $deadline:expr) => {{
        let message = request($message, $deadline, $self.actor())?;
        within($deadline, client!($self, $client).$method(message)).await
    }};
}
macro_rules! stream {
    ($self:ident, $client:ident.$method:ident($message:expr), $deadline:expr) => {{
        let mut message = request($message, $deadline, $self.actor())?;
        // The deadline is for the answer's beginning; the stream itself lasts as long as somebody watches.
        message.metadata_mut().remove("grpc-timeout");
        within($deadline, client!($self, $client).$method(message)).await
    }};
}

impl TenantApi {
    pub fn new(channel: Channel, token: Option<SecretString>) -> Self {
        Self { channel, token }
    }

    fn actor(&self) -> Actor<'_> {
        self.token.as_ref().map_or(Actor::None, |t| Actor::User(t.expose_secret()))
    }

    // ---- Accounts ----

    pub async fn account_status(&self) -> Result<AccountStatus> {
        let a = call!(self, AccountsClient.status(wire::AccountsStatusRequest {}), READ)?;
        Ok(AccountStatus { has_company: a.has_company, company: a.company, registration_open: a.registration_open })
    }

    pub async fn register(
        &self,
        company_name: &str,
        username: &str,
        password: &SecretString,
        remote: Option<IpAddr>,
    ) -> Result<UserSession> {
        let message = wire::RegisterRequest {
            company_name: company_name.to_owned(),
            username: username.to_owned(),
            password: password.expose_secret().to_owned(),
            remote_address: remote.map(|r| r.to_string()).unwrap_or_default(),
        };
        call!(self, AccountsClient.register(message), HASHING).and_then(session)
    }

    pub async fn login(&self, username: &str, password: &SecretString, remote: Option<IpAddr>) -> Result<UserSession> {
        let message = wire::LoginRequest {
            username: username.to_owned(),
            password: password.expose_secret().to_owned(),
            remote_address: remote.map(|r| r.to_string()).unwrap_or_default(),
        };
        call!(self, AccountsClient.login(message), HASHING).and_then(session)
    }

    pub async fn me(&self) -> Result<User> {
        Ok(user(call!(self, AccountsClient.me(wire::MeRequest {}), READ)?))
    }

    /// Ends every session of the user.
    pub async fn logout(&self) -> Result<()> {
        call!(self, AccountsClient.logout(wire::LogoutRequest {}), WRITE).map(|_| ())
    }

    // ---- Workspace ----

    pub async fn workspace(&self) -> Result<WorkspaceView> {
        let w = call!(self, WorkspaceClient.get_workspace(wire::GetWorkspaceRequest {}), READ)?;
        Ok(WorkspaceView {
            name: w.name,
            description: w.description,
            perspectives: w.perspectives.into_iter().map(perspective).collect(),
            problems: w.problems.into_iter().map(problem).collect(),
            revision: w.revision,
        })
    }

    /// The roots of the tree.
    pub async fn agents(&self) -> Result<Vec<Agent>> {
        let a = call!(self, WorkspaceClient.list_agents(wire::ListAgentsRequest {}), READ)?;
        Ok(a.agents.into_iter().map(|a| agent(a, 0)).collect())
    }

    pub async fn agent(&self, name: &str) -> Result<Agent> {
        let message = wire::GetAgentRequest { name: name.to_owned() };
        Ok(agent(call!(self, WorkspaceClient.get_agent(message), READ)?, 0))
    }

    pub async fn skills(&self) -> Result<Vec<Skill>> {
        let s = call!(self, WorkspaceClient.list_skills(wire::ListSkillsRequest {}), READ)?;
        Ok(s.skills.into_iter().map(skill).collect())
    }

    pub async fn skill(&self, name: &str) -> Result<Skill> {
        let message = wire::GetSkillRequest { name: name.to_owned() };
        Ok(skill(call!(self, WorkspaceClient.get_skill(message), READ)?))
    }

    /// Puts a skill on the queue; answers with the job's id.
    pub async fn run_skill(&self, name: &str, input: &str, agent: &str) -> Result<String> {
        let message = wire::ExecuteSkillRequest {
            name: name.to_owned(),
            input: input.to_owned(),
            agent: agent.to_owned(),
            enqueue: true,
        };
        Ok(call!(self, WorkspaceClient.execute_skill(message), WRITE)?.job_id)
    }

    pub async fn registries(&self) -> Result<Vec<RegistrySummary>> {
        let r = call!(self, WorkspaceClient.list_registries(wire::ListRegistriesRequest {}), READ)?;
        let summary = |r: wire::RegistrySummary| RegistrySummary {
            name: r.name,
            description: r.description,
            entry_count: r.entry_count,
        };
        Ok(r.registries.into_iter().map(summary).collect())
    }

    pub async fn registry(&self, name: &str) -> Result<Registry> {
        let message = wire::GetRegistryRequest { name: name.to_owned() };
        let r = call!(self, WorkspaceClient.get_registry(message), READ)?;
        let entries = r.entries_json.iter().map(|e| serde_json::from_str(e).map_err(Error::internal));
        Ok(Registry {
            name: r.name,
            description: r.description,
            fields: r.fields.into_iter().map(|f| (f.name, f.r#type)).collect(),
            entries: entries.collect::<Result<_>>()?,
        })
    }

    // ---- Events ----

    pub async fn events(&self, limit: u32) -> Result<Vec<Event>> {
        let message = wire::ListEventsRequest { limit, ..Default::default() };
        Ok(call!(self, EventsClient.list_events(message), READ)?.events.into_iter().map(event).collect())
    }

    /// Creates or changes an event, given as the body of `POST /api/events`.
    pub async fn upsert_event(&self, body: &serde_json::Value) -> Result<String> {
        let message = wire::UpsertEventRequest { event_json: body.to_string() };
        Ok(call!(self, EventsClient.upsert_event(message), WRITE)?.id)
    }

    /// Runs an event's action now; answers with the job's id.
    pub async fn trigger_event(&self, id: &str) -> Result<String> {
        let message = wire::TriggerEventRequest { id: id.to_owned() };
        Ok(call!(self, EventsClient.trigger_event(message), WRITE)?.job_id)
    }

    /// What happens from now on, or from after a sequence number.
    pub async fn watch_bus(&self, after_seq: u64) -> Result<BoxStream<'static, Result<BusEvent>>> {
        let stream =
            stream!(self, EventsClient.watch_bus(wire::WatchBusRequest { after_seq, ..Default::default() }), READ)?;
        Ok(stream.map(|e| e.map(|e| BusEvent { seq: e.seq, kind: e.r#type }).map_err(error_of)).boxed())
    }

    /// What happened of these kinds, newest first; from `since` (RFC 3339) on, unless that is empty.
    pub async fn facts(&self, kinds: &[&str], since: &str, limit: u32) -> Result<Vec<Fact>> {
        let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        let message = wire::ListBusEventsRequest { before_seq: 0, limit, kinds, since: since.to_owned() };
        let fact = |e: wire::BusEvent| {
            let data = serde_json::from_str(&e.data_json).map_err(Error::internal)?;
            Ok(Fact { kind: e.r#type, data, at: e.created_at })
        };
        call!(self, EventsClient.list_bus_events(message), READ)?.events.into_iter().map(fact).collect()
    }

    // ---- Queue ----

    pub async fn queue(&self) -> Result<QueueView> {
        let q = call!(self, QueueClient.get_queue(wire::GetQueueRequest {}), READ)?;
        Ok(QueueView {
            queued: q.queued,
            running: q.running,
            completed: q.completed,
            failed: q.failed,
            recent: q.recent.into_iter().map(job).collect(),
        })
    }

    pub async fn job(&self, id: &str) -> Result<Job> {
        Ok(job(call!(self, QueueClient.get_job(wire::GetJobRequest { id: id.to_owned() }), READ)?))
    }

    pub async fn cancel_job(&self, id: &str) -> Result<()> {
        let message = wire::CancelJobRequest { id: id.to_owned() };
        call!(self, QueueClient.cancel_job(message), WRITE).map(|_| ())
    }

    /// Gives a dead or cancelled job one more round of attempts; answers the job as it stands then.
    pub async fn retry_job(&self, id: &str) -> Result<Job> {
        let message = wire::RetryJobRequest { id: id.to_owned() };
        Ok(job(call!(self, QueueClient.retry_job(message), WRITE)?))
    }

    /// The jobs that have failed for good, newest first.
    pub async fn dead_jobs(&self, limit: u32) -> Result<Vec<Job>> {
        self.jobs_in("dead", limit).await
    }

    /// Jobs of all states, newest first.
    pub async fn jobs(&self, limit: u32) -> Result<Vec<Job>> {
        self.jobs_in("", limit).await
    }

    async fn jobs_in(&self, state: &str, limit: u32) -> Result<Vec<Job>> {
        let message = wire::ListJobsRequest { state: state.to_owned(), limit, ..Default::default() };
        Ok(call!(self, QueueClient.list_jobs(message), READ)?.jobs.into_iter().map(job).collect())
    }

    // ---- Chat ----

    /// Starts a turn and waits for its first event; the turn goes on by itself and is followed with [`Self::resume_chat`].
    pub async fn send_chat(&self, agent: &str, message: &str, session_id: &str) -> Result<ChatEvent> {
        let message = wire::ChatRequest {
            agent: agent.to_owned(),
            message: message.to_owned(),
            session_id: session_id.to_owned(),
        };
        let mut stream = stream!(self, ChatClient.send(message), WRITE)?;
        match tokio::time::timeout(FIRST_WORD, stream.message()).await {
            Ok(Ok(Some(first))) => chat_event(first),
            Ok(Ok(None)) => Err(Error::internal("the runner ended a conversation before its first event")),
            Ok(Err(status)) => Err(error_of(status)),
            Err(_) => Err(Error::timeout("runner")),
        }
    }

    /// A session's events after a sequence number, until its running turn ends.
    pub async fn resume_chat(&self, session_id: &str, after_seq: u64) -> Result<BoxStream<'static, Result<ChatEvent>>> {
        let message = wire::ResumeChatRequest { session_id: session_id.to_owned(), after_seq };
        let stream: Streaming<wire::ChatEvent> = stream!(self, ChatClient.resume(message), READ)?;
        Ok(stream.map(|e| e.map_err(error_of).and_then(chat_event)).boxed())
    }

    pub async fn chat_sessions(&self, agent: &str, limit: u32) -> Result<Vec<ChatSession>> {
        let message = wire::ListSessionsRequest { agent: agent.to_owned(), limit };
        Ok(call!(self, ChatClient.list_sessions(message), READ)?.sessions.into_iter().map(chat_session).collect())
    }

    pub async fn chat_session(&self, id: &str) -> Result<ChatSession> {
        let message = wire::GetSessionRequest { session_id: id.to_owned() };
        Ok(chat_session(call!(self, ChatClient.get_session(message), READ)?))
    }

    // ---- Usage and operations ----

    /// Totals since a time (RFC 3339).
    pub async fn usage(&self, since: &str) -> Result<Usage> {
        let message = wire::GetUsageRequest { since: since.to_owned(), ..Default::default() };
        let u = call!(self, OpsClient.get_usage(message), READ)?;
        Ok(Usage {
            calls: u.total_calls,
            input_tokens: u.total_input_tokens,
            output_tokens: u.total_output_tokens,
            cost_usd: u.total_cost_usd,
        })
    }

    pub async fn alerts(&self, limit: u32) -> Result<Vec<Alert>> {
        let message = wire::ListAlertsRequest { limit, ..wire::ListAlertsRequest::default() };
        let a = call!(self, OpsClient.list_alerts(message), READ)?;
        let alert = |a: wire::Alert| Alert {
            severity: a.severity,
            category: a.category,
            message: a.message,
            acknowledged: a.acknowledged,
            created_at: a.created_at,
        };
        Ok(a.alerts.into_iter().map(alert).collect())
    }
}

fn session(s: wire::Session) -> Result<UserSession> {
    if s.token.is_empty() {
        return Err(Error::internal("the runner answered a login without a token"));
    }
    Ok(UserSession {
        token: SecretString::from(s.token),
        user: s.user.map(user).unwrap_or_default(),
        expires_at: s.expires_at,
    })
}

fn user(u: wire::User) -> User {
    User { id: u.id, username: u.username, role: u.role, company: u.company }
}

fn perspective(p: wire::Perspective) -> Perspective {
    Perspective {
        id: p.id,
        name: p.name,
        icon: p.icon,
        default_page: p.default_page,
        pages: p.pages.into_iter().map(page).collect(),
    }
}

fn page(p: wire::Page) -> Page {
    Page {
        id: p.id,
        name: p.name,
        icon: p.icon,
        single: p.layout == "single",
        components: p.components.into_iter().map(component).collect(),
    }
}

fn component(c: wire::Component) -> Component {
    Component {
        kind: c.r#type,
        title: c.title,
        span: u8::try_from(c.span).ok().filter(|s| (1..=12).contains(s)).unwrap_or(12),
        config: serde_json::from_str(&c.config_json).unwrap_or_default(),
    }
}

fn problem(p: wire::Problem) -> Problem {
    Problem { file: p.file, line: p.line, reason: p.reason, is_error: p.severity != "warning" }
}

fn agent(a: wire::Agent, depth: usize) -> Agent {
    let children = if depth < MAX_AGENT_DEPTH { a.children } else { Vec::new() };
    Agent {
        name: a.name,
        role: a.role,
        description: a.description,
        capabilities: a.capabilities,
        parent: a.parent,
        from_framework: a.source == "framework",
        model: a.model,
        prompt: a.prompt,
        config_json: a.config_json,
        children: children.into_iter().map(|c| agent(c, depth + 1)).collect(),
    }
}

fn skill(s: wire::Skill) -> Skill {
    Skill {
        name: s.name,
        filename: s.filename,
        description: s.description,
        from_framework: s.source == "framework",
        body: s.body,
    }
}

fn event(e: wire::Event) -> Event {
    Event {
        id: e.id,
        kind: e.r#type,
        condition_type: e.condition_type,
        condition_expr: e.condition_expr,
        next_eval_at: e.next_eval_at,
        action_type: e.action_type,
        status: e.status,
        agent: e.agent,
        description: e.description,
        last_result: e.last_result,
        last_run_at: e.last_run_at,
        run_count: e.run_count,
        fail_count: e.fail_count,
    }
}

fn job(j: wire::Job) -> Job {
    Job {
        id: j.id,
        event_id: j.event_id,
        action_type: j.action_type,
        description: j.description,
        agent: j.agent,
        state: JobState::of(&j.state),
        attempt: j.attempt,
        max_attempts: j.max_attempts,
        result: j.result,
        error: j.error,
        created_at: j.created_at,
        started_at: j.started_at,
        finished_at: j.finished_at,
        concurrency_key: j.concurrency_key,
        blocked: j.blocked,
    }
}

fn chat_event(e: wire::ChatEvent) -> Result<ChatEvent> {
    let kind = match e.r#type.as_str() {
        "chunk" => ChatKind::Chunk,
        "done" => ChatKind::Done,
        "error" => ChatKind::Failed,
        other => return Err(Error::internal(format!("the runner sent a chat event of the unknown type '{other}'"))),
    };
    Ok(ChatEvent { session_id: e.session_id, seq: e.seq, kind, content: e.content })
}

fn chat_session(s: wire::ChatSession) -> ChatSession {
    ChatSession {
        id: s.id,
        agent: s.agent,
        title: s.title,
        updated_at: s.updated_at,
        messages: s
            .messages
            .into_iter()
            .map(|m| ChatMessage { from_person: m.role == "user", content: m.content })
            .collect(),
        last_seq: s.last_seq,
    }
}
