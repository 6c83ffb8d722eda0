//! What an episode is worth: a function of the ledger, and of nothing else (pure).
//!
//! The rule is that of MemRL (arXiv 2601.03192): `Q ← Q + α·c·(r − Q)` for what was really shown
//! in a turn that earned `r`, where `c` is how far the source of the reward is trusted. Where
//! it begins, how it fades and what does not count was measured on the task stream that
//! `docs/memory.md` describes.

use serde::{Deserialize, Serialize};

/// What a value begins with, and how it moves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// How much one reward moves a value.
    pub step: f64,
    /// Where an episode of a turn that went well begins, and one of a turn that went wrong below
    /// zero. A larger head start was worse as soon as some successes were false.
    pub prior: f64,
    /// How fast a value fades with every turn that the episode is not shown in: half after 350.
    pub fading: f64,
}

/// The rule that turns use.
pub const RULE: Rule = Rule { step: 0.3, prior: 0.2, fading: 0.002 };

/// Who says how a turn went. The later ones outrank the earlier: a turn has one reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The last results of its tools.
    Tools,
    /// A check that ended with an exit code: tests, a build.
    Verified,
    /// The guard that ends circles.
    Loop,
    /// The person's next words: a correction, or the same request again.
    Corrected,
    /// The person's own verdict.
    Person,
}

/// All of them.
pub const SOURCES: [Source; 5] =
    [Source::Tools, Source::Verified, Source::Loop, Source::Corrected, Source::Person];

impl Source {
    /// As it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Verified => "verified",
            Self::Loop => "loop",
            Self::Corrected => "corrected",
            Self::Person => "person",
        }
    }

    /// The source of this name.
    pub fn named(name: &str) -> Option<Self> {
        SOURCES.into_iter().find(|source| source.name() == name)
    }

    /// How far it is trusted, from 0 to 1.
    pub fn confidence(self) -> f64 {
        match self {
            Self::Person | Self::Verified => 1.0,
            Self::Tools | Self::Loop => 0.7,
            Self::Corrected => 0.5,
        }
    }
}

/// A reward and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reward {
    /// Who says so.
    pub source: Source,
    /// From −1, went wrong, to 1, went well.
    pub amount: f64,
}

impl Reward {
    /// A reward; what is outside of −1 to 1 is cut.
    pub fn new(source: Source, amount: f64) -> Self {
        Self { source, amount: if amount.is_nan() { 0.0 } else { amount.clamp(-1.0, 1.0) } }
    }
}

/// The one reward of a turn: what the source that outranks the others said last.
pub fn verdict(said: impl IntoIterator<Item = Reward>) -> Option<Reward> {
    said.into_iter().reduce(|best, next| if next.source >= best.source { next } else { best })
}

/// How far the words of an episode are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// A web page, a tool's output, a file that was imported: anybody may have written it.
    Foreign,
    /// The assistant drew it from what it did.
    Inferred,
    /// The person said it.
    Said,
}

impl Trust {
    /// As it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Inferred => "inferred",
            Self::Said => "said",
        }
    }
}

/// What is known of an episode's worth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Value {
    /// From −1 to 1.
    pub value: f64,
    /// Turns that earned something while it was shown.
    pub tries: usize,
    /// Of these, the ones that went well.
    pub wins: usize,
}

impl Rule {
    /// The value of an episode: how the turn went that it was born in, then the turns it was shown
    /// in, in their order.
    ///
    /// What anybody may have written does not earn its way up: of foreign words, only a person's own
    /// praise counts as praise.
    pub fn value(self, trust: Trust, birth: Option<Reward>, uses: impl IntoIterator<Item = Reward>) -> Value {
        let counts = |reward: &Reward| {
            trust > Trust::Foreign || reward.amount < 0.0 || reward.source == Source::Person
        };
        let prior = birth.filter(counts).map_or(0.0, |birth| self.prior * direction(birth.amount));
        let mut learned = Value { value: prior, ..Value::default() };
        for reward in uses.into_iter().filter(counts) {
            learned.value += self.step * reward.source.confidence() * (reward.amount - learned.value);
            learned.tries += 1;
            learned.wins += usize::from(reward.amount > 0.0);
        }
        learned
    }

    /// A value after `idle` uses of the memory since the episode was last shown. It fades when it
    /// is read: what is stored stays.
    pub fn faded(self, value: f64, idle: u64) -> f64 {
        value * (-self.fading * idle as f64).exp()
    }
}

fn direction(amount: f64) -> f64 {
    if amount == 0.0 { 0.0 } else { amount.signum() }
}
