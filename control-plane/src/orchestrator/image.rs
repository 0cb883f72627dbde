//! Packs the runner image: one layer and its configuration, as an archive that a container engine loads without a registry.
//! Nothing here talks to an engine.
//!
//! Always true: the same inputs give the same bytes (order, owners and times are fixed), so that an unchanged input is
//! recognised by its content hash; links in the inputs are not followed; every program in the image is statically linked,
//! because the image holds no loader.

use super::{RUNNER_GID, RUNNER_UID};
use crate::error::{Error, Kind, Result};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tar::{EntryType, Header};

/// Carries the hash of everything that went into the image.
pub const CONTENT_LABEL: &str = "dev.nexaas.content";
pub const VERSION_LABEL: &str = "org.opencontainers.image.version";
/// What an image made from a release binary stays under.
pub const MAX_RELEASE_BYTES: u64 = 40_000_000;
/// No input folder may hold more; it is content, not data.
const MAX_TREE_BYTES: u64 = 64 << 20;

/// From what an image is made.
#[derive(Debug, Clone)]
pub struct ImageInputs {
    pub runner_binary: PathBuf,
    pub framework_dir: Option<PathBuf>,
    pub templates_dir: Option<PathBuf>,
    pub version: String,
    pub host: HostFiles,
}

/// What the image takes from the host that builds it.
#[derive(Debug, Clone)]
pub struct HostFiles {
    /// Statically linked, for script actions.
    pub busybox: PathBuf,
    pub certificates: PathBuf,
    /// Absent: the image has no zone data of its own (the runner brings its own for schedules).
    pub zoneinfo: Option<PathBuf>,
}

impl HostFiles {
    /// Looks where distributions keep them; what is missing is named with the package that brings it.
    pub fn find() -> Result<Self> {
        let first = |paths: &[&str]| paths.iter().map(PathBuf::from).find(|p| p.is_file());
        let missing = |what: &str, package: &str| {
            Error::new(
                Kind::Unavailable { what: "host files" },
                format!("{what} is missing on this host; install the package {package}"),
            )
        };
        let busybox = ["/bin/busybox", "/usr/bin/busybox", "/usr/local/bin/busybox"];
        let certificates =
            ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
        let zoneinfo = Some(PathBuf::from("/usr/share/zoneinfo")).filter(|p| p.is_dir());
        if zoneinfo.is_none() {
            tracing::warn!("this host has no /usr/share/zoneinfo; scripts in the image know UTC only");
        }
        Ok(Self {
            busybox: first(&busybox).ok_or_else(|| missing("a static busybox", "busybox-static"))?,
            certificates: first(&certificates)
                .ok_or_else(|| missing("the list of CA certificates", "ca-certificates"))?,
            zoneinfo,
        })
    }
}

/// The image as the engine has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    pub reference: String,
    /// `sha256:…`
    pub id: String,
    pub size_bytes: u64,
    /// False: the inputs were those of the image that was there.
    pub built: bool,
}

/// An archive ready to be loaded.
#[derive(Debug)]
pub struct Packed {
    /// Positioned at its beginning; it has no name on disk.
    pub file: File,
    pub content_hash: String,
    pub size_bytes: u64,
}

/// Programs of busybox that scripts commonly call.
const APPLETS: &[&str] = &[
    "[",
    "ash",
    "awk",
    "base64",
    "basename",
    "cat",
    "chmod",
    "cmp",
    "comm",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "diff",
    "dirname",
    "du",
    "echo",
    "egrep",
    "env",
    "expr",
    "false",
    "fgrep",
    "find",
    "fold",
    "grep",
    "gunzip",
    "gzip",
    "head",
    "hexdump",
    "hostname",
    "id",
    "kill",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mktemp",
    "mv",
    "nc",
    "nproc",
    "od",
    "paste",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "realpath",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "sh",
    "sha1sum",
    "sha256sum",
    "sleep",
    "sort",
    "split",
    "stat",
    "tail",
    "tar",
    "tee",
    "test",
    "timeout",
    "touch",
    "tr",
    "true",
    "uname",
    "uniq",
    "wc",
    "wget",
    "which",
    "whoami",
    "xargs",
    "yes",
    "zcat",
];

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error::new(Kind::Internal, format!("cannot read {}: {error}", path.display())).with_source(error)
}

