//! `omni setup`: from nothing to an answer, and to the editors there are.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use super::error::{Failure, code};
use super::style::FINE;
use super::ui::{Screen, lasted};
use crate::app::App;
use crate::config::edit;
use crate::config::layers::Origin;
use crate::kernel::Interpreter;
use crate::llm::Request;
use crate::llm::detect::Found;
use crate::message::Message;

/// What a model is asked, to see whether it answers.
const QUESTION: &str = "Answer with the one word: ready";
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Choose a model, try it, and connect the editors there are.
///
/// It looks for keys in the environment and for an Ollama on this machine, asks which of them to use, and
/// sends that one question. Only a choice that would not be made anyway is written to your settings.
/// Without a terminal, and with `--yes`, the first is taken, or the one of `--model`.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Setup {
    /// Show how to connect every editor and program, not those alone that are here
    #[arg(long)]
    all: bool,
}

pub(super) async fn run(setup: Setup, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let found = app.models_found().await;
    let chosen = choose(&found, app, screen).await?;
    if chosen != "offline" {
        try_out(&chosen, app, screen).await?;
    }
    keep(&chosen, &found[0], app, screen)?;
    connect(setup.all, app.interpreter(), screen)?;
    screen.line("\nTry it: omni ask \"what can you do here?\"")?;
    Ok(code::OK)
}

/// Shows what there is and asks which one it shall be.
async fn choose(found: &[Found], app: &App, screen: &Screen) -> Result<String, Failure> {
    let named = app.loaded.config.model.name.trim().to_owned();
    let is_typed = app.loaded.origins.get("model.name") == Some(&Origin::Flag);
    screen.line("Models that can be used:")?;
    for (place, Found { model, why, address, .. }) in found.iter().enumerate() {
        let address = address.as_ref().map(|address| format!(" at {address}")).unwrap_or_default();
        screen.item(&format!("  {}. ", place + 1), &format!("{model}{address} ({why})"))?;
    }
    if found.len() == 1 {
        screen.remark(
            "for a model, set ANTHROPIC_API_KEY, OPENAI_API_KEY or another vendor's key, or start Ollama; then \
             run this again",
        );
    }
    let usual = match named.is_empty() {
        true => found[0].model.clone(),
        false => named,
    };
    loop {
        if app.agrees() || is_typed || found.len() == 1 {
            return Ok(usual);
        }
        let question = format!("Which one? A number, or PROVIDER/MODEL [{usual}]: ");
        let Some(answer) = screen.asked(&question).await else { return Ok(usual) };
        match answer.trim() {
            "" => return Ok(usual),
            number if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                match number.parse::<usize>().ok().and_then(|number| found.get(number.checked_sub(1)?)) {
                    Some(found) => return Ok(found.model.clone()),
                    None => screen.remark(&format!("there is no number {number}")),
                }
            }
            name => return Ok(name.to_owned()),
        }
    }
}

/// Asks the model one thing.
async fn try_out(name: &str, app: &App, screen: &Screen) -> Result<(), Failure> {
    let model = app.model_named(name).await?;
    let messages = vec![Message::user(QUESTION)];
    let request = Request { system: String::new(), messages, tools: Default::default() };
    screen.remark(&format!("asking {name} …"));
    let begun = Instant::now();
    let reply = tokio::time::timeout(PATIENCE, model.reply(&request, &|_| ())).await;
    let hint = "nothing was written; mend it or choose another model: `omni setup --model PROVIDER/MODEL`";
    let reply = match reply {
        Ok(reply) => reply.map_err(|error| Failure::from(error).hint(hint))?,
        Err(_) => {
            let message = format!("`{name}` has not answered in {} seconds", PATIENCE.as_secs());
            return Err(Failure::new(code::MODEL, message).hint(hint));
        }
    };
    let text = reply.message.text();
    let words: String = text.trim().chars().take(60).collect();
    screen.line(&format!(
        "{FINE} {name} answered in {}: {words}",
        lasted(begun.elapsed().as_secs_f64() * 1000.0)
    ))?;
    Ok(())
}

/// Writes the choice down, if it has to be.
fn keep(chosen: &str, usual: &Found, app: &App, screen: &Screen) -> Result<(), Failure> {
    let file = app.paths.config.join("config.toml");
    let origin = app.loaded.origins.get("model.name");
    let named = app.loaded.config.model.name.trim();
    let is_ours = |origin: &Origin| matches!(origin, Origin::File { path, .. } if *path == file);
    match origin {
        Some(origin) if named == chosen && !matches!(origin, Origin::Flag | Origin::Default) => {
            screen.line(&format!("{FINE} `model.name` is that already ({origin})"))?;
        }
        Some(Origin::Default) if chosen == usual.model => {
            screen.line(&format!("{FINE} nothing to write: it is found by itself"))?;
        }
        _ => {
            edit::set(&file, "model.name", chosen).map_err(|error| Failure::new(code::FAILED, error))?;
            screen.line(&format!("{FINE} `model.name` is `{chosen}` in `{}`", file.display()))?;
        }
    }
    let wins = |origin: &&Origin| !matches!(origin, Origin::Default | Origin::Flag) && !is_ours(origin);
    if let Some(origin) = origin.filter(wins).filter(|_| named != chosen) {
        screen.remark(&format!("it is not used here: {origin} says `{named}`"));
    }
    Ok(())
}

/// Says how other programs get to omni.
fn connect(all: bool, interpreter: Interpreter, screen: &Screen) -> Result<(), Failure> {
    let omni = itself(interpreter);
    let server = json!({"name": "omni", "command": omni, "args": ["mcp"]});
    let zed = json!({"omni": {"type": "custom", "command": omni, "args": ["acp"]}});
    let jetbrains = json!({"agent_servers": {"omni": {"command": omni, "args": ["acp"]}}});
    let home = std::env::home_dir().unwrap_or_default();
    let editors = [
        ("Claude Code", is_program("claude"), format!("claude mcp add omni -- {omni} mcp")),
        ("Codex", is_program("codex"), format!("codex mcp add omni -- {omni} mcp")),
        ("VS Code", is_program("code"), format!("code --add-mcp '{server}'")),
        ("Zed", home.join(".config/zed").is_dir(), format!("in its settings: \"agent_servers\": {zed}")),
        (
            "JetBrains",
            home.join(".config/JetBrains").is_dir(),
            format!("in ~/.jetbrains/acp.json: {jetbrains}"),
        ),
    ];
    let here: Vec<_> = editors.into_iter().filter(|(_, is_here, _)| all || *is_here).collect();
    if here.is_empty() {
        screen.remark("no editor was found that omni could be connected to; `omni setup --all` shows how");
        return Ok(());
    }
    screen.line("\nTo use omni from there:")?;
    for (name, _, how) in here {
        screen.line(&format!("  {name:12} {how}"))?;
    }
    Ok(())
}

/// What starts this program: its name where a shell finds it by that, or else its path.
fn itself(interpreter: Interpreter) -> String {
    let Ok(program) = interpreter.program() else { return "omni".to_owned() };
    let is_found =
        found("omni").and_then(|file| file.canonicalize().ok()).is_some_and(|file| file == program);
    if is_found { "omni".to_owned() } else { program.display().to_string() }
}

fn is_program(name: &str) -> bool {
    found(name).is_some()
}

/// The program that a shell would start.
fn found(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}
