//! omni

pub mod message;
pub mod config;

pub mod llm;
pub mod tool;
