//! The README's first command, run as a new user would: twice, and undone.

use nexaas_test_system::{Result, engine_or_skip, processes, source_dir};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

struct Deployment {
    folder: tempfile::TempDir,
    listen: String,
    ops: String,
    ports: String,
    subnets: String,
}

impl Deployment {
    fn new(ports: u16, subnet: u8) -> Result<Self> {
        let free = || -> Result<String> { Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string()) };
        let folder = tempfile::Builder::new().prefix("nexaas-deploy-").tempdir()?;
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            folder,
            listen: free()?,
            ops: free()?,
            ports: format!("{ports}-{}", ports + 20),
            subnets: format!("10.212.{subnet}.0/24"),
        })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs `deploy.sh` with the programs that this test was built with; answers its output.
    fn run(&self, args: &[&str]) -> Result<(i32, String)> {
        let child = Command::new("./deploy.sh")
            .args(args)
            .current_dir(source_dir())
            .env("NEXAAS_BUILD_PROFILE", "dev")
            .env("NEXAAS_DATA_DIR", self.path().join("data"))
            .env("NEXAAS_PREFIX", self.path().join("prefix"))
            .env("NEXAAS_LISTEN", &self.listen)
            .env("NEXAAS_OPS_LISTEN", &self.ops)
            .env("NEXAAS_PORT_RANGE", &self.ports)
            .env("NEXAAS_SUBNET_RANGE", &self.subnets)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let output = child.wait_with_output()?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok((output.status.code().unwrap_or(-1), text))
    }

    fn health(&self) -> Result<bool> {
        let status = Command::new("curl")
            .args(["-fsS", "-m", "10", "-o", "/dev/null", "-H", "Host: demo.localhost"])
            .arg(format!("http://{}/api/health", self.listen))
            .status()?;
        Ok(status.success())
    }

    fn leftovers(&self) -> Vec<String> {
        let mark = self.path().display().to_string();
        processes().filter(|(_, command)| command.contains(&mark)).map(|(_, command)| command).collect()
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        let _ = self.run(&["down", "--purge"]);
    }
}

fn walk(backend: &str, deployment: &Deployment) -> Result<()> {
    let (code, first) = deployment.run(&["--backend", backend, "demo"])?;
    assert_eq!(code, 0, "{first}");
    assert!(first.contains("Password"), "the first operator's password is printed once:\n{first}");
    assert!(deployment.health()?);
    let pids = |deployment: &Deployment| {
        let mark = deployment.path().display().to_string();
        processes().filter(|(_, c)| c.contains(&mark)).map(|(pid, _)| pid).collect::<Vec<_>>()
    };
    let before = pids(deployment);
    let (code, second) = deployment.run(&["--backend", backend, "demo"])?;
    assert_eq!(code, 0, "{second}");
    assert!(!second.contains("Password"), "the password is printed once only:\n{second}");
    assert_eq!(pids(deployment), before, "a second run restarts nothing:\n{second}");
    assert!(deployment.health()?);

    let (code, down) = deployment.run(&["down"])?;
    assert_eq!(code, 0, "{down}");
    assert!(!deployment.health()?);
    assert_eq!(deployment.leftovers(), Vec::<String>::new());
    let (code, again) = deployment.run(&["--backend", backend, "demo"])?;
    assert_eq!(code, 0, "the data is still there after down:\n{again}");
    assert!(!again.contains("Password"), "{again}");
    assert!(deployment.health()?);
    let (code, purged) = deployment.run(&["down", "--purge"])?;
    assert_eq!(code, 0, "{purged}");
    assert_eq!(deployment.leftovers(), Vec::<String>::new());
    assert!(!deployment.path().join("data").exists(), "--purge deletes the data");
    Ok(())
}

#[test]
fn process_deploy_twice_and_undo() -> Result<()> {
    walk("process", &Deployment::new(29_900, 1)?)
}

#[test]
fn docker_deploy_twice_and_undo() -> Result<()> {
    if !engine_or_skip("deploy.sh with containers") {
        return Ok(());
    }
    walk("docker", &Deployment::new(29_930, 2)?)
}

#[test]
fn bad_arguments_are_refused_in_one_line() -> Result<()> {
    let deployment = Deployment::new(29_960, 3)?;
    for args in [vec!["nope"], vec!["--backend", "vm"], vec!["--purge"]] {
        let (code, text) = deployment.run(&args)?;
        assert_eq!((code, text.lines().count()), (2, 1), "{args:?}: {text}");
    }
    Ok(())
}
