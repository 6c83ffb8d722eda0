//! How well the memory learns, without a model: a stream of real tasks and a simulated agent.
//!
//! The tasks and the skills each needs are those of LifelongAgentBench; they are read from a
//! file and not part of the program. What is invented is the agent: episodes whose skills are
//! those of the task help it, misleading ones harm it most where they look best, and others
//! cost a little. The memory sees texts and how it went, never skills. Everything it does is the
//! real thing: the table, the search, the ledger, the rule.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::value::Rule as Worth;
use super::{
    By, Compared, Episode, Error, Kind, Learning, Memory, Outcome, Ranked, Reader, Reward, Scope, Settings,
    Source, Trust, rank,
};

/// Episodes at the beginning, and how many of them mislead.
const BANK: usize = 150;
const MISLEADING: f64 = 0.35;
/// Misleading episodes that an attacker plants.
const POISON: usize = 40;
/// How much good skills help, misleading ones harm, and anything else costs.
const HELP: f64 = 3.0;
const HARM: f64 = 3.0;
const COST: f64 = 0.25;
/// Less than this much of what a task needs is irrelevant.
const RELEVANT: f64 = 0.25;

/// What happens on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Nothing: tasks come in any order.
    Transfer,
    /// At half time, half of the skills change, and what is older misleads there.
    Shift,
    /// After a third, misleading episodes are planted on the most central tasks.
    Poison,
    /// One in four of what went well is misleading all the same, instead of one in ten.
    Noise,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// No memory.
    Nothing,
    /// The most similar.
    Similar,
    /// Similarity and value, scaled among the candidates, with k1 10 and k2 5, as the paper has it.
    Paper,
    /// The same with our k1 and k2.
    PaperWide,
    /// The rule that turns use.
    Ours,
    /// Ours, but values begin at zero.
    NoPrior,
    /// Ours, with no limit for what was tried little.
    NoProbation,
    /// Ours, but values do not fade.
    NoFading,
    /// Ours, but a turn's reward goes to all that was compared, shown or not.
    AllCredit,
    /// Ours, but with an encoder meanings alone say what is similar.
    Meaning,
}

impl Rule {
    /// The settings of a memory that plays by this rule.
    pub fn settings(self, ours: Settings) -> Settings {
        let mut settings = ours;
        match self {
            Self::Similar => settings.rank.lambda = 0.0,
            Self::Paper => (settings.rank.k1, settings.rank.k2) = (10, 5),
            Self::NoPrior => settings.value.prior = 0.0,
            Self::NoProbation => settings.rank.probation = usize::MAX,
            Self::NoFading => settings.value.fading = 0.0,
            Self::Nothing | Self::PaperWide | Self::Ours | Self::AllCredit | Self::Meaning => {}
        }
        if matches!(self, Self::Paper | Self::PaperWide) {
            settings.value = Worth { prior: 0.0, fading: 0.0, ..settings.value };
        }
        settings
    }
}

/// The tasks and what they need.
#[derive(Debug, Clone)]
pub struct World {
    texts: Vec<String>,
    /// The skills of each task, a bit for each.
    needs: Vec<Skills>,
    /// How rare each skill is.
    weights: Vec<f64>,
    /// The tasks, the most central first.
    central: Vec<usize>,
}

/// Skills, a bit for each.
type Skills = u128;

/// What came of one stream.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// The mean probability of success.
    pub success: f64,
    /// The same in the last quarter.
    pub last: f64,
    /// How much better the best choice among the same candidates would have been, in each turn.
    pub regret: f64,
    /// The part of what was shown that misled.
    pub misleading: f64,
    /// Episodes shown in a turn.
    pub shown: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    Good,
    Neutral,
    Bad,
}

/// An episode as the simulation knows it.
#[derive(Debug, Clone, Copy)]
struct Known {
    task: usize,
    nature: Nature,
    born: usize,
}

