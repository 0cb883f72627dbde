//! A disk of a few megabytes: a memory file system in a mount namespace of its own, into which the test starts itself again.
//! Nothing of it is left, however the test ends.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

const INSIDE: &str = "NEXAAS_SMALL_DISK";
const MOUNT: &str = r#"mount -t tmpfs -o size="$1",mode=0700 none "$2" && shift 2 && exec "$@""#;

/// The folder of the small disk, inside; outside it runs the test `name` inside and answers nothing.
pub async fn inside(name: &str, size: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(INSIDE) {
        return Some(folder.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let command = |program: &[&str]| {
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "--propagation", "private", "sh", "-c", MOUNT, "sh", size]);
        command.arg(folder.path()).args(program).env(INSIDE, folder.path()).kill_on_drop(true);
        command
    };
    match command(&["true"]).stdin(Stdio::null()).output().await {
        Ok(probe) if probe.status.success() => {}
        Ok(probe) => {
            eprintln!("SKIPPED: no file system can be mounted: {}", String::from_utf8_lossy(&probe.stderr).trim());
            return None;
        }
        Err(error) => {
            eprintln!("SKIPPED: no file system can be mounted: unshare: {error}");
            return None;
        }
    }
    let this = std::env::current_exe().unwrap();
    let status = command(&[this.to_str().unwrap(), "--exact", name, "--nocapture"]).status().await.unwrap();
    assert!(status.success(), "inside, on the small disk: {status}");
    None
}

/// What takes all the space there is.
pub struct Filler(PathBuf);

impl Filler {
    pub fn fill(folder: &Path) -> Self {
        let path = folder.join("filler");
        let mut file = File::create(&path).unwrap();
        for block in [64 * 1024, 4096, 1] {
            loop {
                match file.write_all(&vec![0; block]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        Self(path)
    }

    pub fn give_back(self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}
