//! Starts the real programs the way `deploy.sh` does, but in a temporary folder with ports and subnets of its own, so that
//! several installations can stand side by side on one machine. Whatever an installation made is gone after `finish`,
//! which fails when something is left over.

use serde_json::Value;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Where the tenants of an installation run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Docker,
    Process,
}

impl Backend {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Process => "process",
        }
    }
}

/// Whether a container engine answers; if not, says so in the form that the test script counts.
pub fn engine_or_skip(test: &str) -> bool {
    let answers = Command::new("docker")
        .args(["version", "--format", "{{.Server.Version}}"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success());
    if !answers {
        eprintln!("SKIPPED: {test}: no container engine answers");
    }
    answers
}

/// The folder of the programs that were built together with this one.
pub fn bin_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("NEXAAS_BIN_DIR") {
        return Ok(PathBuf::from(dir));
    }
    let exe = std::env::current_exe()?;
    let dir = exe.parent().ok_or("this program has no folder")?;
    let dir = if dir.ends_with("deps") { dir.parent().ok_or("deps has no parent")? } else { dir };
    Ok(dir.to_owned())
}

/// The root of the source tree.
pub fn source_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub struct Installation {
    dir: tempfile::TempDir,
    server: Option<Child>,
    bin: PathBuf,
    backend: Backend,
    pub listen: SocketAddr,
    pub ops: SocketAddr,
    environment: Vec<(String, String)>,
    client: reqwest::Client,
}

impl std::fmt::Debug for Installation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Installation")
            .field("listen", &self.listen)
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A number below `limit` that differs between installations on this machine, most likely.
fn lot(limit: u32) -> u32 {
    let bytes = uuid::Uuid::new_v4().into_bytes();
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) % limit
}

