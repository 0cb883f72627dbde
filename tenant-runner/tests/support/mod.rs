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
