//! The map of the tests: one program, one file per subject.
mod tool;

/// What the tests stand on: a real PostgreSQL, processes that are killed.
mod support;

/// Settings: layers, errors with their line, what a project may not say, the reference page.
mod config;
/// The log of a conversation, its repair, and what of it fits into a window.
mod session;
/// The database: opening, migrating, leases, and what happens when it cannot do its work.
mod store;
