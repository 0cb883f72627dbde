//! Everything the browser loads besides pages, embedded in the binary. A URL carries the content's hash, so a browser may keep
//! the file for ever and still sees a new version at once.
//!
//! Always true: names are looked up in a fixed table, so no path ever reaches a file system.

/// One embedded file.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    pub name: &'static str,
    pub content_type: &'static str,
    pub sha256: &'static str,
    pub bytes: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/assets_table.rs"));

/// Where the pages expect the files to be served.
pub const PREFIX: &str = "/-/assets/";
/// The answer to a request with the current hash.
pub const CACHE_IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// The answer to a request without it: usable, but asked for again.
pub const CACHE_REVALIDATE: &str = "no-cache";

const VERSION_LENGTH: usize = 16;

impl Asset {
    /// The short hash in the URL.
    pub fn version(&self) -> &'static str {
        &self.sha256[..VERSION_LENGTH]
    }
    pub fn etag(&self) -> String {
        format!("\"{}\"", self.version())
    }
    /// The `Cache-Control` for a request whose `v` was `version`.
    pub fn cache_control(&self, version: Option<&str>) -> &'static str {
        if version == Some(self.version()) { CACHE_IMMUTABLE } else { CACHE_REVALIDATE }
    }
}

pub fn get(name: &str) -> Option<&'static Asset> {
    ALL.iter().find(|a| a.name == name)
}

/// The URL of an embedded file, with its hash.
pub fn url(name: &str) -> String {
    match get(name) {
        Some(asset) => format!("{PREFIX}{name}?v={}", asset.version()),
        None => format!("{PREFIX}{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest as _, Sha256};

    #[test]
    fn htmx_is_the_release_we_reviewed() {
        let htmx = get("htmx.min.js").unwrap();
        let hash = hex::encode(Sha256::digest(htmx.bytes));
        assert_eq!(hash, "e209dda5c8235479f3166defc7750e1dbcd5a5c1808b7792fc2e6733768fb447");
        assert!(std::str::from_utf8(htmx.bytes).unwrap().contains("2.0.4"));
    }

    #[test]
    fn every_url_carries_the_hash_of_what_it_answers() {
        for asset in ALL {
            assert_eq!(asset.sha256, hex::encode(Sha256::digest(asset.bytes)), "{}", asset.name);
            assert_eq!(url(asset.name), format!("/-/assets/{}?v={}", asset.name, &asset.sha256[..16]));
            assert_eq!(asset.cache_control(Some(asset.version())), CACHE_IMMUTABLE);
            assert_eq!(asset.cache_control(Some("old")), CACHE_REVALIDATE);
        }
    }

    #[test]
    fn only_listed_names_are_answered() {
        for name in ["", "../Cargo.toml", "nexaas.css/", "NEXAAS.CSS"] {
            assert!(get(name).is_none(), "{name:?}");
        }
    }
}
