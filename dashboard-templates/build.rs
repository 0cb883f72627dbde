//! Takes htmx and its server-sent-events extension from a crate that carries them (no download, no copy in the repository),
//! checks htmx against a known hash, and computes the content hash of everything the browser loads.

use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const HTMX_SHA256: &str = "e209dda5c8235479f3166defc7750e1dbcd5a5c1808b7792fc2e6733768fb447";
/// Our own files, in `assets/`.
const OWN: &[(&str, &str)] = &[
    ("nexaas.css", "text/css; charset=utf-8"),
    ("nexaas.js", "text/javascript; charset=utf-8"),
    ("icon.svg", "image/svg+xml"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=assets");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut rows = String::new();

    for (name, path) in [("htmx.min.js", "js/htmx.min.js"), ("htmx-sse.js", "js/htmx-sse.js")] {
        let asset = wavefunk_ui::assets::get(path).ok_or_else(|| format!("wavefunk-ui carries no {path}"))?;
        let bytes: &[u8] = &asset.bytes;
        let hash = hex::encode(Sha256::digest(bytes));
        if name == "htmx.min.js" && hash != HTMX_SHA256 {
            return Err(format!("htmx.min.js is {hash}, not the expected {HTMX_SHA256}").into());
        }
        std::fs::write(out.join(name), bytes)?;
        row(&mut rows, name, "text/javascript; charset=utf-8", &hash, &out.join(name))?;
    }
    let assets = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("assets");
    for (name, content_type) in OWN {
        let path = assets.join(name);
        let hash = hex::encode(Sha256::digest(std::fs::read(&path)?));
        row(&mut rows, name, content_type, &hash, &path)?;
    }
    std::fs::write(out.join("assets_table.rs"), format!("pub const ALL: &[Asset] = &[\n{rows}];\n"))?;
    Ok(())
}

fn row(rows: &mut String, name: &str, content_type: &str, hash: &str, path: &Path) -> std::fmt::Result {
    writeln!(
        rows,
        "    Asset {{ name: {name:?}, content_type: {content_type:?}, sha256: {hash:?}, bytes: include_bytes!({:?}) }},",
        path.display().to_string()
    )
}
