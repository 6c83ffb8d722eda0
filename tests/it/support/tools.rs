//! A toolbox as the tests of tools want it.

use std::sync::Arc;
use std::time::Duration;

use omni::tool::{Policy, Settings, Toolbox, Toolset};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Nobody is asked, nothing is written down, and a call has all the time it needs.
pub fn settings() -> Settings {
    Settings {
        policy: Policy::default(),
        timeout: PATIENCE,
        idle_timeout: Duration::ZERO,
        result_bytes: 4000,
        results: None,
        audit: None,
        meanings: None,
    }
}

/// A toolbox with the tools of one set.
pub fn toolbox(set: Arc<dyn Toolset>) -> Arc<Toolbox> {
    Arc::new(Toolbox::new(vec![set], settings()))
}