/// Packs everything for the tag `reference`. Blocks; call it on a blocking thread.
pub fn pack(inputs: &ImageInputs, reference: &str) -> Result<Packed> {
    let (repository, tag) = reference.rsplit_once(':').unwrap_or((reference, "latest"));
    let named = !repository.is_empty() && !tag.is_empty() && !tag.contains('/');
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
    if !named || !reference.chars().all(allowed) {
        return Err(Error::invalid("runner_image", format!("'{reference}' is not a name:tag")));
    }
    let mut layer = Layer::new()?;
    fill(&mut layer, inputs)?;
    let (mut layer_file, layer_digest, layer_size) = layer.finish()?;

    let mut hasher = Sha256::new();
    hasher.update(layer_digest.as_bytes());
    hasher.update([0]);
    hasher.update(inputs.version.as_bytes());
    let content_hash = hex::encode(hasher.finalize());

    let config = serde_json::to_vec(&serde_json::json!({
        "architecture": architecture(),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "User": format!("{RUNNER_UID}:{RUNNER_GID}"),
            "Env": ["PATH=/bin", "HOME=/data", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt", "TZDIR=/usr/share/zoneinfo"],
            "Entrypoint": ["/nexaas-runner", "serve"],
            "WorkingDir": "/data",
            "StopSignal": "SIGTERM",
            "ExposedPorts": { "8400/tcp": {} },
            "Labels": { CONTENT_LABEL: content_hash, VERSION_LABEL: inputs.version, "org.opencontainers.image.title": "nexaas-runner" },
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "nexaas image build" }],
    }))
    .map_err(Error::internal)?;
    let config_name = format!("{}.json", hex::encode(Sha256::digest(&config)));
    let manifest = serde_json::to_vec(&serde_json::json!([{
        "Config": config_name,
        "RepoTags": [format!("{repository}:{tag}")],
        "Layers": ["layer.tar"],
    }]))
    .map_err(Error::internal)?;

    let mut write = || -> std::io::Result<File> {
        let mut tar = tar::Builder::new(std::io::BufWriter::new(tempfile::tempfile()?));
        for (name, content) in [(config_name.as_str(), &config), ("manifest.json", &manifest)] {
            let mut header = header(EntryType::Regular, 0o644, content.len() as u64, 0);
            tar.append_data(&mut header, name, content.as_slice())?;
        }
        layer_file.seek(SeekFrom::Start(0))?;
        let mut header = header(EntryType::Regular, 0o644, layer_size, 0);
        tar.append_data(&mut header, "layer.tar", &mut layer_file)?;
        let mut file = tar.into_inner()?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    };
    let file =
        write().map_err(|e| Error::new(Kind::Internal, format!("cannot write the image: {e}")).with_source(e))?;
    Ok(Packed { file, content_hash, size_bytes: layer_size })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn fill(layer: &mut Layer, inputs: &ImageInputs) -> Result<()> {
    for (path, mode, owner) in [
        ("bin", 0o755, 0),
        ("data", 0o700, RUNNER_UID),
        ("etc", 0o755, 0),
        ("etc/ssl", 0o755, 0),
        ("etc/ssl/certs", 0o755, 0),
        ("tmp", 0o1777, 0),
        ("usr", 0o755, 0),
        ("usr/share", 0o755, 0),
        ("usr/share/nexaas", 0o755, 0),
    ] {
        layer.directory(path, mode, owner)?;
    }
    let users = format!("root:x:0:0:root:/:/bin/sh\nnexaas:x:{RUNNER_UID}:{RUNNER_GID}:Nexaas runner:/data:/bin/sh\n");
    layer.bytes("etc/passwd", 0o644, users.as_bytes())?;
    layer.bytes("etc/group", 0o644, format!("root:x:0:\nnexaas:x:{RUNNER_GID}:\n").as_bytes())?;
    // A static program can look names up in files and DNS only; other sources would need libraries that are not here.
    let sources = b"passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n";
    layer.bytes("etc/nsswitch.conf", 0o644, sources)?;
    layer.file("etc/ssl/certs/ca-certificates.crt", 0o644, &inputs.host.certificates)?;

    require_static(&inputs.host.busybox, "busybox", "install busybox-static")?;
    layer.file("bin/busybox", 0o755, &inputs.host.busybox)?;
    for applet in APPLETS {
        layer.symlink(&format!("bin/{applet}"), "busybox")?;
    }
    require_static(&inputs.runner_binary, "runner_binary", "build it with target-feature=+crt-static")?;
    layer.file("nexaas-runner", 0o755, &inputs.runner_binary)?;

    if let Some(zones) = &inputs.host.zoneinfo {
        layer.directory("usr/share/zoneinfo", 0o755, 0)?;
        add_zones(layer, zones)?;
    }
    for (source, target) in
        [(&inputs.framework_dir, "usr/share/nexaas/framework"), (&inputs.templates_dir, "usr/share/nexaas/templates")]
    {
        layer.directory(target, 0o755, 0)?;
        if let Some(source) = source {
            let mut budget = MAX_TREE_BYTES;
            add_tree(layer, source, target, &mut budget)?;
        }
    }
    Ok(())
}

