//! Markdown from agents and files, made safe to show: rendered, then reduced to an allow-list of elements.
//!
//! Always true: no script, style, frame, form, image or handler survives, and links go to http, https or mailto only.

use askama::filters::Safe;
use std::collections::HashSet;
use std::sync::LazyLock;

/// Longer texts are shown as they are, so that no text can keep the renderer busy.
const MAX_BYTES: usize = 256 * 1024;

static CLEANER: LazyLock<ammonia::Builder<'static>> = LazyLock::new(|| {
    let mut builder = ammonia::Builder::default();
    builder
        .tags(HashSet::from([
            "a",
            "b",
            "blockquote",
            "br",
            "code",
            "del",
            "em",
            "h1",
            "h2",
            "h3",
            "h4",
            "h5",
            "h6",
            "hr",
            "i",
            "li",
            "ol",
            "p",
            "pre",
            "s",
            "strong",
            "sub",
            "sup",
            "table",
            "tbody",
            "td",
            "th",
            "thead",
            "tr",
            "ul",
        ]))
        .generic_attributes(HashSet::new())
        .url_schemes(HashSet::from(["http", "https", "mailto"]))
        .url_relative(ammonia::UrlRelative::Deny)
        .link_rel(Some("noopener noreferrer nofollow"));
    builder
});

/// Markdown as safe HTML.
pub fn render(text: &str) -> Safe<String> {
    if text.len() > MAX_BYTES {
        return Safe(format!("<p>{}</p>", ammonia::clean_text(text)));
    }
    let options = pulldown_cmark::Options::ENABLE_TABLES | pulldown_cmark::Options::ENABLE_STRIKETHROUGH;
    let mut html = String::with_capacity(text.len() * 2);
    pulldown_cmark::html::push_html(&mut html, pulldown_cmark::Parser::new_ext(text, options));
    Safe(CLEANER.clean(&html).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_markdown_is_kept() {
        let html = render(
            "# Plan\n\n- **one**\n- [site](https://example.com)\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\nx < y\n```",
        )
        .0;
        for part in ["<h1>Plan</h1>", "<strong>one</strong>", "href=\"https://example.com\"", "<td>1</td>", "x &lt; y"]
        {
            assert!(html.contains(part), "{part} in {html}");
        }
    }

    #[test]
    fn nothing_that_runs_or_loads_survives() {
        for hostile in [
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "![x](https://tracker.example/p.png)",
            "[x](javascript:alert(1))",
            "[x](data:text/html;base64,PHNjcmlwdD4=)",
            "[x](JaVaScRiPt&colon;alert(1))",
            "<a href='java\nscript:alert(1)'>x</a>",
            "<svg onload=alert(1)>",
            "<style>*{display:none}</style>",
            "<iframe srcdoc='<script>1</script>'></iframe>",
            "<form action=/logout method=post><button>x</button></form>",
            "<p style='position:fixed' class='toast' id='toasts' hx-get='/x' data-hx-on='x'>x</p>",
            "<math><mtext></mtext><mglyph><style><img src=x onerror=alert(1)></style></mglyph></math>",
        ] {
            let html = render(hostile).0.to_lowercase();
            for never in [
                "<script",
                "onerror",
                "onload",
                "<img",
                "href=\"javascript",
                "href=\"data",
                "<svg",
                "<style",
                "<iframe",
                "<form",
                "style=",
                "class=",
                "id=",
                "hx-",
            ] {
                let shown_as_text = html.contains("&lt;");
                assert!(!html.contains(never) || shown_as_text, "{hostile} became {html}");
            }
        }
    }

    #[test]
    fn a_very_long_text_is_escaped_and_not_parsed() {
        let html = render(&"<b>".repeat(100_000)).0;
        assert!(!html.contains("<b>"));
    }
}
