//! Results that are good for a while: what a tool with a `cache_ttl` has returned.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::Output;

/// Results that are kept for one tool; the oldest goes first.
const MOST: usize = 256;

/// The results of one tool, by where it was called and with which arguments.
#[derive(Debug)]
pub(super) struct Cache {
    ttl: Duration,
    results: Mutex<HashMap<String, (Instant, Output)>>,
}

impl Cache {
    pub(super) fn new(ttl: Duration) -> Self {
        Self { ttl, results: Mutex::default() }
    }

    /// What such a call is known by.
    pub(super) fn key(workspace: &Path, arguments: &Map<String, Value>) -> String {
        let mut arguments: Vec<_> = arguments.iter().collect();
        arguments.sort_by_key(|(name, _)| *name);
        serde_json::json!([workspace.to_string_lossy(), arguments]).to_string()
    }

    /// The result of such a call, if it is young enough.
    pub(super) fn get(&self, key: &str, now: Instant) -> Option<Output> {
        let results = self.results.lock().expect("no panic while held");
        let (made, output) = results.get(key)?;
        (now.duration_since(*made) < self.ttl).then(|| output.clone())
    }

    pub(super) fn put(&self, key: String, output: Output, now: Instant) {
        let mut results = self.results.lock().expect("no panic while held");
        results.retain(|_, (made, _)| now.duration_since(*made) < self.ttl);
        if results.len() >= MOST
            && let Some(oldest) =
                results.iter().min_by_key(|(_, (made, _))| *made).map(|(key, _)| key.clone())
        {
            results.remove(&oldest);
        }
        results.insert(key, (now, output));
    }
}