/// Sorted entries of a folder: name, path, and what it is without following links.
fn entries(directory: &Path) -> Result<Vec<(String, PathBuf, std::fs::Metadata)>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|e| unreadable(directory, e))? {
        let entry = entry.map_err(|e| unreadable(directory, e))?;
        let metadata = entry.metadata().map_err(|e| unreadable(&entry.path(), e))?;
        let name = entry.file_name().into_string().map_err(|name| {
            Error::new(Kind::Internal, format!("{} has a name that is not UTF-8: {name:?}", directory.display()))
        })?;
        all.push((name, entry.path(), metadata));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(all)
}

fn add_tree(layer: &mut Layer, source: &Path, target: &str, budget: &mut u64) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    for (name, path, metadata) in entries(source)? {
        let target = format!("{target}/{name}");
        if metadata.is_dir() {
            layer.directory(&target, 0o755, 0)?;
            add_tree(layer, &path, &target, budget)?;
        } else if metadata.is_file() {
            *budget = budget.checked_sub(metadata.len()).ok_or_else(|| {
                Error::new(
                    Kind::Exhausted { resource: "image" },
                    format!("{} holds more than 64 MiB", source.display()),
                )
            })?;
            let mode = if metadata.permissions().mode() & 0o111 != 0 { 0o755 } else { 0o644 };
            layer.file(&target, mode, &path)?;
        } else {
            tracing::warn!(path = %path.display(), "left out of the image: neither a file nor a folder");
        }
    }
    Ok(())
}

/// Real zone files only (they begin with a magic word), each content once: other names of a zone become hard links.
fn add_zones(layer: &mut Layer, root: &Path) -> Result<()> {
    let mut known: HashMap<[u8; 32], String> = HashMap::new();
    let mut folders = vec![(root.to_owned(), "usr/share/zoneinfo".to_owned())];
    while let Some((folder, target)) = folders.pop() {
        for (name, path, _) in entries(&folder)? {
            // Links among zones are the distribution's own; `right` and `posix` repeat everything.
            let Ok(metadata) = std::fs::metadata(&path) else { continue };
            let target = format!("{target}/{name}");
            if metadata.is_dir() {
                if !matches!(name.as_str(), "right" | "posix") {
                    layer.directory(&target, 0o755, 0)?;
                    folders.push((path, target));
                }
                continue;
            }
            if !metadata.is_file() || metadata.len() > 65_536 {
                continue;
            }
            let content = std::fs::read(&path).map_err(|e| unreadable(&path, e))?;
            if !content.starts_with(b"TZif") {
                continue;
            }
            let digest: [u8; 32] = Sha256::digest(&content).into();
            match known.get(&digest) {
                Some(first) => layer.hard_link(&target, first)?,
                None => {
                    layer.bytes(&target, 0o644, &content)?;
                    known.insert(digest, target);
                }
            }
        }
    }
    Ok(())
}

