//! The Model Context Protocol, both ways.
//!
//! [`server`] is the toolbox for others: editors, assistants, programs.

mod convert;
mod lines;
pub mod server;
pub mod stdio;

pub use server::Server;
pub use stdio::Pipes;
