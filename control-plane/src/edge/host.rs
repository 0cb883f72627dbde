//! The one place where a request's host is read. Exactly one `Host`; an absolute-form target must name the same; labels are
//! compared exactly, never by prefix or suffix of text.

use crate::error::{Error, Result};
use http::uri::Uri;
use http::{HeaderMap, Version, header};

/// A host as the client named it: lower case, without a trailing dot, and its port when it named one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    pub host: String,
    pub port: Option<u16>,
}

impl std::fmt::Display for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

impl std::str::FromStr for Authority {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > 262 {
            return Err("is too long");
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => {
                if port.is_empty() || port.len() > 5 || !port.bytes().all(|b| b.is_ascii_digit()) {
                    return Err("has a malformed port");
                }
                (host, Some(port.parse::<u16>().map_err(|_| "has a malformed port")?))
            }
            None => (text, None),
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        let valid = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if host.is_empty() || host.len() > 253 || !host.split('.').all(valid) {
            return Err("is not a host name");
        }
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }
}

/// The authority a request is meant for, or the reason why that cannot be told.
pub fn of_request(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<Authority> {
    let mut values = headers.get_all(header::HOST).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() {
        return Err(Error::invalid("Host", "must come exactly once"));
    }
    let Some(value) = first else {
        let rule =
            if version == Version::HTTP_10 { "is needed here, HTTP/1.0 or not" } else { "must come exactly once" };
        return Err(Error::invalid("Host", rule));
    };
    let host: Authority = value
        .to_str()
        .map_err(|_| Error::invalid("Host", "is not a host name"))?
        .parse()
        .map_err(|why| Error::invalid("Host", why))?;
    if let Some(authority) = uri.authority() {
        let target: Authority = authority.as_str().parse().map_err(|why| Error::invalid("request target", why))?;
        if target != host {
            return Err(Error::invalid("request target", "names another host than the Host header"));
        }
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(Error::invalid("request target", "must be http or https"));
        }
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn request(uri: &str, hosts: &[&str]) -> Result<Authority> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        of_request(Version::HTTP_11, &uri.parse().unwrap(), &headers)
    }

    #[test]
    fn a_host_is_normalised() {
        assert_eq!(request("/", &["ACME.Base.Example.:8080"]).unwrap().to_string(), "acme.base.example:8080");
        assert_eq!(request("http://acme.base/x", &["acme.base"]).unwrap().host, "acme.base");
    }

    #[test]
    fn ambiguity_is_refused() {
        for (uri, hosts) in [
            ("/", vec![]),
            ("/", vec!["a.base", "a.base"]),
            ("/", vec!["a.base", "b.base"]),
            ("http://b.base/", vec!["a.base"]),
            ("http://a.base:81/", vec!["a.base"]),
            ("http://user@a.base/", vec!["a.base"]),
            ("ftp://a.base/", vec!["a.base"]),
            ("/", vec!["a.base@evil.example"]),
            ("/", vec!["a.base/evil"]),
            ("/", vec!["a.base evil"]),
            ("/", vec!["a..base"]),
            ("/", vec![".a.base"]),
            ("/", vec!["a.base:"]),
            ("/", vec!["a.base:99999"]),
            ("/", vec!["a.base:80:80"]),
            ("/", vec!["[::1]:80"]),
            ("/", vec!["-a.base"]),
            ("/", vec![""]),
            ("/", vec!["b\u{fc}ro.base"]),
        ] {
            assert!(request(uri, &hosts).is_err(), "{uri} {hosts:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_survives_being_written_and_read_again(text in "\\PC{0,60}") {
            if let Ok(authority) = text.parse::<Authority>() {
                prop_assert_eq!(authority.to_string().parse::<Authority>(), Ok(authority));
            }
        }
    }
}