impl World {
    /// Reads the tasks: a JSON list, or an object of them, each with `instruction` and `skill_list`.
    pub fn read(json: &str) -> Result<Self, String> {
        let json: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let tasks: Vec<&Value> = match &json {
            Value::Array(list) => list.iter().collect(),
            Value::Object(map) => map.values().collect(),
            _ => return Err("it is no list of tasks".to_owned()),
        };
        let (mut texts, mut needs, mut numbers) = (Vec::new(), Vec::new(), HashMap::new());
        for (place, task) in tasks.into_iter().enumerate() {
            let text =
                task["instruction"].as_str().ok_or(format!("task {} has no `instruction`", place + 1))?;
            let skills = skills(&task["skill_list"]);
            if skills.is_empty() {
                return Err(format!("task {} has no `skill_list`", place + 1));
            }
            texts.push(text.to_owned());
            let mut bits: Skills = 0;
            for skill in skills {
                let next = numbers.len();
                bits |= 1 << (*numbers.entry(skill).or_insert(next)).min(127);
            }
            needs.push(bits);
        }
        if numbers.len() > Skills::BITS as usize {
            return Err(format!("it has {} skills; {} are the most", numbers.len(), Skills::BITS));
        }
        if texts.len() < 2 {
            return Err("it has less than two tasks".to_owned());
        }
        let count =
            |skill: usize| needs.iter().filter(|needs: &&Skills| **needs >> skill & 1 == 1).count() as f64;
        let weights = (0..numbers.len()).map(|skill| (texts.len() as f64 / count(skill)).ln_1p()).collect();
        let words: Vec<_> = texts.iter().map(|text| super::store::words(text)).collect();
        let joined: Vec<_> = words.iter().map(|words| words.join(" ")).collect();
        let near = |task: usize| words.iter().map(|other| rank::share(other, &joined[task])).sum::<f64>();
        let near: Vec<f64> = (0..texts.len()).map(near).collect();
        let mut central: Vec<usize> = (0..texts.len()).collect();
        central.sort_by(|a, b| near[*b].total_cmp(&near[*a]));
        Ok(Self { texts, needs, weights, central })
    }

    fn weight(&self, mut skills: Skills) -> f64 {
        let mut weight = 0.0;
        while skills != 0 {
            weight += self.weights[skills.trailing_zeros() as usize];
            skills &= skills - 1;
        }
        weight
    }
}

/// A list of names, or the text of one as Python writes it.
fn skills(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::String(text) => {
            let names =
                text.trim_matches(['[', ']']).split(',').map(|name| name.trim().trim_matches(['\'', '"']));
            names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

/// A stream that is going on.
struct Play<'a> {
    world: &'a World,
    memory: &'a Memory,
    stream: Stream,
    rule: Rule,
    turns: usize,
    /// How easy each task is.
    ease: Vec<f64>,
    changed: Skills,
    known: HashMap<String, Known>,
}

/// Plays a stream of `turns` tasks on an empty memory. Rules that are compared with the same
/// `seed` meet the same tasks and the same luck.
pub async fn run(
    world: &World,
    memory: &Memory,
    stream: Stream,
    rule: Rule,
    turns: usize,
    seed: u64,
) -> Result<Run, Error> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6d65_6d72_6c00);
    let sizes: Vec<f64> = world.needs.iter().map(|needs| f64::from(needs.count_ones())).collect();
    let mean = sizes.iter().sum::<f64>() / sizes.len() as f64;
    let deviation = (sizes.iter().map(|size| (size - mean).powi(2)).sum::<f64>() / sizes.len() as f64).sqrt();
    let ease =
        sizes.iter().map(|size| -0.5 * (size - mean) / deviation.max(1e-9) + 0.5 * random.normal()).collect();
    let changed = (0..world.weights.len()).filter(|_| random.uniform() < 0.5);
    let changed = changed.fold(0, |changed, skill| changed | 1 << skill);
    let mut play = Play { world, memory, stream, rule, turns, ease, changed, known: HashMap::new() };
    let bank = (0..BANK).map(|_| {
        let nature = if random.uniform() < MISLEADING { Nature::Bad } else { Nature::Good };
        (random.below(world.texts.len()), nature)
    });
    let bank: Vec<_> = bank.collect();
    play.plant("bank", &bank, 0, None).await?;
    play.go(&mut random).await
}

