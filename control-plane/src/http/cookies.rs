//! The panel's two cookies: the console's and the tenant dashboard's. With `Secure` they carry the `__Host-` prefix, so that
//! no sibling subdomain can set or shadow them. They never travel to a runner, and no runner can set them.

use http::{HeaderMap, HeaderValue, header};

/// A cookie of the panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PanelCookie {
    /// An operator's session on `console.<base>`.
    Console,
    /// A tenant user's session on `<slug>.<base>`.
    Tenant,
}

impl PanelCookie {
    pub const fn name(self, secure: bool) -> &'static str {
        match (self, secure) {
            (Self::Console, true) => "__Host-nexaas_console",
            (Self::Console, false) => "nexaas_console",
            (Self::Tenant, true) => "__Host-nexaas_session",
            (Self::Tenant, false) => "nexaas_session",
        }
    }

    /// The value in a request. A name that comes twice with different values is no session at all: one of them was planted.
    pub fn read(self, headers: &HeaderMap, secure: bool) -> Option<String> {
        let name = self.name(secure);
        let mut found: Option<&str> = None;
        for (key, value) in pairs(headers) {
            if key == name {
                match found {
                    Some(other) if other != value => return None,
                    _ => found = Some(value),
                }
            }
        }
        found.filter(|v| !v.is_empty()).map(str::to_owned)
    }

    /// The `Set-Cookie` that starts a session; `None` when the value is not one a cookie may hold.
    pub fn set(self, value: &str, max_age_s: i64, secure: bool) -> Option<HeaderValue> {
        if !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b)) {
            return None;
        }
        HeaderValue::from_str(&self.header(value, max_age_s, secure)).ok()
    }

    /// The `Set-Cookie` that ends it.
    pub fn clear(self, secure: bool) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.header("", 0, secure)).ok()
    }

    fn header(self, value: &str, max_age_s: i64, secure: bool) -> String {
        let secure_attribute = if secure { "; Secure" } else { "" };
        format!("{}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={max_age_s}{secure_attribute}", self.name(secure))
    }
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .map(|(name, value)| (name.trim(), value.trim()))
}

/// Whether a cookie of this name belongs to the panel. Browsers compare the prefixes without regard to case.
pub fn is_panel_cookie(name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase();
    name.starts_with("__host-") || name.starts_with("__secure-nexaas") || name.starts_with("nexaas_")
}

/// Removes the panel's cookies from a request that goes on to a runner; the tenant's own remain.
pub fn strip_from_request(headers: &mut HeaderMap) {
    let mut kept = Vec::new();
    for line in headers.get_all(header::COOKIE) {
        // A line that cannot be read cannot be judged, and is dropped whole.
        let Ok(text) = line.to_str() else { continue };
        kept.extend(text.split(';').map(str::trim).filter(|pair| {
            let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
            !pair.is_empty() && !is_panel_cookie(name)
        }));
    }
    let joined = HeaderValue::from_str(&kept.join("; ")).ok().filter(|v| !v.is_empty());
    headers.remove(header::COOKIE);
    if let Some(value) = joined {
        headers.insert(header::COOKIE, value);
    }
}

/// Removes from a runner's answer every cookie that is the panel's, is nameless (browsers then read the value as the name), or
/// reaches beyond the tenant's own host.
pub fn strip_from_response(headers: &mut HeaderMap) {
    let kept: Vec<HeaderValue> =
        headers.get_all(header::SET_COOKIE).iter().filter(|v| v.to_str().is_ok_and(acceptable)).cloned().collect();
    headers.remove(header::SET_COOKIE);
    for value in kept {
        headers.append(header::SET_COOKIE, value);
    }
}

fn acceptable(line: &str) -> bool {
    let mut parts = line.split(';');
    let Some((name, _)) = parts.next().and_then(|pair| pair.split_once('=')) else { return false };
    if name.trim().is_empty() || is_panel_cookie(name) {
        return false;
    }
    // A domain attribute would plant the cookie on every sibling tenant and on the console.
    !parts.any(|attribute| attribute.trim().to_ascii_lowercase().starts_with("domain"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(name: header::HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_session_cookie_is_bound_to_its_host_and_hidden_from_scripts() {
        assert_eq!(
            PanelCookie::Console.set("abc.def", 3600, true).unwrap(),
            "__Host-nexaas_console=abc.def; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600; Secure"
        );
        assert_eq!(
            PanelCookie::Tenant.clear(false).unwrap(),
            "nexaas_session=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0"
        );
        assert!(PanelCookie::Console.set("a; Domain=evil", 1, true).is_none());
    }

    #[test]
    fn a_cookie_that_comes_twice_is_no_session() {
        let headers = map(header::COOKIE, &["a=1; __Host-nexaas_console=good"]);
        assert_eq!(PanelCookie::Console.read(&headers, true).as_deref(), Some("good"));
        assert_eq!(PanelCookie::Console.read(&headers, false), None);
        let tossed = map(header::COOKIE, &["nexaas_console=good; nexaas_console=planted"]);
        assert_eq!(PanelCookie::Console.read(&tossed, false), None);
    }

    #[test]
    fn only_the_tenants_own_cookies_reach_its_runner() {
        let mut headers =
            map(header::COOKIE, &["theme=dark; __Host-nexaas_session=s; lang=en", "nexaas_console=c; __HOST-x=1"]);
        strip_from_request(&mut headers);
        assert_eq!(headers.get_all(header::COOKIE).iter().collect::<Vec<_>>(), ["theme=dark; lang=en"]);
        let mut only = map(header::COOKIE, &["__Host-nexaas_session=s"]);
        strip_from_request(&mut only);
        assert!(!only.contains_key(header::COOKIE));
    }

    #[test]
    fn a_runner_sets_no_panel_cookie_and_none_for_its_siblings() {
        let mut headers = map(
            header::SET_COOKIE,
            &[
                "theme=dark; Path=/",
                "__Host-nexaas_session=evil; Path=/; Secure",
                "__host-nexaas_console=evil",
                "nexaas_session=evil",
                " nexaas_console =evil",
                "=__Host-nexaas_session=evil",
                "bare",
                "wide=1; DOMAIN=.base.example",
            ],
        );
        strip_from_response(&mut headers);
        assert_eq!(headers.get_all(header::SET_COOKIE).iter().collect::<Vec<_>>(), ["theme=dark; Path=/"]);
    }
}
