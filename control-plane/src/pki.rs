//! The installation's own certificate authority. It exists so that a runner and the control plane recognise each other by
//! certificate alone.
//!
//! Always true: a runner's certificate can only serve (EKU serverAuth) and names exactly one tenant; the control plane's can
//! only call (EKU clientAuth); neither can do the other's part. Every certificate has a bounded life. The authority's key is
//! mode 0600 and leaves this module only as signatures.

use crate::domain::TenantId;
use crate::error::{Error, Kind, Result};
use crate::orchestrator::RunnerIdentity;
use chrono::{DateTime, Duration, Utc};
use nexaas_common::clock::SharedClock;
use nexaas_common::secret::{ExposeSecret as _, SecretString};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The name under which a runner accepts its caller.
pub const CONTROL_PLANE_URI: &str = "spiffe://nexaas/control-plane";

const AUTHORITY_NAME: &str = "Nexaas runner authority";
const KEY_FILE: &str = "ca.key";
const CERTIFICATE_FILE: &str = "ca.pem";
/// The authority's key stays; its certificate is signed anew with that key when two thirds of this are over.
const AUTHORITY_LIFE: Duration = Duration::days(3650);
/// A runner gets a new one whenever it is made; this is how long one container may live on the same.
const RUNNER_LIFE: Duration = Duration::days(398);
/// Kept in memory only and renewed by itself.
const CONTROL_PLANE_LIFE: Duration = Duration::days(30);
/// Certificates begin to hold a little in the past, so that a clock set back does not refuse them.
const BACKDATE: Duration = Duration::hours(2);

/// The name that only this tenant's runner can prove.
pub fn runner_dns_name(tenant: TenantId) -> String {
    format!("{}.runner.nexaas.internal", tenant.uuid())
}

/// The control plane's own certificate and key, for calling runners.
#[derive(Debug, Clone)]
pub struct ControlPlaneIdentity {
    pub certificate_pem: String,
    pub key_pem: SecretString,
    pub ca_pem: String,
    pub not_after: DateTime<Utc>,
}

/// The authority. Cheap to share behind an `Arc`.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    directory: PathBuf,
    clock: SharedClock,
    control_plane: Mutex<Option<Arc<ControlPlaneIdentity>>>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("directory", &self.directory).finish_non_exhaustive()
    }
}

fn failed(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(Kind::Internal, what).with_source(source)
}

impl Authority {
    /// Reads the authority of `directory`, or makes it there. A key that is there is never replaced: one that cannot be
    /// read is an error that names the file.
    pub fn load_or_create(directory: &Path, clock: SharedClock) -> Result<Self> {
        std::fs::create_dir_all(directory)
            .map_err(|e| failed(format!("cannot create the folder {}", directory.display()), e))?;
        let key_path = directory.join(KEY_FILE);
        let key = match read_key(&key_path)? {
            Some(key) => key,
            None => {
                let key = new_key()?;
                if write_new(directory, &key_path, key.serialize_pem().as_bytes())? {
                    key
                } else {
                    // Another process was faster; its key is the authority's.
                    read_key(&key_path)?
                        .ok_or_else(|| Error::new(Kind::Internal, format!("{} vanished", key_path.display())))?
                }
            }
        };
        let params = authority_params(clock.now());
        let certificate_path = directory.join(CERTIFICATE_FILE);
        let ca_pem = match read_certificate(&certificate_path, &key, clock.now()) {
            Some(pem) => pem,
            None => {
                let pem =
                    params.self_signed(&key).map_err(|e| failed("cannot sign the authority's certificate", e))?.pem();
                replace(directory, &certificate_path, pem.as_bytes())?;
                pem
            }
        };
        let issuer = Issuer::new(params, key);
        Ok(Self { issuer, ca_pem, directory: directory.to_owned(), clock, control_plane: Mutex::new(None) })
    }

    /// The authority's certificate, which both sides trust.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    pub(crate) fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// A new certificate and key for this tenant's runner.
    pub fn issue_runner(&self, tenant: TenantId) -> Result<RunnerIdentity> {
        let name = runner_dns_name(tenant);
        let san = SanType::DnsName(name.clone().try_into().map_err(|e| failed("the runner's name is not valid", e))?);
        let (certificate_pem, key_pem, _) = self.issue(&name, san, ExtendedKeyUsagePurpose::ServerAuth, RUNNER_LIFE)?;
        Ok(RunnerIdentity { certificate_pem, key_pem, ca_pem: self.ca_pem.clone() })
    }

