//! What episodes mean, as vectors in RAM (pure).
//!
//! A number takes a byte here: a question is compared with all of them, which costs as long as it
//! takes to read them. The cosines are off by a thousandth or two; the tables have them whole.

use std::collections::HashMap;

use super::episode::Scope;
use super::rank::Scale;

/// Vectors from which on it is known how alike they usually are, and pairs that are compared for
/// it.
const FEW: usize = 20;
const SAMPLE: usize = 500;
/// Deviations above what is usual from which on something may be meant: one in five is.
const GATE: f64 = 0.84;
/// The largest number of a question. It has more digits than those it is compared with.
const FINE: f32 = 2047.0;

/// Vectors of episodes, all from one embedder and of one length.
#[derive(Debug, Default)]
pub struct Meanings {
    places: HashMap<String, u32>,
    numbers: Vec<i8>,
    /// What a step is worth, for each.
    steps: Vec<f32>,
    length: usize,
    /// Those that are in no table yet.
    unsaved: Vec<Unsaved>,
    scale: Option<Scale>,
}

/// A vector that is in no table yet, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Unsaved {
    /// The episode.
    pub id: String,
    /// Who may be shown it.
    pub scope: Scope,
    /// What it means.
    pub vector: Vec<f32>,
}

/// How alike a question and every vector are.
#[derive(Debug)]
pub struct Alike {
    cosines: Vec<f32>,
    /// How alike vectors usually are, where it is known.
    pub scale: Option<Scale>,
}

impl Alike {
    /// The cosine with the vector at this place.
    pub fn at(&self, place: Option<u32>) -> Option<f64> {
        self.cosines.get(place? as usize).map(|cosine| f64::from(*cosine))
    }
}

impl Meanings {
    /// None yet, of this length.
    pub fn new(length: usize) -> Self {
        Self { length, ..Self::default() }
    }

    /// How long they are; 0 where that is not known yet.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Keeps the vector of an episode. Returns its place, unless it is none of these.
    pub fn add(&mut self, id: &str, vector: &[f32]) -> Option<u32> {
        if vector.len() != self.length || self.has(id) {
            return None;
        }
        let place = u32::try_from(self.steps.len()).expect("fewer vectors than fit into the memory");
        let largest = vector.iter().fold(f32::MIN_POSITIVE, |largest, number| largest.max(number.abs()));
        let step = largest / f32::from(i8::MAX);
        self.numbers.extend(vector.iter().map(|number| (number / step).round() as i8));
        self.steps.push(step);
        self.places.insert(id.to_owned(), place);
        // It moves little with each, but it should move.
        if self.steps.len().is_multiple_of(SAMPLE) {
            self.scale = None;
        }
        Some(place)
    }

    /// Keeps a vector that is in no table yet.
    pub fn learn(&mut self, new: Unsaved) -> Option<u32> {
        let place = self.add(&new.id, &new.vector)?;
        self.unsaved.push(new);
        Some(place)
    }

    /// None, of which only a part of those in the table is known: how alike they usually are.
    pub fn sampled<'a>(length: usize, sample: impl Iterator<Item = &'a Vec<f32>>) -> Self {
        let mut some = Self::new(length);
        for (place, vector) in sample.enumerate() {
            some.add(&place.to_string(), vector);
        }
        Self { scale: some.scale(), ..Self::new(length) }
    }

    /// Whether an episode has a vector.
    pub fn has(&self, id: &str) -> bool {
        self.places.contains_key(id)
    }

    /// Where the vector of an episode is.
    pub fn place(&self, id: &str) -> Option<u32> {
        self.places.get(id).copied()
    }

    /// Those that are in no table yet.
    pub fn unsaved(&self) -> &[Unsaved] {
        &self.unsaved
    }

    /// The first `count` of them are in a table now.
    pub fn saved(&mut self, count: usize) {
        self.unsaved.drain(..count.min(self.unsaved.len()));
    }

    /// How alike they all are to a vector of length 1.
    pub fn alike(&mut self, other: &[f32]) -> Alike {
        let scale = self.scale();
        if other.len() != self.length || self.length == 0 {
            return Alike { cosines: Vec::new(), scale: None };
        }
        let largest = other.iter().fold(f32::MIN_POSITIVE, |largest, number| largest.max(number.abs()));
        let step = largest / FINE;
        let other: Vec<i16> = other.iter().map(|number| (number / step).round() as i16).collect();
        let rows = self.numbers.chunks_exact(self.length).zip(&self.steps);
        let cosines = rows.map(|(row, own)| dot(row, &other) as f32 * own * step).collect();
        Alike { cosines, scale }
    }

    /// How alike two episodes usually are, from pairs of them that are far from each other in the
    /// order in which they came.
    fn scale(&mut self) -> Option<Scale> {
        if self.scale.is_none() && self.steps.len() >= FEW {
            let (half, every) = (self.steps.len() / 2, (self.steps.len() / 2 / SAMPLE).max(1));
            let row = |place: usize| &self.numbers[place * self.length..(place + 1) * self.length];
            let pairs = (0..half).step_by(every).map(|place| {
                let (one, other) = (row(place), row(place + half));
                let sum: i32 = one.iter().zip(other).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum();
                f64::from(sum as f32 * self.steps[place] * self.steps[place + half])
            });
            self.scale = Some(usual(&pairs.collect::<Vec<_>>()));
        }
        self.scale
    }
}

/// Where cosines of pairs lie.
pub fn usual(alike: &[f64]) -> Scale {
    let count = alike.len().max(1) as f64;
    let mean = alike.iter().sum::<f64>() / count;
    let spread = alike.iter().map(|alike| (alike - mean).powi(2)).sum::<f64>() / count;
    let deviation = spread.sqrt().max(0.01);
    Scale { mean, deviation, gate: (mean + GATE * deviation).min(0.9) }
}

/// Whole numbers: their sum may be taken in any order, so many at once.
fn dot(row: &[i8], other: &[i16]) -> i32 {
    row.iter().zip(other).map(|(a, b)| i32::from(i16::from(*a)) * i32::from(*b)).sum()
}
