//! What several tests need.

pub mod vendor;
