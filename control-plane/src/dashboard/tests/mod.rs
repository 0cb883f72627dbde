//! The dashboard against a runner that is played in this process, over real gRPC.

mod fake;

use super::{DashboardDeps, TenantChannels, router};
use crate::domain::tenant::{BackendKind, Desired, Limits, Tenant};
use crate::domain::{Slug, TenantId};
use crate::error::{Error, Result};
use crate::http::{PublicUrl, RemoteAddr, TenantContext};
use axum::Router;
use axum::body::Body;
use fake::{Fake, HOSTILE, TOKEN, component};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use nexaas_common::clock::ManualClock;
use nexaas_common::task::Supervisor;
use nexaas_proto::runner::v1 as wire;
use serde_json::json;
use std::sync::Arc;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt as _;

fn today() -> Vec<wire::Component> {
    vec![
        component(
            "stat-cards",
            "At a glance",
            12,
            json!({"cards": [
                {"label": "Active clients", "source": "registry", "registry": "clients", "where": {"active": true}, "icon": "users"},
                {"label": "Retainers", "source": "registry", "registry": "clients", "sum": "retainer_eur", "format": "eur", "icon": "wallet"},
                {"label": "Jobs waiting", "source": "queue", "field": "queued", "icon": "list-todo"},
                {"label": "Failed", "source": "queue", "field": "failed", "icon": "triangle-alert"},
                {"label": "Model cost", "source": "usage", "field": "total_cost_usd", "format": "usd", "detail": "last 30 days", "icon": "coins"},
            ]}),
        ),
        component(
            "quick-actions",
            "Quick actions",
            4,
            json!({"actions": [
                {"label": "Weekly client report", "description": "A digest for every active client.", "skill": "weekly-client-report", "agent": "reporting-analyst", "icon": "file-text"},
                {"label": "Check the links now", "event": "link-check"},
                {"label": "Ask for the news", "description": "What changed since yesterday?", "agent": "account-director", "prompt": "What changed since yesterday?"},
            ]}),
        ),
        component("queue-status", "Work in the queue", 8, json!(null)),
        component("event-timeline", "What happened", 7, json!({"limit": 15})),
        component("agent-tree", "The team of agents", 5, json!(null)),
        component("registry-table", "Clients", 12, json!({"registry": "clients", "sort": "-retainer_eur"})),
        component("pipeline-board", "Pipeline", 6, json!(null)),
        component("registry-table", "Misspelt", 6, json!({"registy": "clients"})),
    ]
}

#[derive(Debug)]
struct At(Option<u16>);

impl TenantChannels for At {
    fn channel(&self, _: &Tenant) -> Result<Channel> {
        let port = self.0.ok_or_else(|| Error::unavailable("runner", "it has no port"))?;
        Ok(Endpoint::from_shared(format!("http://127.0.0.1:{port}")).map_err(Error::internal)?.connect_lazy())
    }
}

struct Site {
    app: Router,
    fake: Fake,
    _supervisor: Supervisor,
}

struct Got {
    status: StatusCode,
    headers: http::HeaderMap,
    text: String,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

fn tenant() -> Arc<Tenant> {
    let now = "2026-11-24T21:00:00Z".parse().unwrap();
    Arc::new(Tenant {
        id: TenantId::generate(),
        slug: "brightwave".parse::<Slug>().unwrap(),
        display_name: "BrightWave".into(),
        desired: Desired::Running,
        generation: 1,
        observed_generation: 1,
        template: "demo".into(),
        backend: BackendKind::Process,
        limits: Limits::default(),
        port: Some(20_000),
        subnet: None,
        conditions: Vec::new(),
        created_at: now,
        updated_at: now,
    })
}

fn app(port: Option<u16>) -> Router {
    let public =
        PublicUrl { scheme: "http".into(), base_domain: "localhost".into(), port: Some(8080), cookie_secure: true };
    router(DashboardDeps {
        channels: Arc::new(At(port)),
        public,
        clock: ManualClock::new("2026-11-24T21:00:00Z".parse().unwrap()),
    })
}

impl Site {
    async fn new() -> Self {
        let supervisor = Supervisor::new();
        let fake = Fake::new();
        let port = fake.serve(&supervisor).await;
        Self { app: app(Some(port)), fake, _supervisor: supervisor }
    }

