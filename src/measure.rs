//! What is counted while the program runs, for whoever watches many of them: numbers in the text
//! format of Prometheus.
//!
//! Nothing is counted until somebody wants to read it, which is `omni serve`. Labels are words of
//! ours, of which there are few: no session, no tool and no text is ever one.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Seconds, as tools and models take them: a millisecond to minutes.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0];
/// How often what was measured is put into buckets, at least: until then it takes room.
const UPKEEP: Duration = Duration::from_secs(5);

static READER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Counts from now on. Returns whether it does; a program around us may count for itself.
pub fn begin() -> bool {
    let begun = READER.get_or_init(|| {
        let builder = PrometheusBuilder::new();
        let builder = builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS);
        let reader = builder.expect("there are buckets").install_recorder().ok()?;
        describe();
        let upkeep = reader.clone();
        let work = move || {
            loop {
                std::thread::sleep(UPKEEP);
                upkeep.run_upkeep();
            }
        };
        std::thread::Builder::new().name("measure".to_owned()).spawn(work).ok()?;
        Some(reader)
    });
    begun.is_some()
}

fn reader() -> Option<&'static PrometheusHandle> {
    READER.get()?.as_ref()
}

/// Everything that was counted so far, as text.
pub fn told() -> String {
    reader().map(PrometheusHandle::render).unwrap_or_default()
}

/// A moment to measure from, if anybody measures.
pub fn now() -> Option<Instant> {
    reader().map(|_| Instant::now())
}

fn describe() {
    describe_counter!("omni_requests_total", "Requests over HTTP, by route and status.");
    describe_histogram!("omni_request_seconds", Unit::Seconds, "Until an answer began, by route.");
    describe_counter!("omni_turns_total", "Turns, by how they ended.");
    describe_histogram!("omni_turn_seconds", Unit::Seconds, "Turns, without the wait for their session.");
    describe_gauge!("omni_turns_going", "Turns that go on.");
    describe_gauge!("omni_turns_waiting", "Messages that wait for their turn.");
    describe_counter!("omni_model_calls_total", "Calls of models by turns.");
    describe_counter!("omni_model_tokens_total", "Tokens, by kind: input (cached ones too), cached, output.");
    describe_counter!("omni_model_cost_microdollars_total", "What models cost, where prices are known.");
    describe_counter!("omni_tool_calls_total", "Calls of tools, by how they ended.");
    describe_histogram!("omni_tool_seconds", Unit::Seconds, "Calls of tools.");
    describe_histogram!(
        "omni_python_wait_seconds",
        Unit::Seconds,
        "Until a call had a thread and the interpreter's lock."
    );
    describe_counter!("omni_workers_started_total", "Processes that were started for tools.");
    describe_counter!("omni_workers_lost_total", "Those that ended in the middle of a call.");
    describe_histogram!("omni_recall_seconds", Unit::Seconds, "What was recalled for a turn.");
}

/// A request was answered.
pub fn request(route: &str, status: u16, time: Duration) {
    let route = route.to_owned();
    counter!("omni_requests_total", "route" => route.clone(), "status" => status.to_string()).increment(1);
    histogram!("omni_request_seconds", "route" => route).record(time);
}

/// A turn ended.
pub fn turn(
    stop: &'static str,
    time: Duration,
    models: u32,
    input: u64,
    cached: u64,
    output: u64,
    cost: Option<u64>,
) {
    if let Some(cost) = cost {
        counter!("omni_model_cost_microdollars_total").increment(cost);
    }
    counter!("omni_turns_total", "stop" => stop).increment(1);
    histogram!("omni_turn_seconds").record(time);
    counter!("omni_model_calls_total").increment(models.into());
    for (kind, tokens) in [("input", input), ("cached", cached), ("output", output)] {
        counter!("omni_model_tokens_total", "kind" => kind).increment(tokens);
    }
}

/// How much goes on now.
pub fn load(going: usize, waiting: usize) {
    gauge!("omni_turns_going").set(going as f64);
    gauge!("omni_turns_waiting").set(waiting as f64);
}

/// A call of a tool ended.
pub fn tool(outcome: &'static str, time: Duration) {
    counter!("omni_tool_calls_total", "outcome" => outcome).increment(1);
    histogram!("omni_tool_seconds").record(time);
}

/// A call has the interpreter, for which it has waited since then.
pub fn python(since: Option<Instant>) {
    if let Some(since) = since {
        histogram!("omni_python_wait_seconds").record(since.elapsed());
    }
}

/// A process was started for tools.
pub fn worker_started() {
    counter!("omni_workers_started_total").increment(1);
}

/// One ended in the middle of a call.
pub fn worker_lost() {
    counter!("omni_workers_lost_total").increment(1);
}

/// The memory was asked.
pub fn recall(since: Option<Instant>) {
    if let Some(since) = since {
        histogram!("omni_recall_seconds").record(since.elapsed());
    }
}
