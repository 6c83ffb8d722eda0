//! What `--help` shows, and the same as a page.

use clap::CommandFactory;

use super::style::{BOLD, DIM, PLAIN};
use super::{Cli, chat};

/// Commands as the first help shows them, by what one wants; those that are not here are only named there.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Talk", &["ask", "chat", "session", "memory"]),
    ("Tools", &["tool", "skill", "mcp"]),
    ("Serve", &["serve", "job", "acp", "stdio"]),
    ("Set up", &["setup", "doctor", "config"]),
];

/// What to begin with.
const EXAMPLES: [(&str, &str); 3] = [
    ("omni ask \"which files changed since yesterday?\"", "one question"),
    ("git diff | omni ask \"review this\"", "what is piped in is context"),
    ("omni", "a talk in the terminal"),
];

/// The command line as clap knows it.
pub(super) fn command() -> clap::Command {
    let command = compact(Cli::command());
    let first = first(&command);
    command.help_template(first)
}

/// Puts the longer description of each command below its options. Where clap has one to put
/// above them, it gives every option three lines, and the help no longer fits a screen.
fn compact(command: clap::Command) -> clap::Command {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let long = command.get_long_about().map(ToString::to_string);
    let rest = long.as_deref().and_then(|long| long.strip_prefix(about.as_str()));
    let rest = rest.map(|rest| rest.trim_start_matches('.').trim().to_owned());
    let command = match rest {
        Some(rest) => command.long_about(None).after_help(rest),
        None => command,
    };
    command.mut_subcommands(compact)
}

/// The help of the program itself: what to type, and what there is, on one screen of 80 by 24.
fn first(command: &clap::Command) -> String {
    let mut text = "{about-with-newline}\n".to_owned();
    for (typed, meaning) in EXAMPLES {
        text += &format!("  {typed:<49}{DIM}{meaning}{PLAIN}\n");
    }
    let visible = || command.get_subcommands().filter(|command| !command.is_hide_set());
    for (group, names) in GROUPS {
        let commands = names.iter().filter_map(|name| visible().find(|command| command.get_name() == *name));
        for (place, command) in commands.enumerate() {
            let group = if place == 0 { group } else { "" };
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let gap = if place == 0 && group == GROUPS[0].0 { "\n" } else { "" };
            text += &format!("{gap}{DIM}{group:<8}{PLAIN}{BOLD}{:<9}{PLAIN}{about}\n", command.get_name());
        }
    }
    let is_shown = |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name));
    let more: Vec<_> = visible().map(clap::Command::get_name).filter(|name| !is_shown(name)).collect();
    text += &format!("{DIM}{:<8}{PLAIN}{BOLD}{}{PLAIN}\n", "More", more.join(", "));
    text + "\nEverywhere: -m MODEL, -y, --json, -q, -v, --set KEY=VALUE: `omni ask --help`"
}

/// The whole command line as markdown, for `docs/cli.md`: every help as it is printed, what
/// every command takes once; and what is typed in a talk.
pub fn reference() -> String {
    let mut page = String::from("# The command line\n\nMade from the program; a test holds it current.\n");
    describe(&command(), &mut vec!["omni".to_owned()], &mut page);
    page.push_str(&chat::page());
    page
}

fn describe(command: &clap::Command, path: &mut Vec<String>, page: &mut String) {
    let (help, _) = parted(&shown(path));
    page.push_str(&format!("\n## `{}`\n\n```text\n{}\n```\n", path.join(" "), help));
    if path.len() == 1 {
        let (_, everywhere) = parted(&shown(&["omni".to_owned(), "ask".to_owned()]));
        page.push_str(&format!("\nWhat every command takes:\n\n```text\n{everywhere}\n```\n"));
    }
    for child in command.get_subcommands().filter(|child| !child.is_hide_set()) {
        path.push(child.get_name().to_owned());
        describe(child, path, page);
        path.pop();
    }
}

/// The help of a command, as it is printed.
fn shown(path: &[String]) -> String {
    let typed = path.iter().map(String::as_str).chain(["--help"]);
    let mut command = command().term_width(90);
    let help = match command.try_get_matches_from_mut(typed) {
        Err(help) => help.to_string(),
        // Python reads its own `--help`.
        Ok(_) => {
            let find = |command, name: &String| {
                clap::Command::find_subcommand_mut(command, name).expect("a path of commands")
            };
            path[1..].iter().fold(&mut command, find).render_help().to_string()
        }
    };
    help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// A help without what every command takes, and that.
fn parted(help: &str) -> (String, String) {
    let Some(begin) = help.find("\nEverywhere:\n") else {
        return (help.trim_end().to_owned(), String::new());
    };
    let end = help[begin + 1..].find("\n\n").map_or(help.len(), |end| begin + 1 + end);
    let everywhere = help[begin..end].trim().strip_prefix("Everywhere:\n").unwrap_or_default();
    (format!("{}{}", help[..begin].trim_end(), &help[end..]).trim_end().to_owned(), everywhere.to_owned())
}
