//! The installation's keys: made once, mode 0600, never replaced while they exist.

use crate::error::{Error, Kind, Result};
use nexaas_common::secret;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

fn failed(path: &Path, e: std::io::Error) -> Error {
    Error::new(Kind::Internal, format!("'{}' is not usable: {e}", path.display())).with_source(e)
}

/// A folder that only we may enter.
pub fn private_dir(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| failed(path, e))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(|e| failed(path, e))
}

/// Replaces a file in one step; nobody else may ever read it.
pub fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o600))
        .tempfile_in(folder)
        .map_err(|e| failed(folder, e))?;
    file.write_all(content).and_then(|()| file.as_file().sync_all()).map_err(|e| failed(path, e))?;
    file.persist(path).map_err(|e| failed(path, e.error))?;
    Ok(())
}

/// The 32 bytes of `path`, made when it does not exist.
pub fn key(path: &Path) -> Result<[u8; 32]> {
    match std::fs::read_to_string(path) {
        Ok(text) => hex::decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
            Error::new(Kind::Internal, format!("'{}' does not hold a key of 64 hex digits", path.display()))
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let fresh = secret::key();
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
                .map_err(|e| failed(path, e))?;
            file.write_all(hex::encode(fresh).as_bytes())
                .and_then(|()| file.sync_all())
                .map_err(|e| failed(path, e))?;
            Ok(fresh)
        }
        Err(e) => Err(failed(path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_for_us() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let first = key(&path).unwrap();
        assert_eq!(key(&path).unwrap(), first);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "short").unwrap();
        assert!(key(&path).is_err());
    }
}
