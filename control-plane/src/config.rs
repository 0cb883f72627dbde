//! Every setting, from one place: flag, else environment, else `nexaas.yaml`, else default. A wrong value is refused with the
//! setting's name before anything starts. Secrets come from the environment or from a file named by `*_FILE`, never from argv.

use crate::domain::tenant::{BackendKind, Limits};
use crate::error::{Error, Result};
use ipnet::{IpNet, Ipv4Net};
use nexaas_common::secret::SecretString;
use nexaas_common::telemetry::LogFormat;
use serde::Deserialize;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
    const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub data_dir: PathBuf,
    /// Subdomains live beneath it: `console.<base>`, `<tenant>.<base>`.
    pub base_domain: String,
    pub listen: SocketAddr,
    /// `/metrics`, `/healthz`, `/readyz`.
    pub ops_listen: SocketAddr,
    pub public_scheme: Scheme,
    /// The port in links; `None`: the one listened on.
    pub public_port: Option<u16>,
    /// `None`: a private cluster in `data_dir`.
    pub database_url: Option<SecretString>,
    pub backend: BackendKind,
    pub docker_host: Option<String>,
    pub docker_runtime: Option<String>,
    pub runner_image: String,
    pub runner_binary: Option<PathBuf>,
    pub framework_dir: PathBuf,
    pub templates_dir: PathBuf,
    pub port_range: RangeInclusive<u16>,
    pub subnet_range: Ipv4Net,
    pub subnet_prefix: u8,
    pub default_limits: Limits,
    pub cookie_secure: bool,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    pub log_format: LogFormat,
    pub log_filter: String,
}

impl Settings {
    /// The base URL people use for `host`, without a trailing slash.
    pub fn public_url(&self, label: &str) -> String {
        let port = self.public_port.unwrap_or(self.listen.port());
        let scheme = self.public_scheme;
        if port == scheme.default_port() {
            format!("{}://{label}.{}", scheme.as_str(), self.base_domain)
        } else {
            format!("{}://{label}.{}:{port}", scheme.as_str(), self.base_domain)
        }
    }
    pub fn secrets_dir(&self) -> PathBuf {
        self.data_dir.join("secrets")
    }
    pub fn run_dir(&self) -> PathBuf {
        self.data_dir.join("run")
    }
    /// The token of the command line on this machine.
    pub fn cli_token_path(&self) -> PathBuf {
        self.secrets_dir().join("cli.token")
    }

    /// Defaults around one data folder; for tests and tools.
    pub fn for_data_dir(data_dir: PathBuf) -> Result<Self> {
        Partial { data_dir: Some(data_dir), ..Partial::default() }.complete()
    }
}