/// Refuses a program that needs a loader or shared libraries: it could not start in the image.
fn require_static(path: &Path, field: &str, remedy: &str) -> Result<()> {
    let mut start = Vec::new();
    let file =
        File::open(path).map_err(|e| Error::invalid(field, format!("cannot be read at {}: {e}", path.display())))?;
    file.take(64 << 10).read_to_end(&mut start).map_err(|e| unreadable(path, e))?;
    match needs_loader(&start) {
        Some(false) => Ok(()),
        Some(true) => Err(Error::invalid(field, format!("{} is dynamically linked; {remedy}", path.display()))),
        None => Err(Error::invalid(field, format!("{} is not a 64-bit Linux program", path.display()))),
    }
}

/// Whether an ELF program names an interpreter. `None`: not a little-endian 64-bit ELF file.
fn needs_loader(start: &[u8]) -> Option<bool> {
    const INTERPRETER: u32 = 3;
    if start.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = start.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0, |value, byte| (value << 8) | usize::from(*byte)))
    };
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        let at = table.checked_add(index.checked_mul(size)?)?;
        if number(at, 4)? == INTERPRETER as usize {
            return Some(true);
        }
    }
    Some(false)
}

fn header(kind: EntryType, mode: u32, size: u64, owner: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(u64::from(owner));
    header.set_gid(u64::from(owner));
    header.set_mtime(0);
    header
}

/// Writes and hashes at once.
struct Hashing {
    file: std::io::BufWriter<File>,
    hasher: Sha256,
    size: u64,
}

impl Write for Hashing {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.size += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

struct Layer(tar::Builder<Hashing>);

impl Layer {
    fn new() -> Result<Self> {
        let file = tempfile::tempfile().map_err(Error::internal)?;
        Ok(Self(tar::Builder::new(Hashing { file: std::io::BufWriter::new(file), hasher: Sha256::new(), size: 0 })))
    }

    fn add(&mut self, path: &str, mut header: Header, content: impl Read) -> Result<()> {
        self.0.append_data(&mut header, path, content).map_err(Error::internal)
    }

    fn directory(&mut self, path: &str, mode: u32, owner: u32) -> Result<()> {
        self.add(&format!("{path}/"), header(EntryType::Directory, mode, 0, owner), std::io::empty())
    }

    fn bytes(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.add(path, header(EntryType::Regular, mode, content.len() as u64, 0), content)
    }

    fn file(&mut self, path: &str, mode: u32, source: &Path) -> Result<()> {
        let file = File::open(source).map_err(|e| unreadable(source, e))?;
        let size = file.metadata().map_err(|e| unreadable(source, e))?.len();
        // A file that grows meanwhile would break the archive.
        self.add(path, header(EntryType::Regular, mode, size, 0), file.take(size))
    }

    fn link(&mut self, kind: EntryType, path: &str, target: &str) -> Result<()> {
        let mut header = header(kind, 0o777, 0, 0);
        self.0.append_link(&mut header, path, target).map_err(Error::internal)
    }

    fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.link(EntryType::Symlink, path, target)
    }

    fn hard_link(&mut self, path: &str, target: &str) -> Result<()> {
        self.link(EntryType::Link, path, target)
    }

