//! Who may talk to whom: the control plane to exactly the runner it means, a runner to nobody. Real TLS over loopback.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use nexaas::domain::TenantId;
use nexaas::domain::tenant::{BackendKind, Desired, Limits, Tenant};
use nexaas::error::Kind;
use nexaas::orchestrator::RunnerIdentity;
use nexaas::pki::Authority;
use nexaas::runner_client::{Configuration, RunnerClients};
use nexaas_common::clock::{Clock as _, ManualClock, SystemClock};
use nexaas_common::secret::ExposeSecret as _;
use nexaas_common::task::{OnExit, Supervisor};
use nexaas_proto::runner::v1 as wire;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const LIMIT: Duration = Duration::from_secs(20);

fn authority() -> (Arc<Authority>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Arc::new(Authority::load_or_create(dir.path(), SystemClock::shared()).unwrap()), dir)
}

fn chain(identity: &RunnerIdentity) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let certificate = CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.expose_secret().as_bytes()).unwrap();
    (vec![certificate], key)
}

fn roots(ca_pem: &str) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    Arc::new(roots)
}

/// What a runner's TLS is: its own certificate, and a client that its authority has signed for calling.
fn server(identity: &RunnerIdentity) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(&identity.ca_pem), provider.clone()).build().unwrap();
    let (certificates, key) = chain(identity);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// Accepts one connection, and answers what the handshake came to.
async fn accept_one(
    acceptor: TlsAcceptor,
) -> (u16, tokio::sync::oneshot::Receiver<Result<String, String>>, Supervisor) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (send, receive) = tokio::sync::oneshot::channel();
    let supervisor = Supervisor::new();
    supervisor.spawn("server", OnExit::Expected, move |_| async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let outcome = match acceptor.accept(tcp).await {
            Ok(mut tls) => {
                let protocol = tls.get_ref().1.alpn_protocol().map(|p| String::from_utf8_lossy(p).into_owned());
                tls.write_all(b"hello").await.unwrap();
                tls.shutdown().await.unwrap();
                Ok(protocol.unwrap_or_default())
            }
            Err(error) => Err(error.to_string()),
        };
        let _ = send.send(outcome);
    });
    (port, receive, supervisor)
}

fn tenant(id: TenantId, port: u16) -> Tenant {
    let now = SystemClock.now();
    Tenant {
        id,
        slug: "acme".parse().unwrap(),
        display_name: "Acme".into(),
        desired: Desired::Running,
        generation: 1,
        observed_generation: 1,
        template: "fresh".into(),
        backend: BackendKind::Process,
        limits: Limits::default(),
        port: Some(port),
        subnet: None,
        conditions: Vec::new(),
        created_at: now,
        updated_at: now,
    }
}

#[tokio::test]
async fn the_control_plane_reaches_the_runner_it_means() {
    let (authority, _dir) = authority();
    let id = TenantId::generate();
    let (port, outcome, _supervisor) = accept_one(server(&authority.issue_runner(id).unwrap())).await;
    let clients = RunnerClients::new(authority).unwrap();
    let mut stream = clients.connect_http(&tenant(id, port)).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
    assert_eq!(outcome.await.unwrap(), Ok("http/1.1".to_owned()));
}

#[tokio::test]
async fn another_tenants_runner_on_the_port_is_refused() {
    let (authority, _dir) = authority();
    let (meant, other) = (TenantId::generate(), TenantId::generate());
    let (port, outcome, _supervisor) = accept_one(server(&authority.issue_runner(other).unwrap())).await;
    let clients = RunnerClients::new(authority).unwrap();
    let error = clients.connect_http(&tenant(meant, port)).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable { what: "runner" });
    assert!(error.public().contains("did not prove"), "{error}");
    assert!(outcome.await.unwrap().is_err());
}

#[tokio::test]
async fn a_runner_of_another_installation_is_refused() {
    let (ours, _a) = authority();
    let (theirs, _b) = authority();
    let id = TenantId::generate();
    let (port, outcome, _supervisor) = accept_one(server(&theirs.issue_runner(id).unwrap())).await;
    let error = RunnerClients::new(ours).unwrap().connect_http(&tenant(id, port)).await.unwrap_err();
    assert!(error.public().contains("did not prove"), "{error}");
    assert!(outcome.await.unwrap().is_err());
}

#[tokio::test]
async fn a_runners_certificate_does_not_open_another_runner() {
    let (authority, _dir) = authority();
    let (attacker, victim) = (TenantId::generate(), TenantId::generate());
    let stolen = authority.issue_runner(attacker).unwrap();
    let (port, outcome, _supervisor) = accept_one(server(&authority.issue_runner(victim).unwrap())).await;
    let (certificates, key) = chain(&stolen);
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(authority.ca_pem()))
        .with_client_auth_cert(certificates, key)
        .unwrap();
    let name = ServerName::try_from(nexaas::pki::runner_dns_name(victim)).unwrap();
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    // In TLS 1.3 the refusal reaches the client after its part of the handshake.
    if let Ok(mut stream) = TlsConnector::from(Arc::new(config)).connect(name, tcp).await {
        let mut nothing = [0; 5];
        assert!(stream.read_exact(&mut nothing).await.is_err());
    }
    assert!(outcome.await.unwrap().is_err());
}