/// The settings as given in one place; each may be absent.
#[derive(Debug, Clone, Default, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Settings")]
pub struct Partial {
    /// Where everything is kept [default: /var/lib/nexaas for root, else $XDG_DATA_HOME/nexaas]
    #[arg(long, env = "NEXAAS_DATA_DIR", global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The domain whose subdomains are the console and the tenants [default: localhost]
    #[arg(long, env = "NEXAAS_BASE_DOMAIN", global = true, value_name = "DOMAIN")]
    pub base_domain: Option<String>,
    /// Where the edge listens [default: 127.0.0.1:8080]
    #[arg(long, env = "NEXAAS_LISTEN", global = true, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// Where metrics and health are served [default: 127.0.0.1:9090]
    #[arg(long, env = "NEXAAS_OPS_LISTEN", global = true, value_name = "ADDR:PORT")]
    pub ops_listen: Option<String>,
    /// http, or https when a proxy in front ends TLS [default: http]
    #[arg(long, env = "NEXAAS_PUBLIC_SCHEME", global = true, value_name = "SCHEME")]
    pub public_scheme: Option<String>,
    /// The port in public links [default: the port of --listen, or 443 with https]
    #[arg(long, env = "NEXAAS_PUBLIC_PORT", global = true, value_name = "PORT")]
    pub public_port: Option<u16>,
    /// docker or process [default: docker]
    #[arg(long, env = "NEXAAS_BACKEND", global = true, value_name = "BACKEND")]
    pub backend: Option<String>,
    /// The engine's socket [default: $DOCKER_HOST, /var/run/docker.sock, then Podman's]
    #[arg(long, env = "NEXAAS_DOCKER_HOST", global = true, value_name = "SOCKET")]
    pub docker_host: Option<String>,
    /// The engine's runtime for runners, for example runsc
    #[arg(long, env = "NEXAAS_DOCKER_RUNTIME", global = true, value_name = "NAME")]
    pub docker_runtime: Option<String>,
    /// The runners' image [default: nexaas-runner:<version>]
    #[arg(long, env = "NEXAAS_RUNNER_IMAGE", global = true, value_name = "IMAGE")]
    pub runner_image: Option<String>,
    /// The runners' program, for the process backend and for building the image [default: nexaas-runner beside this program]
    #[arg(long, env = "NEXAAS_RUNNER_BINARY", global = true, value_name = "FILE")]
    pub runner_binary: Option<PathBuf>,
    /// Default agents, skills and playbooks [default: framework beside this program or in its parents]
    #[arg(long, env = "NEXAAS_FRAMEWORK_DIR", global = true, value_name = "DIR")]
    pub framework_dir: Option<PathBuf>,
    /// Workspace templates [default: templates beside this program or in its parents]
    #[arg(long, env = "NEXAAS_TEMPLATES_DIR", global = true, value_name = "DIR")]
    pub templates_dir: Option<PathBuf>,
    /// Ports for runners, on the loopback only [default: 20000-20999]
    #[arg(long, env = "NEXAAS_PORT_RANGE", global = true, value_name = "LOW-HIGH")]
    pub port_range: Option<String>,
    /// Where the tenants' networks are cut from [default: 10.209.0.0/16]
    #[arg(long, env = "NEXAAS_SUBNET_RANGE", global = true, value_name = "CIDR")]
    pub subnet_range: Option<String>,
    /// The size of one tenant's network [default: 29]
    #[arg(long, env = "NEXAAS_SUBNET_PREFIX", global = true, value_name = "BITS")]
    pub subnet_prefix: Option<u8>,
    /// Memory of a runner in MiB unless asked otherwise [default: 512]
    #[arg(long, env = "NEXAAS_DEFAULT_MEMORY_MB", global = true, value_name = "MIB")]
    pub default_memory_mb: Option<u64>,
    /// Thousandths of a core of a runner unless asked otherwise [default: 500]
    #[arg(long, env = "NEXAAS_DEFAULT_CPU_MILLIS", global = true, value_name = "MILLIS")]
    pub default_cpu_millis: Option<u32>,
    /// Processes and threads of a runner [default: 256]
    #[arg(long, env = "NEXAAS_DEFAULT_PIDS", global = true, value_name = "COUNT")]
    pub default_pids: Option<u32>,
    /// Whether cookies need https (browsers count *.localhost as secure) [default: true]
    #[arg(long, env = "COOKIE_SECURE", global = true, value_name = "BOOL")]
    pub cookie_secure: Option<bool>,
    /// Proxies in front whose X-Forwarded-For is believed, separated by commas [default: none]
    #[arg(long, env = "NEXAAS_TRUSTED_PROXIES", global = true, value_name = "CIDR,…")]
    pub trusted_proxies: Option<String>,
    /// auto, json or pretty [default: auto]
    #[arg(long, env = "NEXAAS_LOG_FORMAT", global = true, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// What to log, for example info or nexaas=debug [default: info]
    #[arg(long, env = "NEXAAS_LOG_FILTER", global = true, value_name = "FILTER")]
    pub log_filter: Option<String>,
    /// A file that holds the URL of a PostgreSQL server; also DATABASE_URL. Without either a private cluster is run.
    #[arg(long, env = "DATABASE_URL_FILE", global = true, value_name = "FILE")]
    pub database_url_file: Option<PathBuf>,
    /// Never from argv, where every user of the machine reads it.
    #[arg(skip)]
    #[serde(skip)]
    pub database_url: Option<SecretString>,
}

