//! Icons, inline so that they take the text's colour and need no request. Drawings come from the Lucide set; the names are
//! Lucide's, and so are the names that `workspace.yaml` files may use for perspectives and pages.
//!
//! Always true: what `icon` answers is fixed markup; the name it was asked for never appears in it.

use askama::filters::Safe;

macro_rules! drawings {
    ($($name:literal => $icon:ident,)*) => {
        fn drawing(name: &str) -> Option<&'static str> {
            match name {
                $($name => Some(z_icons::$icon.svg_str()),)*
                _ => None,
            }
        }
        /// Every icon that can be asked for by name.
        pub const NAMES: &[&str] = &[$($name,)*];
    };
}

drawings! {
    "layout-dashboard" => LAYOUT_DASHBOARD,
    "house" => HOUSE,
    "users" => USERS,
    "user" => USER,
    "user-plus" => USER_PLUS,
    "bot" => BOT,
    "sparkles" => SPARKLES,
    "workflow" => WORKFLOW,
    "calendar" => CALENDAR,
    "calendar-clock" => CALENDAR_CLOCK,
    "clock" => CLOCK,
    "activity" => ACTIVITY,
    "list" => LIST,
    "list-todo" => LIST_TODO,
    "inbox" => INBOX,
    "mail" => MAIL,
    "message-square" => MESSAGE_SQUARE,
    "messages-square" => MESSAGES_SQUARE,
    "send" => SEND,
    "chart-line" => CHART_LINE,
    "chart-bar" => CHART_BAR,
    "chart-pie" => CHART_PIE,
    "trending-up" => TRENDING_UP,
    "dollar-sign" => DOLLAR_SIGN,
    "coins" => COINS,
    "credit-card" => CREDIT_CARD,
    "receipt" => RECEIPT,
    "briefcase" => BRIEFCASE,
    "building" => BUILDING,
    "target" => TARGET,
    "megaphone" => MEGAPHONE,
    "pen-tool" => PEN_TOOL,
    "file-text" => FILE_TEXT,
    "folder" => FOLDER,
    "book" => BOOK,
    "book-open" => BOOK_OPEN,
    "database" => DATABASE,
    "table" => TABLE,
    "server" => SERVER,
    "settings" => SETTINGS,
    "sliders-horizontal" => SLIDERS_HORIZONTAL,
    "shield" => SHIELD,
    "shield-check" => SHIELD_CHECK,
    "key" => KEY,
    "lock" => LOCK,
    "log-out" => LOG_OUT,
    "menu" => MENU,
    "x" => X,
    "plus" => PLUS,
    "search" => SEARCH,
    "check" => CHECK,
    "circle-check" => CIRCLE_CHECK,
    "circle-alert" => CIRCLE_ALERT,
    "triangle-alert" => TRIANGLE_ALERT,
    "info" => INFO,
    "circle-x" => CIRCLE_X,
    "play" => PLAY,
    "pause" => PAUSE,
    "square" => SQUARE,
    "refresh-cw" => REFRESH_CW,
    "rotate-cw" => ROTATE_CW,
    "trash" => TRASH,
    "external-link" => EXTERNAL_LINK,
    "chevron-right" => CHEVRON_RIGHT,
    "chevron-down" => CHEVRON_DOWN,
    "chevrons-up-down" => CHEVRONS_UP_DOWN,
    "arrow-right" => ARROW_RIGHT,
    "arrow-left" => ARROW_LEFT,
    "zap" => ZAP,
    "rocket" => ROCKET,
    "globe" => GLOBE,
    "terminal" => TERMINAL,
    "code" => CODE,
    "puzzle" => PUZZLE,
    "plug" => PLUG,
    "package" => PACKAGE,
    "tag" => TAG,
    "star" => STAR,
    "heart" => HEART,
    "flag" => FLAG,
    "bell" => BELL,
    "phone" => PHONE,
    "image" => IMAGE,
    "palette" => PALETTE,
    "wrench" => WRENCH,
    "life-buoy" => LIFE_BUOY,
    "graduation-cap" => GRADUATION_CAP,
    "shopping-cart" => SHOPPING_CART,
    "circle-question-mark" => CIRCLE_QUESTION_MARK,
    "ellipsis" => ELLIPSIS,
    "copy" => COPY,
    "eye" => EYE,
    "git-branch" => GIT_BRANCH,
    "network" => NETWORK,
    "cpu" => CPU,
    "gauge" => GAUGE,
    "layers" => LAYERS,
    "kanban" => KANBAN,
    "handshake" => HANDSHAKE,
    "lightbulb" => LIGHTBULB,
    "headphones" => HEADPHONES,
    "circle-dot" => CIRCLE_DOT,
    "power" => POWER,
    "wallet" => WALLET,
    "hash" => HASH,
    "webhook" => WEBHOOK,
    "timer" => TIMER,
}

/// Names that other icon sets, and older workspaces, use for the same thing.
fn alias(name: &str) -> &str {
    match name {
        "home" => "house",
        "message-circle" | "message" | "chat" => "messages-square",
        "list-checks" => "list-todo",
        "heart-pulse" => "activity",
        "dashboard" | "grid" => "layout-dashboard",
        "chart" | "analytics" | "bar-chart" | "bar-chart-2" => "chart-bar",
        "trash-2" => "trash",
        "building-2" | "company" => "building",
        "help" | "help-circle" | "circle-help" => "circle-question-mark",
        "history" | "timeline" => "clock",
        "team" => "users",
        "agent" | "robot" => "bot",
        "money" | "sales" => "dollar-sign",
        "document" | "file" | "content" => "file-text",
        "marketing" => "megaphone",
        "gear" | "cog" | "operations" => "settings",
        other => other,
    }
}

/// The icon of that name as inline SVG, hidden from screen readers (the text beside it speaks). An unknown name gets a plain dot.
pub fn icon(name: &str) -> Safe<String> {
    let document = drawing(alias(name)).or_else(|| drawing("circle-dot")).unwrap_or_default();
    // Only the shapes are wanted: the root's own attributes would override the page's styles.
    let shapes = document.find("<svg").and_then(|start| document[start..].split_once('>')).map_or("", |(_, rest)| rest);
    let shapes = shapes.split("</svg>").next().unwrap_or_default();
    let shapes: String = shapes.lines().map(str::trim).collect();
    Safe(format!("<svg class=\"icon\" viewBox=\"0 0 24 24\" aria-hidden=\"true\" focusable=\"false\">{shapes}</svg>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_icon_has_shapes() {
        for name in NAMES {
            let svg = icon(name).0;
            assert!(svg.len() > 90, "{name}: {svg}");
            assert!(!svg.contains("white"), "{name} must take the text's colour: {svg}");
        }
    }

    #[test]
    fn an_unknown_name_gets_a_dot_and_is_not_echoed() {
        let svg = icon("\"><script>").0;
        assert!(!svg.contains("script"));
        assert_eq!(svg, icon("circle-dot").0);
    }
}
