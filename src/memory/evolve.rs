//! How well the memory learns, without a model: a stream of real tasks and a simulated agent.
//!
//! The tasks and the skills each needs are those of LifelongAgentBench; they are read from a
//! file and not part of the program. What is invented is the agent: episodes whose skills are
//! those of the task help it, misleading ones harm it most where they look best, and others
//! cost a little. The memory sees texts and how it went, never skills. Everything it does is the
//! real thing: the table, the search, the ledger, the rule.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Compared, Episode, Error, History, Kind, Learning, Memory, Outcome, Ranked, Reader, Reward, Scope,
    Source, Trust, rank, value,
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
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// No memory.
    Nothing,
    /// The most similar.
    Similar,
    /// Both, scaled among the candidates, as the paper has it.
    Paper,
    /// The rule that turns use.
    Ours,
}

/// The tasks and what they need.
#[derive(Debug, Clone)]
pub struct World {
    texts: Vec<String>,
    needs: Vec<HashSet<usize>>,
    /// How rare each skill is.
    weights: Vec<f64>,
    /// The tasks, the most central first.
    central: Vec<usize>,
}

/// What came of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Run {
    /// The mean probability of success.
    pub success: f64,
    /// The same in the last quarter.
    pub last: f64,
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
            needs.push(
                skills
                    .into_iter()
                    .map(|skill| {
                        let next = numbers.len();
                        *numbers.entry(skill).or_insert(next)
                    })
                    .collect::<HashSet<usize>>(),
            );
        }
        if texts.len() < 2 {
            return Err("it has less than two tasks".to_owned());
        }
        let count = |skill: usize| needs.iter().filter(|needs| needs.contains(&skill)).count() as f64;
        let weights = (0..numbers.len()).map(|skill| (texts.len() as f64 / count(skill)).ln_1p()).collect();
        let words: Vec<_> = texts.iter().map(|text| super::store::words(text)).collect();
        let near = |task: usize| words.iter().map(|other| rank::share(other, &words[task])).sum::<f64>();
        let near: Vec<f64> = (0..texts.len()).map(near).collect();
        let mut central: Vec<usize> = (0..texts.len()).collect();
        central.sort_by(|a, b| near[*b].total_cmp(&near[*a]));
        Ok(Self { texts, needs, weights, central })
    }

    fn weight<'a>(&self, skills: impl IntoIterator<Item = &'a usize>) -> f64 {
        skills.into_iter().map(|skill| self.weights[*skill]).sum()
    }

    /// The part of what a task needs that another one's skills are.
    fn covers(&self, other: usize, task: usize) -> f64 {
        self.weight(self.needs[other].intersection(&self.needs[task])) / self.weight(&self.needs[task])
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
    changed: Vec<bool>,
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
    let sizes: Vec<f64> = world.needs.iter().map(|needs| needs.len() as f64).collect();
    let mean = sizes.iter().sum::<f64>() / sizes.len() as f64;
    let deviation = (sizes.iter().map(|size| (size - mean).powi(2)).sum::<f64>() / sizes.len() as f64).sqrt();
    let ease =
        sizes.iter().map(|size| -0.5 * (size - mean) / deviation.max(1e-9) + 0.5 * random.normal()).collect();
    let changed = world.weights.iter().map(|_| random.uniform() < 0.5).collect();
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
        let (mut success, mut shown, mut misleading) = (Vec::new(), 0usize, 0usize);
        for turn in 0..self.turns {
            // All luck of a turn is drawn here, whatever the rule makes of it.
            let (task, coin, luck) =
                (random.below(self.world.texts.len()), random.uniform(), random.uniform());
            if self.stream == Stream::Poison && turn == self.turns / 3 {
                let central = self.world.central.iter().take(POISON).map(|task| (*task, Nature::Bad));
                self.plant("poison", &central.collect::<Vec<_>>(), turn, Some(1.0)).await?;
            }
            let picked = self.pick(task).await?;
            let known: Vec<Known> = picked.iter().map(|ranked| self.known[&ranked.id]).collect();
            let chance = self.chance(task, &known, turn);
            success.push(chance);
            shown += known.len();
            misleading += known.iter().filter(|known| known.nature == Nature::Bad).count();
            let went_well = coin < chance;
            let nature = match (went_well, luck) {
                (true, luck) if luck < 0.90 => Nature::Good,
                (true, _) => Nature::Bad,
                (false, luck) if luck < 0.25 => Nature::Good,
                (false, luck) if luck < 0.65 => Nature::Bad,
                (false, _) => Nature::Neutral,
            };
            let id = format!("turn-{turn:06}");
            self.known.insert(id.clone(), Known { task, nature, born: turn });
            self.learn(&id, task, if went_well { 1.0 } else { -1.0 }, picked).await?;
        }
        let quarter = &success[self.turns - (self.turns / 4).max(1).min(self.turns)..];
        Ok(Run {
            success: mean(&success),
            last: mean(quarter),
            misleading: misleading as f64 / shown.max(1) as f64,
            shown: shown as f64 / self.turns.max(1) as f64,
        })
    }

    /// What is shown for a task. Episodes of the same task are hidden: they would make it easy.
    async fn pick(&self, task: usize) -> Result<Vec<Ranked>, Error> {
        if self.rule == Rule::Nothing {
            return Ok(Vec::new());
        }
        let mut found = self.memory.find(&self.world.texts[task], &Reader::here("none")).await?;
        found.retain(|(found, _)| self.known[&found.episode.id].task != task);
        let settings = self.memory.settings.rank;
        Ok(match self.rule {
            Rule::Ours => self.memory.pick(&found, settings),
            Rule::Similar => by_paper(&found, rank::Settings { lambda: 0.0, ..settings }),
            _ => by_paper(&found, settings),
        })
    }

    fn chance(&self, task: usize, shown: &[Known], turn: usize) -> f64 {
        let world = self.world;
        let needs = &world.needs[task];
        let shifted = self.stream == Stream::Shift && turn >= self.turns / 2;
        let is_stale =
            |known: &Known, skill: &usize| shifted && known.born < self.turns / 2 && self.changed[*skill];
        let good = shown.iter().filter(|known| known.nature == Nature::Good);
        let helps = good.flat_map(|known| {
            world.needs[known.task].iter().filter(|skill| needs.contains(*skill) && !is_stale(known, skill))
        });
        let helps = world.weight(helps.collect::<HashSet<_>>()) / world.weight(needs);
        let harms = shown.iter().map(|known| {
            let covers = world.covers(known.task, task);
            let stale = world.needs[known.task].intersection(needs).filter(|skill| is_stale(known, skill));
            let stale = world.weight(stale) / world.weight(needs);
            if known.nature == Nature::Bad { covers.max(stale) } else { stale }
        });
        let harms = harms.fold(0.0, f64::max);
        let beside = shown.iter().filter(|known| world.covers(known.task, task) < RELEVANT).count();
        let logit = self.ease[task] + HELP * helps - HARM * harms - COST * beside as f64;
        1.0 / (1.0 + (-logit).exp())
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
        }
    }
}

/// The paper's rule: similarity and value, each as deviations among the candidates. No head
/// start, no fading, no probation.
fn by_paper(found: &[(Compared, History)], settings: rank::Settings) -> Vec<Ranked> {
    let mut found: Vec<_> = found.iter().collect();
    found.sort_by(|(a, _), (b, _)| b.words.total_cmp(&a.words).then_with(|| b.episode.id.cmp(&a.episode.id)));
    found.truncate(settings.k1);
    let similar: Vec<f64> = found.iter().map(|(found, _)| found.words).collect();
    let worth = found
        .iter()
        .map(|(found, history)| value::value(found.episode.trust, None, history.uses.iter().copied()).value);
    let worth: Vec<f64> = worth.collect();
    let ranked = found.iter().zip(scaled(&similar).into_iter().zip(scaled(&worth))).zip(&worth);
    let mut ranked: Vec<Ranked> = ranked
        .map(|(((found, _), (similarity, scaled)), value)| {
            let score = (1.0 - settings.lambda) * similarity + settings.lambda * scaled;
            Ranked { id: found.episode.id.clone(), similarity, value: *value, score }
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