#[tokio::test]
async fn an_expired_runner_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemClock.now();
    let clock = ManualClock::new(now);
    let authority = Arc::new(Authority::load_or_create(dir.path(), clock.clone()).unwrap());
    let id = TenantId::generate();
    let (port, _outcome, _supervisor) = accept_one(server(&authority.issue_runner(id).unwrap())).await;
    clock.advance(chrono::Duration::days(500));
    let error = RunnerClients::new(authority).unwrap().connect_http(&tenant(id, port)).await.unwrap_err();
    assert!(error.public().contains("did not prove"), "{error}");
}

/// A runner's Control service that remembers what it was told.
#[derive(Debug, Default)]
struct Recorder {
    answers_as: String,
    configured: Arc<Mutex<Vec<(String, String)>>>,
}

#[tonic::async_trait]
impl wire::control_server::Control for Recorder {
    async fn hello(
        &self,
        request: tonic::Request<wire::HelloRequest>,
    ) -> Result<tonic::Response<wire::HelloResponse>, tonic::Status> {
        assert!(request.metadata().contains_key("grpc-timeout"));
        Ok(tonic::Response::new(wire::HelloResponse {
            tenant_id: self.answers_as.clone(),
            boot_id: "boot".into(),
            generation: 4,
            ..wire::HelloResponse::default()
        }))
    }
    async fn configure(
        &self,
        request: tonic::Request<wire::ConfigureRequest>,
    ) -> Result<tonic::Response<wire::ConfigureResponse>, tonic::Status> {
        self.configured.lock().unwrap().extend(request.into_inner().secrets);
        Ok(tonic::Response::new(wire::ConfigureResponse {}))
    }
    async fn initialize_workspace(
        &self,
        _: tonic::Request<wire::InitializeWorkspaceRequest>,
    ) -> Result<tonic::Response<wire::InitializeWorkspaceResponse>, tonic::Status> {
        let mut status = tonic::Status::invalid_argument("template does not exist");
        status.metadata_mut().insert("x-nexaas-field", "template".parse().unwrap());
        Err(status)
    }
}

async fn grpc(authority: &Authority, id: TenantId, service: Recorder) -> (u16, Supervisor) {
    let acceptor = server(&authority.issue_runner(id).unwrap());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let incoming = async_stream::stream! {
        while let Ok((tcp, _)) = listener.accept().await {
            yield acceptor.accept(tcp).await;
        }
    };
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let supervisor = Supervisor::new();
    supervisor.spawn("grpc", OnExit::Expected, move |token| async move {
        let server = tonic::transport::Server::builder()
            .add_service(wire::control_server::ControlServer::new(service))
            .add_service(health_service);
        let _ = server.serve_with_incoming_shutdown(incoming, token.cancelled_owned()).await;
    });
    (port, supervisor)
}

#[tokio::test]
async fn the_control_calls_carry_what_they_must_and_refusals_name_their_field() {
    let (authority, _dir) = authority();
    let id = TenantId::generate();
    let recorder = Recorder { answers_as: id.to_string(), ..Recorder::default() };
    let configured = recorder.configured.clone();
    let (port, supervisor) = grpc(&authority, id, recorder).await;
    let clients = RunnerClients::new(authority).unwrap();
    let control = clients.control(&tenant(id, port)).unwrap();
    let hello = control.hello().await.unwrap();
    assert_eq!((hello.boot_id.as_str(), hello.generation), ("boot", 4));
    control.health().await.unwrap();
    let settings = Configuration {
        secrets: [("ANTHROPIC_API_KEY".to_owned(), "canary".to_owned().into())].into(),
        ..Configuration::default()
    };
    assert!(!format!("{settings:?}").contains("canary"));
    control.configure(&settings).await.unwrap();
    assert_eq!(*configured.lock().unwrap(), [("ANTHROPIC_API_KEY".to_owned(), "canary".to_owned())]);
    let refused = control.initialize_workspace("none").await.unwrap_err();
    assert_eq!(refused.kind, Kind::Invalid { field: "template".into() });
    supervisor.shutdown(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_runner_that_says_it_is_another_tenants_is_refused_even_with_the_right_certificate() {
    let (authority, _dir) = authority();
    let id = TenantId::generate();
    let recorder = Recorder { answers_as: TenantId::generate().to_string(), ..Recorder::default() };
    let (port, _supervisor) = grpc(&authority, id, recorder).await;
    let error = RunnerClients::new(authority).unwrap().control(&tenant(id, port)).unwrap().hello().await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable { what: "runner" });
    assert!(error.public().contains("another tenant"), "{error}");
}

#[tokio::test]
async fn grpc_to_the_wrong_runner_is_unavailable_and_a_moved_port_gets_a_new_channel() {
    let (authority, _dir) = authority();
    let (meant, other) = (TenantId::generate(), TenantId::generate());
    let wrong = Recorder { answers_as: meant.to_string(), ..Recorder::default() };
    let right = Recorder { answers_as: meant.to_string(), ..Recorder::default() };
    let (wrong_port, _a) = grpc(&authority, other, wrong).await;
    let (right_port, _b) = grpc(&authority, meant, right).await;
    let clients = RunnerClients::new(authority).unwrap();
    let error = clients.control(&tenant(meant, wrong_port)).unwrap().hello().await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable { what: "runner" }, "{}", error.chain());
    clients.control(&tenant(meant, right_port)).unwrap().hello().await.unwrap();
}

#[tokio::test]
async fn a_tenant_without_a_port_has_no_runner_yet() {
    let (authority, _dir) = authority();
    let without = Tenant { port: None, ..tenant(TenantId::generate(), 1) };
    let error = RunnerClients::new(authority).unwrap().connect_http(&without).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable { what: "runner" });
}
