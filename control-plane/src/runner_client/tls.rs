//! Mutual TLS to one runner. The name that the runner must prove is made from the tenant's id, so that a runner of another
//! tenant on the same port is refused in the handshake.

use crate::domain::TenantId;
use crate::error::{Error, Kind, Result};
use crate::pki::{Authority, ControlPlaneIdentity, runner_dns_name};
use nexaas_common::clock::SharedClock;
use nexaas_common::secret::ExposeSecret as _;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A verified connection to one tenant's runner.
pub type RunnerStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Loopback answers at once or not at all; the handshake needs two signatures.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// Makes connections; holds no state of any tenant (sessions are not resumed across tenants).
#[derive(Clone)]
pub struct Connector {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    pub fn new(authority: Arc<Authority>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(authority.ca_pem().as_bytes()).map_err(Error::internal)?;
        roots.add(root).map_err(Error::internal)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clock = Arc::new(ClockTime(authority.clock().clone()));
        let resolver = Arc::new(CurrentIdentity { authority, loaded: Mutex::new(None) });
        let mut config = ClientConfig::builder_with_details(provider, clock)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(Error::internal)?
            .with_root_certificates(roots)
            .with_client_cert_resolver(resolver);
        // A resumed session would skip the proof of identity; handshakes over loopback are cheap.
        config.resumption = rustls::client::Resumption::disabled();
        let mut http2 = config.clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        http2.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { http1: Arc::new(config), http2: Arc::new(http2) })
    }

    /// Connects to the runner on this host and proves both ends.
    pub async fn connect(&self, tenant: TenantId, port: u16, protocol: Protocol) -> Result<RunnerStream> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let name = ServerName::try_from(runner_dns_name(tenant)).map_err(Error::internal)?;
        let config = match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
        };
        let attempt = async {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            TlsConnector::from(config.clone()).connect(name, tcp).await
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, attempt).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(connect_error(error)),
            Err(_) => Err(Error::timeout("runner")),
        }
    }
}

fn connect_error(error: std::io::Error) -> Error {
    let refused_identity = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|tls| matches!(tls, rustls::Error::InvalidCertificate(_)));
    if refused_identity {
        return Error::new(
            Kind::Unavailable { what: "runner" },
            "what answers on the runner's port did not prove to be this tenant's runner",
        )
        .with_source(error);
    }
    Error::unavailable("runner", error)
}

/// The injected clock, as rustls wants it.
#[derive(Debug)]
struct ClockTime(SharedClock);

impl rustls::time_provider::TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().timestamp()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

type Loaded = (Arc<ControlPlaneIdentity>, Arc<CertifiedKey>);

/// Presents the control plane's certificate of the moment, so that a renewal needs no new connector.
struct CurrentIdentity {
    authority: Arc<Authority>,
    loaded: Mutex<Option<Loaded>>,
}

impl std::fmt::Debug for CurrentIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CurrentIdentity")
    }
}

impl CurrentIdentity {
    fn load(&self) -> Result<Arc<CertifiedKey>> {
        let identity = self.authority.control_plane_identity()?;
        let mut slot = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, key)) = slot.as_ref()
            && Arc::ptr_eq(known, &identity)
        {
            return Ok(key.clone());
        }
        let certificate =
            CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).map_err(Error::internal)?;
        let private =
            PrivateKeyDer::from_pem_slice(identity.key_pem.expose_secret().as_bytes()).map_err(Error::internal)?;
        let signer = rustls::crypto::ring::sign::any_supported_type(&private).map_err(Error::internal)?;
        let key = Arc::new(CertifiedKey::new(vec![certificate], signer));
        *slot = Some((identity, key.clone()));
        Ok(key)
    }
}

impl ResolvesClientCert for CurrentIdentity {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        match self.load() {
            Ok(key) => key.key.choose_scheme(schemes).is_some().then_some(key),
            Err(error) => {
                tracing::error!(error = error.chain(), "the control plane has no certificate to show to runners");
                None
            }
        }
    }
    fn has_certs(&self) -> bool {
        true
    }
}
