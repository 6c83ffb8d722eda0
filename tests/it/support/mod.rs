//! What the tests stand on.

pub mod collector;
pub mod database;
pub mod editor;
pub mod http;
pub mod inbox;
pub mod kill;
pub mod mcp;
pub mod omni;
pub mod peers;
pub mod postgres;
pub mod relay;
pub mod releases;
pub mod servers;
pub mod telegram;
pub mod terminal;
pub mod tools;
pub mod vendor;
pub mod wall;