macro_rules! first_given {
    ($a:ident, $b:ident: $($field:ident),* $(,)?) => { Partial { $($field: $a.$field.or($b.$field)),* } };
}

/// No settings file is larger.
const MAX_FILE: u64 = 256 << 10;

impl Partial {
    /// These settings, with `other` filling what is absent.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        first_given!(self, other: data_dir, base_domain, listen, ops_listen, public_scheme, public_port, backend, docker_host,
            docker_runtime, runner_image, runner_binary, framework_dir, templates_dir, port_range, subnet_range, subnet_prefix,
            default_memory_mb, default_cpu_millis, default_pids, cookie_secure, trusted_proxies, log_format, log_filter, database_url_file, database_url)
    }

    /// Reads a settings file. An unknown key is refused: it is a typing mistake that would otherwise do nothing.
    pub fn from_file(path: &Path) -> Result<Self> {
        let name = path.display();
        let size = std::fs::metadata(path)
            .map_err(|e| Error::invalid("config", format!("'{name}' cannot be read: {e}")))?
            .len();
        if size > MAX_FILE {
            return Err(Error::invalid("config", format!("'{name}' is larger than {} KiB", MAX_FILE >> 10)));
        }
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::invalid("config", format!("'{name}' cannot be read: {e}")))?;
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(&text).map_err(|e| {
            let why = e.to_string();
            let first = why.lines().next().unwrap_or_default().to_owned();
            Error::invalid("config", format!("'{name}' is not valid: {first}"))
        })
    }

    /// Checks everything and fills in the defaults.
    pub fn complete(self) -> Result<Settings> {
        let data_dir = match self.data_dir {
            Some(dir) => std::path::absolute(&dir).map_err(|e| Error::invalid("data_dir", e))?,
            None => default_data_dir()?,
        };
        let base_domain = self.base_domain.unwrap_or_else(|| "localhost".to_owned()).to_ascii_lowercase();
        check_domain(&base_domain)?;
        let public_scheme = match self.public_scheme.as_deref() {
            None | Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            Some(other) => return Err(Error::invalid("public_scheme", format!("'{other}' is not one of http, https"))),
        };
        let public_port = self.public_port.or((public_scheme == Scheme::Https).then_some(443));
        let backend = match self.backend.as_deref() {
            None => BackendKind::Docker,
            Some(text) => crate::store::tenants::parse_backend(text)?,
        };
        let (subnet_range, subnet_prefix) = subnets(self.subnet_range.as_deref(), self.subnet_prefix)?;
        let defaults = Limits::default();
        let default_limits = Limits {
            memory_bytes: match self.default_memory_mb {
                None => defaults.memory_bytes,
                Some(mb) => checked_memory("default_memory_mb", mb)?,
            },
            cpu_millis: match self.default_cpu_millis {
                None => defaults.cpu_millis,
                Some(millis) => checked_cpu("default_cpu_millis", millis)?,
            },
            pids: self.default_pids.unwrap_or(defaults.pids),
        };
        if !(16..=32_768).contains(&default_limits.pids) {
            return Err(Error::invalid("default_pids", "must be between 16 and 32768"));
        }
        let database_url = match (self.database_url, self.database_url_file) {
            (Some(url), _) => Some(url),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(&path).map_err(|e| {
                    Error::invalid("DATABASE_URL_FILE", format!("'{}' cannot be read: {e}", path.display()))
                })?;
                Some(SecretString::from(text.trim().to_owned()))
            }
            (None, None) => None,
        };
        Ok(Settings {
            base_domain,
            listen: address("listen", self.listen.as_deref(), "127.0.0.1:8080")?,
            ops_listen: address("ops_listen", self.ops_listen.as_deref(), "127.0.0.1:9090")?,
            public_scheme,
            public_port,
            database_url,
            backend,
            docker_host: self.docker_host.or_else(|| std::env::var("DOCKER_HOST").ok()).filter(|s| !s.is_empty()),
            docker_runtime: self.docker_runtime.filter(|s| !s.is_empty()),
            runner_image: self.runner_image.unwrap_or_else(|| format!("nexaas-runner:{}", nexaas_common::VERSION)),
            runner_binary: self.runner_binary.or_else(|| beside("nexaas-runner")),
            framework_dir: self
                .framework_dir
                .or_else(|| beside("framework"))
                .unwrap_or_else(|| data_dir.join("framework")),
            templates_dir: self
                .templates_dir
                .or_else(|| beside("templates"))
                .unwrap_or_else(|| data_dir.join("templates")),
            port_range: ports(self.port_range.as_deref())?,
            subnet_range,
            subnet_prefix,
            default_limits,
            cookie_secure: self.cookie_secure.unwrap_or(true),
            trusted_proxies: networks(self.trusted_proxies.as_deref())?,
            log_format: match self.log_format.as_deref() {
                None => LogFormat::default(),
                Some(text) => text.parse().map_err(|e| Error::invalid("log_format", e))?,
            },
            log_filter: self.log_filter.unwrap_or_else(|| "info".to_owned()),
            data_dir,
        })
    }
}

