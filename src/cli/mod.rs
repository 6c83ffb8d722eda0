//! The command line: what was typed, and one file per command.

mod ask;
mod chat;
mod config;
mod doctor;
mod error;
mod session;
mod skill;
mod sync;
mod tool;
mod ui;
mod worker;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::app::{App, Choices};
use crate::kernel::Interpreter;
use error::Failure;
use ui::Screen;

/// An assistant that gets things done with tools.
///
/// Ask it something: `omni ask "which files changed since yesterday?"`. It uses the model whose
/// key it finds in the environment, a local Ollama, or no model at all.
#[derive(Debug, Parser)]
#[command(
    name = "omni",
    version,
    max_term_width = 100,
    subcommand_required = false,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Flags that every command takes.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Everywhere")]
struct Globals {
    /// The model: provider/name, or `offline` for none
    #[arg(short, long, global = true, value_name = "NAME")]
    model: Option<String>,
    /// Run tools without asking; what `policy.deny` names stays denied
    #[arg(short, long, global = true)]
    yes: bool,
    /// One more folder of skills
    #[arg(long, global = true, value_name = "DIR")]
    skills: Vec<PathBuf>,
    /// Override a setting for this run
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print JSON lines on standard output
    #[arg(long, global = true)]
    json: bool,
    /// Print the answer and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Print reasoning, arguments and results as well
    #[arg(short, long, global = true)]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ask(ask::Ask),
    Chat(chat::Chat),
    #[command(subcommand)]
    Tool(tool::Tool),
    #[command(subcommand)]
    Skill(skill::Skill),
    #[command(subcommand)]
    Session(session::Session),
    #[command(subcommand)]
    Config(config::Config),
    /// Read all skills and write the index of their tools
    Sync,
    /// Look for problems and say how to mend them
    Doctor,
    /// Import skill files in a process of their own
    #[command(hide = true)]
    Worker,
}

/// Runs the command line and returns what the process is to exit with.
pub fn main(argv: Vec<OsString>, interpreter: Interpreter) -> ExitCode {
    ExitCode::from(run(argv, interpreter))
}

/// Runs the command line and returns the exit code.
pub fn run(argv: Vec<OsString>, interpreter: Interpreter) -> u8 {
    let cli =
        match Cli::command().try_get_matches_from(argv).and_then(|matches| Cli::from_arg_matches(&matches)) {
            Ok(cli) => cli,
            Err(error) => {
                // Help and version arrive here too; a closed pipe is no failure.
                let _ = error.print();
                return u8::try_from(error.exit_code()).unwrap_or(2);
            }
        };
    let screen = Screen::new(&cli.globals);
    match start(cli, interpreter, &screen) {
        Ok(code) => code,
        Err(failure) => {
            screen.failure(&failure);
            failure.code()
        }
    }
}

fn start(cli: Cli, interpreter: Interpreter, screen: &Screen) -> Result<u8, Failure> {
    if let Some(Command::Worker) = cli.command {
        return worker::run(interpreter);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(dispatch(cli, interpreter, screen));
    // A tool that does not let go must not keep the process: its time is up.
    runtime.shutdown_background();
    result
}

async fn dispatch(cli: Cli, interpreter: Interpreter, screen: &Screen) -> Result<u8, Failure> {
    let choices = Choices {
        model: cli.globals.model.clone(),
        yes: cli.globals.yes,
        skills: cli.globals.skills.clone(),
        set: cli.globals.set.clone(),
    };
    if let Some(Command::Doctor) = cli.command {
        return doctor::run(choices, interpreter, screen).await;
    }
    let app = App::load(choices, interpreter)?;
    let _log = app.log(cli.globals.verbose);
    match cli.command {
        Some(Command::Ask(ask)) => ask::run(ask, &app, screen).await,
        Some(Command::Chat(chat)) => chat::run(chat, &app, screen).await,
        Some(Command::Tool(tool)) => tool::run(tool, &app, screen).await,
        Some(Command::Skill(skill)) => skill::run(skill, &app, screen).await,
        Some(Command::Session(session)) => session::run(session, &app, screen).await,
        Some(Command::Config(config)) => config::run(config, &app, screen),
        Some(Command::Sync) => sync::run(&app, screen).await,
        Some(Command::Doctor | Command::Worker) => unreachable!("handled above"),
        None if ui::is_conversation() => chat::run(chat::Chat::default(), &app, screen).await,
        None => ask::run(ask::Ask::default(), &app, screen).await,
    }
}

/// The whole command line as markdown, for `docs/cli.md`.
pub fn reference() -> String {
    let mut root = Cli::command().term_width(90);
    root.build();
    let mut page = String::from("# The command line\n\nMade from the program; a test holds it current.\n");
    describe(&mut root, "", &mut page);
    page
}

fn describe(command: &mut clap::Command, path: &str, page: &mut String) {
    let path = format!("{path} {}", command.get_name()).trim().to_owned();
    let help = command.render_long_help().to_string();
    let lines: Vec<_> = help.lines().map(str::trim_end).collect();
    page.push_str(&format!("\n## `{path}`\n\n```text\n{}\n```\n", lines.join("\n").trim_end()));
    for child in command.get_subcommands_mut().filter(|child| !child.is_hide_set()) {
        describe(child, &path, page);
    }
}
