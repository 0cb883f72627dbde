//! What the runner was told, checked: from here on every value is typed and every combination makes sense. A value that
//! breaks a rule is refused with the name of its setting, before anything is opened or written.

use crate::cli::ServeArgs;
use nexaas_common::id::TenantId;
use nexaas_common::secret::SecretString;
use nexaas_engine::{OpsConfig, Registration};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;

/// A setting that cannot be used; the text names it and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {rule}")]
pub struct Refusal {
    pub setting: String,
    pub rule: String,
}

impl Refusal {
    pub fn new(setting: impl Into<String>, rule: impl Into<String>) -> Self {
        Self { setting: setting.into(), rule: rule.into() }
    }
}

/// Whom the runner serves and how it is reached.
#[derive(Debug, Clone)]
pub enum Mode {
    /// A tenant of a control plane: mutual TLS, settings handed over by `Configure`.
    Tenant { id: TenantId, generation: u64, identity_dir: PathBuf },
    /// One client on its own: plain HTTP, settings from the environment.
    Standalone(Box<Standalone>),
}

#[derive(Debug, Clone)]
pub struct Standalone {
    pub api_key: SecretString,
    pub secrets: HashMap<String, SecretString>,
    pub public_url: Option<Url>,
    pub registration: Registration,
    pub template: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Config {
    pub mode: Mode,
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    pub workspace_root: PathBuf,
    pub framework_root: Option<PathBuf>,
    pub templates_root: Option<PathBuf>,
    pub database_path: PathBuf,
    pub worker_pool_size: usize,
    pub default_timezone: chrono_tz::Tz,
    pub shell: PathBuf,
    /// The program that launches scripts; only the program itself can say where that is.
    pub script_host: Option<PathBuf>,
    pub allow_private_webhook_targets: Vec<ipnet::IpNet>,
    /// Exact origins, without a trailing slash.
    pub cors_origins: Vec<String>,
    pub anthropic_base_url: Url,
    pub jwt_secret: Option<SecretString>,
    pub monitor: OpsConfig,
    pub shutdown: Duration,
    /// How often a stream asks whether its caller's credential still holds.
    pub recheck: Duration,
    /// What the operator should know but what does not stop the start.
    pub notes: Vec<String>,
}

const RECHECK: Duration = Duration::from_secs(60);
const SHARE: &str = "/usr/share/nexaas";
/// The fewest characters an API key or a signing secret may have.
const SECRET_MIN: usize = 16;

impl Config {
    /// Checks what the command line and the environment said.
    pub fn resolve(args: &ServeArgs, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Refusal> {
        let mut notes = Vec::new();
        let data_dir = args
            .data_dir
            .clone()
            .unwrap_or_else(|| PathBuf::from(if args.tenant.is_some() { "/data" } else { "./data" }));
        let mode = match &args.tenant {
            Some(text) => Mode::Tenant {
                id: text.parse().map_err(|_| Refusal::new("--tenant", format!("'{text}' is not a UUID")))?,
                generation: args.generation,
                identity_dir: args.identity_dir.clone().unwrap_or_else(|| data_dir.join("identity")),
            },
            None => Mode::Standalone(Box::new(standalone(args, env)?)),
        };
        let listen = listen(args, &mode)?;
        if matches!(mode, Mode::Standalone(_)) && !listen.ip().is_loopback() {
            notes.push(format!(
                "listening on {listen} in plain HTTP: keys and passwords cross the network unencrypted; put a TLS proxy in front of it"
            ));
        }
        for (name, why) in [
            ("ENGINE_TICK_SECONDS", "ignored: the scheduler wakes at the earliest due time and does not tick"),
            ("COOKIE_SECURE", "ignored: the runner sets no cookies"),
            ("CLAUDE_CODE_PATH", "ignored: this version does not start the Claude Code CLI"),
        ] {
            if env(name).is_some() {
                notes.push(format!("{name} is {why}"));
            }
        }
        let monitor = args.monitor.resolve(env, &mut notes)?;
        Ok(Self {
            mode,
            listen,
            workspace_root: args.workspace_root.clone().unwrap_or_else(|| data_dir.join("workspace")),
            database_path: args.database_path.clone().unwrap_or_else(|| data_dir.join("nexaas.db")),
            framework_root: shared(args.framework_root.as_deref(), "--framework-root", "framework")?,
            templates_root: shared(args.templates_root.as_deref(), "--templates-root", "templates")?,
            data_dir,
            worker_pool_size: usize::from(args.worker_pool_size),
            default_timezone: args.default_timezone.parse().map_err(|_| {
                Refusal::new("--default-timezone", format!("'{}' is not an IANA time zone", args.default_timezone))
            })?,
            shell: args.shell.clone(),
            script_host: None,
            allow_private_webhook_targets: networks(&args.allow_private_webhook_targets)?,
            cors_origins: origins(&args.cors_origins)?,
            anthropic_base_url: http_url("ANTHROPIC_BASE_URL", &args.anthropic_base_url)?,
            jwt_secret: secret(env, "JWT_SECRET", args.jwt_secret_file.as_deref(), SECRET_MIN)?,
            monitor,
            shutdown: Duration::from_secs(args.shutdown_seconds),
            recheck: RECHECK,
            notes,
        })
    }
}

fn standalone(args: &ServeArgs, env: &dyn Fn(&str) -> Option<String>) -> Result<Standalone, Refusal> {
    let api_key = secret(env, "API_KEY", args.api_key_file.as_deref(), SECRET_MIN)?.ok_or_else(|| {
        Refusal::new(
            "API_KEY",
            "is required when the runner stands alone (or API_KEY_FILE; a tenant's runner needs --tenant)",
        )
    })?;
    let mut secrets = HashMap::new();
    if let Some(key) = secret(env, "ANTHROPIC_API_KEY", args.anthropic_api_key_file.as_deref(), 1)? {
        secrets.insert("ANTHROPIC_API_KEY".to_owned(), key);
    }
    Ok(Standalone {
        api_key,
        secrets,
        public_url: match args.public_url.as_deref().filter(|u| !u.is_empty()) {
            Some(text) => Some(http_url("--public-url", text)?),
            None => None,
        },
        registration: args
            .registration
            .parse()
            .map_err(|_| Refusal::new("--registration", "must be one of open, invite, closed"))?,
        template: args.template.clone().filter(|t| !t.is_empty()),
    })
}

fn listen(args: &ServeArgs, mode: &Mode) -> Result<SocketAddr, Refusal> {
    if let Some(address) = args.listen {
        return Ok(address);
    }
    match mode {
        Mode::Tenant { .. } => Ok(SocketAddr::from(([0, 0, 0, 0], 8400))),
        Mode::Standalone(_) => match args.host.parse::<IpAddr>() {
            Ok(ip) => Ok(SocketAddr::new(ip, args.port)),
            Err(_) => (args.host.as_str(), args.port)
                .to_socket_addrs()
                .ok()
                .and_then(|mut found| found.next())
                .ok_or_else(|| {
                    Refusal::new("--host", format!("'{}' is neither an address nor a name that resolves", args.host))
                }),
        },
    }
}

/// A secret from the environment or from a file, but not from both.
pub(crate) fn secret(
    env: &dyn Fn(&str) -> Option<String>,
    name: &str,
    file: Option<&Path>,
    minimum: usize,
) -> Result<Option<SecretString>, Refusal> {
    let inline = env(name).filter(|v| !v.is_empty());
    let (value, from) = match (inline, file) {
        (Some(_), Some(_)) => {
            return Err(Refusal::new(name, format!("is set together with {name}_FILE; use one of them")));
        }
        (Some(value), None) => (value, name.to_owned()),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .map_err(|e| Refusal::new(format!("{name}_FILE"), format!("{} cannot be read: {e}", path.display())))?;
            (text.trim_end_matches(['\r', '\n']).to_owned(), format!("{name}_FILE"))
        }
        (None, None) => return Ok(None),
    };
    if value.len() < minimum {
        return Err(Refusal::new(from, format!("must have at least {minimum} characters")));
    }
    if value.chars().any(char::is_control) {
        return Err(Refusal::new(from, "must be one line without control characters"));
    }
    Ok(Some(SecretString::from(value)))
}

fn shared(given: Option<&Path>, setting: &str, folder: &str) -> Result<Option<PathBuf>, Refusal> {
    match given {
        Some(path) if path.is_dir() => Ok(Some(path.to_owned())),
        Some(path) => Err(Refusal::new(setting, format!("{} is not a directory", path.display()))),
        None => Ok(Some(Path::new(SHARE).join(folder)).filter(|p| p.is_dir())),
    }
}

fn networks(texts: &[String]) -> Result<Vec<ipnet::IpNet>, Refusal> {
    let rule = |text: &str| {
        Refusal::new(
            "--allow-private-webhook-targets",
            format!("'{text}' is not a network such as 10.0.0.0/24 or an address"),
        )
    };
    texts
        .iter()
        .map(|t| t.trim())
        .filter(|t| !t.is_empty())
        .map(|t| {
            t.parse::<ipnet::IpNet>().or_else(|_| t.parse::<IpAddr>().map(ipnet::IpNet::from)).map_err(|_| rule(t))
        })
        .collect()
}

fn origins(texts: &[String]) -> Result<Vec<String>, Refusal> {
    texts.iter().map(|t| t.trim()).filter(|t| !t.is_empty()).map(origin).collect()
}

fn origin(text: &str) -> Result<String, Refusal> {
    let refuse = || {
        Refusal::new(
            "CORS_ORIGINS",
            format!("'{text}' is not an exact origin such as https://app.example.com (no wildcard, no path)"),
        )
    };
    let url = http_url("CORS_ORIGINS", text).map_err(|_| refuse())?;
    let canonical = url.origin().ascii_serialization();
    if url.path() == "/" && url.query().is_none() && url.fragment().is_none() && text.trim_end_matches('/') == canonical
    {
        Ok(canonical)
    } else {
        Err(refuse())
    }
}

pub(crate) fn http_url(setting: &str, text: &str) -> Result<Url, Refusal> {
    let refuse = || Refusal::new(setting, format!("'{text}' is not an http or https URL"));
    let url = Url::parse(text).map_err(|_| refuse())?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() { Ok(url) } else { Err(refuse()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn resolve(flags: &[&str], env: &[(&str, &str)]) -> Result<Config, Refusal> {
        let cli = Cli::try_parse_from(["nexaas-runner", "serve"].iter().chain(flags)).unwrap();
        let Command::Serve(args) = cli.command else { unreachable!() };
        let env: HashMap<String, String> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::resolve(&args, &|name| env.get(name).cloned())
    }

    const KEY: (&str, &str) = ("API_KEY", "0123456789abcdef");

    #[test]
    fn a_runner_that_stands_alone_needs_an_api_key() {
        let refusal = resolve(&[], &[]).unwrap_err();
        assert_eq!(refusal.setting, "API_KEY");
        assert!(resolve(&[], &[("API_KEY", "short")]).unwrap_err().rule.contains("at least 16"));
        let config = resolve(&[], &[KEY]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8400");
        assert_eq!(config.database_path, Path::new("./data/nexaas.db"));
        assert!(config.notes.is_empty());
    }

    #[test]
    fn a_tenants_runner_listens_everywhere_and_needs_no_key() {
        let config = resolve(&["--tenant", "01890a5d-ac96-774b-bcce-b302099a8057"], &[]).unwrap();
        assert_eq!(config.listen.to_string(), "0.0.0.0:8400");
        let Mode::Tenant { identity_dir, .. } = config.mode else { panic!("wrong mode") };
        assert_eq!(identity_dir, Path::new("/data/identity"));
    }

    #[test]
    fn each_refusal_names_its_setting() {
        for (flags, setting) in [
            (vec!["--tenant", "acme"], "--tenant"),
            (vec!["--default-timezone", "Mars/Olympus"], "--default-timezone"),
            (vec!["--cors-origins", "*"], "CORS_ORIGINS"),
            (vec!["--cors-origins", "https://a.example/path"], "CORS_ORIGINS"),
            (vec!["--allow-private-webhook-targets", "ten"], "--allow-private-webhook-targets"),
            (vec!["--registration", "maybe"], "--registration"),
            (vec!["--framework-root", "/nonexistent-framework"], "--framework-root"),
            (vec!["--ops-webhook-url", "ftp://x"], "OPS_WEBHOOK_URL"),
            (vec!["--public-url", "acme"], "--public-url"),
        ] {
            assert_eq!(resolve(&flags, &[KEY]).unwrap_err().setting, setting, "{flags:?}");
        }
    }

    #[test]
    fn an_open_address_and_ignored_settings_are_said_aloud() {
        let config = resolve(&["--host", "0.0.0.0"], &[KEY, ("ENGINE_TICK_SECONDS", "30")]).unwrap();
        assert_eq!(config.notes.len(), 2, "{:?}", config.notes);
        assert!(config.notes[0].contains("unencrypted"));
        assert!(config.notes[1].starts_with("ENGINE_TICK_SECONDS is ignored"));
    }

    #[test]
    fn a_secret_comes_from_its_file_without_the_line_end() {
        use nexaas_common::secret::ExposeSecret as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        let flag = path.to_str().unwrap();
        let config = resolve(&["--api-key-file", flag], &[]).unwrap();
        let Mode::Standalone(alone) = config.mode else { panic!("wrong mode") };
        assert_eq!(alone.api_key.expose_secret(), "0123456789abcdef");
        assert!(resolve(&["--api-key-file", flag], &[KEY]).unwrap_err().rule.contains("use one of them"));
    }
}