pub fn checked_memory(field: &'static str, mb: u64) -> Result<u64> {
    if (32..=262_144).contains(&mb) {
        Ok(mb << 20)
    } else {
        Err(Error::invalid(field, "must be between 32 and 262144 (MiB)"))
    }
}

pub fn checked_cpu(field: &'static str, millis: u32) -> Result<u32> {
    if (50..=256_000).contains(&millis) {
        Ok(millis)
    } else {
        Err(Error::invalid(field, "must be between 50 and 256000 (thousandths of a core)"))
    }
}

fn default_data_dir() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/nexaas"));
    }
    let given = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    given("XDG_DATA_HOME")
        .or_else(|| given("HOME").map(|home| home.join(".local/share")))
        .map(|base| base.join("nexaas"))
        .ok_or_else(|| {
            Error::invalid("data_dir", "has no default because neither XDG_DATA_HOME nor HOME is set; give --data-dir")
        })
}

/// Something that ships with the program: beside it, or in one of the folders above (a source tree's `target/…`).
fn beside(name: &str) -> Option<PathBuf> {
    let exe = std::env::current_exe().ok()?;
    exe.ancestors().skip(1).take(5).map(|dir| dir.join(name)).find(|path| path.exists())
}

fn address(field: &'static str, text: Option<&str>, default: &str) -> Result<SocketAddr> {
    let text = text.unwrap_or(default);
    text.parse().map_err(|_| Error::invalid(field, format!("'{text}' is not an address and port such as {default}")))
}

fn check_domain(domain: &str) -> Result<()> {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if domain.len() <= 200 && domain.split('.').all(label) && domain.parse::<std::net::IpAddr>().is_err() {
        Ok(())
    } else {
        Err(Error::invalid("base_domain", format!("'{domain}' is not a domain name such as example.com")))
    }
}

fn ports(text: Option<&str>) -> Result<RangeInclusive<u16>> {
    let text = text.unwrap_or("20000-20999");
    let parsed =
        text.split_once('-').and_then(|(low, high)| Some((low.parse::<u16>().ok()?, high.parse::<u16>().ok()?)));
    match parsed {
        Some((low, high)) if low >= 1024 && low <= high => Ok(low..=high),
        _ => Err(Error::invalid("port_range", format!("'{text}' is not LOW-HIGH with 1024 <= LOW <= HIGH <= 65535"))),
    }
}

/// Networks or single addresses.
fn networks(text: Option<&str>) -> Result<Vec<IpNet>> {
    let one = |part: &str| {
        part.parse::<IpNet>().or_else(|_| part.parse::<std::net::IpAddr>().map(IpNet::from)).map_err(|_| {
            Error::invalid("trusted_proxies", format!("'{part}' is not a network such as 10.0.0.0/8 or an address"))
        })
    };
    text.unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty()).map(one).collect()
}

