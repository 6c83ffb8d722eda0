//! What is written down of what goes on: the log, and traces for those who collect them.
//!
//! Traces say what was done, when, and what it cost, in the words of OpenTelemetry's conventions for
//! generative AI. What was said is in none of them.

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use tokio::runtime::Handle;
use tracing::Level;
use tracing_appender::rolling::RollingFileAppender;
use tracing_subscriber::filter::{EnvFilter, FilterFn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use super::App;
use crate::trace;

/// How long the last traces may take to be sent.
const PARTING: Duration = Duration::from_secs(3);
/// How long a collector may take.
const PATIENCE: Duration = Duration::from_secs(10);

static TRACES: OnceLock<SdkTracerProvider> = OnceLock::new();

type Written = Box<dyn Layer<Registry> + Send + Sync>;

impl App {
    /// Begins the log and says whether there is one. Where none can be written `omni doctor`
    /// says so, and nothing else depends on it.
    ///
    /// A line is with the system when the call that logs it returns: none is lost in a queue
    /// when the process is killed, and none is dropped when there are many. It costs less than
    /// handing the line to a thread that then has to be woken.
    pub fn log(&self, verbose: bool) -> bool {
        let file = self.daily("omni", "log");
        let is_there = file.is_some();
        let log = file.map(|file| self.lines(file, verbose));
        let layers: Vec<Written> = log.into_iter().chain(self.traces()).collect();
        !layers.is_empty() && tracing_subscriber::registry().with(layers).try_init().is_ok() && is_there
    }

    fn lines(&self, file: RollingFileAppender, verbose: bool) -> Written {
        let config = &self.config().log;
        let filter = EnvFilter::try_new(&config.level).unwrap_or_else(|_| EnvFilter::new("info"));
        let filter = if verbose { filter.add_directive(Level::DEBUG.into()) } else { filter };
        // It writes down what vendors answer, who may repeat the key they refuse.
        let filter = filter.add_directive("genai=off".parse().expect("a directive"));
        // It writes down every message, arguments and all.
        let filter = filter.add_directive("rmcp=error".parse().expect("a directive"));
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(file);
        match config.format.as_str() {
            "json" => lines.json().with_filter(filter).boxed(),
            _ => lines.with_filter(filter).boxed(),
        }
    }

    /// Traces, where somebody collects them.
    fn traces(&self) -> Option<Written> {
        let endpoint = self.config().telemetry.endpoint.trim_end_matches('/');
        if endpoint.is_empty() {
            return None;
        }
        let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary);
        let exporter = exporter.with_endpoint(format!("{endpoint}/v1/traces")).with_timeout(PATIENCE).build();
        let Ok(exporter) = exporter else { return None };
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_service_name("omni").with_attribute(version).build();
        let exporter = Driven { exporter: std::sync::Arc::new(exporter), runtime: Handle::current() };
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        let tracer = provider.tracer("omni");
        TRACES.set(provider).ok()?;
        let layer =
            tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_threads(false);
        // What is logged in them stays in the log.
        let ours = FilterFn::new(|metadata| metadata.is_span() && metadata.target() == trace::DETAIL);
        Some(layer.with_filter(ours).boxed())
    }
}

/// Sends what traces are left.
pub(super) async fn flush() {
    let Some(provider) = TRACES.get() else { return };
    let sent = tokio::task::spawn_blocking(|| provider.shutdown_with_timeout(PARTING)).await;
    if let Ok(Err(error)) = sent {
        tracing::warn!("traces were not sent: {error}");
    }
}

/// An exporter whose work is done by our own threads: the one that calls it has no way to wait for a
/// network.
#[derive(Debug)]
struct Driven {
    exporter: std::sync::Arc<SpanExporter>,
    runtime: Handle,
}

impl opentelemetry_sdk::trace::SpanExporter for Driven {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exporter = self.exporter.clone();
        let sent = self
            .runtime
            .spawn(async move { opentelemetry_sdk::trace::SpanExporter::export(&*exporter, batch).await });
        sent.await.unwrap_or_else(|error| Err(OTelSdkError::InternalFailure(error.to_string())))
    }
}
