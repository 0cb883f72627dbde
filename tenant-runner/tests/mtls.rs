//! Who gets through a tenant's TLS: the control plane of this installation and nobody else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use axum::Router;
use axum::routing::get;
use nexaas_common::id::TenantId;
use nexaas_common::task::{OnExit, Supervisor};
use nexaas_runner::listener::Listener;
use nexaas_runner::tls::{self, Identity};
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use support::{Authority, Leaf, uri};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

struct Runner {
    address: SocketAddr,
    name: String,
    supervisor: Supervisor,
    _dir: tempfile::TempDir,
}

async fn runner(authority: &Authority) -> Runner {
    let tenant = TenantId::generate();
    let dir = tempfile::tempdir().unwrap();
    authority.write_identity(dir.path(), &authority.runner(tenant));
    let tls = tls::server_config(&Identity::read(dir.path()).unwrap(), tenant).unwrap();
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let router = Router::new().route("/", get(|| async { "hello" }));
    let supervisor = Supervisor::new();
    let listener = Listener { tcp, tls: Some(Arc::new(tls)), router };
    supervisor.spawn("listener", OnExit::Shutdown, |stop| listener.run(stop, Duration::from_secs(5))).unwrap();
    Runner { address, name: tls::runner_name(tenant), supervisor, _dir: dir }
}

/// The status line, or the error of the handshake. In TLS 1.3 a client hears of its refusal only when it reads.
async fn status(runner: &Runner, client: rustls::ClientConfig) -> std::io::Result<String> {
    let tcp = tokio::net::TcpStream::connect(runner.address).await?;
    let name = runner.name.clone().try_into().unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, tcp).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    text.lines().next().map(str::to_owned).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}

#[tokio::test]
async fn the_control_plane_is_let_in() {
    let authority = Authority::new();
    let runner = runner(&authority).await;
    let client = authority.client(Some(&authority.control_plane()), b"http/1.1");
    assert_eq!(status(&runner, client).await.unwrap(), "HTTP/1.1 200 OK");
    runner.supervisor.shutdown(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn everybody_else_is_refused_in_the_handshake() {
    let authority = Authority::new();
    let foreign = Authority::new();
    let runner = runner(&authority).await;
    let sibling = TenantId::generate();
    let cases: Vec<(&str, Option<Leaf>)> = vec![
        ("no certificate", None),
        ("the same runner's or another runner's certificate", Some(authority.runner(sibling))),
        (
            "a runner's key usage with the control plane's name",
            Some(authority.issue(&[ServerAuth], &[uri(tls::CONTROL_PLANE_URI)])),
        ),
        ("no extended key usage at all", Some(authority.issue(&[], &[uri(tls::CONTROL_PLANE_URI)]))),
        ("a client without a name", Some(authority.issue(&[ClientAuth], &[]))),
        (
            "a name that only begins alike",
            Some(authority.issue(&[ClientAuth], &[uri("spiffe://nexaas/control-plane/x")])),
        ),
        ("another installation's control plane", Some(foreign.control_plane())),
    ];
    for (case, leaf) in cases {
        let client = authority.client(leaf.as_ref(), b"http/1.1");
        let outcome = status(&runner, client).await;
        assert!(outcome.is_err(), "{case}: {outcome:?}");
    }
    let client = authority.client(Some(&authority.control_plane()), b"http/1.1");
    assert!(status(&runner, client).await.is_ok(), "refusals do not disturb the port");
    runner.supervisor.shutdown(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn an_identity_that_cannot_be_right_is_refused_at_start() {
    let authority = Authority::new();
    let (tenant, other) = (TenantId::generate(), TenantId::generate());
    let dir = tempfile::tempdir().unwrap();
    let refusal = Identity::read(dir.path()).unwrap_err();
    assert!(refusal.to_string().starts_with("--identity-dir: "), "{refusal}");
    authority.write_identity(dir.path(), &authority.runner(other));
    let refusal = tls::server_config(&Identity::read(dir.path()).unwrap(), tenant).unwrap_err();
    assert!(refusal.rule.contains("belongs to another tenant"), "{refusal}");
    std::fs::write(dir.path().join("key.pem"), authority.runner(other).key).unwrap();
    let refusal = tls::server_config(&Identity::read(dir.path()).unwrap(), other).unwrap_err();
    assert!(refusal.rule.starts_with("key.pem"), "{refusal}");
    std::fs::write(dir.path().join("ca.pem"), "").unwrap();
    let refusal = tls::server_config(&Identity::read(dir.path()).unwrap(), other).unwrap_err();
    assert!(refusal.rule.starts_with("ca.pem"), "{refusal}");
}

#[tokio::test]
async fn shutdown_lets_an_open_request_finish_and_takes_no_new_one() {
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let (entered, release) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let handler = {
        let (entered, release) = (Arc::clone(&entered), Arc::clone(&release));
        move || async move {
            entered.notify_one();
            release.notified().await;
            "done"
        }
    };
    let supervisor = Supervisor::new();
    let listener = Listener { tcp, tls: None, router: Router::new().route("/slow", get(handler)) };
    supervisor.spawn("listener", OnExit::Expected, |stop| listener.run(stop, Duration::from_secs(30))).unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    entered.notified().await;
    supervisor.token().cancel();
    let gone = async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    release.notify_one();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    assert!(text.ends_with("done"), "{text}");
    supervisor.shutdown(Duration::from_secs(10)).await.unwrap();
}
