//! What ties together all that one request leads to.
//!
//! Each request has an id, the caller's own or a new one; what is not asked for by a request has that
//! of its turn. It is in the log, in the field `id` of spans; calls of other servers carry it; and
//! where traces are collected, spans are put into the trace that it begins.

use std::sync::Arc;

use opentelemetry::trace::TraceContextExt;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The target of spans that only those see who collect traces.
pub const DETAIL: &str = "omni::trace";

tokio::task_local! {
    static REQUEST: Arc<str>;
}

/// Does the work of this request.
pub async fn within<T>(request: Arc<str>, work: impl Future<Output = T>) -> T {
    REQUEST.scope(request, work).await
}

/// The same work for a task of its own, which is at the same request and in the same span.
pub fn carried<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let request = request();
    let work = async move {
        match request {
            Some(request) => within(request, work).await,
            None => work.await,
        }
    };
    work.in_current_span()
}

/// The id of the request that this task is at, if it is one.
pub fn request() -> Option<Arc<str>> {
    REQUEST.try_with(Arc::clone).ok()
}

/// The span that goes on, as W3C's `traceparent`, where traces are collected.
pub fn parent() -> Option<String> {
    let context = Span::current().context();
    let span = context.span().span_context().clone();
    let flags = span.trace_flags().to_u8();
    span.is_valid().then(|| format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id()))
}

/// Makes a span a part of the trace that a `traceparent` is of. What is none is ignored.
pub fn adopt(span: &Span, parent: &str) {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    let mut fields = parent.split('-');
    let read = || {
        let ("00", trace, id, flags, None) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next())
        else {
            return None;
        };
        let sizes = trace.len() == 32 && id.len() == 16 && flags.len() == 2;
        let flags = u8::from_str_radix(flags, 16).ok().filter(|_| sizes)?;
        let (trace, id) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(id).ok()?);
        Some(SpanContext::new(trace, id, TraceFlags::new(flags), true, TraceState::default()))
    };
    let mut read = read;
    if let Some(context) = read().filter(SpanContext::is_valid) {
        // Where no traces are collected there is nothing to be a part of.
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(context));
    }
}