    async fn raw(&self, request: http::request::Builder, body: &str) -> axum::response::Response {
        let mut request = request.body(Body::from(body.to_owned())).unwrap();
        request.extensions_mut().insert(TenantContext { tenant: tenant() });
        request.extensions_mut().insert(RemoteAddr("203.0.113.9".parse().unwrap()));
        self.app.clone().oneshot(request).await.unwrap()
    }

    async fn send(&self, request: http::request::Builder, body: &str) -> Got {
        let (parts, body) = self.raw(request, body).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Got { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    async fn get(&self, path: &str) -> Got {
        let got = self.send(with_session(Request::get(path)), "").await;
        keep(path, &got.text);
        got
    }

    async fn post(&self, path: &str, body: &str) -> Got {
        self.send(with_session(form(Request::post(path))), body).await
    }
}

/// For whoever wants to look at the pages: `NEXAAS_TEST_PAGES=<folder>` keeps them.
fn keep(path: &str, text: &str) {
    if let Ok(folder) = std::env::var("NEXAAS_TEST_PAGES") {
        let name: String = path.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        std::fs::write(format!("{folder}/{name}.html"), text).unwrap();
    }
}

fn with_session(request: http::request::Builder) -> http::request::Builder {
    request.header("cookie", format!("__Host-nexaas_session={TOKEN}"))
}

fn form(request: http::request::Builder) -> http::request::Builder {
    request
        .header("content-type", "application/x-www-form-urlencoded")
        .header("sec-fetch-site", "same-origin")
        .header("hx-request", "true")
}

#[tokio::test]
async fn a_page_shows_every_widget_and_no_hostile_text_becomes_markup() {
    let site = Site::new().await;
    let page = site.get("/p/studio/today").await;
    assert_eq!(page.status, StatusCode::OK);
    for part in [
        "BrightWave Digital",
        "At a glance",
        "€6\u{202f}950",
        "$18.40",
        "Weekly client report",
        "the mail server answered 550",
        "account-director",
        "https://lumen.example",
        "sse:queue",
        "pipeline-board",
        "unknown field `registy`",
        "One file of this workspace has an error",
        "sse-connect=\"/-/stream/bus\"",
    ] {
        assert!(page.text.contains(part), "{part}");
    }
    assert!(!page.text.contains(HOSTILE));
    assert!(!page.text.contains("href=\"javascript"));
    assert!(
        !page.text.contains(" style=") && !page.text.contains(" onclick="),
        "the policy forbids inline style and handlers"
    );
    let nonce = page.header("content-security-policy").split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert!(page.text.contains(&format!("nonce=\"{nonce}\"")));
    assert_eq!(page.header("cache-control"), "no-store");
}

#[tokio::test]
async fn a_timeline_mixes_jobs_with_what_changed_and_keeps_to_the_types_that_are_asked_for() {
    let site = Site::new().await;
    let timeline = site.get("/-/partial/widget/studio/today/3").await.text;
    let told = [
        "Weekly client report is running",
        "link-check left out a run",
        "lead was paused",
        "Send invoice reminders failed",
        "The workspace&#39;s files changed",
        "Weekly client report was planned",
    ];
    let places: Vec<Option<usize>> = told.iter().map(|title| timeline.find(title)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} in {timeline}");
    assert!(timeline.contains("1 file has a problem") && !timeline.contains(HOSTILE));

    let only = json!({"types": ["event", "job.dead"]});
    site.fake.state.lock().unwrap().perspectives[0].pages[0].components[3] = component("event-timeline", "", 6, only);
    let timeline = site.get("/-/partial/widget/studio/today/3").await.text;
    assert!(timeline.contains("lead was paused") && timeline.contains("Send invoice reminders failed"));
    assert!(!timeline.contains("is running") && !timeline.contains("files changed"));
    assert!(site.fake.deeds().is_empty());

    // With as many jobs as rows, what is older than they has no place, and is not looked for.
    let short = component("event-timeline", "", 6, json!({"limit": 3}));
    site.fake.state.lock().unwrap().perspectives[0].pages[0].components[3] = short;
    let timeline = site.get("/-/partial/widget/studio/today/3").await.text;
    assert!(
        timeline.contains("Draft next week&#39;s posts is waiting") && timeline.contains("link-check left out a run")
    );
    assert!(!timeline.contains("lead was paused"));
    assert_eq!(site.fake.deeds(), ["facts since 2026-11-24T20:10:00Z"]);
}

#[tokio::test]
async fn the_start_page_is_the_default_page_and_a_fresh_workspace_shows_the_overview() {
    let site = Site::new().await;
    assert!(site.get("/").await.text.contains("<h1>Today</h1>"));
    assert_eq!(site.get("/p/studio").await.header("location"), "/p/studio/today");
    site.fake.state.lock().unwrap().perspectives.clear();
    let page = site.get("/").await;
    assert!(page.text.contains("<h1>Overview</h1>") && page.text.contains("Coming up"));
}

#[tokio::test]
async fn every_page_under_workspace_is_drawn() {
    let site = Site::new().await;
    for (path, part) in [
        ("/workspace", "Waiting jobs"),
        ("/workspace/queue", "Recent jobs"),
        ("/workspace/agents", "ops-monitor"),
        ("/workspace/agents/account-director", "Instructions"),
        ("/workspace/skills", "health-check"),
        ("/workspace/skills/weekly-client-report", "finished work"),
        ("/workspace/registries", "Whom we work for"),
        ("/workspace/registries/clients", "Harbour Bakery"),
        ("/workspace/events", "every hour"),
        ("/workspace/jobs/j2", "<strong>42</strong>"),
        ("/workspace/jobs/j1", "550"),
        ("/workspace/problems", "registries/channels.yaml:14"),
        ("/p/studio/talk", "data-chat"),
    ] {
        let page = site.get(path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}");
        assert!(page.text.contains(part), "{part} on {path}");
        assert!(!page.text.contains(HOSTILE), "{path}");
    }
    // A widget leads on, but not to the page that it is on.
    let links = async |page: &str| site.get(page).await.text.matches("href=\"/workspace/queue\"").count();
    assert_eq!(links("/workspace/queue").await, links("/workspace/skills").await);
    assert!(links("/workspace").await > links("/workspace/skills").await);
    for path in ["/workspace/jobs/none", "/workspace/registries/none", "/p/studio/none", "/p/-/overview", "/nothing"] {
        let page = site.get(path).await;
        assert_eq!(page.status, StatusCode::NOT_FOUND, "{path}");
        assert!(page.text.contains("Go to the start page"), "{path}");
    }
}

#[tokio::test]
async fn without_a_session_nothing_is_shown_and_the_way_leads_to_the_form_and_back() {
    let site = Site::new().await;
    let page = site.send(Request::get("/p/studio/today"), "").await;
    assert_eq!(page.status, StatusCode::SEE_OTHER);
    assert_eq!(page.header("location"), "/login?next=%2Fp%2Fstudio%2Ftoday");
    let partial = site.send(Request::get("/-/partial/widget/studio/today/0").header("hx-request", "true"), "").await;
    assert_eq!((partial.status, partial.header("hx-redirect")), (StatusCode::UNAUTHORIZED, "/login"));
    let stream = site.send(Request::get("/-/stream/bus"), "").await;
    assert_eq!(stream.status, StatusCode::UNAUTHORIZED);
    // A token that the runner does not know (any more) is the same as none.
    let old = site.send(Request::get("/").header("cookie", "__Host-nexaas_session=old.user.token"), "").await;
    assert_eq!((old.status, old.header("location")), (StatusCode::SEE_OTHER, "/login"));
    // A call with Authorization is exempt from the cross-site rule and so never acts with the cookie.
    let mixed = Request::post("/-/event/link-check/trigger").header("authorization", "Bearer x");
    let mixed = site.send(with_session(mixed).header("hx-request", "true"), "").await;
    assert_eq!(mixed.status, StatusCode::UNAUTHORIZED);
    assert!(site.fake.deeds().is_empty());
}

#[tokio::test]
async fn a_request_from_another_site_changes_nothing() {
    let site = Site::new().await;
    for path in
        ["/-/event/link-check/trigger", "/-/chat", "/-/skill/x/run", "/-/job/j4/cancel", "/-/job/j1/retry", "/logout"]
    {
        let request = with_session(Request::post(path))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "same-site");
        assert_eq!(site.send(request, "agent=a&message=b").await.status, StatusCode::FORBIDDEN, "{path}");
    }
    assert!(site.fake.deeds().is_empty());
}

#[tokio::test]
async fn the_first_person_names_the_company_and_is_logged_in() {
    let site = Site::new().await;
    site.fake.state.lock().unwrap().has_company = false;
    assert_eq!(site.send(Request::get("/"), "").await.header("location"), "/register");
    assert_eq!(site.send(Request::get("/login"), "").await.header("location"), "/register");
    let page = site.send(Request::get("/register"), "").await;
    keep("register", &page.text);
    assert!(page.text.contains("company_name"));

    let short = form(Request::post("/register"));
    let short = site.send(short, "company_name=Acme&username=nora&password=short").await;
    assert_eq!(short.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        short.text.contains("Password must be at least 8 characters long") && short.text.contains("value=\"nora\"")
    );
    keep("register_refused", &short.text);

    let done = form(Request::post("/register"));
    let done = site.send(done, "company_name=Acme&username=nora&password=long+enough").await;
    assert_eq!((done.status, done.header("location")), (StatusCode::SEE_OTHER, "/"));
    assert_eq!(
        done.header("set-cookie"),
        format!("__Host-nexaas_session={TOKEN}; Path=/; HttpOnly; SameSite=Lax; Max-Age=43200; Secure")
    );
    assert_eq!(site.fake.deeds(), ["register Acme nora from 203.0.113.9"]);
    // Later ones are not asked for it.
    assert!(!site.send(Request::get("/register"), "").await.text.contains("company_name"));
    let taken = site.send(form(Request::post("/register")), "username=taken&password=long+enough").await;
    assert_eq!(taken.status, StatusCode::CONFLICT);
    assert!(taken.text.contains("This name is taken"));
}

#[tokio::test]
async fn a_login_leads_back_but_never_away() {
    let site = Site::new().await;
    let page = site.send(Request::get("/login?next=/workspace/queue"), "").await;
    keep("login", &page.text);
    assert!(page.text.contains("value=\"/workspace/queue\""));
    for (next, location) in
        [("/workspace/queue", "/workspace/queue"), ("//evil.example", "/"), ("https://evil.example", "/")]
    {
        let body = format!("username=nora&password=correct+horse&next={next}");
        let done = site.send(form(Request::post("/login")), &body).await;
        assert_eq!((done.status, done.header("location")), (StatusCode::SEE_OTHER, location));
    }
    let wrong = site.send(form(Request::post("/login")), "username=nora&password=wrong").await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert!(wrong.text.contains("is not right") && wrong.header("set-cookie").is_empty());

    let out = site.post("/logout", "").await;
    assert_eq!(out.header("location"), "/login");
    assert!(out.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(site.fake.deeds(), ["logout"]);
}

fn action_urls(page: &str) -> Vec<String> {
    let urls = page.split("hx-post=\"").skip(1).map(|rest| rest.split('"').next().unwrap().replace("&#38;", "&"));
    urls.filter(|url| url.starts_with("/-/action/")).collect()
}

#[tokio::test]
async fn quick_actions_run_what_the_workspace_says_and_answer_with_a_toast() {
    let site = Site::new().await;
    let urls = action_urls(&site.get("/p/studio/today").await.text);
    assert_eq!(urls.len(), 3);
    for url in &urls {
        let toast = site.post(url, "").await;
        assert_eq!(toast.status, StatusCode::OK);
        assert!(toast.text.contains("toast ok") && toast.text.contains("/workspace/jobs/j9"), "{}", toast.text);
    }
    let deeds = site.fake.deeds();
    assert_eq!(deeds[0], "skill weekly-client-report for reporting-analyst enqueue=true");
    assert_eq!(deeds[1], "trigger link-check");
    assert_eq!(
        deeds[2],
        "upsert \"agent_chat\" \"paused\" {\"agent\":\"account-director\",\"prompt\":\"What changed since yesterday?\"}"
    );
    assert!(deeds[3].starts_with("trigger quick-action:"));
    // The page was drawn before the workspace changed.
    site.fake.state.lock().unwrap().perspectives[0].pages[0].components[1].config_json =
        json!({"actions": [{"label": "Delete everything", "skill": "delete"}]}).to_string();
    let stale = site.post(&urls[0], "").await;
    assert!(stale.text.contains("toast bad") && stale.text.contains("has changed"), "{}", stale.text);
    assert_eq!(site.fake.deeds().len(), 4);
}

#[tokio::test]
async fn other_buttons_reach_the_runner() {
    let site = Site::new().await;
    assert!(site.post("/-/event/weekly-report/trigger", "").await.text.contains("toast ok"));
    assert!(site.post("/-/skill/health-check/run", "agent=ops-monitor&input=all").await.text.contains("toast ok"));
    assert!(site.post("/-/job/j4/cancel", "").await.text.contains("Cancelled"));
    assert_eq!(
        site.fake.deeds(),
        ["trigger weekly-report", "skill health-check for ops-monitor enqueue=true", "cancel j4"]
    );
}

/// The row of a job in a list of jobs.
fn row<'a>(page: &'a str, id: &str) -> &'a str {
    let start = page.find(&format!("<li><a class=\"job\" href=\"/workspace/jobs/{id}\"")).unwrap();
    &page[start..start + page[start..].find("</li>").unwrap()]
}

#[tokio::test]
async fn what_failed_or_was_cancelled_is_retried_from_its_row_and_nothing_else_is() {
    let site = Site::new().await;
    site.fake.state.lock().unwrap().jobs[2].state = "cancelled".into();
    let page = site.get("/workspace/queue").await.text;
    for (id, retried) in [("j4", false), ("j3", false), ("j2", true), ("j1", true)] {
        let form = format!("<form class=\"retry\" method=\"post\" action=\"/-/job/{id}/retry\"");
        assert_eq!(row(&page, id).contains(&form), retried, "{id}");
    }
    let dead = row(&page, "j1");
    assert!(dead.contains("the mail server answered 550") && dead.contains("Send invoice reminders</span></button>"));
    assert!(site.get("/workspace/jobs/j1").await.text.contains("/-/job/j1/retry"));

    let toast = site.post("/-/job/j1/retry", "").await;
    assert!(toast.text.contains("toast ok") && toast.text.contains("/workspace/jobs/j1"), "{}", toast.text);
    // Somebody else was quicker.
    assert!(site.post("/-/job/j1/retry", "").await.text.contains("toast bad"));
    assert!(site.post("/-/job/j4/retry", "").await.text.contains("toast bad"));
    // A browser without the script is led to the job.
    let plain = with_session(Request::post("/-/job/j2/retry"))
        .header("content-type", "application/x-www-form-urlencoded")
        .header("sec-fetch-site", "same-origin");
    let plain = site.send(plain, "").await;
    assert_eq!((plain.status, plain.header("location")), (StatusCode::SEE_OTHER, "/workspace/jobs/j2"));
    assert_eq!(site.fake.deeds(), ["retry j1", "retry j2"]);
    let page = site.get("/workspace/queue").await.text;
    assert!(!page.contains("class=\"retry\"") && page.contains("Nothing has failed"));
}

#[tokio::test]
async fn nobody_without_a_session_retries_a_job() {
    let site = Site::new().await;
    for cookie in ["", "__Host-nexaas_session=old.user.token"] {
        let got = site.send(form(Request::post("/-/job/j1/retry")).header("cookie", cookie), "").await;
        assert_eq!(got.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(
        site.send(with_session(Request::get("/-/job/j1/retry")), "").await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
    assert!(site.fake.deeds().is_empty());
}

#[tokio::test]
async fn a_blocked_job_names_the_key_that_it_waits_for() {
    let site = Site::new().await;
    {
        let mut state = site.fake.state.lock().unwrap();
        state.jobs[1].blocked = true;
        state.jobs[1].concurrency_key = format!("client:lumen {HOSTILE}");
    }
    let page = site.get("/workspace/queue").await.text;
    let blocked = row(&page, "j3");
    assert!(blocked.contains("Blocked") && blocked.contains("client:lumen"), "{blocked}");
    assert!(!page.contains(HOSTILE));
}

#[tokio::test]
async fn a_widget_whose_data_fails_says_so_and_the_page_stands() {
    let site = Site::new().await;
    site.fake.state.lock().unwrap().registries_down = true;
    let page = site.get("/p/studio/today").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.text.contains("This part has no data right now") && page.text.contains("Check broken links"));
    let widget = site.get("/-/partial/widget/studio/today/5").await;
    assert_eq!(widget.status, StatusCode::OK);
    assert!(widget.text.contains("Try again"));
}

#[tokio::test]
async fn a_runner_that_is_gone_gives_a_calm_page_that_looks_again() {
    let site = Site { app: app(None), fake: Fake::new(), _supervisor: Supervisor::new() };
    let page = site.get("/p/studio/today").await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(page.text.contains("One moment") && page.text.contains("http-equiv=\"refresh\""));
    assert_eq!(page.header("retry-after"), "2");
}

#[tokio::test]
async fn the_grid_is_redrawn_only_when_the_page_was_described_anew() {
    let site = Site::new().await;
    let page = site.get("/p/studio/talk").await.text;
    let url = page.split("hx-get=\"/-/partial/page").nth(1).unwrap().split('"').next().unwrap();
    let url = format!("/-/partial/page{url}");
    assert_eq!(site.get(&url).await.status, StatusCode::NO_CONTENT);
    site.fake.state.lock().unwrap().perspectives[0].pages[1].components[0].title = "Renamed".into();
    let grid = site.get(&url).await;
    assert!(grid.status == StatusCode::OK && grid.text.contains("Renamed"));
}

#[tokio::test]
async fn the_bus_reaches_the_page_as_topics_and_resumes_where_it_was() {
    let site = Site::new().await;
    let request = with_session(Request::get("/-/stream/bus")).header("last-event-id", "41");
    let response = site.raw(request, "").await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(site.fake.deeds(), ["watch after 41"]);
    let event = |seq: u64, kind: &str| wire::BusEvent { seq, r#type: kind.into(), ..Default::default() };
    site.fake.bus.send(event(42, "job.succeeded")).unwrap();
    let mut body = response.into_body();
    let mut text = String::new();
    while !text.contains("event: usage") {
        let frame = body.frame().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    assert!(text.contains("event: queue") && text.contains("id: 42"), "{text}");
}

fn chat_event(seq: u64, kind: &str, content: &str) -> wire::ChatEvent {
    wire::ChatEvent { session_id: "s1".into(), seq, r#type: kind.into(), content: content.into() }
}

#[tokio::test]
async fn an_answer_streams_and_ends_as_safe_markup() {
    let site = Site::new().await;
    {
        let mut state = site.fake.state.lock().unwrap();
        state.chat =
            vec![chat_event(5, "chunk", "It is "), chat_event(6, "chunk", "**fine**"), chat_event(7, "done", "")];
        let content = format!("It is **fine** {HOSTILE}");
        state.messages = vec![wire::ChatMessage { role: "assistant".into(), content, ..Default::default() }];
    }
    let sent = with_session(form(Request::post("/-/chat"))).header("accept", "application/json");
    let sent = site.send(sent, "agent=account-director&message=How+are+things%3F&session_id=").await;
    assert_eq!(sent.text, json!({"session_id": "s1", "seq": 4}).to_string());
    assert_eq!(site.fake.deeds(), ["chat account-director: How are things?"]);

    let stream = site.get("/-/stream/chat/s1?after=4&upto=0").await.text;
    assert!(stream.contains("id: 5") && stream.contains("\"It is \"") && stream.contains("event: done"), "{stream}");
    assert!(stream.contains("<strong>fine</strong>") && !stream.contains("<script"), "{stream}");
    // The browser lost the connection after the first chunk.
    let again = with_session(Request::get("/-/stream/chat/s1?after=4&upto=0")).header("last-event-id", "5");
    let again = site.send(again, "").await.text;
    assert!(!again.contains("id: 5") && again.contains("id: 6"), "{again}");

    let empty = with_session(form(Request::post("/-/chat"))).header("accept", "application/json");
    let empty = site.send(empty, "agent=a&message=+").await;
    assert_eq!(empty.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(empty.text, json!({"detail": "message must not be empty"}).to_string());
}

#[tokio::test]
async fn a_reload_takes_up_the_running_turn_and_not_the_ones_before() {
    let site = Site::new().await;
    {
        let mut state = site.fake.state.lock().unwrap();
        state.chat = vec![
            chat_event(1, "chunk", "old answer"),
            chat_event(2, "done", ""),
            chat_event(3, "chunk", "new "),
            chat_event(4, "chunk", "answer"),
        ];
        let message = |role: &str, content: &str| wire::ChatMessage {
            role: role.into(),
            content: content.into(),
            ..Default::default()
        };
        state.messages = vec![
            message("user", "one"),
            message("assistant", &format!("# Old\n\n{HOSTILE}")),
            message("user", &format!("two {HOSTILE}")),
        ];
    }
    let page = site.get("/p/studio/talk?chat-0=s1").await.text;
    assert!(page.contains("data-live=\"true\"") && page.contains("data-seq=\"4\"") && !page.contains(HOSTILE));
    let stream = site.get("/-/stream/chat/s1?after=0&upto=4").await.text;
    assert!(
        stream.contains("\"new answer\"") && stream.contains("id: 4") && !stream.contains("old answer"),
        "{stream}"
    );
    assert!(stream.contains("event: idle"));
}

#[tokio::test]
async fn assets_are_kept_for_ever_under_their_hash() {
    let site = Site::new().await;
    for name in ["nexaas.css", "nexaas.js", "htmx.min.js", "htmx-sse.js", "icon.svg"] {
        let url = nexaas_dashboard::assets::url(name);
        let got = site.send(Request::get(&url), "").await;
        assert_eq!(got.status, StatusCode::OK);
        assert_eq!(got.header("cache-control"), "public, max-age=31536000, immutable");
        let known = Request::get(&url).header("if-none-match", got.header("etag"));
        assert_eq!(site.send(known, "").await.status, StatusCode::NOT_MODIFIED);
    }
    assert_eq!(
        site.send(Request::builder().method(Method::GET).uri("/-/assets/..%2fx"), "").await.status,
        StatusCode::NOT_FOUND
    );
}
