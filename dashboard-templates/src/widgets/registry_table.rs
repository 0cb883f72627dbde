//! The entries of a registry, each cell drawn by its field's type.
//!
//! Always true: a url cell is a link only when it is http or https; anything else is text.

use askama::Template;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Number,
    Date,
    Boolean,
    Url,
}

impl Kind {
    /// The kind by the name that a registry's file uses; unknown names are text.
    pub fn of(name: &str) -> Self {
        match name {
            "number" => Self::Number,
            "date" => Self::Date,
            "boolean" => Self::Boolean,
            "url" => Self::Url,
            _ => Self::Text,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub label: String,
    pub kind: Kind,
}

impl Column {
    /// A field's name as a heading: `retainer_eur` becomes `Retainer eur`.
    pub fn of_field(name: &str, kind: Kind) -> Self {
        let words = name.replace(['_', '-'], " ");
        let mut letters = words.chars();
        let label = letters.next().map(|c| c.to_uppercase().chain(letters).collect()).unwrap_or_default();
        Self { label, kind }
    }
    fn numeric(&self) -> bool {
        self.kind == Kind::Number
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Empty,
    Text(String),
    Number {
        shown: String,
        sort: f64,
    },
    /// As in the file, `2026-11-24` or with a time.
    Date(String),
    Boolean(bool),
    Url {
        href: String,
        shown: String,
    },
}

impl Cell {
    /// A value of the registry as a cell of its column's kind. What does not fit its type is shown as text.
    pub fn of(value: &serde_json::Value, kind: Kind) -> Self {
        use serde_json::Value;
        let text = match value {
            Value::Null => return Self::Empty,
            Value::String(s) if s.trim().is_empty() => return Self::Empty,
            Value::String(s) => s.clone(),
            Value::Bool(b) if kind == Kind::Boolean => return Self::Boolean(*b),
            Value::Number(n) => {
                let sort = n.as_f64().unwrap_or_default();
                return match kind {
                    Kind::Number => Self::Number { shown: number(&n.to_string()), sort },
                    Kind::Text | Kind::Date | Kind::Boolean | Kind::Url => Self::Text(n.to_string()),
                };
            }
            Value::Array(items) => items
                .iter()
                .map(|i| i.as_str().map_or_else(|| i.to_string(), str::to_owned))
                .collect::<Vec<_>>()
                .join(", "),
            other => other.to_string(),
        };
        match kind {
            Kind::Number => match text.trim().parse::<f64>() {
                Ok(sort) if sort.is_finite() => Self::Number { shown: number(text.trim()), sort },
                Ok(_) | Err(_) => Self::Text(text),
            },
            Kind::Date if text.len() >= 10 && text.as_bytes().first().is_some_and(u8::is_ascii_digit) => {
                Self::Date(text)
            }
            Kind::Boolean => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" => Self::Boolean(true),
                "false" | "no" => Self::Boolean(false),
                _ => Self::Text(text),
            },
            Kind::Url => match safe_url(&text) {
                Some(href) => Self::Url { shown: short_url(&href), href },
                None => Self::Text(text),
            },
            Kind::Date | Kind::Text => Self::Text(text),
        }
    }

    /// The key that the column is sorted by.
    fn sort(&self) -> String {
        match self {
            Self::Empty => String::new(),
            Self::Text(s) | Self::Date(s) => s.chars().take(120).collect(),
            Self::Number { sort, .. } => sort.to_string(),
            Self::Boolean(b) => u8::from(*b).to_string(),
            Self::Url { shown, .. } => shown.clone(),
        }
    }
}

/// The address, when a person may safely be sent there: http or https, nothing else.
pub fn safe_url(text: &str) -> Option<String> {
    let text = text.trim();
    let (scheme, rest) = text.split_once("://")?;
    let known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let clean = !text.chars().any(|c| c.is_control() || c.is_whitespace());
    (known && clean && !rest.is_empty() && text.len() <= 2048).then(|| text.to_owned())
}

fn short_url(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/');
    let rest = rest.strip_prefix("www.").unwrap_or(rest);
    if rest.chars().count() > 42 { rest.chars().take(40).chain(['…']).collect() } else { rest.to_owned() }
}

/// Thousands are set apart by a thin space; years and ids up to four digits are left alone.
pub fn number(plain: &str) -> String {
    grouped(plain, 5)
}

/// An amount of money: thousands are always set apart.
pub fn amount(plain: &str) -> String {
    grouped(plain, 4)
}

fn grouped(plain: &str, from_digits: usize) -> String {
    let (sign, rest) = plain.strip_prefix('-').map_or(("", plain), |rest| ("−", rest));
    let (whole, fraction) = rest.split_once('.').map_or((rest, None), |(w, f)| (w, Some(f)));
    if !whole.bytes().all(|b| b.is_ascii_digit()) || whole.is_empty() {
        return plain.to_owned();
    }
    let mut grouped = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 && whole.len() >= from_digits {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    match fraction {
        Some(fraction) => format!("{sign}{grouped}.{fraction}"),
        None => format!("{sign}{grouped}"),
    }
}

#[derive(Debug, Clone, Template)]
#[template(path = "widgets/registry_table.html")]
pub struct RegistryTable {
    /// Unique on the page, so that the chosen order survives a refresh.
    pub id: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Cell>>,
    pub total: usize,
    /// Where the whole registry is; empty when this is it.
    pub href: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_web_addresses_become_links() {
        assert!(
            matches!(Cell::of(&json!("https://www.example.com/"), Kind::Url), Cell::Url { shown, .. } if shown == "example.com")
        );
        for hostile in [
            "javascript:alert(1)",
            "javascript://example.com/%0aalert(1)",
            "JAVASCRIPT:alert(1)",
            " javascript:alert(1)",
            "java\nscript:alert(1)",
            "data:text/html,<script>1</script>",
            "vbscript:x",
            "//evil.example",
            "/logout",
            "https:evil.example",
            "http://exa mple.com",
            "http://a\u{0}b",
        ] {
            assert!(matches!(Cell::of(&json!(hostile), Kind::Url), Cell::Text(_)), "{hostile:?}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_its_type_is_shown_as_it_is() {
        assert_eq!(Cell::of(&json!("about ten"), Kind::Number), Cell::Text("about ten".into()));
        assert_eq!(Cell::of(&json!("soon"), Kind::Date), Cell::Text("soon".into()));
        assert_eq!(Cell::of(&json!(["a", "b", 3]), Kind::Text), Cell::Text("a, b, 3".into()));
        assert_eq!(Cell::of(&json!(null), Kind::Url), Cell::Empty);
    }

    #[test]
    fn large_numbers_are_grouped_and_years_are_not() {
        for (plain, shown) in
            [("1200000", "1\u{202f}200\u{202f}000"), ("2026", "2026"), ("-12500.5", "−12\u{202f}500.5"), ("abc", "abc")]
        {
            assert_eq!(number(plain), shown);
        }
    }

    #[test]
    fn a_fields_name_becomes_a_heading() {
        assert_eq!(Column::of_field("retainer_eur", Kind::Number).label, "Retainer eur");
        assert_eq!(Column::of_field("", Kind::Text).label, "");
    }
}
