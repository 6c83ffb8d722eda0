//! omni

pub mod config;
pub mod message;

pub mod agent;
pub mod llm;
pub mod tool;
