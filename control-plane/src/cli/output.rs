//! What the command line writes: answers to standard output, complaints to standard error.

use std::io::{IsTerminal as _, Write as _};

/// Writes one line. A reader that went away (`| head`) is no error of ours.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{}", safe(text));
}

pub fn complain(text: &str) {
    let text = safe(text);
    let one: Vec<&str> = text.lines().map(str::trim).collect();
    let _ = writeln!(
        std::io::stderr().lock(),
        "{} {}",
        colour("error:", 31, std::io::stderr().is_terminal()),
        one.join(" ")
    );
}

/// Whether colours and moving progress make sense.
pub fn fancy() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

pub fn colour(text: &str, code: u8, fancy: bool) -> String {
    if fancy { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// Text from elsewhere must not steer the terminal. Our own colours pass.
fn safe(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t' | '\u{1b}')).collect()
}

/// Text that a runner or a person wrote: no control sequences at all.
pub fn foreign(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

/// Columns as wide as their widest cell.
pub fn table(head: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = head.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let format = |cells: &[String]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(c, w)| format!("{c:<w$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    line(&format(&head.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()));
    for row in rows {
        line(&foreign(&format(row)));
    }
}
