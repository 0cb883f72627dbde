//! Exact Origin and Host checks of the WebSocket. A browser always sends an Origin; a script sends none and proves itself
//! by its token alone.

use crate::principal::only;
use axum::http::{HeaderMap, header};
use std::net::IpAddr;
use url::Url;

/// What a WebSocket request is checked against.
#[derive(Debug, Clone, Default)]
pub struct Rules<'a> {
    /// The address people reach this runner at.
    pub public_url: Option<&'a Url>,
    /// Further origins whose pages may connect.
    pub allowed: &'a [String],
    /// The connection comes from the control plane, which has checked the Host itself and may have rewritten it.
    pub behind_control_plane: bool,
}

/// Why the request was refused.
pub fn check(headers: &HeaderMap, rules: &Rules<'_>) -> Result<(), &'static str> {
    let host = only(headers, &header::HOST);
    if !rules.behind_control_plane {
        let host = host.ok_or("exactly one Host header is required")?;
        if !host_is_ours(host, rules.public_url) {
            return Err("this Host is not served here");
        }
    }
    if !headers.contains_key(header::ORIGIN) {
        return Ok(());
    }
    let origin = only(headers, &header::ORIGIN).ok_or("there is more than one Origin header")?;
    let public = rules.public_url.map(|u| u.origin().ascii_serialization());
    let same_host = rules.public_url.is_none()
        && !rules.behind_control_plane
        && host.is_some_and(|h| origin == format!("http://{h}") || origin == format!("https://{h}"));
    if public.as_deref() == Some(origin) || same_host || rules.allowed.iter().any(|a| a == origin) {
        Ok(())
    } else {
        Err("pages of this Origin may not connect")
    }
}

/// A name that another site could point at us (DNS rebinding) is not ours; an address cannot be pointed anywhere.
fn host_is_ours(host: &str, public_url: Option<&Url>) -> bool {
    let Ok(parsed) = Url::parse(&format!("http://{host}/")) else { return false };
    if parsed.path() != "/" || !parsed.username().is_empty() || parsed.password().is_some() {
        return false;
    }
    match parsed.host() {
        Some(url::Host::Ipv4(_) | url::Host::Ipv6(_)) => true,
        Some(url::Host::Domain("localhost")) => true,
        Some(url::Host::Domain(name)) => {
            name.parse::<IpAddr>().is_ok() || public_url.and_then(Url::host_str).is_some_and(|ours| ours == name)
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(host: &str, origins: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        for origin in origins {
            map.append(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        map
    }

    #[test]
    fn an_origin_is_matched_whole_never_by_prefix() {
        let public = Url::parse("http://acme.localhost:8080").unwrap();
        let allowed = ["https://app.example.com".to_owned()];
        let rules = Rules { public_url: Some(&public), allowed: &allowed, behind_control_plane: true };
        for good in ["http://acme.localhost:8080", "https://app.example.com"] {
            assert_eq!(check(&headers("x", &[good]), &rules), Ok(()), "{good}");
        }
        for bad in [
            "http://acme.localhost:8080.evil.example",
            "http://acme.localhost:80801",
            "https://acme.localhost:8080",
            "http://evil.acme.localhost:8080",
            "https://app.example.com.evil.example",
            "null",
        ] {
            assert!(check(&headers("x", &[bad]), &rules).is_err(), "{bad}");
        }
        assert!(check(&headers("x", &["http://acme.localhost:8080", "https://evil.example"]), &rules).is_err());
        assert_eq!(check(&headers("x", &[]), &rules), Ok(()), "scripts send no Origin");
    }

    #[test]
    fn standing_alone_a_foreign_host_name_is_refused() {
        let rules = Rules::default();
        for good in ["127.0.0.1:8400", "localhost:8400", "[::1]:8400", "10.0.0.7:8400"] {
            assert_eq!(check(&headers(good, &[&format!("http://{good}")]), &rules), Ok(()), "{good}");
        }
        for bad in ["evil.example:8400", "localhost.evil.example", "user@localhost", "localhost/x"] {
            assert!(check(&headers(bad, &[]), &rules).is_err(), "{bad}");
        }
        assert!(check(&headers("localhost:8400", &["http://evil.example"]), &rules).is_err());
    }
}
