//! What tools and questions mean, as vectors, where something on this machine or elsewhere makes
//! them. Nobody waits for those of tools: they are read in the background, once, and kept in a file.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use sha2::{Digest, Sha256};

/// Makes a vector of length 1 of each text; `None` where it cannot. It takes at most [`TEXTS`].
pub type Encode = Arc<dyn Fn(Vec<String>) -> BoxFuture<'static, Option<Vec<Vec<f32>>>> + Send + Sync>;

/// Texts that are encoded at once. What was done is kept after each.
pub const TEXTS: usize = 32;
/// How long a turn waits for the vectors of what was said, and the background for those of tools.
const TURN: Duration = Duration::from_secs(1);
const BACKGROUND: Duration = Duration::from_secs(60);
/// Texts of tools that are kept, and things that were said.
const KEPT: usize = 10_000;
const SAID: usize = 500;

/// By what a text is known.
pub(super) type Key = [u8; 32];
type Vector = Arc<[f32]>;

/// Vectors from one encoder. Sharing it shares them.
pub struct Meanings {
    encode: Encode,
    file: PathBuf,
    /// Read from the file when they are first needed.
    known: OnceLock<Mutex<HashMap<Key, Vector>>>,
    said: Mutex<HashMap<Key, Vector>>,
    reads: AtomicBool,
}

impl Meanings {
    /// Vectors that are called `identity`, made by `encode`; those of tools are kept in `folder`.
    pub fn new(identity: &str, folder: &Path, encode: Encode) -> Self {
        let name: String = key(identity).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self {
            encode,
            file: folder.join(format!("tools-{name}.vectors")),
            known: OnceLock::new(),
            said: Mutex::default(),
            reads: AtomicBool::new(false),
        }
    }

    /// Whether texts of tools are being read.
    pub fn is_reading(&self) -> bool {
        self.reads.load(SeqCst)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Key, Vector>> {
        let read = || Mutex::new(std::fs::read(&self.file).map(|bytes| parse(&bytes)).unwrap_or_default());
        self.known.get_or_init(read).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The vectors of these texts, once all are known: some of them alone would count for more than
    /// the others. Has those read that are not.
    pub(super) fn of_tools(self: &Arc<Self>, texts: &[(Key, String)]) -> Option<Vec<Vector>> {
        let (found, missing) = {
            let known = self.known();
            let found: Option<Vec<Vector>> = texts.iter().map(|(key, _)| known.get(key).cloned()).collect();
            let is_missing = |(key, _): &&(Key, String)| !known.contains_key(key);
            let missing = match found {
                Some(_) => Vec::new(),
                None => texts.iter().filter(is_missing).cloned().collect(),
            };
            (found, missing)
        };
        if !missing.is_empty() && !self.reads.swap(true, SeqCst) {
            let this = Reads(self.clone());
            tokio::spawn(async move { this.0.read(missing).await });
        }
        found
    }

    /// Reads texts of tools, and keeps them.
    async fn read(&self, texts: Vec<(Key, String)>) {
        for part in texts.chunks(TEXTS) {
            let said = part.iter().map(|(_, text)| text.clone()).collect();
            let Some(vectors) = self.encoded(said, BACKGROUND).await else { return };
            let bytes = {
                let mut known = self.known();
                if known.len() + part.len() > KEPT {
                    known.clear();
                }
                known.extend(part.iter().map(|(key, _)| *key).zip(vectors));
                bytes(&known)
            };
            if let Err(error) = self.keep(&bytes) {
                tracing::warn!(file = %self.file.display(), "what tools mean cannot be kept: {error}");
            }
        }
    }

    fn keep(&self, bytes: &[u8]) -> std::io::Result<()> {
        let folder = self.file.parent().expect("a file in a folder");
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.persist(&self.file)?;
        Ok(())
    }

    /// The vectors of what was said, as far as there are any in time.
    pub(super) async fn of_words(&self, said: &[&str]) -> Vec<Option<Vector>> {
        let keys: Vec<Key> = said.iter().map(|text| key(text)).collect();
        let new: Vec<(Key, String)> = {
            let known = self.said();
            let pairs = keys.iter().zip(said).filter(|(key, _)| !known.contains_key(*key));
            pairs.map(|(key, text)| (*key, (*text).to_owned())).collect()
        };
        for part in new.chunks(TEXTS) {
            let texts = part.iter().map(|(_, text)| text.clone()).collect();
            let Some(vectors) = self.encoded(texts, TURN).await else { break };
            let mut known = self.said();
            if known.len() + part.len() > SAID {
                known.clear();
            }
            known.extend(part.iter().map(|(key, _)| *key).zip(vectors));
        }
        let known = self.said();
        keys.iter().map(|key| known.get(key).cloned()).collect()
    }

    fn said(&self) -> MutexGuard<'_, HashMap<Key, Vector>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn encoded(&self, texts: Vec<String>, patience: Duration) -> Option<Vec<Vector>> {
        let count = texts.len();
        let encoded = tokio::time::timeout(patience, (self.encode)(texts)).await.ok().flatten();
        let vectors = encoded.filter(|vectors| vectors.len() == count)?;
        Some(vectors.into_iter().map(Arc::from).collect())
    }
}

impl std::fmt::Debug for Meanings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Meanings").field(&self.file).finish()
    }
}

/// One reads at a time.
struct Reads(Arc<Meanings>);

impl Drop for Reads {
    fn drop(&mut self) {
        self.0.reads.store(false, SeqCst);
    }
}

/// What a text is known by.
pub(super) fn key(text: &str) -> Key {
    Sha256::digest(text).into()
}

/// The cosine of two.
pub(super) fn alike(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

/// As a file: how long vectors are, then each under its key. Those of another length are left out.
fn bytes(known: &HashMap<Key, Vector>) -> Vec<u8> {
    let length = known.values().next().map_or(0, |vector| vector.len());
    let mut bytes = (length as u32).to_le_bytes().to_vec();
    for (key, vector) in known.iter().filter(|(_, vector)| vector.len() == length) {
        bytes.extend_from_slice(key);
        vector.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
    }
    bytes
}

/// The same back. What is no such file has none.
fn parse(bytes: &[u8]) -> HashMap<Key, Vector> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return HashMap::new() };
    let record = size_of::<Key>() + 4 * u32::from_le_bytes(*length) as usize;
    let pair = |record: &[u8]| {
        let (key, numbers) = record.split_first_chunk::<32>()?;
        let numbers = numbers.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number));
        Some((*key, numbers.collect()))
    };
    match rest.len() % record {
        0 => rest.chunks_exact(record).filter_map(pair).collect(),
        _ => HashMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_what_is_broken_does_not() {
        let known: HashMap<Key, Vector> =
            [("one", [0.6f32, 0.8]), ("other", [1.0, 0.0])].map(|(text, v)| (key(text), v.into())).into();
        let kept = bytes(&known);
        assert_eq!(parse(&kept), known);
        assert_eq!(parse(&kept[..kept.len() - 1]), HashMap::new());
        assert_eq!(parse(&[]), HashMap::new());
    }
}
