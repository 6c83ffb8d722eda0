//! Protocols on standard input and output, for programs that start omni themselves.

pub mod acp;