    /// The control plane's certificate: the same until half its life is over, then a new one.
    pub fn control_plane_identity(&self) -> Result<Arc<ControlPlaneIdentity>> {
        let mut slot = self.control_plane.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        if let Some(identity) = slot.as_ref() {
            let left = identity.not_after - now;
            // More than a whole life left means that the clock was set back past its beginning.
            if left > CONTROL_PLANE_LIFE / 2 && left <= CONTROL_PLANE_LIFE + BACKDATE / 2 {
                return Ok(identity.clone());
            }
        }
        let san =
            SanType::URI(CONTROL_PLANE_URI.try_into().map_err(|e| failed("the control plane's name is not valid", e))?);
        let (certificate_pem, key_pem, not_after) =
            self.issue("Nexaas control plane", san, ExtendedKeyUsagePurpose::ClientAuth, CONTROL_PLANE_LIFE)?;
        let identity =
            Arc::new(ControlPlaneIdentity { certificate_pem, key_pem, ca_pem: self.ca_pem.clone(), not_after });
        *slot = Some(identity.clone());
        Ok(identity)
    }

    fn issue(
        &self,
        common_name: &str,
        san: SanType,
        usage: ExtendedKeyUsagePurpose,
        life: Duration,
    ) -> Result<(String, SecretString, DateTime<Utc>)> {
        let key = new_key()?;
        let now = self.clock.now();
        let not_after = now + life;
        let mut params = CertificateParams::default();
        params.not_before = at(now - BACKDATE);
        params.not_after = at(not_after);
        params.serial_number = Some(serial());
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = vec![san];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(|e| failed("cannot sign a certificate", e))?;
        Ok((certificate.pem(), SecretString::from(key.serialize_pem()), not_after))
    }
}

/// Whether two thirds of a certificate's life are over at `now` (or it cannot be read), so that it should be issued anew.
pub fn renewal_due(certificate_pem: &str, now: DateTime<Utc>) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(certificate_pem.as_bytes()) else { return true };
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(&der) else { return true };
    let (from, to) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    let now = now.timestamp();
    now < from || now >= from + (to - from) / 3 * 2
}

fn authority_params(now: DateTime<Utc>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = at(now - BACKDATE);
    params.not_after = at(now + AUTHORITY_LIFE);
    params.serial_number = Some(serial());
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, AUTHORITY_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn new_key() -> Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| failed("cannot generate a key", e))
}

fn at(time: DateTime<Utc>) -> time::OffsetDateTime {
    // Only a clock beyond the year 9999 is out of range.
    time::OffsetDateTime::from_unix_timestamp(time.timestamp()).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    // Positive and of constant length.
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn read_key(path: &Path) -> Result<Option<KeyPair>> {
    let pem = match std::fs::read_to_string(path) {
        Ok(pem) => SecretString::from(pem),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(format!("cannot read the authority's key {}", path.display()), e)),
    };
    let mode = std::fs::metadata(path).map(|m| m.permissions().mode() & 0o777).unwrap_or(0o600);
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), mode = format!("{mode:o}"), "the authority's key was readable by others; its mode is now 0600");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .map_err(|e| failed(format!("cannot protect {}", path.display()), e))?;
    }
    KeyPair::from_pem(pem.expose_secret())
        .map(Some)
        .map_err(|e| failed(format!("the authority's key {} is damaged; restore it from a backup", path.display()), e))
}

/// The stored certificate, when it belongs to the key and is not due for renewal.
fn read_certificate(path: &Path, key: &KeyPair, now: DateTime<Utc>) -> Option<String> {
    let pem = std::fs::read_to_string(path).ok()?;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
    let same_key = parsed.public_key().subject_public_key.data.as_ref() == key.public_key_raw();
    (same_key && !renewal_due(&pem, now)).then_some(pem)
}

/// Writes a file that must not exist yet, whole or not at all. False when it exists.
fn write_new(directory: &Path, path: &Path, content: &[u8]) -> Result<bool> {
    match temporary(directory, content)?.persist_noclobber(path) {
        Ok(_) => Ok(true),
        Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(failed(format!("cannot write {}", path.display()), e.error)),
    }
}