impl Installation {
    /// Starts a server and waits until it is ready. With Docker, makes the runner's image first.
    pub async fn start(backend: Backend) -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::Builder::new().prefix("nexaas-it-").tempdir()?;
        // Other users (the database's, a runner's) must be able to pass through.
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711))?;
        let bin = bin_dir()?;
        let (listen, ops) = (free_address()?, free_address()?);
        let first_port = 21_000 + lot(170) * 50;
        let source = source_dir().canonicalize()?;
        // A runner in a process of another user must be able to reach its program and content.
        let share = dir.path().join("share");
        copy_tree(&source.join("framework"), &share.join("framework"))?;
        copy_tree(&source.join("templates"), &share.join("templates"))?;
        let runner = dir.path().join("share/nexaas-runner");
        strip(&bin.join("nexaas-runner"), &runner)?;
        let environment = [
            ("NEXAAS_DATA_DIR", dir.path().join("data").display().to_string()),
            ("NEXAAS_LISTEN", listen.to_string()),
            ("NEXAAS_OPS_LISTEN", ops.to_string()),
            ("NEXAAS_BASE_DOMAIN", "localhost".into()),
            ("NEXAAS_BACKEND", backend.name().into()),
            ("NEXAAS_RUNNER_IMAGE", "nexaas-runner-test:current".into()),
            ("NEXAAS_RUNNER_BINARY", runner.display().to_string()),
            ("NEXAAS_FRAMEWORK_DIR", share.join("framework").display().to_string()),
            ("NEXAAS_TEMPLATES_DIR", share.join("templates").display().to_string()),
            ("NEXAAS_PORT_RANGE", format!("{first_port}-{}", first_port + 49)),
            ("NEXAAS_SUBNET_RANGE", format!("10.210.{}.0/24", lot(256))),
            ("NEXAAS_LOG_FORMAT", "json".into()),
            ("RUST_BACKTRACE", "1".into()),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .to_vec();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(30))
            .no_proxy()
            .build()?;
        let mut this = Self { dir, server: None, bin, backend, listen, ops, environment, client };
        if backend == Backend::Docker {
            this.cli(&["image", "build", "--runner", &runner.display().to_string()])?;
        }
        this.boot().await?;
        Ok(this)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.bin.join("nexaas"));
        command.env_clear().envs(std::env::vars().filter(|(k, _)| {
            matches!(k.as_str(), "PATH" | "HOME" | "USER" | "LANG" | "TZ" | "DOCKER_HOST" | "LLVM_PROFILE_FILE")
        }));
        command.envs(self.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        command.stdin(Stdio::null());
        command
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.path().join("serve.log")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts the server (again) and waits until it is ready.
    pub async fn boot(&mut self) -> Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let child = self.command().arg("serve").stdout(log.try_clone()?).stderr(log).spawn()?;
        self.server = Some(child);
        let url = format!("http://{}/readyz", self.ops);
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.server.as_mut().and_then(|c| c.try_wait().ok().flatten()) {
                return Err(format!("the server ended with {status}:\n{}", self.log_tail()).into());
            }
            if self.client.get(&url).send().await.is_ok_and(|r| r.status().is_success()) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("the server was not ready within 60 s:\n{}", self.log_tail()).into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The last lines of the server's log.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// The server dies without a chance to tidy up.
    pub fn kill_server(&mut self) -> Result<()> {
        if let Some(mut child) = self.server.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    pub fn server_pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// Runs a verb of the command line; fails unless it succeeds.
    pub fn cli(&self, args: &[&str]) -> Result<String> {
        let output = self.cli_output(args)?;
        if !output.status.success() {
            return Err(format!(
                "nexaas {} ended with {}:\n{}{}",
                args.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )
            .into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub fn cli_output(&self, args: &[&str]) -> Result<Output> {
        Ok(self.command().args(args).output_of()?)
    }

    /// A request to the host `<name>.localhost` through the edge.
    pub fn request(&self, method: reqwest::Method, name: &str, path: &str) -> reqwest::RequestBuilder {
        self.client
            .request(method, format!("http://{}{path}", self.listen))
            .header("host", format!("{name}.localhost:{}", self.listen.port()))
    }

    /// A request to the operator's API as the machine's own owner.
    pub fn api(&self, method: reqwest::Method, path: &str) -> Result<reqwest::RequestBuilder> {
        let token = std::fs::read_to_string(self.data_dir().join("secrets/cli.token"))?;
        Ok(self.request(method, "console", &format!("/api/v1{path}")).bearer_auth(token.trim()))
    }

    /// Creates a tenant and answers the operation's JSON at once.
    pub async fn create_tenant(&self, slug: &str, template: &str) -> Result<Value> {
        let body = serde_json::json!({ "slug": slug, "template": template });
        let response = self.api(reqwest::Method::POST, "/tenants")?.json_body(&body).send().await?;
        let status = response.status();
        let text = response.text().await?;
        if status != reqwest::StatusCode::ACCEPTED {
            return Err(format!("creating {slug}: {status}: {text}").into());
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// Waits until the tenant's own subdomain answers that it is healthy.
    pub async fn wait_healthy(&self, slug: &str, within: Duration) -> Result<Duration> {
        let started = Instant::now();
        loop {
            let response = self.request(reqwest::Method::GET, slug, "/api/health").send().await;
            match response {
                Ok(r) if r.status() == reqwest::StatusCode::OK => return Ok(started.elapsed()),
                Ok(r) if started.elapsed() > within => {
                    return Err(format!(
                        "{slug} is not healthy within {within:?}: {}: {}\n{}",
                        r.status(),
                        r.text().await.unwrap_or_default(),
                        self.log_tail()
                    )
                    .into());
                }
                Err(error) if started.elapsed() > within => return Err(error.into()),
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(3)).await,
            }
        }
    }

    /// Ids of the containers of this installation, as the engine lists them.
    pub fn containers(&self) -> Result<Vec<String>> {
        self.engine_list(&["ps", "-aq", "--no-trunc"])
    }

    fn engine_list(&self, args: &[&str]) -> Result<Vec<String>> {
        let install = std::fs::read_to_string(self.data_dir().join("install-id"))?;
        let filter = format!("label=dev.nexaas.install={}", install.trim());
        let output = Command::new("docker").args(args).args(["--filter", &filter]).output_of()?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    /// Containers, networks and volumes of this installation that exist now.
    pub fn engine_objects(&self) -> Result<Vec<String>> {
        let mut all = self.containers()?;
        all.extend(self.engine_list(&["network", "ls", "-q"])?);
        all.extend(self.engine_list(&["volume", "ls", "-q"])?);
        Ok(all)
    }

    /// Stops the server, removes everything it made and fails when something is left.
    pub async fn finish(mut self) -> Result<()> {
        self.stop_server().await?;
        self.cli(&["teardown", "--purge"])?;
        if self.backend == Backend::Docker {
            let left = self.engine_objects()?;
            if !left.is_empty() {
                return Err(format!("left over after the teardown: {left:?}").into());
            }
        }
        let marker = self.dir.path().display().to_string();
        let left: Vec<String> = processes().filter(|(_, command)| command.contains(&marker)).map(|(_, c)| c).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("processes left over after the teardown: {left:?}").into()) }
    }

    /// Asks the server to stop and waits for it.
    pub async fn stop_server(&mut self) -> Result<()> {
        let Some(mut child) = self.server.take() else { return Ok(()) };
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?;
        let end = Instant::now() + Duration::from_secs(40);
        loop {
            if let Some(status) = child.try_wait()? {
                return if status.success() {
                    Ok(())
                } else {
                    Err(format!("the server ended with {status}:\n{}", self.log_tail()).into())
                };
            }
            if Instant::now() > end {
                child.kill()?;
                child.wait()?;
                return Err(format!("the server did not stop within 40 s:\n{}", self.log_tail()).into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Installation {
    /// After a failed test: whatever the installation made must still not stay on the machine.
    fn drop(&mut self) {
        if let Some(mut child) = self.server.take() {
            let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
            for _ in 0..1000 {
                if !matches!(child.try_wait(), Ok(None)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
            eprintln!("--- the server's last words\n{}", self.log_tail());
            let _ = self.cli_output(&["teardown", "--purge"]);
        }
    }
}

/// Every process of the machine with its command line.
pub fn processes() -> impl Iterator<Item = (u32, String)> {
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let text = String::from_utf8_lossy(&line).replace('\0', " ");
        (!text.is_empty()).then_some((pid, text))
    })
}

/// A copy without debug information: an image of the whole would be five times as large.
fn strip(from: &Path, to: &Path) -> Result<()> {
    static ONCE: OnceLock<()> = OnceLock::new();
    if !from.exists() {
        return Err(format!("{} is not built: cargo build -p nexaas -p nexaas-runner", from.display()).into());
    }
    let stripped = Command::new("strip").arg("-o").arg(to).arg(from).status().is_ok_and(|s| s.success());
    if !stripped {
        ONCE.get_or_init(|| eprintln!("strip is missing; using the program with its debug information"));
        std::fs::copy(from, to)?;
    }
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// `Command::output` blocks; in a test that is fine, elsewhere it is not.
trait OutputOf {
    fn output_of(&mut self) -> std::io::Result<Output>;
}

impl OutputOf for Command {
    #[allow(clippy::disallowed_methods, reason = "a test may block its thread")]
    fn output_of(&mut self) -> std::io::Result<Output> {
        self.output()
    }
}

/// JSON bodies without the client's optional feature.
pub trait JsonBody {
    fn json_body(self, value: &Value) -> Self;
}

impl JsonBody for reqwest::RequestBuilder {
    fn json_body(self, value: &Value) -> Self {
        self.header("content-type", "application/json").body(value.to_string())
    }
}
