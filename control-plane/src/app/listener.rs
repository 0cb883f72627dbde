//! Binding an address, with an error that says who has it.

use crate::error::{Error, Kind, Result};
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::TcpListener;

pub async fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|e| {
        let message = match e.kind() {
            std::io::ErrorKind::AddrInUse => {
                let owner = owner_of(address.port()).unwrap_or_else(|| "another process".to_owned());
                format!(
                    "{setting}: {address} is taken by {owner}; stop it or choose another with --{}",
                    setting.replace('_', "-")
                )
            }
            std::io::ErrorKind::PermissionDenied => {
                format!("{setting}: {address} needs more rights than this user has; choose a port from 1024 on")
            }
            _ => format!("{setting}: cannot listen on {address}: {e}"),
        };
        Error::new(Kind::Invalid { field: setting.to_owned() }, message)
    })
}

/// The process that listens on `port`, as far as this user may see.
fn owner_of(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .flat_map(|table| table.lines().skip(1).filter_map(|line| listening_inode(line, port)).collect::<Vec<_>>())
        .collect();
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        if holds(&entry.path().join("fd"), &inodes) {
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Some(format!("'{}' (pid {pid})", name.trim()));
        }
    }
    None
}

/// The inode of a line of the kernel's table that describes a listening socket on `port`.
fn listening_inode(line: &str, port: u16) -> Option<String> {
    let parts: Vec<&str> = line.split_whitespace().collect();
    let (_, local_port) = parts.get(1)?.rsplit_once(':')?;
    let listening = *parts.get(3)? == "0A";
    (listening && u16::from_str_radix(local_port, 16).ok()? == port).then(|| parts.get(9).map(|i| (*i).to_owned()))?
}

fn holds(fds: &Path, inodes: &[String]) -> bool {
    let Ok(entries) = std::fs::read_dir(fds) else { return false };
    entries.flatten().filter_map(|e| std::fs::read_link(e.path()).ok()).any(|target| {
        let target = target.to_string_lossy();
        inodes.iter().any(|inode| target == format!("socket:[{inode}]"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_names_its_owner() {
        let held = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = held.local_addr().unwrap();
        let error = bind("listen", address).await.unwrap_err();
        let said = error.public();
        assert!(said.contains(&address.to_string()) && said.contains(&format!("pid {}", std::process::id())), "{said}");
        assert!(said.contains("--listen"), "{said}");
    }
}
