//! omni

pub mod config;
pub mod message;

pub mod llm;
pub mod session;
pub mod store;
pub mod tool;
