//! A test's own installation on the real container engine: a tiny static image, unique labels, and a check that nothing is
//! left behind whatever the test did.

use bollard::Docker;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::query_parameters::{BuildImageOptions, RemoveImageOptions};
use futures::StreamExt as _;
use nexaas::domain::tenant::{BackendKind, Desired, Limits, Subnet, Tenant};
use nexaas::domain::{InstallId, TenantId};
use nexaas::orchestrator::docker::{DockerBackend, DockerOptions};
use nexaas::orchestrator::image::{HostFiles, ImageInputs};
use nexaas::orchestrator::{ObjectKind, RunnerBackend, RunnerIdentity, RunnerSpec};
use nexaas_common::clock::{Clock as _, SystemClock};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const LIMIT: Duration = Duration::from_secs(60);
/// Reports what it sees from inside, then serves on the runner's port.
const ENTRY: &str = r#"
echo "arguments: $*"
echo "uid=$(id -u) gid=$(id -g)"
stat -c '%A %u %g %n' /data/identity
(cd /data/identity && stat -c '%A %u %g %n' *)
echo "key: $(cat /data/identity/key.pem)"
touch /x 2>/dev/null || echo "root is read-only"
cp /bin/busybox /tmp/echo && /tmp/echo hi 2>/dev/null || echo "tmp is not executable"
grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status
echo "core: $(ulimit -c)"
echo "files: $(ulimit -n)"
mkdir -p /data/www
echo start >> /data/starts
echo "starts: $(wc -l < /data/starts)"
echo hello > /data/www/index.html
exec busybox httpd -f -p 8400 -h /data/www
"#;

pub struct Engine {
    pub install: InstallId,
    pub docker: Docker,
    /// The tag of the test image, this test's alone.
    pub image: String,
    /// Makes runners from the test image.
    pub backend: DockerBackend,
    /// Knows the image below it: packed as a runner image is, with busybox in the runner's place.
    pub packed: DockerBackend,
    packed_image: String,
    next: AtomicU16,
}

