//! What stands around a page: the document's head, the shell with navigation, and the bare page of login and errors.
//! Console and tenant pages put a `Shell` (or `Bare`) in a field named `page` and extend `layout/app.html` (or `layout/bare.html`).
//!
//! Always true: no inline handler, no inline style, and every script carries the nonce of the response.

use crate::assets;
pub use crate::icons::icon;

/// The colour of something said: it always comes with words, never alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    #[default]
    Idle,
    Ok,
    Warn,
    Bad,
    /// Something is going on.
    Busy,
    Info,
}

impl Tone {
    pub const fn class(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Busy => "busy",
            Self::Info => "info",
        }
    }
    pub const fn icon(self) -> &'static str {
        match self {
            Self::Ok => "circle-check",
            Self::Warn => "triangle-alert",
            Self::Bad => "circle-alert",
            Self::Idle | Self::Busy | Self::Info => "info",
        }
    }
}

/// Who the pages belong to, at the top of the sidebar.
#[derive(Debug, Clone, Default)]
pub struct Brand {
    pub name: String,
    /// A second line: the host, the product.
    pub detail: String,
    pub href: String,
    /// True shows the product's own mark, false the name's initials.
    pub product: bool,
}

impl Brand {
    pub fn initials(&self) -> String {
        initials(&self.name)
    }
    pub fn mark_url(&self) -> String {
        assets::url("icon.svg")
    }
}

/// Up to two letters that stand for a name.
pub fn initials(name: &str) -> String {
    let mut words = name.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
    let first = words.next().and_then(|w| w.chars().next());
    let second = words.next().and_then(|w| w.chars().next());
    let text: String = first.into_iter().chain(second).flat_map(char::to_uppercase).collect();
    if text.is_empty() { "·".to_owned() } else { text }
}

#[derive(Debug, Clone, Default)]
pub struct NavItem {
    pub label: String,
    pub href: String,
    pub icon: String,
    pub active: bool,
    /// A small number at the right, hidden when `None`.
    pub count: Option<u64>,
    pub count_tone: Tone,
}

#[derive(Debug, Clone, Default)]
pub struct NavGroup {
    /// Empty: no heading.
    pub label: String,
    pub items: Vec<NavItem>,
}

/// The person who is logged in, at the foot of the sidebar.
#[derive(Debug, Clone)]
pub struct Person {
    pub name: String,
    pub detail: String,
    /// Where the form that ends the session posts to.
    pub logout_href: String,
}

impl Person {
    pub fn initials(&self) -> String {
        initials(&self.name)
    }
}

/// One quiet line above the page's content.
#[derive(Debug, Clone)]
pub struct Banner {
    pub tone: Tone,
    pub text: String,
    /// Empty: no link.
    pub href: String,
    pub link: String,
}

/// Everything around a page with navigation.
#[derive(Debug, Clone, Default)]
pub struct Shell {
    /// The page's heading and, with the brand's name, the document's title.
    pub title: String,
    pub nonce: String,
    pub brand: Brand,
    pub nav: Vec<NavGroup>,
    pub person: Option<Person>,
    pub banner: Option<Banner>,
    /// The page above this one: label and URL.
    pub crumb: Option<(String, String)>,
    /// Server-sent events for the whole page; inside `main`, elements listen with `hx-trigger="sse:name"`.
    pub stream: Option<String>,
}

/// A page without navigation.
#[derive(Debug, Clone, Default)]
pub struct Bare {
    pub title: String,
    pub nonce: String,
    pub brand: Brand,
    /// A sentence under the title.
    pub lead: String,
}

macro_rules! head {
    ($($page:ty),*) => {$(
        impl $page {
            pub fn document_title(&self) -> String {
                if self.brand.name.is_empty() || self.brand.name == self.title {
                    self.title.clone()
                } else {
                    format!("{} · {}", self.title, self.brand.name)
                }
            }
            pub fn asset(&self, name: &str) -> String {
                assets::url(name)
            }
            /// htmx without eval, without its own style element, and to this origin alone. An error answer is not
            /// swapped in, except 422: a form with its errors.
            pub fn htmx_config(&self) -> String {
                serde_json::json!({
                    "allowEval": false,
                    "allowScriptTags": false,
                    "includeIndicatorStyles": false,
                    "selfRequestsOnly": true,
                    "historyCacheSize": 0,
                    "timeout": 30_000,
                    "inlineScriptNonce": self.nonce,
                    "responseHandling": [
                        {"code": "204", "swap": false},
                        {"code": "[23]..", "swap": true},
                        {"code": "422", "swap": true},
                        {"code": "[45]..", "swap": false, "error": true}
                    ]
                })
                .to_string()
            }
        }
    )*};
}
head!(Shell, Bare);

/// A short message in the corner, for htmx to append to `#toasts`.
#[derive(Debug, Clone, askama::Template)]
#[template(path = "partials/toast.html")]
pub struct Toast {
    pub tone: Tone,
    pub title: String,
    pub text: String,
    /// Empty: no link.
    pub href: String,
    pub link: String,
}

/// A whole page that says what went wrong, with one way on.
#[derive(Debug, Clone, askama::Template)]
#[template(path = "layout/message.html")]
pub struct MessagePage {
    pub page: Bare,
    pub icon: String,
    pub detail: String,
    /// Empty: no button.
    pub href: String,
    pub link: String,
    /// Seconds after which the browser loads the page again: for what passes by itself.
    pub refresh_s: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use askama::Template as _;

    #[test]
    fn a_message_page_escapes_what_it_is_given() {
        let page = MessagePage {
            page: Bare {
                title: "<script>x</script>".into(),
                nonce: "n0".into(),
                lead: "a & b".into(),
                ..Bare::default()
            },
            icon: "info".into(),
            detail: "<img src=x onerror=alert(1)>".into(),
            href: "/".into(),
            link: "Home".into(),
            refresh_s: Some(3),
        };
        let html = page.render().unwrap();
        assert!(!html.contains("<script>x") && !html.contains("<img src=x"), "{html}");
        assert!(html.contains("allowEval&#34;:false") || html.contains("allowEval&quot;:false"), "{html}");
        assert!(html.contains("nonce=\"n0\""));
    }

    #[test]
    fn initials_are_two_letters_at_most() {
        for (name, letters) in [("BrightWave Digital", "BD"), ("acme", "A"), ("", "·"), ("  ü-ber ", "ÜB")] {
            assert_eq!(initials(name), letters);
        }
    }
}
