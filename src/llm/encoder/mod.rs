//! A sentence encoder on this machine: what sentence-transformers keeps in a folder, run here.
//!
//! It is for models of BERT's kind and size, MiniLM above all: a sentence takes milliseconds of
//! one processor, and nothing leaves the machine. The weights are read with the first text.

mod bert;
mod shelf;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::Error;
use super::embed::Embedder;

use bert::Bert;
pub use shelf::{Installed, Shelf};

/// Texts in one pass. Whoever comes in between waits for one pass at most.
const PASS: usize = 8;

/// An encoder in a folder. Cloning shares what was read.
#[derive(Debug, Clone)]
pub struct Encoder {
    folder: PathBuf,
    identity: String,
    bert: Arc<Mutex<Option<Arc<Bert>>>>,
}

impl Encoder {
    /// The encoder in `folder`, whose vectors are called `identity`. Nothing is read yet.
    fn new(folder: PathBuf, identity: String) -> Self {
        Self { folder, identity, bert: Arc::default() }
    }

    fn bert(&self) -> Result<Arc<Bert>, Error> {
        let mut bert = self.bert.lock().unwrap_or_else(PoisonError::into_inner);
        if bert.is_none() {
            let wrong = |reason| Error::Setup(format!("the encoder in `{}` {reason}", self.folder.display()));
            *bert = Some(Arc::new(Bert::read(&self.folder).map_err(wrong)?));
        }
        Ok(bert.clone().expect("just read"))
    }

    /// A vector for each text. It ends early where `wanted` says that nobody waits.
    fn encode(&self, texts: &[String], wanted: impl Fn() -> bool) -> Result<Vec<Vec<f32>>, Error> {
        let bert = self.bert()?;
        let failed = |reason| Error::Unreadable { provider: self.identity.clone(), message: reason };
        let words = bert.words(texts).map_err(failed)?;
        // Texts of like length go together: the shorter are filled up to the longest.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|place| words[*place].len());
        let mut vectors = vec![Vec::new(); texts.len()];
        for places in order.chunks(PASS) {
            if !wanted() {
                return Err(failed("nobody waits for it".to_owned()));
            }
            let pass: Vec<&[u32]> = places.iter().map(|place| words[*place].as_slice()).collect();
            for (place, vector) in places.iter().zip(bert.pass(&pass).map_err(failed)?) {
                vectors[*place] = vector;
            }
        }
        Ok(vectors)
    }
}

#[async_trait]
impl Embedder for Encoder {
    fn identity(&self) -> &str {
        &self.identity
    }

    /// Each takes its milliseconds, and somebody waits for the question.
    fn along(&self) -> usize {
        0
    }

    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Error> {
        let (encoder, texts) = (self.clone(), texts.to_vec());
        let waits = Arc::new(());
        let waiting = Arc::downgrade(&waits);
        let work = move || encoder.encode(&texts, || waiting.strong_count() > 0);
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| Error::Setup(format!("`{}` broke off: {error}", self.identity)))?
    }
}
