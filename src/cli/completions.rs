//! `omni completions`: what a shell needs to complete commands and flags.

use clap_complete::{Shell, generate};

use super::error::{Failure, code};
use super::help;
use super::ui::Screen;

/// Print what a shell needs to complete commands and flags
///
/// For bash: `omni completions bash > ~/.local/share/bash-completion/completions/omni`; for fish:
/// `omni completions fish > ~/.config/fish/completions/omni.fish`; for zsh: `omni completions zsh > DIR/_omni`,
/// where DIR is one of `$fpath`.
#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// Which shell
    shell: Shell,
}

pub(super) fn run(completions: &Completions, screen: &Screen) -> Result<u8, Failure> {
    let mut script = Vec::new();
    generate(completions.shell, &mut visible(&help::command()), "omni", &mut script);
    screen.print(&String::from_utf8_lossy(&script))?;
    Ok(code::OK)
}

/// The same command without what is hidden, which a shell would be told of.
fn visible(command: &clap::Command) -> clap::Command {
    let subcommands = command.get_subcommands().filter(|command| !command.is_hide_set());
    let shown = clap::Command::new(command.get_name().to_owned())
        .disable_help_subcommand(true)
        .args(command.get_arguments().filter(|argument| !argument.is_hide_set()))
        .subcommands(subcommands.map(visible));
    let shown = match command.get_about() {
        Some(about) => shown.about(about.clone()),
        None => shown,
    };
    match command.get_version() {
        Some(version) => shown.version(version.to_owned()),
        None => shown,
    }
}
