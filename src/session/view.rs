//! What of a log is shown to a model (pure): all of it, but for what was set aside.
//!
//! Nothing is ever taken out of a log. To begin anew is an entry, and so is to go back to what was
//! set aside; this reads them.

use std::collections::HashMap;

use super::{Entry, Stored};

/// The entries that count, in their order.
pub fn view(mut log: Vec<Stored>) -> Vec<Stored> {
    let counts = counting(&log);
    let mut places = 0..;
    log.retain(|_| places.next().is_some_and(|place: usize| counts[place]));
    log
}

/// The names under which something was set aside, each once, the oldest first.
pub fn names(log: &[Stored]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for stored in log {
        let Entry::Kept(mark) = &stored.entry else { continue };
        if !names.contains(&mark.name.as_str()) {
            names.push(&mark.name);
        }
    }
    names
}

/// For each entry whether it counts.
fn counting(log: &[Stored]) -> Vec<bool> {
    let mut shown: Vec<usize> = Vec::new();
    let mut aside: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, stored) in log.iter().enumerate() {
        match &stored.entry {
            Entry::Kept(mark) => drop(aside.insert(&mark.name, shown.clone())),
            Entry::Reset => drop(aside.insert("", std::mem::take(&mut shown))),
            Entry::Restored(mark) => {
                let there = aside.get(mark.name.as_str()).cloned().unwrap_or_default();
                // What is left for it can be come back to as well.
                aside.insert("", std::mem::replace(&mut shown, there));
            }
            _ => shown.push(place),
        }
    }
    let mut counts = vec![false; log.len()];
    shown.into_iter().for_each(|place| counts[place] = true);
    counts
}