impl Play<'_> {
    async fn go(&mut self, random: &mut Random) -> Result<Run, Error> {
        let (mut success, mut shown, mut misleading, mut regret) = (Vec::new(), 0usize, 0usize, 0.0);
        let right = if self.stream == Stream::Noise { 0.75 } else { 0.90 };
        for turn in 0..self.turns {
            // All luck of a turn is drawn here, whatever the rule makes of it.
            let (task, coin, luck) =
                (random.below(self.world.texts.len()), random.uniform(), random.uniform());
            if self.stream == Stream::Poison && turn == self.turns / 3 {
                let central = self.world.central.iter().take(POISON).map(|task| (*task, Nature::Bad));
                self.plant("poison", &central.collect::<Vec<_>>(), turn, Some(1.0)).await?;
            }
            let found = self.find(task).await?;
            let picked = self.pick(&found);
            let known: Vec<Known> = picked.iter().map(|ranked| self.known[&ranked.id]).collect();
            let chance = self.chance(task, &known, turn);
            success.push(chance);
            regret += (self.best(task, &found, turn) - chance).max(0.0);
            shown += known.len();
            misleading += known.iter().filter(|known| known.nature == Nature::Bad).count();
            let went_well = coin < chance;
            let nature = match (went_well, luck) {
                (true, luck) if luck < right => Nature::Good,
                (true, _) => Nature::Bad,
                (false, luck) if luck < 0.25 => Nature::Good,
                (false, luck) if luck < 0.65 => Nature::Bad,
                (false, _) => Nature::Neutral,
            };
            let id = format!("turn-{turn:06}");
            self.known.insert(id.clone(), Known { task, nature, born: turn });
            let credited = if self.rule == Rule::AllCredit { self.all(&found) } else { picked };
            self.learn(&id, task, if went_well { 1.0 } else { -1.0 }, credited).await?;
        }
        let quarter = &success[self.turns - (self.turns / 4).max(1).min(self.turns)..];
        Ok(Run {
            success: mean(&success),
            last: mean(quarter),
            regret: regret / self.turns.max(1) as f64,
            misleading: misleading as f64 / shown.max(1) as f64,
            shown: shown as f64 / self.turns.max(1) as f64,
        })
    }

    /// What may be shown for a task. Episodes of the same task are hidden: they would make it easy.
    async fn find(&self, task: usize) -> Result<Vec<Compared>, Error> {
        if self.rule == Rule::Nothing {
            return Ok(Vec::new());
        }
        let mut found = self.memory.find(&self.world.texts[task], &Reader::here("none"), By::Worth).await?;
        found.retain(|found| self.known[&found.episode.id].task != task);
        Ok(found)
    }

    fn pick(&self, found: &[Compared]) -> Vec<Ranked> {
        let settings = self.memory.settings.rank;
        match self.rule {
            Rule::Similar | Rule::Paper | Rule::PaperWide => by_paper(self.memory, found, settings),
            Rule::Meaning => by_meaning(self.memory, found, settings),
            _ => self.memory.pick(found, settings),
        }
    }

    /// All that is compared.
    fn all(&self, found: &[Compared]) -> Vec<Ranked> {
        let ranked = |found: &Compared| Ranked {
            id: found.episode.id.clone(),
            similarity: found.words,
            value: 0.0,
            score: 0.0,
        };
        found.iter().take(self.memory.settings.rank.k1).map(ranked).collect()
    }

    fn chance(&self, task: usize, shown: &[Known], turn: usize) -> f64 {
        let world = self.world;
        let needs = world.needs[task];
        let whole = world.weight(needs);
        let shifted = self.stream == Stream::Shift && turn >= self.turns / 2;
        let is_old = |known: &Known| shifted && known.born < self.turns / 2;
        let (mut helps, mut harms, mut beside): (Skills, f64, usize) = (0, 0.0, 0);
        for known in shown {
            let common = world.needs[known.task] & needs;
            let stale = if is_old(known) { common & self.changed } else { 0 };
            let covers = world.weight(common) / whole;
            harms = harms.max(world.weight(stale) / whole);
            match known.nature {
                Nature::Good => helps |= common & !stale,
                Nature::Bad => harms = harms.max(covers),
                Nature::Neutral => {}
            }
            beside += usize::from(covers < RELEVANT);
        }
        let logit =
            self.ease[task] + HELP * world.weight(helps) / whole - HARM * harms - COST * beside as f64;
        1.0 / (1.0 + (-logit).exp())
    }

    /// The chance with the best choice among the candidates, taken greedily by who knows all.
    fn best(&self, task: usize, found: &[Compared], turn: usize) -> f64 {
        let settings = self.memory.settings.rank;
        let good = found.iter().take(settings.k1).map(|found| self.known[&found.episode.id]);
        let good: Vec<Known> = good.filter(|known| known.nature == Nature::Good).collect();
        let (mut shown, mut best) = (Vec::new(), self.chance(task, &[], turn));
        for _ in 0..settings.k2 {
            let with = |known: &Known| self.chance(task, &[&shown[..], &[*known]].concat(), turn);
            let next = good.iter().map(|known| (with(known), *known)).max_by(|(a, _), (b, _)| a.total_cmp(b));
            match next {
                Some((chance, known)) if chance > best => {
                    best = chance;
                    shown.push(known);
                }
                _ => break,
            }
        }
        best
    }

    async fn learn(&self, id: &str, task: usize, amount: f64, shown: Vec<Ranked>) -> Result<(), Error> {
        let learning = Learning {
            turn: id.to_owned(),
            session: id.to_owned(),
            asked: String::new(),
            shown,
            rewards: vec![(id.to_owned(), Reward::new(Source::Verified, amount))],
            episodes: vec![self.episode(id, task)],
        };
        self.add(&[learning]).await
    }

    /// Puts episodes into the memory that nobody has lived through.
    async fn plant(
        &mut self,
        name: &str,
        all: &[(usize, Nature)],
        born: usize,
        amount: Option<f64>,
    ) -> Result<(), Error> {
        let mut planted = Vec::new();
        for (place, (task, nature)) in all.iter().enumerate() {
            let id = format!("{name}-{place:06}");
            self.known.insert(id.clone(), Known { task: *task, nature: *nature, born });
            planted.push(Learning {
                turn: id.clone(),
                session: id.clone(),
                rewards: amount
                    .map(|amount| (id.clone(), Reward::new(Source::Verified, amount)))
                    .into_iter()
                    .collect(),
                episodes: vec![self.episode(&id, *task)],
                ..Learning::default()
            });
        }
        self.add(&planted).await
    }

    async fn add(&self, learnings: &[Learning]) -> Result<(), Error> {
        let mut write = self.memory.store.write().await?;
        for learning in learnings {
            self.memory.add(&mut write, learning, Timestamp::now()).await?;
        }
        write.commit().await?;
        self.memory.settle().await
    }

    fn episode(&self, id: &str, task: usize) -> Episode {
        Episode {
            id: id.to_owned(),
            kind: Kind::Episode,
            scope: Scope::Person(Reader::HERE.to_owned()),
            intent: self.world.texts[task].clone(),
            // No two are the same to the letter.
            experience: format!("number {id}"),
            outcome: Outcome::Unknown,
            trust: Trust::Inferred,
            session: id.to_owned(),
            turn: id.to_owned(),
            workspace: String::new(),
            created: Timestamp::now(),
            pinned: false,
            superseded: None,
            until: None,
        }
    }
}

