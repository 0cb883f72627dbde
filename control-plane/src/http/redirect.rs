//! Where a login may lead. `next` comes from the address bar, so it is a path on this very host, and one we know.

/// The path to go to after signing in: `next` when it is one of `allowed` (or below one that ends in `/`), else `/`.
pub fn safe_next<'a>(next: Option<&'a str>, allowed: &[&str]) -> &'a str {
    match next {
        Some(path) if is_local(path) && is_allowed(path, allowed) => path,
        _ => "/",
    }
}

fn is_local(path: &str) -> bool {
    path.len() <= 512
        && path.starts_with('/')
        && !path.starts_with("//")
        && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.~?=&".contains(&b))
        && !path.split(['/', '?']).any(|segment| segment == ".." || segment == ".")
        && !path.contains("//")
}

fn is_allowed(path: &str, allowed: &[&str]) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    allowed.iter().any(|a| path == *a || (a.ends_with('/') && *a != "/" && path.starts_with(a)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: &[&str] = &["/", "/tenants/new", "/tenants/"];

    #[test]
    fn known_pages_are_reached() {
        for path in ["/", "/tenants/new", "/tenants/acme", "/tenants/acme?tab=logs"] {
            assert_eq!(safe_next(Some(path), ALLOWED), path);
        }
    }

    #[test]
    fn everything_else_leads_home() {
        for path in [
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "https://evil.example",
            "https:evil.example",
            "javascript:alert(1)",
            "/%2f/evil.example",
            "/tenants/..//evil.example",
            "/tenants/../login",
            "/tenants//evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            " //evil.example",
            "/tenants/acme#@evil.example",
            "/tenants/@evil.example",
            "/logout",
            "tenants/acme",
            "",
            "/тenants/",
        ] {
            assert_eq!(safe_next(Some(path), ALLOWED), "/", "{path:?}");
        }
        assert_eq!(safe_next(None, ALLOWED), "/");
    }
}
