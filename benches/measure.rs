//! From times to figures.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// What one round of calls took.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Microseconds that half of the calls stayed under.
    pub p50: f64,
    /// Microseconds that all but one in a hundred stayed under.
    pub p99: f64,
    /// Calls per second.
    pub rate: f64,
}

impl Sample {
    /// Of calls that took these times, all within `elapsed`.
    pub fn new(mut times: Vec<Duration>, elapsed: Duration) -> Result<Self> {
        ensure!(!times.is_empty(), "not one call came back within a round");
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
        Ok(Self { p50: at(0.5), p99: at(0.99), rate: times.len() as f64 / elapsed.as_secs_f64() })
    }
}

/// Lets so many callers call, each one call after the other, for some time.
pub async fn drive<C, F>(callers: usize, time: Duration, call: C) -> Result<Sample>
where
    C: Fn() -> F + Clone + Send + 'static,
    F: Future<Output = Result<()>> + Send,
{
    let began = Instant::now();
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..callers {
        let call = call.clone();
        all.spawn(async move {
            let mut times = Vec::new();
            while began.elapsed() < time {
                let start = Instant::now();
                call().await?;
                times.push(start.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(caller) = all.join_next().await {
        times.append(&mut caller??);
    }
    Sample::new(times, began.elapsed())
}

/// The value in the middle.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[length / 2],
        length => f64::midpoint(values[length / 2 - 1], values[length / 2]),
    }
}
