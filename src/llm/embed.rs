//! Texts as vectors, from a server that speaks OpenAI's `/embeddings`; those of this machine are in
//! [`encoder`](super::encoder).

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::json;

use super::catalog::{self, Kind};
use super::fault::{Source, retry_after};
use super::{Error, Server};

/// How long a server may take to be reached, and to answer.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);
/// Texts in one request.
pub const TEXTS: usize = 64;
/// Numbers of a vector, at most, and characters that one of them may take on the way.
const NUMBERS: usize = 8192;
const DIGITS: usize = 32;

/// Turns texts into vectors whose angles say how alike the texts are.
#[async_trait]
pub trait Embedder: Send + Sync + std::fmt::Debug {
    /// What its vectors are. Only vectors of embedders that are called the same can be compared.
    fn identity(&self) -> &str;

    /// How many more texts may go along with one that somebody waits for.
    fn along(&self) -> usize {
        TEXTS - 1
    }

    /// A vector of length 1 for each of at most [`TEXTS`] texts.
    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Error>;
}

/// A model behind an HTTP API.
#[derive(Debug, Clone)]
pub struct Embeddings {
    server: Server,
    model: String,
    identity: String,
    url: String,
    client: reqwest::Client,
}

impl Embeddings {
    /// A model of `server`. Nothing is sent yet.
    pub fn new(server: Server, model: &str) -> Result<Self, Error> {
        let identity = format!("{}/{model} at {}", server.provider, server.base_url);
        let url = match server.kind {
            Kind::Ollama => format!("{}v1/embeddings", server.base_url),
            _ => format!("{}embeddings", server.base_url),
        };
        let client = reqwest::Client::builder().connect_timeout(CONNECT).timeout(ANSWER);
        let client = if catalog::is_local(&url) { client.no_proxy() } else { client };
        // A key that goes along must not go elsewhere.
        let client = client.redirect(reqwest::redirect::Policy::none()).build().map_err(|error| {
            Error::Setup(format!("cannot start an HTTP client for `{identity}`: {error}"))
        })?;
        Ok(Self { server, model: model.to_owned(), identity, url, client })
    }

    fn source(&self) -> Source<'_> {
        Source { provider: &self.server.provider, key: self.server.key.as_deref() }
    }

    fn unreadable(&self, reason: impl std::fmt::Display) -> Error {
        Error::Unreadable { provider: self.server.provider.clone(), message: reason.to_string() }
    }
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    index: usize,
    embedding: Vec<f32>,
}

#[async_trait]
impl Embedder for Embeddings {
    fn identity(&self) -> &str {
        &self.identity
    }

    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Error> {
        let body = json!({"model": self.model, "input": texts, "encoding_format": "float"});
        let mut request = self.client.post(&self.url).json(&body);
        if let Some(key) = &self.server.key {
            request = request.bearer_auth(key);
        }
        let unreachable = |error: reqwest::Error| Error::Network {
            provider: self.server.provider.clone(),
            message: error.without_url().to_string(),
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let (status, mut body) = (response.status(), Vec::new());
        let wait = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let wait = wait.and_then(|value| retry_after(value, SystemTime::now()));
        while let Some(piece) = response.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&piece);
            if body.len() > texts.len().max(1) * NUMBERS * DIGITS {
                return Err(self.unreadable("the answer is larger than its vectors can be"));
            }
        }
        if !status.is_success() {
            return Err(self.source().status(status.as_u16(), &String::from_utf8_lossy(&body), wait));
        }
        let mut answer: Answer = serde_json::from_slice(&body).map_err(|error| self.unreadable(error))?;
        answer.data.sort_by_key(|entry| entry.index);
        let length = answer.data.first().map_or(0, |entry| entry.embedding.len());
        let in_order = answer.data.iter().enumerate().all(|(place, entry)| entry.index == place);
        if answer.data.len() != texts.len() || !in_order || !(1..=NUMBERS).contains(&length) {
            return Err(self.unreadable("there is not one vector for each text"));
        }
        let vectors = answer.data.into_iter().map(|entry| match unit(entry.embedding) {
            Some(vector) if vector.len() == length => Ok(vector),
            _ => Err(self.unreadable("a vector is none")),
        });
        vectors.collect()
    }
}

/// The vector of the same direction and of length 1; `None` where there is none.
pub(super) fn unit(mut vector: Vec<f32>) -> Option<Vec<f32>> {
    let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
    if !length.is_normal() {
        return None;
    }
    vector.iter_mut().for_each(|number| *number /= length);
    Some(vector)
}
