//! One TLS configuration for every outgoing connection: ring, the system's certificates, no client certificate.

use rustls::{ClientConfig, RootCertStore};
use std::sync::{Arc, LazyLock};

static ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "part of the system's certificates cannot be read");
    }
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        tracing::warn!(ignored, "no certificate authority is installed: every https call will be refused");
    }
    Arc::new(roots)
});

/// TLS for an HTTP client, to be given to `reqwest::ClientBuilder::tls_backend_preconfigured`.
pub fn client_tls() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(ROOTS.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
