//! A model that does not give up at once: it asks again, then asks somebody else.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use super::retry::{self, Limits};
use super::{Delta, Error, Model, Reply, Request, Sink};

/// Models in the order they are asked.
///
/// As long as nothing of an answer was shown, a failure that may pass is tried again, as
/// often as the limits allow, and any other one leads to the next model; each step is a
/// [`Delta::Notice`]. Once something was shown the error is final: nobody wants to read
/// half an answer and then another one.
pub struct Resilient {
    first: Arc<dyn Model>,
    others: Vec<Arc<dyn Model>>,
    limits: Limits,
}

impl Resilient {
    /// Asks `first`, then `others`. The name and the window are those of `first`.
    pub fn new(first: Arc<dyn Model>, others: Vec<Arc<dyn Model>>, limits: Limits) -> Self {
        Self { first, others, limits }
    }

    async fn persist(&self, model: &dyn Model, request: &Request, sink: &Sink<'_>) -> Result<Reply, Failure> {
        let mut attempt = 1;
        loop {
            let shown = AtomicBool::new(false);
            let watched = |delta: Delta| {
                if matches!(delta, Delta::Text(_) | Delta::Reasoning(_)) {
                    shown.store(true, Ordering::Relaxed);
                }
                sink(delta);
            };
            let error = match model.reply(request, &watched).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            if shown.into_inner() {
                return Err(Failure::Final(error));
            }
            let Some(wait) = retry::after(attempt, &error, random(), &self.limits) else {
                if let Some(asked) = retry::asked(&error).filter(|asked| *asked > self.limits.longest) {
                    let (asked, longest) = (asked.as_secs(), self.limits.longest.as_secs());
                    sink(Delta::Notice(format!(
                        "{} asks to wait {asked} s; more than {longest} s is too long",
                        model.name()
                    )));
                }
                return Err(Failure::Passed(error));
            };
            let seconds = (wait.as_secs_f64() * 10.0).round() / 10.0;
            sink(Delta::Notice(format!("{}; trying again in {seconds} s", brief(&error))));
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }
}

enum Failure {
    // Something was shown.
    Final(Error),
    // Nothing was shown: the next one may try.
    Passed(Error),
}

#[async_trait]
impl Model for Resilient {
    fn name(&self) -> &str {
        self.first.name()
    }

    fn window(&self) -> usize {
        self.first.window()
    }

    fn unpriced(&self) -> Option<&str> {
        self.first.unpriced().or_else(|| self.others.iter().find_map(|other| other.unpriced()))
    }

    // When all fail, the error is the first model's: it is the one that was asked for.
    async fn reply(&self, request: &Request, sink: &Sink<'_>) -> Result<Reply, Error> {
        let mut failed = match self.persist(&*self.first, request, sink).await {
            Ok(reply) => return Ok(reply),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Passed(error)) => (error.clone(), error),
        };
        for other in &self.others {
            sink(Delta::Notice(format!("{}; falling back to {}", brief(&failed.1), other.name())));
            match self.persist(&**other, request, sink).await {
                Ok(reply) => return Ok(reply),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passed(error)) => failed.1 = error,
            }
        }
        Err(failed.0)
    }
}

fn brief(error: &Error) -> String {
    match error {
        Error::Unavailable { provider, status, .. } => format!("{provider} answered {status}"),
        Error::Rejected { provider, status, message } => format!("{provider} answered {status} ({message})"),
        Error::Unauthorized { provider, .. } => format!("{provider} refused the key"),
        Error::Network { provider, .. } => format!("no connection to {provider}"),
        other => other.to_string(),
    }
}

// Spreading retries needs no better randomness than what hash maps are seeded with.
fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 11;
    bits as f64 / (1_u64 << 53) as f64
}