pub fn identity() -> RunnerIdentity {
    RunnerIdentity {
        certificate_pem: "the certificate\n".into(),
        key_pem: "the key\n".to_owned().into(),
        ca_pem: "the authority\n".into(),
    }
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// The runner that this build made, beside the folder of this test's program.
pub fn runner_binary() -> Option<std::path::PathBuf> {
    let program = std::env::current_exe().ok()?;
    Some(program.parent()?.parent()?.join("nexaas-runner")).filter(|p| p.is_file())
}

/// As the control plane knows the tenant of `spec`.
pub fn tenant(spec: &RunnerSpec) -> Tenant {
    let now = SystemClock.now();
    Tenant {
        id: spec.tenant_id,
        slug: spec.slug.clone(),
        display_name: "Acme".into(),
        desired: Desired::Running,
        generation: spec.generation,
        observed_generation: spec.generation,
        template: "fresh".into(),
        backend: BackendKind::Docker,
        limits: spec.limits,
        port: Some(spec.port),
        subnet: spec.subnet,
        conditions: Vec::new(),
        created_at: now,
        updated_at: now,
    }
}

/// Runs `test` with an engine, or says that there is none. Afterwards nothing may be left; what is left is removed, too.
pub async fn with_engine(test: impl AsyncFnOnce(&Engine)) {
    let Some(engine) = Engine::connect().await else {
        eprintln!("SKIPPED: no container engine");
        return;
    };
    let outcome = futures::FutureExt::catch_unwind(AssertUnwindSafe(test(&engine))).await;
    let left = engine.sweep().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
    assert!(left.is_empty(), "left behind: {left:?}");
}

impl Engine {
    async fn connect() -> Option<Self> {
        let host = nexaas::orchestrator::docker::resolve_host(None);
        let docker = Docker::connect_with_host(&host).ok()?;
        docker.ping().await.ok()?;
        let docker = docker.negotiate_version().await.unwrap();
        let install = InstallId::generate();
        let image = format!("nexaas-test-runner:{}", install.uuid());
        let packed_image = format!("nexaas-test-packed:{}", install.uuid());
        let of = |image: &str| {
            DockerBackend::new(DockerOptions { install, host: None, runtime: None, image: image.to_owned() })
        };
        let (backend, packed) = (of(&image), of(&packed_image));
        let engine = Self { install, docker, image, backend, packed, packed_image, next: AtomicU16::new(0) };
        engine.build().await;
        Some(engine)
    }

    pub fn inputs(&self) -> ImageInputs {
        let host = HostFiles { zoneinfo: None, ..HostFiles::find().unwrap() };
        ImageInputs {
            runner_binary: host.busybox.clone(),
            framework_dir: None,
            templates_dir: None,
            version: format!("test {}", self.install.uuid()),
            host,
        }
    }

    async fn build(&self) {
        let built = self.packed.build_image(self.inputs()).await.unwrap();
        let entry = serde_json::to_string(&["/bin/sh", "-c", ENTRY, "runner"]).unwrap();
        let dockerfile = format!("FROM {}\nENTRYPOINT {entry}\n", built.reference);
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(dockerfile.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "Dockerfile", dockerfile.as_bytes()).unwrap();
        let context = tar.into_inner().unwrap();
        let options =
            BuildImageOptions { t: Some(self.image.clone()), rm: true, forcerm: true, ..BuildImageOptions::default() };
        let mut steps = Box::pin(self.docker.build_image(options, None, Some(bollard::body_full(context.into()))));
        while let Some(step) = steps.next().await {
            step.unwrap();
        }
    }

    /// A tenant of its own port and network.
    pub fn spec(&self) -> RunnerSpec {
        let tenant_id = TenantId::generate();
        // From the random end of the installation's id, so that tests side by side do not meet.
        let random = self.install.uuid().as_bytes()[13..16].to_vec();
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let third = random[0] ^ random[2];
        let fourth = ((u16::from(random[1]) + n) % 32 * 8) as u8;
        RunnerSpec {
            tenant_id,
            slug: "acme".parse().unwrap(),
            generation: 7,
            limits: Limits { memory_bytes: 64 << 20, cpu_millis: 500, pids: 64 },
            port: free_port(),
            subnet: Some(Subnet { base: [10, 213, third, fourth].into(), prefix: 29 }),
        }
    }

    pub async fn make(&self, spec: &RunnerSpec) {
        self.backend.ensure_network(spec).await.unwrap();
        self.backend.ensure_volume(spec).await.unwrap();
        self.backend.ensure_runner(spec, &identity()).await.unwrap();
    }

    pub async fn remove(&self, spec: &RunnerSpec) {
        for kind in [ObjectKind::Runner, ObjectKind::Volume, ObjectKind::Network] {
            self.backend.remove(spec.tenant_id, kind).await.unwrap();
        }
    }

    /// Waits until the container answers on this host's loopback.
    pub async fn answers(&self, port: u16) {
        let asked = async {
            loop {
                if let Ok(answer) = get(port).await
                    && answer.contains("hello")
                {
                    return;
                }
                // The engine's proxy accepts before the container listens, and there is no event for that.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, asked).await.unwrap();
    }

    /// Runs a command in a container: its exit code and output.
    pub async fn exec(&self, container: &str, command: Vec<String>) -> (i64, String) {
        let options = CreateExecOptions {
            cmd: Some(command),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..CreateExecOptions::default()
        };
        let id = self.docker.create_exec(container, options).await.unwrap().id;
        let mut text = String::new();
        if let StartExecResults::Attached { mut output, .. } = self.docker.start_exec(&id, None).await.unwrap() {
            while let Some(part) = output.next().await {
                text.push_str(&part.unwrap().to_string());
            }
        }
        (self.docker.inspect_exec(&id).await.unwrap().exit_code.unwrap(), text)
    }

    /// Removes whatever the test left, and says what it was.
    async fn sweep(&self) -> Vec<String> {
        let left = self.backend.list().await.unwrap();
        for kind in [ObjectKind::Runner, ObjectKind::Volume, ObjectKind::Network] {
            for found in left.iter().filter(|f| f.kind == kind) {
                self.backend.remove(found.tenant_id, kind).await.unwrap();
            }
        }
        for image in [&self.image, &self.packed_image] {
            self.docker.remove_image(image, None::<RemoveImageOptions>, None).await.unwrap();
        }
        left.into_iter().map(|f| format!("{:?} {}", f.kind, f.name)).collect()
    }
}

async fn get(port: u16) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
