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
    /// Microseconds of processor a call took, in this process and all that it has started.
    pub cpu: f64,
}

impl Sample {
    /// Of calls that took these times, all since `began`.
    pub fn new(mut times: Vec<Duration>, began: Begin) -> Result<Self> {
        let (elapsed, cpu) = (began.time.elapsed(), processor()?.saturating_sub(began.cpu));
        ensure!(!times.is_empty(), "not one call came back within a round");
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
        let calls = times.len() as f64;
        let cpu = cpu.as_secs_f64() * 1e6 / calls;
        Ok(Self { p50: at(0.5), p99: at(0.99), rate: calls / elapsed.as_secs_f64(), cpu })
    }
}

/// The beginning of a round.
#[derive(Debug, Clone, Copy)]
pub struct Begin {
    /// When it was.
    pub time: Instant,
    cpu: Duration,
}

impl Begin {
    /// Now.
    pub fn now() -> Result<Self> {
        Ok(Self { cpu: processor()?, time: Instant::now() })
    }
}

/// Processor time of this process and its children, grandchildren and so on, those included that
/// have ended and were waited for. It is counted in hundredths of seconds.
fn processor() -> Result<Duration> {
    processor_of(std::process::id())
}

/// The same of another process.
pub fn processor_of(root: u32) -> Result<Duration> {
    let family = family(root)?;
    // As in proc(5), from the fourth on: 14 to 17 are utime, stime, cutime, cstime.
    let times = family.iter().filter_map(|(_, fields)| fields.get(10..14));
    let ticks: u64 = times.map(|times| times.iter().sum::<u64>()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// Bytes that a process and its children have in memory; what they share is counted once for each.
pub fn resident(root: u32) -> Result<u64> {
    const PAGE: u64 = 4096;
    // As in proc(5): the 24th is rss.
    Ok(family(root)?.iter().filter_map(|(_, fields)| fields.get(20)).sum::<u64>() * PAGE)
}

/// A process and its children, grandchildren and so on, each with what proc(5) says of it from the
/// fourth field on.
fn family(root: u32) -> Result<Vec<(u32, Vec<u64>)>> {
    let mut parents = std::collections::HashMap::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // It may have ended meanwhile.
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<u64> = rest
            .split(' ')
            .skip(1)
            .map_while(|field| field.parse::<i64>().ok())
            .map(|field| field as u64)
            .collect();
        if let Some(parent) = fields.first() {
            parents.insert(id, (*parent as u32, fields.clone()));
        }
    }
    let belongs = |id: u32| {
        let mut at = id;
        while at != root {
            match parents.get(&at) {
                Some((parent, _)) if *parent != 0 => at = *parent,
                _ => return false,
            }
        }
        true
    };
    let members: Vec<u32> = parents.keys().copied().filter(|id| belongs(*id)).collect();
    Ok(members.into_iter().filter_map(|id| Some((id, parents.remove(&id)?.1))).collect())
}

/// Lets so many callers call, each one call after the other, for some time.
pub async fn drive<C, F>(callers: usize, time: Duration, call: C) -> Result<Sample>
where
    C: Fn() -> F + Clone + Send + 'static,
    F: Future<Output = Result<()>> + Send,
{
    let start = Begin::now()?;
    let began = start.time;
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
    Sample::new(times, start)
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