    fn finish(self) -> Result<(File, String, u64)> {
        let hashing = self.0.into_inner().map_err(Error::internal)?;
        let file = hashing.file.into_inner().map_err(|e| Error::internal(e.into_error()))?;
        Ok((file, hex::encode(hashing.hasher.finalize()), hashing.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest thing that passes for a static program: a header without program headers.
    fn program(path: &Path) {
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(64, 0);
        std::fs::write(path, elf).unwrap();
    }

    fn inputs(dir: &Path) -> ImageInputs {
        program(&dir.join("runner"));
        program(&dir.join("busybox"));
        std::fs::write(dir.join("ca.crt"), "certificates").unwrap();
        let zones = dir.join("zones/Europe");
        std::fs::create_dir_all(&zones).unwrap();
        std::fs::write(zones.join("Berlin"), "TZif one").unwrap();
        std::fs::write(zones.join("Copenhagen"), "TZif one").unwrap();
        std::fs::write(zones.join("Paris"), "TZif two").unwrap();
        std::fs::write(zones.join("readme"), "no zone").unwrap();
        let framework = dir.join("framework/agents");
        std::fs::create_dir_all(&framework).unwrap();
        std::fs::write(framework.join("a.md"), "agent").unwrap();
        std::os::unix::fs::symlink("/etc/shadow", framework.join("leak")).unwrap();
        ImageInputs {
            runner_binary: dir.join("runner"),
            framework_dir: Some(dir.join("framework")),
            templates_dir: None,
            version: "1.2.3".into(),
            host: HostFiles {
                busybox: dir.join("busybox"),
                certificates: dir.join("ca.crt"),
                zoneinfo: Some(dir.join("zones")),
            },
        }
    }

    fn layer_entries(packed: Packed) -> Vec<(String, EntryType, u64, u32)> {
        let mut outer = tar::Archive::new(packed.file);
        for entry in outer.entries().unwrap() {
            let entry = entry.unwrap();
            if entry.path().unwrap().to_str() == Some("layer.tar") {
                let mut inner = tar::Archive::new(entry);
                return inner
                    .entries()
                    .unwrap()
                    .map(|e| {
                        let e = e.unwrap();
                        let h = e.header();
                        (e.path().unwrap().display().to_string(), h.entry_type(), h.uid().unwrap(), h.mode().unwrap())
                    })
                    .collect();
            }
        }
        panic!("no layer");
    }

    #[test]
    fn the_same_inputs_give_the_same_image_and_any_change_another() {
        let dir = tempfile::tempdir().unwrap();
        let inputs = inputs(dir.path());
        let hash = |i: &ImageInputs| pack(i, "runner:1").unwrap().content_hash;
        let first = hash(&inputs);
        assert_eq!(first, hash(&inputs));
        std::fs::write(dir.path().join("framework/agents/a.md"), "another").unwrap();
        let second = hash(&inputs);
        assert_ne!(first, second);
        assert_ne!(second, hash(&ImageInputs { version: "1.2.4".into(), ..inputs }));
    }

    #[test]
    fn the_image_holds_what_a_runner_needs_with_the_right_owners_and_nothing_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let entries = layer_entries(pack(&inputs(dir.path()), "runner:1").unwrap());
        let find = |path: &str| entries.iter().find(|e| e.0.trim_end_matches('/') == path);
        assert_eq!(find("data").map(|e| (e.2, e.3)), Some((u64::from(RUNNER_UID), 0o700)));
        assert_eq!(find("tmp").map(|e| e.3), Some(0o1777));
        assert_eq!(find("nexaas-runner").map(|e| (e.1, e.3)), Some((EntryType::Regular, 0o755)));
        assert_eq!(find("bin/sh").map(|e| e.1), Some(EntryType::Symlink));
        assert_eq!(find("usr/share/nexaas/framework/agents/a.md").map(|e| e.1), Some(EntryType::Regular));
        assert!(find("usr/share/nexaas/framework/agents/leak").is_none());
        // Equal zones are stored once; what is no zone is left out.
        assert_eq!(find("usr/share/zoneinfo/Europe/Berlin").map(|e| e.1), Some(EntryType::Regular));
        assert_eq!(find("usr/share/zoneinfo/Europe/Copenhagen").map(|e| e.1), Some(EntryType::Link));
        assert!(find("usr/share/zoneinfo/Europe/readme").is_none());
    }

    #[test]
    fn a_program_that_could_not_start_in_the_image_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let inputs = inputs(dir.path());
        std::fs::write(dir.path().join("runner"), "#!/bin/sh\n").unwrap();
        let error = pack(&inputs, "runner:1").unwrap_err();
        assert_eq!(error.kind, Kind::Invalid { field: "runner_binary".into() });
        // An ELF header with one program header that names an interpreter.
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(64, 0);
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 1;
        elf.extend_from_slice(&[3, 0, 0, 0]);
        elf.resize(120, 0);
        std::fs::write(dir.path().join("runner"), elf).unwrap();
        let error = pack(&inputs, "runner:1").unwrap_err();
        assert!(error.public().contains("dynamically linked"), "{error}");
    }

    #[test]
    fn a_tag_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let inputs = inputs(dir.path());
        for reference in ["", ":", "a:", "a b:1", "x;rm:1", "host:5000/name"] {
            let error = pack(&inputs, reference).unwrap_err();
            assert_eq!(error.kind, Kind::Invalid { field: "runner_image".into() }, "{reference}");
        }
    }
}
