//! How texts are compared: by their words, rare ones counting more (BM25). Pure.

use bm25::{Embedder, EmbedderBuilder, Scorer, Tokenizer};

/// The words of a text as they are compared: lower case, without endings; the ones that
/// carry no meaning left out. Chinese and Japanese come as pairs of characters.
pub fn stems(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    for word in split(text) {
        if word.chars().any(is_cjk) {
            tokens.extend(pairs(&word));
        } else if !FILLERS.contains(&word.as_str()) {
            tokens.push(stem(&word));
        }
    }
    tokens
}

/// Whether a word says nothing about what is wanted.
pub fn is_filler(word: &str) -> bool {
    FILLERS.contains(&word.to_lowercase().as_str())
}

/// Texts that are asked for by words.
pub struct Index {
    embedder: Embedder<u32, Words>,
    scorer: Scorer<usize, u32>,
    texts: usize,
}

impl Index {
    /// Takes the texts in.
    pub fn new(texts: &[String]) -> Self {
        let lines: Vec<&str> = texts.iter().map(String::as_str).collect();
        let embedder: Embedder<u32, Words> =
            EmbedderBuilder::with_tokenizer_and_fit_to_corpus(Words, &lines).build();
        let mut scorer = Scorer::new();
        for (place, line) in lines.iter().enumerate() {
            scorer.upsert(&place, embedder.embed(line));
        }
        Self { embedder, scorer, texts: texts.len() }
    }

    /// How well each text answers to `query`, as [`stems`] makes it; 0 for not at all.
    pub fn scores(&self, query: &[String]) -> Vec<f32> {
        let asked = self.embedder.embed(&query.join(" "));
        (0..self.texts).map(|place| self.scorer.score(&place, &asked).unwrap_or(0.0)).collect()
    }
}

#[derive(Debug, Clone, Copy)]
struct Words;

impl Tokenizer for Words {
    fn tokenize(&self, text: &str) -> Vec<String> {
        stems(text)
    }
}

/// The words of a text as they are written, in lower case.
pub fn split(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '\'').map(str::to_lowercase);
    words.map(|word| word.split('\'').next().unwrap_or_default().to_owned()).filter(|word| !word.is_empty())
}

// Chinese and Japanese are written without spaces: pairs of characters do instead of words.
fn pairs(word: &str) -> Vec<String> {
    let letters: Vec<char> = word.chars().collect();
    match letters.len() {
        0 | 1 => vec![word.to_owned()],
        _ => letters.windows(2).map(|pair| pair.iter().collect()).collect(),
    }
}

fn is_cjk(letter: char) -> bool {
    matches!(letter, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}')
}

/// A word without its ending. Crude, and the same on both sides: `changes`, `changed`, `changing`
/// become `chang`.
pub fn stem(word: &str) -> String {
    if !word.is_ascii() || word.len() < 4 {
        return word.to_owned();
    }
    let mut cut = ending(word);
    if cut.len() > 3 && cut.ends_with('e') {
        cut.pop();
    }
    let mut last = cut.bytes().rev();
    let doubled = match (last.next(), last.next()) {
        (Some(one), Some(other)) => one == other && !b"aeiouls".contains(&one),
        _ => false,
    };
    if cut.len() > 3 && doubled {
        cut.pop();
    }
    cut
}

fn ending(word: &str) -> String {
    let without = |end: &str, least: usize| word.strip_suffix(end).filter(|rest| rest.len() >= least);
    if let Some(rest) = without("ies", 2) {
        return format!("{rest}y");
    }
    if let Some(rest) = without("ing", 3).or_else(|| without("ed", 3)) {
        return rest.to_owned();
    }
    if let Some(rest) = without("ly", 4) {
        return rest.to_owned();
    }
    let hisses = |rest: &&str| ["ch", "sh", "x", "ss", "z"].iter().any(|end| rest.ends_with(end));
    if let Some(rest) = without("es", 3).filter(hisses) {
        return rest.to_owned();
    }
    without("s", 3).filter(|rest| !rest.ends_with(['s', 'u', 'i'])).unwrap_or(word).to_owned()
}

const FILLERS: &[&str] = &[
    "a", "about", "all", "am", "an", "and", "any", "are", "as", "at", "be", "been", "by", "can", "could",
    "did", "do", "does", "for", "from", "give", "go", "got", "has", "have", "hey", "hi", "how", "i", "if",
    "in", "into", "is", "it", "its", "just", "let", "like", "me", "my", "of", "on", "or", "our", "out",
    "please", "see", "should", "show", "so", "some", "tell", "than", "that", "the", "their", "them", "then",
    "there", "these", "they", "this", "those", "to", "us", "want", "was", "we", "were", "what", "when",
    "where", "which", "who", "will", "with", "would", "you", "your",
];
