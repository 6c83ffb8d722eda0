//! `omni memory`: what was learned, why, and what becomes of it.

use std::io::Read;
use std::path::PathBuf;

use clap::Parser;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};
use serde_json::json;

use super::error::{Failure, code};
use super::ui::Screen;
use super::{encoder, eval};
use crate::app::App;
use crate::memory::{Kind, Memory as Store, Reader, Scope, Told, Trust, Worth};

/// Characters of a line in a list.
const LINE: usize = 100;

/// Show, judge, change and remove what was learned.
///
/// Memories belong to you: nothing is learned that is not shown here, and nothing stays that is
/// forgotten here. Ids may be shortened as long as they fit one memory.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Memory {
    /// List what is remembered, the latest first
    List {
        /// At most this many
        #[arg(short, long, default_value_t = 20)]
        limit: usize,
        /// Of this scope only: everyone, person:ID or session:ID
        #[arg(long, value_parser = |text: &str| Scope::try_from(text.to_owned()))]
        scope: Option<Scope>,
        /// The most valuable first
        #[arg(long)]
        best: bool,
        /// What held then, as in `2h`, `3d` or `2026-11-24`
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
    },
    /// Find what fits a question
    Search {
        /// The question; several words are joined
        #[arg(required = true)]
        words: Vec<String>,
        /// At most this many
        #[arg(short, long, default_value_t = 10)]
        limit: usize,
    },
    /// Find what fits each line of standard input, as a program would use it
    ///
    /// Prints one line of JSON for each: the question, and the ids that were found, the best
    /// first, with their similarity.
    Recall {
        /// At most this many for each
        #[arg(short, long, value_name = "N", default_value_t = 10)]
        k: usize,
    },
    /// Show a memory whole
    Show {
        /// Its id, or the beginning of it
        id: String,
    },
    /// Show what was recalled in a turn, and what came of it
    Why {
        /// The turn's id; without it, the last turn
        turn: Option<String>,
    },
    /// Say that a turn went well
    Good {
        /// The turn's id; without it, the last turn
        turn: Option<String>,
    },
    /// Say that a turn went wrong
    Bad {
        /// The turn's id; without it, the last turn
        turn: Option<String>,
    },
    /// Keep a note
    Note {
        /// What to remember; several words are joined
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// Put other words in the place of a memory's
    Edit {
        /// Its id, or the beginning of it
        id: String,
        /// The new words; several are joined
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// Keep a memory from being evicted
    Pin {
        /// Its id, or the beginning of it
        id: String,
        /// No longer
        #[arg(long)]
        off: bool,
    },
    /// Remove memories for good, from the disk as well
    Forget {
        /// Their ids, or the beginnings of them
        #[arg(required_unless_present_any = ["session", "all"])]
        ids: Vec<String>,
        /// All that come from this session
        #[arg(long, value_name = "ID")]
        session: Option<String>,
        /// Everything
        #[arg(long)]
        all: bool,
    },
    /// Take back what turns taught, as if they had not been
    Undo {
        /// The turns' ids
        #[arg(required_unless_present = "since")]
        turns: Vec<String>,
        /// All turns since then, as in `2h`, `3d` or `2026-11-24`
        #[arg(long, value_name = "TIME", conflicts_with = "turns")]
        since: Option<String>,
        /// Let them count again
        #[arg(long)]
        redo: bool,
    },
    /// Print everything as JSON lines
    Export,
    /// Add memories from JSON lines, as `export` prints them; they count as written by anybody
    Import {
        /// The file; standard input if it is `-`
        #[arg(default_value = "-")]
        file: PathBuf,
    },
    /// Say how much is remembered and how well it did
    Stats,
    /// Draw how turns went and what memories are worth, as an SVG image
    Plot {
        /// The file to write; standard output if it is `-`
        #[arg(default_value = "-")]
        file: PathBuf,
    },
    /// Install what finds other words of the same meaning, on this machine
    #[command(subcommand)]
    Encoder(encoder::Encoder),
    /// Measure how well the memory learns; what you have is left alone
    #[command(subcommand)]
    Eval(eval::Eval),
}

pub(super) async fn run(command: Memory, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let command = match command {
        Memory::Eval(eval) => return eval::run(eval, app, screen).await,
        Memory::Encoder(encoder) => return encoder::run(encoder, app, screen).await,
        other => other,
    };
    act(command, app, screen).await?;
    // What is new gets its vector, and those that were made on the way are kept.
    let memory = app.memory().await?;
    memory.settle().await?;
    memory.flush().await?;
    app.finish().await;
    Ok(code::OK)
}

/// The same in the middle of a talk; `words` are what stands behind `/memory`.
pub(super) async fn slash(words: &str, app: &App, screen: &Screen) -> Result<(), Failure> {
    match Slash::try_parse_from(words.split_whitespace()) {
        Ok(Slash {
            command: Memory::Eval(_) | Memory::Encoder(_) | Memory::Import { .. } | Memory::Recall { .. },
        }) => {
            screen.remark("that is for `omni memory`, outside of a talk");
            Ok(())
        }
        Ok(Slash { command }) => act(command, app, screen).await,
        // Help is an error as well, of a friendly kind.
        Err(error) => Ok(screen.line(error.to_string().trim_end())?),
    }
}

#[derive(clap::Parser)]
#[command(bin_name = "/memory", no_binary_name = true, disable_help_subcommand = true)]
#[command(color = clap::ColorChoice::Never)]
struct Slash {
    #[command(subcommand)]
    command: Memory,
}

async fn act(command: Memory, app: &App, screen: &Screen) -> Result<(), Failure> {
    let memory = app.memory().await?;
    match command {
        Memory::List { limit, scope, best, at } => {
            let at = at.map(|at| moment(&at)).transpose()?;
            let mut found = memory.list().await?;
            found.retain(|worth| {
                let holds = || worth.episode.superseded.is_none();
                at.map_or_else(holds, |at| worth.episode.held(at))
                    && scope.as_ref().is_none_or(|scope| worth.episode.scope == *scope)
            });
            if best {
                found.sort_by(|a, b| b.value.total_cmp(&a.value));
            }
            if found.is_empty() {
                screen.remark("nothing is remembered yet");
            }
            found.iter().take(limit).try_for_each(|worth| line(worth, screen))?;
        }
        Memory::Search { words, limit } => {
            let found = memory.search(&words.join(" "), &reader(), limit).await?;
            if found.is_empty() {
                screen.remark("nothing fits");
            }
            found.iter().try_for_each(|worth| line(worth, screen))?;
        }
        Memory::Recall { k } => {
            let mut questions = String::new();
            std::io::stdin().read_to_string(&mut questions)?;
            for question in questions.lines().filter(|line| !line.trim().is_empty()) {
                let found = memory.search(question, &reader(), k).await?;
                let found: Vec<_> = found.iter().map(|worth| json!({"id": worth.episode.id, "similarity": worth.similarity, "value": worth.value})).collect();
                screen.value(&json!({"question": question, "found": found}))?;
            }
        }
        Memory::Show { id } => show(&memory.get(&id).await?, screen)?,
        Memory::Why { turn } => {
            let told = memory.why(turn.as_deref()).await?;
            why(&told, &memory, screen).await?;
        }
        Memory::Good { turn } => judge(&memory, turn, true, screen).await?,
        Memory::Bad { turn } => judge(&memory, turn, false, screen).await?,
        Memory::Note { words } => {
            let note = memory.note(&words.join(" "), &reader(), Trust::Said, &app.paths.workspace).await?;
            for old in note.replaced {
                screen.remark(&format!("it takes the place of “{}”", short(&old.experience)));
            }
            screen.remark(&format!("noted as {}", note.note.id));
        }
        Memory::Edit { id, words } => {
            let new = memory.edit(&id, &words.join(" ")).await?;
            screen.remark(&format!("{} takes its place", new.id));
        }
        Memory::Pin { id, off } => {
            let episode = memory.pin(&id, !off).await?;
            screen.remark(&format!("{} {}", episode.id, if off { "may be evicted" } else { "stays" }));
        }
        Memory::Forget { ids, session, all } => forget(app, &memory, ids, session, all, screen).await?,
        Memory::Undo { turns, since, redo } => {
            let turns = match since {
                Some(since) => memory.since(moment(&since)?).await?,
                None => turns,
            };
            for turn in &turns {
                memory.undo(turn, !redo).await?;
            }
            let what = if redo { "count again" } else { "count no longer" };
            screen.remark(&format!("{} turns {what}", turns.len()));
        }
        Memory::Export => memory.list().await?.iter().try_for_each(|worth| screen.value(worth))?,
        Memory::Import { file } => {
            let mut lines = String::new();
            match file.as_os_str() == "-" {
                true => std::io::stdin().read_to_string(&mut lines).map(drop)?,
                false => {
                    lines = std::fs::read_to_string(&file).map_err(|error| {
                        Failure::new(code::USAGE, format!("cannot read `{}`: {error}", file.display()))
                    })?;
                }
            }
            let count = memory.import(&lines).await?;
            screen.remark(&format!("{count} memories came in; they count as written by anybody"));
        }
        Memory::Stats => stats(&memory, screen).await?,
        Memory::Plot { file } => {
            let image = memory.plot().await?;
            match file.as_os_str() == "-" {
                true => screen.line(image.trim_end())?,
                false => std::fs::write(&file, image).map_err(|error| {
                    Failure::new(code::USAGE, format!("cannot write `{}`: {error}", file.display()))
                })?,
            }
        }
        Memory::Eval(_) | Memory::Encoder(_) => unreachable!("handled above"),
    }
    Ok(())
}

/// The person at this machine; no session is going on.
fn reader() -> Reader {
    Reader::here("")
}

async fn judge(memory: &Store, turn: Option<String>, good: bool, screen: &Screen) -> Result<(), Failure> {
    let told = memory.why(turn.as_deref()).await?;
    memory.judge(&told.turn, good).await?;
    screen.remark(&format!("“{}” went {}", short(&told.asked), if good { "well" } else { "wrong" }));
    Ok(())
}

async fn forget(
    app: &App,
    memory: &Store,
    ids: Vec<String>,
    session: Option<String>,
    all: bool,
    screen: &Screen,
) -> Result<(), Failure> {
    let gone = match (all, session) {
        (true, _) => memory.forget_all(None).await?,
        (false, Some(session)) => {
            let session = app.sessions().await?.resolve(&session).await.map_or(session, |found| found.id);
            memory.forget_all(Some(&session)).await?
        }
        (false, None) => {
            let mut named = Vec::new();
            for id in ids {
                named.push(memory.get(&id).await?.episode.id);
            }
            memory.forget(&named.iter().map(String::as_str).collect::<Vec<_>>()).await?
        }
    };
    screen.remark(&format!(
        "{} forgotten: gone from the table, its index and older versions, and from the ledger",
        gone.len()
    ));
    let mut sessions: Vec<_> =
        gone.into_iter().map(|episode| episode.session).filter(|id| !id.is_empty()).collect();
    sessions.sort();
    sessions.dedup();
    if !sessions.is_empty() {
        screen.remark(&format!(
            "what was said is still in {}; `omni session delete` removes it",
            sessions.join(", ")
        ));
    }
    Ok(())
}

fn line(worth: &Worth, screen: &Screen) -> Result<(), Failure> {
    if screen.json {
        return Ok(screen.value(worth)?);
    }
    let episode = &worth.episode;
    let told = if episode.kind == Kind::Note { &episode.experience } else { &episode.intent };
    let day = episode.created.to_zoned(TimeZone::system()).strftime("%Y-%m-%d").to_string();
    let value = match episode.kind {
        Kind::Note => " note".to_owned(),
        Kind::Episode => format!("{:+.2}", worth.value),
    };
    let pin = if episode.pinned { "*" } else { " " };
    Ok(screen.line(&format!("{}  {day}  {value}{pin} {}", episode.id, short(told)))?)
}

fn show(worth: &Worth, screen: &Screen) -> Result<(), Failure> {
    if screen.json {
        return Ok(screen.value(worth)?);
    }
    let episode = &worth.episode;
    let mut lines = vec![format!("{}  {}", episode.id, episode.created)];
    lines.push(format!("  for       {}", episode.scope));
    lines.push(format!("  words     {}", episode.trust.name()));
    lines.push(format!("  outcome   {}", episode.outcome.name()));
    lines.push(format!(
        "  value     {:+.3} after {} turns, {} of them good",
        worth.value, worth.tries, worth.wins
    ));
    if !episode.turn.is_empty() {
        lines.push(format!("  from      turn {}, session {}", episode.turn, episode.session));
    }
    if let Some(other) = &episode.superseded {
        let until = episode.until.map_or(String::new(), |until| format!("{until} "));
        lines.push(format!("  replaced  {until}by {other}"));
    }
    if !episode.intent.is_empty() {
        lines.push(format!("\n{}", episode.intent));
    }
    lines.push(format!("\n{}", episode.experience));
    Ok(screen.line(&lines.join("\n"))?)
}

async fn why(told: &Told, memory: &Store, screen: &Screen) -> Result<(), Failure> {
    let ids: Vec<&str> = told.shown.iter().map(|ranked| ranked.id.as_str()).collect();
    let now = memory.named(&ids).await?;
    let now = |id: &str| now.iter().find(|worth| worth.episode.id == id);
    if screen.json {
        let shown: Vec<_> =
            told.shown.iter().map(|ranked| json!({"before": ranked, "now": now(&ranked.id)})).collect();
        return Ok(screen.value(&json!({"turn": told.turn, "session": told.session, "asked": told.asked, "shown": shown, "rewards": told.rewards, "undone": told.undone}))?);
    }
    screen.line(&format!("turn {} in session {}", told.turn, told.session))?;
    screen.line(&format!("asked: {}", short(&told.asked)))?;
    if told.shown.is_empty() {
        screen.line("nothing was recalled")?;
    }
    for ranked in &told.shown {
        let after = now(&ranked.id).map_or("gone".to_owned(), |worth| format!("{:+.3}", worth.value));
        screen.line(&format!(
            "recalled {}: similarity {:+.2}, score {:+.2}, value {:+.3} → {after}",
            ranked.id, ranked.similarity, ranked.score, ranked.value
        ))?;
        if let Some(worth) = now(&ranked.id) {
            screen.line(&format!("  {}", worth.episode.experience.replace('\n', "\n  ")))?;
        }
    }
    for reward in &told.rewards {
        screen.line(&format!(
            "earned {:+.1} from {}, trusted {:.1}",
            reward.amount,
            reward.source.name(),
            reward.source.confidence()
        ))?;
    }
    match (told.rewards.is_empty(), told.undone) {
        (_, true) => screen.line("this turn was undone: nothing of it counts")?,
        (true, _) => screen.line("nobody has said how it went; `omni memory good` or `bad` does")?,
        _ => {}
    }
    Ok(())
}

async fn stats(memory: &Store, screen: &Screen) -> Result<(), Failure> {
    let all = memory.list().await?;
    let count = |keep: &dyn Fn(&Worth) -> bool| all.iter().filter(|worth| keep(worth)).count();
    let (episodes, notes) = (
        count(&|worth| worth.episode.kind == Kind::Episode),
        count(&|worth| worth.episode.kind == Kind::Note),
    );
    let (tried, good) =
        (count(&|worth| worth.tries > 0), count(&|worth| worth.tries > 0 && worth.value > 0.0));
    if screen.json {
        return Ok(screen.value(&json!({"episodes": episodes, "notes": notes, "tried": tried, "good": good, "folder": memory.folder()}))?);
    }
    screen.line(&format!("{episodes} episodes, {notes} notes in {}", memory.folder().display()))?;
    Ok(screen.line(&format!("{tried} were tried, {good} of them are worth something"))?)
}

/// `2h`, `3d`, a day or a moment.
fn moment(text: &str) -> Result<Timestamp, Failure> {
    let wrong = || Failure::new(code::USAGE, format!("`{text}` is no time; use `2h`, `3d` or `2026-11-24`"));
    if let Ok(span) = text.parse::<Span>() {
        let now = Zoned::now();
        return now.checked_sub(span.abs()).map(|then| then.timestamp()).map_err(|_| wrong());
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment);
    }
    let day: jiff::civil::Date = text.parse().map_err(|_| wrong())?;
    day.to_zoned(TimeZone::system()).map(|then| then.timestamp()).map_err(|_| wrong())
}

fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = line.chars().take(LINE).collect();
    if short.len() < line.len() { format!("{short}…") } else { short }
}
