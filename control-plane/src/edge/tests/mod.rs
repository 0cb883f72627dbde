//! The edge on a real socket, in front of a backend that counts what it is asked.

use super::follow::{TenantSource, follow};
use super::route::tests::tenant;
use super::{BoxIo, Edge, EdgeConfig, Limits, RouteTable, Upstream, server};
use crate::domain::TenantId;
use crate::domain::tenant::{Desired, Tenant};
use crate::error::{Error, Result};
use crate::http::{PublicUrl, RemoteAddr, TenantContext, harden};
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, WebSocketUpgrade, ws};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use futures::{SinkExt as _, StreamExt as _};
use nexaas_common::task::{OnExit, Supervisor};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, broadcast, mpsc};

mod bodies;
mod framing;
mod websockets;

/// One request as the backend saw it.
#[derive(Debug, Clone)]
struct Seen {
    tenant: String,
    method: String,
    target: String,
    headers: String,
    body: String,
}

#[derive(Debug, Default)]
struct Backend {
    seen: Mutex<Vec<Seen>>,
    connections: Mutex<HashMap<String, usize>>,
    release: Notify,
    received: AtomicUsize,
    arrived: Notify,
}

impl Backend {
    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
    fn targets(&self) -> Vec<String> {
        self.seen().into_iter().map(|s| format!("{} {}", s.method, s.target)).collect()
    }
}

/// Plays every tenant's runner, over a pipe of its own per connection.
#[derive(Debug)]
struct Pipes {
    backend: Arc<Backend>,
    supervisor: Supervisor,
    down: Mutex<bool>,
}

#[async_trait]
impl Upstream for Pipes {
    async fn connect(&self, tenant: &Tenant) -> Result<BoxIo> {
        if *self.down.lock().unwrap() {
            return Err(Error::unavailable("the tenant's runner", "connection refused"));
        }
        let (near, far) = tokio::io::duplex(64 * 1024);
        let slug = tenant.slug.to_string();
        *self.backend.connections.lock().unwrap().entry(slug.clone()).or_default() += 1;
        let app = runner(self.backend.clone(), slug);
        self.supervisor.spawn("runner", OnExit::Expected, |token| async move {
            let service = hyper_util::service::TowerToHyperService::new(app);
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(far), service)
                .with_upgrades();
            let _ = token.run_until_cancelled(served).await;
        });
        Ok(Box::new(near))
    }
}

fn runner(backend: Arc<Backend>, slug: String) -> Router {
    Router::new()
        .route("/api/echo", any(echo))
        .route(
            "/api/headers",
            get(|| async {
                (
                    [
                        ("set-cookie", "__Host-nexaas_session=evil; Path=/; Secure"),
                        ("x-nexaas-role", "owner"),
                        ("x-own", "kept"),
                    ],
                    "ok",
                )
            }),
        )
        .route(
            "/api/events/stream",
            get(|Extension(b): Extension<Arc<Backend>>| async move {
                let stream = async_stream::stream! {
                    yield Ok::<_, std::io::Error>("data: first\n\n");
                    b.release.notified().await;
                    yield Ok("data: second\n\n");
                };
                ([("content-type", "text/event-stream")], Body::from_stream(stream)).into_response()
            }),
        )
        .route(
            "/api/upload",
            post(|Extension(b): Extension<Arc<Backend>>, body: Body| async move {
                let mut stream = body.into_data_stream();
                while let Some(Ok(chunk)) = stream.next().await {
                    b.received.fetch_add(chunk.len(), Ordering::SeqCst);
                    b.arrived.notify_one();
                }
                b.received.load(Ordering::SeqCst).to_string()
            }),
        )
        .route(
            "/api/chat",
            any(|upgrade: WebSocketUpgrade| async move {
                upgrade.on_upgrade(|mut socket| async move {
                    while let Some(Ok(ws::Message::Text(text))) = socket.recv().await {
                        if socket.send(ws::Message::Text(format!("echo {text}").into())).await.is_err() {
                            break;
                        }
                    }
                })
            }),
        )
        .route(
            "/api/wait",
            get(|Extension(b): Extension<Arc<Backend>>| async move {
                b.arrived.notify_one();
                b.release.notified().await;
                "late"
            }),
        )
        .fallback(echo)
        .layer(axum::middleware::from_fn(count))
        .layer(Extension(backend))
        .layer(Extension(Name(slug)))
}

