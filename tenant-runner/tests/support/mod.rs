//! What several test files need: a small CA like the control plane's, and clients with its certificates.
#![allow(dead_code, reason = "each test file uses its own part")]

use nexaas_common::id::TenantId;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::Arc;

pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

pub struct Leaf {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        Self { pem: cert.pem(), issuer: Issuer::new(params, key) }
    }

    pub fn issue(&self, usages: &[ExtendedKeyUsagePurpose], names: &[SanType]) -> Leaf {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.extended_key_usages = usages.to_vec();
        params.subject_alt_names = names.to_vec();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Leaf { cert: cert.pem(), key: key.serialize_pem() }
    }

    pub fn runner(&self, tenant: TenantId) -> Leaf {
        let name = format!("{tenant}.runner.nexaas.internal");
        self.issue(&[ExtendedKeyUsagePurpose::ServerAuth], &[SanType::DnsName(name.try_into().unwrap())])
    }

    pub fn control_plane(&self) -> Leaf {
        self.issue(&[ExtendedKeyUsagePurpose::ClientAuth], &[uri("spiffe://nexaas/control-plane")])
    }

    /// Writes cert.pem, key.pem and ca.pem as the control plane does.
    pub fn write_identity(&self, dir: &Path, leaf: &Leaf) {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("cert.pem"), &leaf.cert).unwrap();
        std::fs::write(dir.join("key.pem"), &leaf.key).unwrap();
        std::fs::write(dir.join("ca.pem"), &self.pem).unwrap();
    }

    /// A TLS client that trusts this CA and shows `leaf`, if any.
    pub fn client(&self, leaf: Option<&Leaf>, alpn: &[u8]) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match leaf {
            None => builder.with_no_client_auth(),
            Some(leaf) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(leaf.cert.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        config
    }
}

pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub const API_KEY: &str = "test-key-0123456789abcdef";

/// TLS clients and the engine use the process's provider.
pub fn provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

pub fn config(flags: &[&str], env: &[(&str, &str)]) -> nexaas_runner::config::Config {
    use clap::Parser as _;
    use nexaas_runner::cli::{Cli, Command};
    let cli = Cli::try_parse_from(["nexaas-runner", "serve", "--worker-pool-size", "2"].iter().chain(flags)).unwrap();
    let Command::Serve(args) = cli.command else { unreachable!() };
    let env: std::collections::HashMap<String, String> =
        env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    nexaas_runner::config::Config::resolve(&args, &|name| env.get(name).cloned()).unwrap()
}

/// A runner that stands alone in a directory of its own, and a client of it.
pub struct Alone {
    pub runner: nexaas_runner::app::Runner,
    pub api: Api,
    pub dir: tempfile::TempDir,
}

impl Alone {
    pub async fn start() -> Self {
        Self::start_with(&[], |_| {}).await
    }

    pub async fn start_with(flags: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        Self::start_as(flags, prepare, |_| {}).await
    }

    pub async fn start_as(
        flags: &[&str],
        prepare: impl FnOnce(&Path),
        adjust: impl FnOnce(&mut nexaas_runner::config::Config),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        Self::start_in(dir, flags, adjust).await
    }

    /// Stops this runner and starts another on the same files.
    pub async fn restart(self) -> Self {
        let Self { runner, dir, .. } = self;
        runner.stop().await.unwrap();
        Self::start_in(dir, &[], |_| {}).await
    }

    async fn start_in(
        dir: tempfile::TempDir,
        flags: &[&str],
        adjust: impl FnOnce(&mut nexaas_runner::config::Config),
    ) -> Self {
        provider();
        let data = dir.path().to_str().unwrap();
        let flags: Vec<&str> = ["--data-dir", data, "--listen", "127.0.0.1:0"].iter().chain(flags).copied().collect();
        let mut config = config(&flags, &[("API_KEY", API_KEY)]);
        adjust(&mut config);
        let runner =
            nexaas_runner::app::Runner::start(config, nexaas_common::clock::SystemClock::shared(), None).await.unwrap();
        let api = Api {
            base: format!("http://{}", runner.address()),
            http: reqwest::Client::new(),
            token: Some(API_KEY.to_owned()),
        };
        Self { runner, api, dir }
    }

    pub async fn stop(self) {
        self.runner.stop().await.unwrap();
    }
}

/// A client of the HTTP API.
#[derive(Clone)]
pub struct Api {
    pub base: String,
    pub http: reqwest::Client,
    pub token: Option<String>,
}

impl Api {
    pub fn with(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub async fn call(&self, method: &str, path: &str, body: Option<serde_json::Value>) -> (u16, serde_json::Value) {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request).await
    }

    pub async fn get(&self, path: &str) -> serde_json::Value {
        let (status, body) = self.call("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// The live stream, after an id or from now on; connected when this returns.
    pub async fn stream(&self, last_event_id: Option<u64>) -> Sse {
        self.stream_of(last_event_id, "").await
    }

    pub async fn stream_of(&self, last_event_id: Option<u64>, query: &str) -> Sse {
        let mut request = self.request("GET", &format!("/api/events/stream{query}"));
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id.to_string());
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut sse = Sse { response, buffer: String::new() };
        assert!(sse.block().await.unwrap().contains(": connected"));
        sse
    }
}

pub async fn answer(request: reqwest::RequestBuilder) -> (u16, serde_json::Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let body = if text.is_empty() {
        serde_json::Value::Null
    } else {
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text}"))
    };
    (status, body)
}

pub struct Sse {
    response: reqwest::Response,
    buffer: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub id: u64,
    pub event: String,
    pub data: serde_json::Value,
}

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

impl Sse {
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let block = block.to_owned();
                self.buffer = rest.to_owned();
                return Some(block);
            }
            let chunk =
                tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("the stream is silent").ok()??;
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next message; `None` when the stream has ended.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| block.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
            if let (Some(id), Some(event), Some(data)) = (field("id:"), field("event:"), field("data:")) {
                let (id, data) = (id.parse().unwrap(), serde_json::from_str(data).unwrap());
                return Some(Message { id, event: event.to_owned(), data });
            }
        }
    }

    /// Skips until a message of this type.
    pub async fn until(&mut self, event: &str) -> Message {
        loop {
            let message = self.next().await.expect("the stream ended");
            if message.event == event {
                return message;
            }
        }
    }
}
