//! What people may type, checked once, refused by field and rule.

use crate::domain::Slug;
use crate::error::{Error, Result};

pub fn slug(text: &str) -> Result<Slug> {
    text.parse::<Slug>().map_err(|why| Error::invalid("slug", why))
}

/// One line for people: no control characters, at most `max` characters, not empty.
pub fn line(field: &'static str, text: &str, max: usize) -> Result<String> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Error::invalid(field, "must not be empty"));
    }
    if text.chars().count() > max {
        return Err(Error::invalid(field, format!("must be at most {max} characters long")));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::invalid(field, "must not contain control characters"));
    }
    Ok(text.to_owned())
}

pub fn username(text: &str) -> Result<String> {
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_' | '@');
    if (2..=64).contains(&text.len()) && text.chars().all(ok) {
        Ok(text.to_owned())
    } else {
        Err(Error::invalid("username", "must be 2 to 64 characters of a-z, 0-9, '.', '-', '_' and '@'"))
    }
}

/// Names of secrets become environment-like names at the runner.
pub fn secret_name(text: &str) -> Result<&str> {
    let bytes = text.as_bytes();
    let ok = bytes.first().is_some_and(u8::is_ascii_uppercase)
        && bytes.len() <= 64
        && bytes.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_');
    if ok {
        Ok(text)
    } else {
        Err(Error::invalid("name", "must be 1 to 64 characters of A-Z, 0-9 and '_', beginning with a letter"))
    }
}

pub fn idempotency_key(key: Option<&str>) -> Result<Option<&str>> {
    match key {
        Some(k) if k.is_empty() || k.len() > 255 || !k.bytes().all(|b| (0x21..=0x7e).contains(&b)) => {
            Err(Error::invalid("Idempotency-Key", "must be 1 to 255 visible ASCII characters"))
        }
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a shell, SQL, a path or a browser would take for its own.
    const HOSTILE: &[&str] = &[
        "a;rm -rf /",
        "$(id)",
        "`id`",
        "a|b",
        "a&b",
        "a>b",
        "a\nb",
        "a\0b",
        "../../etc/passwd",
        "a'b",
        "a\"b",
        "a b",
        "a*b",
        "a?b",
        "{a,b}",
        "a\\b",
        "~root",
        "-rf",
        "--help",
        "<script>",
        "%00",
        "a/b",
        "a:b",
        "a=b",
        "ａｂｃ",
        "a\u{202e}b",
        "",
    ];

    #[test]
    fn no_metacharacter_passes_as_a_slug_a_username_or_the_name_of_a_secret() {
        for text in HOSTILE {
            assert!(slug(text).is_err(), "slug {text:?}");
            assert!(secret_name(text).is_err(), "secret {text:?}");
            if *text != "-rf" && *text != "--help" {
                assert!(username(text).is_err(), "username {text:?}");
            }
        }
        assert_eq!(slug("a;b").unwrap_err().public(), "slug may contain only a-z, 0-9 and '-'");
    }

    #[test]
    fn a_line_is_trimmed_and_keeps_any_script_but_no_control_characters() {
        assert_eq!(line("display_name", "  Bäckerei $(id) ", 20).unwrap(), "Bäckerei $(id)");
        assert!(line("display_name", "a\nb", 20).is_err());
        assert!(line("display_name", " ", 20).is_err());
        assert!(line("display_name", &"x".repeat(21), 20).is_err());
    }
}