#[derive(Clone)]
struct Name(String);

async fn count(
    Extension(backend): Extension<Arc<Backend>>,
    Extension(name): Extension<Name>,
    request: Request,
    next: axum::middleware::Next,
) -> Response {
    let mut headers: Vec<String> =
        request.headers().iter().map(|(n, v)| format!("{n}: {}", String::from_utf8_lossy(v.as_bytes()))).collect();
    headers.sort();
    backend.seen.lock().unwrap().push(Seen {
        tenant: name.0,
        method: request.method().to_string(),
        target: request.uri().to_string(),
        headers: headers.join("\n"),
        body: String::new(),
    });
    next.run(request).await
}

async fn echo(Extension(backend): Extension<Arc<Backend>>, request: Request) -> String {
    let bytes = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap_or_default();
    let body = String::from_utf8_lossy(&bytes).into_owned();
    if let Some(last) = backend.seen.lock().unwrap().last_mut() {
        last.body.clone_from(&body);
    }
    format!("echo:{body}")
}

struct Harness {
    address: SocketAddr,
    backend: Arc<Backend>,
    pipes: Arc<Pipes>,
    edge: Arc<Edge>,
    supervisor: Supervisor,
}

fn table() -> Vec<Tenant> {
    let mut paused = tenant("paused");
    paused.desired = Desired::Suspended;
    let mut fresh = tenant("fresh1");
    fresh.conditions.clear();
    vec![tenant("acme"), tenant("other"), paused, fresh]
}

async fn start() -> Harness {
    start_with(Limits::default()).await
}

