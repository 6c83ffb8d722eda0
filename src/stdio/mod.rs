//! Protocols on standard input and output, for programs that start omni themselves.

pub mod acp;
pub mod json;
mod line;
pub mod lines;