fn replace(directory: &Path, path: &Path, content: &[u8]) -> Result<()> {
    temporary(directory, content)?
        .persist(path)
        .map_err(|e| failed(format!("cannot write {}", path.display()), e.error))?;
    Ok(())
}

/// Mode 0600 from the start, on disk before it gets its name.
fn temporary(directory: &Path, content: &[u8]) -> Result<tempfile::NamedTempFile> {
    let write = || -> std::io::Result<tempfile::NamedTempFile> {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        Ok(file)
    };
    write().map_err(|e| failed(format!("cannot write into {}", directory.display()), e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexaas_common::clock::ManualClock;
    use x509_parser::extensions::GeneralName;

    fn clock() -> Arc<ManualClock> {
        ManualClock::new("2030-01-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn the_authority_is_the_same_after_a_restart_and_its_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::load_or_create(dir.path(), clock()).unwrap();
        let second = Authority::load_or_create(dir.path(), clock()).unwrap();
        assert_eq!(first.ca_pem(), second.ca_pem());
        let mode = std::fs::metadata(dir.path().join(KEY_FILE)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
    }

    #[test]
    fn a_key_readable_by_others_is_protected_at_start() {
        let dir = tempfile::tempdir().unwrap();
        Authority::load_or_create(dir.path(), clock()).unwrap();
        let key = dir.path().join(KEY_FILE);
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        Authority::load_or_create(dir.path(), clock()).unwrap();
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_key_is_named_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(KEY_FILE), "not a key").unwrap();
        let error = Authority::load_or_create(dir.path(), clock()).unwrap_err();
        assert!(error.public().contains("ca.key"), "{error}");
        assert_eq!(std::fs::read_to_string(dir.path().join(KEY_FILE)).unwrap(), "not a key");
    }

    #[test]
    fn an_old_authority_certificate_is_renewed_with_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let time = clock();
        let first = Authority::load_or_create(dir.path(), time.clone()).unwrap();
        time.advance(AUTHORITY_LIFE * 3 / 4);
        let second = Authority::load_or_create(dir.path(), time).unwrap();
        assert_ne!(first.ca_pem(), second.ca_pem());
        assert_eq!(first.issuer.key().public_key_raw(), second.issuer.key().public_key_raw());
    }

    #[test]
    fn the_control_planes_certificate_is_renewed_by_age() {
        let dir = tempfile::tempdir().unwrap();
        let time = clock();
        let authority = Authority::load_or_create(dir.path(), time.clone()).unwrap();
        let first = authority.control_plane_identity().unwrap();
        time.advance(Duration::days(10));
        assert_eq!(first.certificate_pem, authority.control_plane_identity().unwrap().certificate_pem);
        time.advance(Duration::days(10));
        assert_ne!(first.certificate_pem, authority.control_plane_identity().unwrap().certificate_pem);
    }

    #[test]
    fn each_certificate_says_who_it_is_and_can_play_one_part_only() {
        let dir = tempfile::tempdir().unwrap();
        let time = clock();
        let authority = Authority::load_or_create(dir.path(), time.clone()).unwrap();
        let tenant = TenantId::generate();
        let runner = authority.issue_runner(tenant).unwrap();
        let caller = authority.control_plane_identity().unwrap();
        for (pem, server, name) in [
            (&runner.certificate_pem, true, runner_dns_name(tenant)),
            (&caller.certificate_pem, false, CONTROL_PLANE_URI.to_owned()),
        ] {
            let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
            let usage = parsed.extended_key_usage().unwrap().unwrap().value;
            assert_eq!((usage.server_auth, usage.client_auth, usage.any), (server, !server, false));
            assert!(!parsed.is_ca());
            let names = &parsed.subject_alternative_name().unwrap().unwrap().value.general_names;
            let expected = if server { GeneralName::DNSName(&name) } else { GeneralName::URI(&name) };
            assert_eq!(names, &vec![expected]);
        }
        assert!(!renewal_due(&runner.certificate_pem, time.now_for_test()));
        assert!(renewal_due(&runner.certificate_pem, time.now_for_test() + RUNNER_LIFE));
        assert!(renewal_due("nonsense", time.now_for_test()));
    }

    trait NowForTest {
        fn now_for_test(&self) -> DateTime<Utc>;
    }
    impl NowForTest for ManualClock {
        fn now_for_test(&self) -> DateTime<Utc> {
            nexaas_common::clock::Clock::now(self)
        }
    }
}