async fn start_with(limits: Limits) -> Harness {
    let supervisor = Supervisor::new();
    let backend = Arc::new(Backend::default());
    let pipes = Arc::new(Pipes { backend: backend.clone(), supervisor: supervisor.clone(), down: Mutex::new(false) });
    let public =
        PublicUrl { scheme: "http".into(), base_domain: "base.example".into(), port: Some(80), cookie_secure: true };
    let console = harden(
        Router::new()
            .route(
                "/",
                get(|Extension(remote): Extension<RemoteAddr>| async move { format!("console for {}", remote.0) }),
            )
            .route("/change", post(|| async { "changed" })),
        &public,
    );
    let dashboard = harden(
        Router::new().route(
            "/",
            get(|Extension(c): Extension<TenantContext>| async move { format!("dashboard of {}", c.tenant.slug) }),
        ),
        &public,
    );
    let config = EdgeConfig { public, trusted_proxies: vec![], limits };
    let edge = Edge::new(config, pipes.clone(), console, dashboard, supervisor.token().child_token());
    edge.install(RouteTable::build("base.example", table()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = edge.clone();
    supervisor
        .spawn("edge", OnExit::Expected, |token| async move { server::serve(serving, listener, token).await.unwrap() });
    Harness { address, backend, pipes, edge, supervisor }
}

/// How long a test waits for what must come; never a measure of anything.
const PATIENCE: Duration = Duration::from_secs(20);

impl Harness {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
    /// Sends bytes as they are and reads until the server closes; every request in `bytes` should end with `Connection: close`.
    async fn raw(&self, bytes: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A refused connection may be reset after the answer.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server closes");
        String::from_utf8_lossy(&answer).into_owned()
    }
    async fn get(&self, host: &str, path: &str, headers: &str) -> String {
        self.raw(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n")).await
    }
}

/// Reads until `needle` has come.
async fn read_until(stream: &mut TcpStream, needle: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(needle) {
        let n = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.expect("more comes").unwrap();
        assert_ne!(n, 0, "the connection ended before {needle:?}: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    text
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

#[tokio::test]
async fn a_host_leads_to_its_own_destination() {
    let h = start().await;
    for (host, path, expected, text) in [
        ("console.base.example", "/", "200", "console for 127.0.0.1"),
        ("acme.base.example", "/", "200", "dashboard of acme"),
        ("ACME.base.example.", "/", "200", "dashboard of acme"),
        ("other.base.example:8080", "/", "200", "dashboard of other"),
        ("acme.base.example", "/api/echo", "200", "echo:"),
        ("base.example", "/x", "307", "location: http://console.base.example/"),
        ("nobody.base.example", "/", "404", "problem"),
        ("acme.base.example.evil.example", "/api/echo", "421", "problem"),
        ("127.0.0.1", "/", "421", "problem"),
        ("paused.base.example", "/api/echo", "503", "suspended by its operator"),
        ("fresh1.base.example", "/api/echo", "503", "retry-after"),
    ] {
        let answer = h.get(host, path, "").await;
        assert_eq!(status(&answer), expected, "{host}: {answer}");
        assert!(answer.contains(text), "{host}: {answer}");
    }
    assert_eq!(h.backend.targets(), ["GET /api/echo"]);
}

#[tokio::test]
async fn a_waiting_tenant_is_a_page_for_people_that_loads_itself_again() {
    let h = start().await;
    let answer = h.get("fresh1.base.example", "/", "Accept: text/html\r\n").await;
    assert_eq!(status(&answer), "503");
    assert!(answer.contains("text/html") && answer.contains("http-equiv=\"refresh\""), "{answer}");
    let asset = h.get("fresh1.base.example", "/-/assets/nexaas.css", "").await;
    assert_eq!(status(&asset), "200");
}

#[tokio::test]
async fn connections_to_runners_are_kept_and_never_shared_between_tenants() {
    let h = start().await;
    let mut stream = h.connect().await;
    for n in 0..6 {
        let host = if n % 2 == 0 { "acme" } else { "other" };
        stream
            .write_all(format!("GET /api/echo HTTP/1.1\r\nHost: {host}.base.example\r\n\r\n").as_bytes())
            .await
            .unwrap();
        read_until(&mut stream, "echo:").await;
    }
    assert_eq!(h.backend.seen().len(), 6);
    let connections = h.backend.connections.lock().unwrap().clone();
    for (tenant, count) in connections {
        assert!(count < 3, "{tenant} needed {count} connections for 3 requests one after the other");
    }
    let seen: Vec<String> = h.backend.seen().into_iter().map(|s| s.tenant).collect();
    assert_eq!(seen, ["acme", "other", "acme", "other", "acme", "other"]);
}

#[tokio::test]
async fn a_runner_sees_what_we_know_and_nothing_a_caller_claims() {
    let h = start().await;
    h.get(
        "acme.base.example",
        "/api/echo?a=1",
        "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Nexaas-Tenant: other\r\nX-Real-IP: 6.6.6.6\r\n\
         Cookie: __Host-nexaas_session=secret; own=1\r\nCookie: nexaas_console=secret\r\nAuthorization: Bearer key\r\n",
    )
    .await;
    let seen = h.backend.seen().remove(0);
    assert_eq!(seen.target, "/api/echo?a=1");
    assert!(
        !seen.headers.contains("6.6.6.6") && !seen.headers.contains("secret") && !seen.headers.contains("nexaas"),
        "{}",
        seen.headers
    );
    for line in [
        "authorization: Bearer key",
        "cookie: own=1",
        "host: acme.base.example",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
    ] {
        assert!(seen.headers.contains(line), "{line} in {}", seen.headers);
    }
}

#[tokio::test]
async fn a_runner_cannot_set_the_panels_cookies() {
    let h = start().await;
    let answer = h.get("acme.base.example", "/api/headers", "").await;
    assert!(answer.contains("x-own: kept"), "{answer}");
    assert!(!answer.contains("nexaas_session") && !answer.contains("x-nexaas-role"), "{answer}");
}

#[tokio::test]
async fn a_runner_that_is_down_is_a_503_that_says_when_to_return() {
    let h = start().await;
    *h.pipes.down.lock().unwrap() = true;
    let answer = h.get("acme.base.example", "/api/echo", "").await;
    assert_eq!(status(&answer), "503");
    assert!(answer.contains("retry-after: ") && answer.contains("application/problem+json"), "{answer}");
    assert!(!answer.contains("connection refused"), "the cause stays in the log: {answer}");
    *h.pipes.down.lock().unwrap() = false;
    assert_eq!(status(&h.get("acme.base.example", "/api/echo", "").await), "200");
}

#[tokio::test]
async fn one_tenants_crowd_does_not_take_anothers_place() {
    let h = start_with(Limits { per_tenant: 1, ..Limits::default() }).await;
    let mut held = h.connect().await;
    held.write_all(b"GET /api/wait HTTP/1.1\r\nHost: acme.base.example\r\nConnection: close\r\n\r\n").await.unwrap();
    tokio::time::timeout(PATIENCE, h.backend.arrived.notified()).await.unwrap();
    assert_eq!(status(&h.get("acme.base.example", "/api/echo", "").await), "503");
    assert_eq!(status(&h.get("other.base.example", "/api/echo", "").await), "200");
    h.backend.release.notify_one();
    read_until(&mut held, "late").await;
    assert_eq!(status(&h.get("acme.base.example", "/api/echo", "").await), "200");
}

#[tokio::test]
async fn a_silent_runner_is_given_up() {
    let h = start_with(Limits { answer: Duration::from_millis(50), ..Limits::default() }).await;
    assert_eq!(status(&h.get("acme.base.example", "/api/wait", "").await), "504");
}

#[tokio::test]
async fn a_form_from_a_sibling_changes_nothing() {
    let h = start().await;
    let post = |headers: &str| {
        format!(
            "POST /change HTTP/1.1\r\nHost: console.base.example\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n"
        )
    };
    for refused in
        ["", "Origin: http://acme.base.example\r\n", "Sec-Fetch-Site: same-site\r\n", "Sec-Fetch-Site: cross-site\r\n"]
    {
        assert_eq!(status(&h.raw(&post(refused)).await), "403", "{refused}");
    }
    for allowed in ["Origin: http://console.base.example\r\n", "Sec-Fetch-Site: same-origin\r\n"] {
        assert_eq!(status(&h.raw(&post(allowed)).await), "200", "{allowed}");
    }
}

#[tokio::test]
async fn an_oversized_head_is_refused() {
    let h = start().await;
    let answer = h.get("acme.base.example", "/api/echo", &format!("X-Long: {}\r\n", "x".repeat(40_000))).await;
    assert!(["400", "431"].contains(&status(&answer)), "{answer}");
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    let answer = h.get("acme.base.example", "/api/echo", &many).await;
    assert_eq!(status(&answer), "431", "{answer}");
    assert_eq!(h.backend.targets(), Vec::<String>::new());
}

#[tokio::test]
async fn shutdown_lets_a_request_finish_and_ends_every_task() {
    let h = start().await;
    let mut held = h.connect().await;
    held.write_all(b"GET /api/wait HTTP/1.1\r\nHost: acme.base.example\r\n\r\n").await.unwrap();
    tokio::time::timeout(PATIENCE, h.backend.arrived.notified()).await.unwrap();
    h.backend.release.notify_one();
    read_until(&mut held, "late").await;
    h.supervisor.shutdown(PATIENCE).await.unwrap();
    assert!(h.edge.pools.tasks().is_empty());
}

#[derive(Debug)]
struct Rows {
    rows: Mutex<Vec<Tenant>>,
    fail: Mutex<bool>,
    changes: broadcast::Sender<TenantId>,
    read: mpsc::UnboundedSender<()>,
}

#[async_trait]
impl TenantSource for Rows {
    async fn tenants(&self) -> Result<Vec<Tenant>> {
        let answer = if *self.fail.lock().unwrap() {
            Err(Error::unavailable("the database", "gone"))
        } else {
            Ok(self.rows.lock().unwrap().clone())
        };
        let _ = self.read.send(());
        answer
    }
    fn changes(&self) -> broadcast::Receiver<TenantId> {
        self.changes.subscribe()
    }
}

#[tokio::test]
async fn the_table_follows_the_rows_and_outlives_a_silent_database() {
    let h = start().await;
    let (read, mut reads) = mpsc::unbounded_channel();
    let rows =
        Arc::new(Rows { rows: Mutex::default(), fail: Mutex::default(), changes: broadcast::Sender::new(8), read });
    let (edge, source) = (h.edge.clone(), rows.clone());
    h.supervisor.spawn("routes", OnExit::Expected, |token| follow(edge, source, token));
    reads.recv().await.unwrap();
    let new = tenant("newcomer");
    rows.rows.lock().unwrap().push(new.clone());
    while h.edge.routes().load().len() != 1 {
        rows.changes.send(new.id).ok();
        reads.recv().await.unwrap();
        tokio::task::yield_now().await;
    }
    *rows.fail.lock().unwrap() = true;
    rows.changes.send(new.id).ok();
    // Two reads: the first may still be the last good one.
    reads.recv().await.unwrap();
    reads.recv().await.unwrap();
    assert_eq!(h.edge.routes().load().len(), 1);
}
