//! The command line: what was typed, and one file per command.

mod acp;
mod ask;
mod channel;
mod chat;
mod completions;
mod config;
mod dev;
mod doctor;
mod editor;
mod encoder;
mod error;
mod eval;
mod help;
mod install;
mod itself;
mod job;
mod licenses;
mod login;
mod man;
mod markdown;
mod mcp;
mod memory;
mod python;
mod serve;
mod service;
mod session;
mod setup;
mod signal;
mod skill;
mod stdio;
mod style;
mod sync;
mod token;
mod tool;
mod tty;
mod ui;
mod version;
mod worker;
mod wrap;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{FromArgMatches, Parser, Subcommand};

use crate::app::{App, Choices};
use crate::kernel::{Interpreter, program};
use error::{Failure, code};
use ui::Screen;

pub use help::reference;

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
    /// One more file of MCP servers, before all others
    #[arg(long, global = true, value_name = "FILE")]
    mcp_config: Vec<PathBuf>,
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
    #[command(alias = "repl")]
    Chat(chat::Chat),
    #[command(subcommand)]
    Tool(tool::Tool),
    #[command(subcommand)]
    Skill(skill::Skill),
    #[command(subcommand)]
    Session(session::Session),
    #[command(subcommand)]
    Memory(memory::Memory),
    #[command(subcommand)]
    Config(config::Config),
    Mcp(mcp::Mcp),
    #[command(alias = "gateway")]
    Serve(serve::Serve),
    #[command(subcommand, alias = "schedule")]
    Job(job::Job),
    #[command(subcommand)]
    Service(service::Service),
    Channel(channel::Channel),
    #[command(subcommand)]
    Token(token::Token),
    Acp(acp::Acp),
    Stdio(stdio::Stdio),
    /// Read all skills and write the index of their tools
    Sync,
    Python(python::Python),
    Setup(setup::Setup),
    /// Look for problems and say how to mend them
    Doctor,
    #[command(subcommand, name = "self")]
    Itself(itself::Itself),
    Completions(completions::Completions),
    Licenses(licenses::Licenses),
    #[command(hide = true)]
    Man(man::Man),
    /// Import skill files in a process of their own
    #[command(hide = true)]
    Worker(worker::Args),
    #[command(subcommand, hide = true)]
    Dev(dev::Dev),
}

/// Runs the command line and returns the exit code.
pub fn run(argv: Vec<OsString>, interpreter: Interpreter) -> u8 {
    if let Some(argv) = program::asked(&argv, interpreter) {
        return python::run(argv, interpreter);
    }
    let first = argv.get(1).map(|word| word.to_string_lossy().into_owned());
    let is_verbose = argv.iter().skip(1).any(|word| version::is_verbose(word));
    let wants_json = argv.iter().take_while(|word| *word != "--").any(|word| word == "--json");
    let cli = match help::command()
        .try_get_matches_from(argv)
        .and_then(|matches| Cli::from_arg_matches(&matches))
    {
        Ok(cli) => cli,
        Err(error) => {
            if error.kind() == ErrorKind::DisplayVersion && is_verbose {
                return version::run(interpreter);
            }
            // Help and version arrive here too; a closed pipe is no failure.
            let _ = error.print();
            if first.is_some_and(|first| is_question(&error, &first)) {
                anstream::eprintln!(
                    "\nA question goes like this: omni ask \"what changed since yesterday?\""
                );
            }
            if wants_json && error.use_stderr() {
                let said = error.to_string();
                let said = said.lines().next().unwrap_or_default().trim_start_matches("error: ");
                // Nobody to tell that nobody reads.
                let _ = ui::tell(&ui::result(&Failure::new(code::USAGE, said)));
            }
            return u8::try_from(error.exit_code()).unwrap_or(code::USAGE);
        }
    };
    let screen = Screen::new(&cli.globals);
    match start(cli, interpreter, &screen) {
        Ok(code) => code,
        Err(failure) => {
            screen.failure(&failure);
            screen.failed(&failure);
            failure.code()
        }
    }
}

/// Whether somebody may have asked right away: the first word is no command, and like none.
fn is_question(error: &clap::Error, first: &str) -> bool {
    let unknown = matches!(error.get(ContextKind::InvalidSubcommand), Some(ContextValue::String(word)) if word == first);
    unknown && error.get(ContextKind::SuggestedSubcommand).is_none()
}

fn start(cli: Cli, interpreter: Interpreter, screen: &Screen) -> Result<u8, Failure> {
    // These need nothing else of the program.
    match &cli.command {
        Some(Command::Worker(args)) => return worker::run(args, interpreter),
        Some(Command::Completions(completions)) => return completions::run(completions, screen),
        Some(Command::Man(man)) => return man::run(man),
        Some(Command::Licenses(_)) => return licenses::run(screen),
        _ => {}
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
        servers: cli.globals.mcp_config.clone(),
        ..Choices::default()
    };
    if let Some(Command::Doctor) = cli.command {
        return doctor::run(choices, interpreter, screen).await;
    }
    let app = App::load(choices, interpreter)?;
    let app = match cli.command {
        Some(Command::Serve(_) | Command::Channel(_) | Command::Tool(_) | Command::Mcp(_)) => {
            app.with_schedules()
        }
        _ => app,
    };
    app.log(cli.globals.verbose);
    match cli.command {
        Some(Command::Ask(ask)) => ask::run(ask, &app, screen).await,
        Some(Command::Chat(chat)) => chat::run(chat, &app, screen).await,
        Some(Command::Tool(tool)) => tool::run(tool, &app, screen).await,
        Some(Command::Skill(skill)) => skill::run(skill, &app, cli.globals.yes, screen).await,
        Some(Command::Session(session)) => session::run(session, &app, screen).await,
        Some(Command::Memory(memory)) => memory::run(memory, &app, screen).await,
        Some(Command::Config(config)) => config::run(config, &app, screen),
        Some(Command::Serve(serve)) => serve::run(serve, app, screen).await,
        Some(Command::Job(job)) => job::run(job, &app, screen).await,
        Some(Command::Service(service)) => service::run(service, &app, screen).await,
        Some(Command::Channel(channel)) => channel::run(channel, app, screen).await,
        Some(Command::Token(token)) => token::run(token, &app, screen).await,
        Some(Command::Acp(acp)) => acp::run(acp, app, screen).await,
        Some(Command::Stdio(stdio)) => stdio::run(stdio, &app, screen).await,
        Some(Command::Mcp(mcp)) => mcp::run(mcp, &app, screen).await,
        Some(Command::Dev(dev)) => dev::run(dev, &app).await,
        Some(Command::Setup(setup)) => setup::run(setup, &app, screen).await,
        Some(Command::Itself(itself)) => itself::run(itself, &app, screen).await,
        Some(Command::Sync) => sync::run(&app, screen).await,
        Some(
            Command::Doctor
            | Command::Worker(_)
            | Command::Completions(_)
            | Command::Licenses(_)
            | Command::Man(_)
            | Command::Python(_),
        ) => {
            unreachable!("handled above")
        }
        None if ui::is_conversation() => chat::run(chat::Chat::default(), &app, screen).await,
        None => ask::run(ask::Ask::default(), &app, screen).await,
    }
}
