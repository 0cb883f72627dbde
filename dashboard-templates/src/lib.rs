//! What people see: the design system (layout, style sheet, icons), the console's pages and the pages and widgets of every
//! client's dashboard, as view structs with their templates.
//!
//! Always true: text is escaped unless it went through `markdown`; nothing here does I/O or knows HTTP.

pub mod assets;
pub mod console;
pub mod icons;
pub mod layout;
pub mod markdown;
pub mod tenant;
pub mod widgets;

pub use askama::Template;
pub use askama::filters::Safe;
