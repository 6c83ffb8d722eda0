//! How words look on a terminal. What prints them takes the colours out where nobody wants any.

pub(super) const BOLD: &str = "\x1b[1m";
pub(super) const DIM: &str = "\x1b[2m";
pub(super) const ITALIC: &str = "\x1b[3m";
pub(super) const UNDERLINED: &str = "\x1b[4m";
pub(super) const STRUCK: &str = "\x1b[9m";
pub(super) const RED: &str = "\x1b[31m";
pub(super) const GREEN: &str = "\x1b[32m";
pub(super) const YELLOW: &str = "\x1b[33m";
pub(super) const CYAN: &str = "\x1b[36m";
pub(super) const PLAIN: &str = "\x1b[0m";

/// The sign of what is fine, and of what is not.
pub(super) const FINE: &str = "\x1b[32m✓\x1b[0m";
pub(super) const WRONG: &str = "\x1b[31m✗\x1b[0m";
