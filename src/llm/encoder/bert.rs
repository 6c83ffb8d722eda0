//! BERT and how its words become one vector: the room of the crates that compute it.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor, safetensors};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config, DTYPE};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokenizers::{Tokenizer, TruncationParams};

use super::super::embed::unit;

/// What a folder has to have.
pub(super) const CONFIG: &str = "config.json";
pub(super) const WORDS: &str = "tokenizer.json";
pub(super) const WEIGHTS: &str = "model.safetensors";
/// What it may have: how long texts may be, and how words become a sentence.
pub(super) const LENGTH: &str = "sentence_bert_config.json";
pub(super) const POOLING: &str = "1_Pooling/config.json";

/// A model that was read.
pub(super) struct Bert {
    tokenizer: Tokenizer,
    model: BertModel,
    pooling: Pooling,
}

impl std::fmt::Debug for Bert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bert").field("pooling", &self.pooling).finish_non_exhaustive()
    }
}

/// How the vectors of words become one.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Pooling {
    /// That of the mark at the beginning; otherwise, as most have it, the mean of all.
    pooling_mode_cls_token: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Length {
    max_seq_length: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct About {
    model_type: String,
}

impl Bert {
    /// Reads it; an error says what is wrong with the folder.
    pub(super) fn read(folder: &Path) -> Result<Self, String> {
        let About { model_type } = json(folder, CONFIG)?;
        if model_type != "bert" {
            return Err(format!("is of the kind `{model_type}`; only `bert` can be run"));
        }
        let config: Config = json(folder, CONFIG)?;
        let Length { max_seq_length } = if_there(folder, LENGTH)?;
        let pooling: Pooling = if_there(folder, POOLING)?;
        if pooling.pooling_mode_max_tokens || pooling.pooling_mode_mean_sqrt_len_tokens {
            return Err(
                "puts words together in a way that is not known here; the mean and CLS are".to_owned()
            );
        }
        let unread = |error: tokenizers::Error| format!("has no `{WORDS}` that can be read: {error}");
        let mut tokenizer = Tokenizer::from_file(folder.join(WORDS)).map_err(unread)?;
        let longest = config.max_position_embeddings;
        let max_length = max_seq_length.unwrap_or(longest).min(longest);
        tokenizer
            .with_truncation(Some(TruncationParams { max_length, ..Default::default() }))
            .map_err(unread)?;
        tokenizer.with_padding(None);
        let wrong = |error: candle_core::Error| format!("has no `{WEIGHTS}` of its kind: {error}");
        let weights = arranged(&bytes(folder, WEIGHTS)?).map_err(wrong)?;
        let weights = VarBuilder::from_tensors(weights, DTYPE, &Device::Cpu);
        let model = BertModel::load(weights, &config).map_err(wrong)?;
        Ok(Self { tokenizer, model, pooling })
    }

    /// The numbers of each text's words, with the marks at both ends.
    pub(super) fn words(&self, texts: &[String]) -> Result<Vec<Vec<u32>>, String> {
        let texts = texts.iter().map(String::as_str).collect();
        let words = self.tokenizer.encode_batch(texts, true).map_err(|error| error.to_string())?;
        Ok(words.iter().map(|words| words.get_ids().to_vec()).collect())
    }

    /// A vector of length 1 for each of these texts.
    pub(super) fn pass(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, String> {
        let vectors = self.forward(texts).map_err(|error| error.to_string())?;
        let vectors = vectors.into_iter().map(|vector| unit(vector).ok_or("a vector is none".to_owned()));
        vectors.collect()
    }

    fn forward(&self, texts: &[&[u32]]) -> candle_core::Result<Vec<Vec<f32>>> {
        let longest = texts.iter().map(|words| words.len()).max().unwrap_or_default();
        let shape = (texts.len(), longest);
        let filled =
            |words: &[u32]| words.iter().copied().chain(std::iter::repeat(0)).take(longest).collect();
        let words: Vec<u32> = texts.iter().flat_map(|words| -> Vec<u32> { filled(words) }).collect();
        let there = texts
            .iter()
            .flat_map(|words| (0..longest).map(|place| if place < words.len() { 1.0_f32 } else { 0.0 }));
        let there = Tensor::from_vec(there.collect::<Vec<_>>(), shape, &Device::Cpu)?;
        let words = Tensor::from_vec(words, shape, &Device::Cpu)?;
        let hidden = self.model.forward(&words, &words.zeros_like()?, Some(&there))?;
        if self.pooling.pooling_mode_cls_token {
            return hidden.narrow(1, 0, 1)?.squeeze(1)?.to_vec2();
        }
        let sum = hidden.broadcast_mul(&there.unsqueeze(2)?)?.sum(1)?;
        sum.broadcast_div(&there.sum_keepdim(1)?)?.to_vec2()
    }
}

/// The weights, those of layers with the columns together. A layer multiplies by its weights
/// turned over; so laid out they need not be packed anew for each text, which took half of its time.
fn arranged(weights: &[u8]) -> candle_core::Result<HashMap<String, Tensor>> {
    let weights = safetensors::load_buffer(weights, &Device::Cpu)?;
    let arranged = weights.into_iter().map(|(name, weight)| {
        let weight = weight.to_dtype(DTYPE)?;
        match weight.rank() == 2 && !name.contains("embeddings") {
            true => Ok((name, weight.t()?.contiguous()?.t()?)),
            false => Ok((name, weight)),
        }
    });
    arranged.collect()
}

fn bytes(folder: &Path, file: &str) -> Result<Vec<u8>, String> {
    fs::read(folder.join(file)).map_err(|error| format!("has no `{file}` that can be read: {error}"))
}

fn json<T: DeserializeOwned>(folder: &Path, file: &str) -> Result<T, String> {
    let read = serde_json::from_slice(&bytes(folder, file)?);
    read.map_err(|error| format!("has a `{file}` that is not understood: {error}"))
}

fn if_there<T: DeserializeOwned + Default>(folder: &Path, file: &str) -> Result<T, String> {
    if folder.join(file).is_file() { json(folder, file) } else { Ok(T::default()) }
}
