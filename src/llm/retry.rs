//! When to ask again. Pure.

use std::time::Duration;

use super::Error;

/// How patient to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Tries after the first.
    pub retries: u32,
    /// The wait before the first of them; doubled for each further one.
    pub first: Duration,
    /// The longest wait, asked for or not.
    pub longest: Duration,
}

impl Limits {
    /// One second, two, four, … and never more than a minute.
    pub fn new(retries: u32) -> Self {
        Self { retries, first: Duration::from_secs(1), longest: Duration::from_secs(60) }
    }
}

/// How long to wait before try number `attempt` (1 is the first repetition), or `None` when
/// repeating is of no use, or was tried often enough.
///
/// A wait the server asks for is honoured to the letter, or not at all where it is longer
/// than `limits.longest`. Otherwise the wait doubles with each try; `random` (0 to 1) takes
/// up to half of it away, so that many clients do not come back at once.
pub fn after(attempt: u32, error: &Error, random: f64, limits: &Limits) -> Option<Duration> {
    if attempt > limits.retries || !is_passing(error) {
        return None;
    }
    if let Some(asked) = asked(error) {
        return (asked <= limits.longest).then_some(asked);
    }
    let doubled = limits.first.saturating_mul(1_u32.checked_shl(attempt - 1).unwrap_or(u32::MAX));
    let share = 1.0 - random.clamp(0.0, 1.0) / 2.0;
    Some(doubled.min(limits.longest).mul_f64(share))
}

/// How long the server asked to wait.
pub fn asked(error: &Error) -> Option<Duration> {
    match error {
        Error::Unavailable { retry_after, .. } => *retry_after,
        _ => None,
    }
}

// Whether the same request may succeed later. An answer of which something was shown is not
// asked for again: the reader would see it twice.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Unavailable { .. } | Error::Network { .. } | Error::Silent { .. } => true,
        Error::Interrupted { partial, .. } => partial.parts.is_empty(),
        Error::Unauthorized { .. } | Error::Rejected { .. } | Error::Unreadable { .. } | Error::Setup(_) => {
            false
        }
    }
}
