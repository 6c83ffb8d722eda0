//! omni

pub mod config;
pub mod message;

pub mod llm;
pub mod skill;
pub mod tool;
