#![doc = include_str!("../docs/architecture.md")]

pub mod child;
pub mod config;
pub mod measure;
pub mod message;
pub mod schedule;
pub mod shutdown;
pub mod trace;
pub mod words;

pub mod llm;
pub mod session;
pub mod skill;
pub mod store;
pub mod tool;
pub mod update;

pub mod kernel;
pub mod mcp;
pub mod memory;

pub mod agent;

pub mod hub;

pub mod channel;
pub mod clock;
pub mod gateway;
pub mod stdio;

pub mod app;
pub mod cli;

#[cfg(feature = "wheel")]
pub mod python;

#[cfg(all(feature = "embed", Py_LIMITED_API))]
compile_error!(
    "`embed` needs PyConfig, which is not in the limited API: build with either `embed` or `wheel`"
);
