//! A tenant's runner speaks TLS 1.3 only, and only with its control plane: the client must present a certificate that
//! chains to the installation's CA, is meant for clients, and names the control plane. Another runner's certificate comes
//! from the same CA, so the chain alone proves nothing.

use crate::config::Refusal;
use chrono::{DateTime, Utc};
use nexaas_common::id::TenantId;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as TlsError, RootCertStore, ServerConfig,
    SignatureScheme,
};
use std::path::Path;
use std::sync::Arc;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

/// The one peer a runner talks to.
pub const CONTROL_PLANE_URI: &str = "spiffe://nexaas/control-plane";

/// The name a runner's certificate carries.
pub fn runner_name(tenant: TenantId) -> String {
    format!("{tenant}.runner.nexaas.internal")
}

/// The PEM files of a runner's identity.
#[derive(Debug)]
pub struct Identity {
    pub cert: Vec<u8>,
    pub key: zeroize::Zeroizing<Vec<u8>>,
    pub ca: Vec<u8>,
}

impl Identity {
    /// Reads cert.pem, key.pem and ca.pem.
    pub fn read(dir: &Path) -> Result<Self, Refusal> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path)
                .map_err(|e| Refusal::new("--identity-dir", format!("{} cannot be read: {e}", path.display())))
        };
        Ok(Self { cert: read("cert.pem")?, key: zeroize::Zeroizing::new(read("key.pem")?), ca: read("ca.pem")? })
    }

    /// When the certificate ends, as far as it can be read.
    pub fn not_after(&self) -> Option<DateTime<Utc>> {
        let der = CertificateDer::pem_slice_iter(&self.cert).next()?.ok()?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        DateTime::from_timestamp(certificate.validity().not_after.timestamp(), 0)
    }
}

/// The server's side of mutual TLS, for one tenant.
pub fn server_config(identity: &Identity, tenant: TenantId) -> Result<ServerConfig, Refusal> {
    let refuse = |file: &str, why: String| Refusal::new("--identity-dir", format!("{file} {why}"));
    let chain = CertificateDer::pem_slice_iter(&identity.cert)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| refuse("cert.pem", format!("is not PEM: {e}")))?;
    let own = chain.first().ok_or_else(|| refuse("cert.pem", "holds no certificate".to_owned()))?;
    let name = runner_name(tenant);
    if !dns_names(own).map_err(|e| refuse("cert.pem", e))?.contains(&name) {
        return Err(refuse("cert.pem", format!("does not name {name}: it belongs to another tenant")));
    }
    let key = PrivateKeyDer::from_pem_slice(&identity.key)
        .map_err(|e| refuse("key.pem", format!("holds no private key: {e}")))?;
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(&identity.ca) {
        let ca = ca.map_err(|e| refuse("ca.pem", format!("is not PEM: {e}")))?;
        roots.add(ca).map_err(|e| refuse("ca.pem", format!("is not a usable CA: {e}")))?;
    }
    if roots.is_empty() {
        return Err(refuse("ca.pem", "holds no certificate".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain_verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|e| refuse("ca.pem", format!("cannot verify clients: {e}")))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| refuse("cert.pem", format!("cannot be used: {e}")))?
        .with_client_cert_verifier(Arc::new(ControlPlaneOnly { chain: chain_verifier }))
        .with_single_cert(chain, key)
        .map_err(|e| refuse("key.pem", format!("does not fit cert.pem: {e}")))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn dns_names(der: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|e| format!("is not X.509: {e}"))?;
    let names = certificate.subject_alternative_name().map_err(|e| format!("has a broken alternative name: {e}"))?;
    Ok(names
        .iter()
        .flat_map(|n| &n.value.general_names)
        .filter_map(|n| if let GeneralName::DNSName(dns) = n { Some((*dns).to_owned()) } else { None })
        .collect())
}

/// Adds to the chain's verification what the certificate is for and whom it names.
#[derive(Debug)]
struct ControlPlaneOnly {
    chain: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for ControlPlaneOnly {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        if names_control_plane(end_entity) {
            Ok(verified)
        } else {
            Err(TlsError::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }

    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }
}

/// The chain's verifier accepts a certificate without any extended key usage, so its presence is checked here too.
fn names_control_plane(der: &CertificateDer<'_>) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return false };
    let for_clients = matches!(certificate.extended_key_usage(), Ok(Some(usage)) if usage.value.client_auth);
    let named = matches!(certificate.subject_alternative_name(), Ok(Some(names)) if names
        .value
        .general_names
        .iter()
        .any(|n| matches!(n, GeneralName::URI(uri) if *uri == CONTROL_PLANE_URI)));
    for_clients && named
}