/// Our rule, where words say what meanings say.
fn by_meaning(memory: &Memory, found: &[Compared], settings: rank::Settings) -> Vec<Ranked> {
    let scale = found.first().and_then(|found| found.scale);
    let candidates = found.iter().map(|found| {
        let mut candidate = memory.candidate(found);
        if let Some((alike, scale)) = found.meaning.zip(scale) {
            let above = (alike - scale.mean) / scale.deviation;
            candidate.words = Some(rank::WORDS.mean + above * rank::WORDS.deviation);
        }
        candidate
    });
    rank::pick(&candidates.collect::<Vec<_>>(), settings, rank::WORDS, scale)
}

/// The paper's rule: similarity and value, each as deviations among the candidates. Similar is what
/// means the same; without an encoder, what says the same.
fn by_paper(memory: &Memory, found: &[Compared], settings: rank::Settings) -> Vec<Ranked> {
    let similar = |found: &Compared| found.meaning.unwrap_or(found.words);
    let mut found: Vec<&Compared> = found.iter().collect();
    found.sort_by(|a, b| similar(b).total_cmp(&similar(a)));
    found.truncate(settings.k1);
    let candidates: Vec<_> = found.iter().map(|found| memory.candidate(found)).collect();
    let similar: Vec<f64> = found.iter().map(|found| similar(found)).collect();
    let worth: Vec<f64> = candidates.iter().map(|candidate| candidate.value).collect();
    let ranked = candidates.iter().zip(scaled(&similar).into_iter().zip(scaled(&worth)));
    let mut ranked: Vec<Ranked> = ranked
        .map(|(candidate, (similarity, worth))| {
            let score = (1.0 - settings.lambda) * similarity + settings.lambda * worth;
            Ranked { id: candidate.id.clone(), similarity, value: candidate.value, score }
        })
        .collect();
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| b.id.cmp(&a.id)));
    ranked.truncate(settings.k2);
    ranked
}

fn scaled(numbers: &[f64]) -> Vec<f64> {
    let mean = mean(numbers);
    let deviation = (numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>()
        / numbers.len().max(1) as f64)
        .sqrt();
    let deviation = if deviation < 1e-9 { 1.0 } else { deviation };
    numbers.iter().map(|number| (number - mean) / deviation).collect()
}

/// How far from the mean of these numbers the true one is at most, 19 times out of 20: the
/// interval of Student's t, which is well approximated from five numbers on.
pub fn within(numbers: &[f64]) -> f64 {
    let mean = mean(numbers);
    let free = numbers.len().saturating_sub(1).max(1) as f64;
    let spread = numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / free;
    (1.96 + 2.37 / free + 2.8 / (free * free)) * (spread / numbers.len().max(1) as f64).sqrt()
}

/// The mean of numbers; zero of none.
pub fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len().max(1) as f64
}

/// Numbers that are the same for the same seed: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.uniform() * limit as f64) as usize
    }

    /// Box and Muller's.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}