fn subnets(range: Option<&str>, prefix: Option<u8>) -> Result<(Ipv4Net, u8)> {
    let text = range.unwrap_or("10.209.0.0/16");
    let range: Ipv4Net = text
        .parse()
        .map_err(|_| Error::invalid("subnet_range", format!("'{text}' is not a network such as 10.209.0.0/16")))?;
    let private = range.network().is_private() && range.broadcast().is_private();
    if !private || range != range.trunc() {
        return Err(Error::invalid(
            "subnet_range",
            format!("'{text}' must be a private network written by its first address"),
        ));
    }
    let prefix = prefix.unwrap_or(29);
    // A gateway, a runner, the network's own and the broadcast address: fewer bits leave no room.
    if prefix < range.prefix_len() || !(16..=29).contains(&prefix) {
        return Err(Error::invalid(
            "subnet_prefix",
            format!("must be between {} and 29 for {range}", range.prefix_len().max(16)),
        ));
    }
    Ok((range, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(partial: Partial) -> String {
        partial.complete().unwrap_err().public().to_owned()
    }

    #[test]
    fn the_defaults_are_complete() {
        let s = Settings::for_data_dir("/tmp/x".into()).unwrap();
        assert_eq!(s.public_url("acme"), "http://acme.localhost:8080");
        assert_eq!(s.port_range, 20000..=20999);
        assert!(s.cookie_secure);
    }

    #[test]
    fn https_links_carry_no_port_unless_told() {
        let s = Partial {
            public_scheme: Some("https".into()),
            base_domain: Some("example.com".into()),
            data_dir: Some("/tmp/x".into()),
            ..Partial::default()
        }
        .complete()
        .unwrap();
        assert_eq!(s.public_url("console"), "https://console.example.com");
    }

    #[test]
    fn each_refusal_names_its_setting() {
        let base = || Partial { data_dir: Some("/tmp/x".into()), ..Partial::default() };
        for (partial, field) in [
            (Partial { listen: Some("8080".into()), ..base() }, "listen"),
            (Partial { ops_listen: Some("localhost:1".into()), ..base() }, "ops_listen"),
            (Partial { base_domain: Some("a b".into()), ..base() }, "base_domain"),
            (Partial { base_domain: Some("10.0.0.1".into()), ..base() }, "base_domain"),
            (Partial { public_scheme: Some("ftp".into()), ..base() }, "public_scheme"),
            (Partial { backend: Some("lxc".into()), ..base() }, "backend"),
            (Partial { port_range: Some("9-1".into()), ..base() }, "port_range"),
            (Partial { port_range: Some("20-30".into()), ..base() }, "port_range"),
            (Partial { subnet_range: Some("8.8.0.0/16".into()), ..base() }, "subnet_range"),
            (Partial { subnet_range: Some("10.209.1.0/16".into()), ..base() }, "subnet_range"),
            (Partial { subnet_prefix: Some(30), ..base() }, "subnet_prefix"),
            (Partial { subnet_prefix: Some(8), ..base() }, "subnet_prefix"),
            (Partial { default_memory_mb: Some(1), ..base() }, "default_memory_mb"),
            (Partial { default_cpu_millis: Some(1), ..base() }, "default_cpu_millis"),
            (Partial { trusted_proxies: Some("10.0.0.0/8, proxy".into()), ..base() }, "trusted_proxies"),
            (Partial { log_format: Some("xml".into()), ..base() }, "log_format"),
            (Partial { database_url_file: Some("/nonexistent".into()), ..base() }, "DATABASE_URL_FILE"),
        ] {
            let message = refused(partial);
            assert!(message.starts_with(field), "{message}");
        }
    }

    #[test]
    fn a_file_fills_what_flags_leave_open_and_a_typo_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nexaas.yaml");
        std::fs::write(&path, "listen: 127.0.0.1:1234\nbase_domain: example.org\n").unwrap();
        let flags =
            Partial { base_domain: Some("example.com".into()), data_dir: Some("/tmp/x".into()), ..Partial::default() };
        let s = flags.or(Partial::from_file(&path).unwrap()).complete().unwrap();
        assert_eq!((s.base_domain.as_str(), s.listen.port()), ("example.com", 1234));
        std::fs::write(&path, "listne: 127.0.0.1:1234\n").unwrap();
        assert!(Partial::from_file(&path).unwrap_err().public().contains("listne"));
    }
}
