//! `omni mcp`: the toolbox for other programs, and the servers of others for us.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::error::{Failure, code};
use super::login::{self, Login};
use super::serve;
use super::signal::Stop;
use super::style::{FINE, WRONG};
use super::ui::{Screen, lasted};
use crate::app::App;
use crate::mcp::config::import::Origin;
use crate::mcp::config::{Chosen, Entry, Left, Trust, Variables, user_file};
use crate::mcp::{Listener, Pipes, Server, Status};

/// Be an MCP server, or use those of others
///
/// Without a command it is a server on standard input and output, for editors and assistants that
/// start it themselves: `claude mcp add omni -- omni mcp`, or an entry with `"command": "omni",
/// "args": ["mcp"]` in their file of servers. Tools that ask first are refused there, unless
/// `policy.allow` names them or `--yes` leaves the asking to the other side.
///
/// The commands are for servers of others, whose tools omni uses. They are described in
/// `~/.config/omni/mcp.json`, and in `.mcp.json` of a project, which you have to agree to.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Mcp {
    /// Serve over HTTP at this address instead, and print the URL; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<SocketAddr>,
    /// What callers have to know: `env:NAME`, or `file:PATH`
    #[arg(long, value_name = "TOKEN", requires = "http")]
    token: Option<String>,
    /// Serve one skill alone, its tools and prompts under the names they have there
    #[arg(long, value_name = "SKILL")]
    skill: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the servers there are, and why some are not used
    List,
    /// Start a server and show what it has; without a name, all of them
    Test {
        /// The server
        name: Option<String>,
    },
    /// Look for problems with servers, and say what was guessed about them
    Doctor {
        /// The server
        name: Option<String>,
    },
    /// Take over the servers that another program knows
    ///
    /// They are put into your own file, beside those that are there. Look at them with `omni mcp list` before you
    /// use them: some may come from a project.
    Import {
        /// The program
        #[arg(long, value_name = "PROGRAM", required = true, value_parser = ["cursor", "vscode", "claude", "codex", "gemini", "zed"])]
        from: Vec<String>,
        /// These servers only
        names: Vec<String>,
    },
    /// Describe a server in your own file: its command, or its address
    ///
    /// As in `omni mcp add time -- uvx mcp-server-time`, or
    /// `omni mcp add docs --url https://example.org/mcp --header 'Authorization: Bearer ${DOCS_TOKEN}'`.
    /// `${NAME}` is the environment variable NAME whenever the server is used.
    Add {
        /// How it will be called: letters, digits, `_` and `-`
        name: String,
        /// The program, and its arguments
        #[arg(last = true, required_unless_present = "url")]
        command: Vec<String>,
        /// The address of one that runs already
        #[arg(long, conflicts_with = "command")]
        url: Option<String>,
        /// Send this with each request
        #[arg(long, value_name = "NAME: VALUE", requires = "url")]
        header: Vec<String>,
        /// Give the program this variable
        #[arg(long, value_name = "NAME=VALUE", conflicts_with = "url")]
        env: Vec<String>,
    },
    /// Take a server out of your own file
    Remove {
        /// The server
        name: String,
    },
    /// Sign in to a server that wants to know who you are
    ///
    /// It prints the page where you do that, and opens it in a browser. Without one on this machine, open it
    /// elsewhere and paste the address that it sends you to.
    Login(Login),
    /// Forget who you are to a server
    Logout {
        /// The server
        name: String,
    },
    /// Agree to a server of the project as it is now
    Trust {
        /// The server
        name: String,
    },
    /// Take that back
    Distrust {
        /// The server
        name: String,
    },
}

pub(super) async fn run(mcp: Mcp, app: &App, screen: &Screen) -> Result<u8, Failure> {
    match mcp.command {
        None => offer(mcp.http, mcp.token, mcp.skill, app, screen).await,
        Some(Command::List) => list(app, screen).await,
        Some(Command::Import { from, names }) => import(&from, &names, app, screen),
        Some(Command::Doctor { name }) => {
            let result = doctor(name.as_deref(), app, screen).await;
            app.finish().await;
            result
        }
        Some(Command::Test { name }) => {
            let result = test(name.as_deref(), app, screen).await;
            app.finish().await;
            result
        }
        Some(Command::Add { name, command, url, header, env }) => {
            let fields = match url {
                Some(url) => json!({"url": url, "headers": pairs(&header, ": ")?}),
                None => json!({"command": command[0], "args": command[1..], "env": pairs(&env, "=")?}),
            };
            add(&name, fields, app, screen)
        }
        Some(Command::Remove { name }) => edit(app, |servers| match servers.shift_remove(&name) {
            Some(_) => Ok(()),
            None => Err(unknown(&name)),
        }),
        Some(Command::Login(login)) => login::login(login, app, screen).await,
        Some(Command::Logout { name }) => login::logout(&name, app, screen).await,
        Some(Command::Trust { name }) => trust(&name, true, app, screen),
        Some(Command::Distrust { name }) => trust(&name, false, app, screen),
    }
}

async fn offer(
    http: Option<SocketAddr>,
    token: Option<String>,
    skill: Option<String>,
    app: &App,
    screen: &Screen,
) -> Result<u8, Failure> {
    if let Some(skill) = &skill
        && app.manifest().await?.skill(skill).is_none()
    {
        return Err(Failure::new(code::USAGE, format!("there is no skill `{skill}`"))
            .hint("`omni skill list` names those there are"));
    }
    let mut stop = Stop::listen()?;
    let (shelf, tools) = watch::channel(None);
    let scope = app.scope();
    let cancel = scope.cancel.clone();
    let server = Server::new(tools, scope, app.servers().await, skill);
    let serving: BoxFuture<'_, Result<(), String>> = match http {
        Some(address) => {
            let listener = Listener::bind(address, serve::revealed(token)?).await.map_err(unserved)?;
            screen.line(&listener.url().map_err(unserved)?)?;
            server.http(listener).boxed()
        }
        None => {
            if std::io::stdin().is_terminal() {
                screen.remark(
                    "this speaks MCP, line by line; Ctrl-D ends it, `omni mcp --help` says who it is for",
                );
            }
            server.stdio(Pipes::take()?).boxed()
        }
    };
    let mut served = std::pin::pin!(serving);
    let mut shelving = std::pin::pin!(async {
        app.shelve(&shelf).await?;
        std::future::pending().await
    });
    let mut told = code::OK;
    let result: Result<(), Failure> = loop {
        tokio::select! {
            served = &mut served => break served.map_err(unserved),
            failed = &mut shelving => break failed,
            code = stop.told() => {
                // Calls stop, and then so does the server.
                told = code;
                cancel.cancel();
            }
        }
    };
    app.finish().await;
    result.map(|()| told)
}

fn unserved(reason: String) -> Failure {
    Failure::new(code::FAILED, reason)
}

async fn list(app: &App, screen: &Screen) -> Result<u8, Failure> {
    let (described, problems) = app.described_servers();
    let servers = app.servers().await;
    let known =
        |name: &str| servers.status().into_iter().find(|(known, ..)| *known == name).map(|(_, _, n)| n);
    let width = described.iter().map(|chosen| chosen.entry.name.len()).max().unwrap_or(0);
    for Chosen { entry, server } in &described {
        let (mark, about) = match server {
            Ok(_) => match known(&entry.name) {
                Some(1) => ("1 tool".to_owned(), None),
                Some(tools) if tools > 0 => (format!("{tools} tools"), None),
                _ => ("not met".to_owned(), None),
            },
            Err(left) => (left.word().to_owned(), left.reason(entry)),
        };
        if screen.json {
            screen.value(&json!({
                "name": entry.name, "file": entry.file, "state": mark, "told": entry.told(), "problem": about,
            }))?;
            continue;
        }
        screen.line(&format!("{:width$}  {mark:9}  {}", entry.name, entry.told()))?;
        if let Some(about) = about {
            screen.line(&format!("{:width$}  → {about}", ""))?;
        }
    }
    if described.is_empty() {
        screen.remark("there are none; `omni mcp add --help` says how to add one");
    }
    for problem in &problems {
        screen.remark(&format!("error: {problem}"));
    }
    Ok(if problems.is_empty() { code::OK } else { code::FAILED })
}

async fn test(name: Option<&str>, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let (described, _) = app.described_servers();
    let servers = app.servers().await;
    let wanted: Vec<_> = match name {
        Some(name) => {
            vec![
                described
                    .into_iter()
                    .find(|chosen| chosen.entry.name == name)
                    .ok_or_else(|| unknown(name))?,
            ]
        }
        None => described.into_iter().filter(|chosen| chosen.server != Err(Left::Disabled)).collect(),
    };
    if name.is_none() {
        servers.start();
    }
    let mut failed = 0;
    for Chosen { entry, server } in wanted {
        let began = Instant::now();
        let status = match server {
            Ok(_) => servers.try_out(&entry.name).await.unwrap_or(Status::Resting),
            Err(left) => {
                let reason = left.reason(&entry).unwrap_or_else(|| "it is disabled".to_owned());
                Status::Down { reason, last: Vec::new() }
            }
        };
        let took = lasted(began.elapsed().as_secs_f64() * 1000.0);
        let tools: Vec<String> = servers.tools(&entry.name);
        if let Status::Down { reason, last } = &status {
            failed += 1;
            report(screen, &entry, &[], Some((reason, last)), &took)?;
        } else {
            report(screen, &entry, &tools, None, &took)?;
        }
    }
    Ok(if failed == 0 { code::OK } else { code::FAILED })
}

fn report(
    screen: &Screen,
    entry: &Entry,
    tools: &[String],
    problem: Option<(&String, &Vec<String>)>,
    took: &str,
) -> Result<(), Failure> {
    if screen.json {
        let (reason, last) = problem.unzip();
        screen.value(&json!({"name": entry.name, "tools": tools, "problem": reason, "last": last}))?;
        return Ok(());
    }
    let Some((reason, last)) = problem else {
        screen.line(&format!("{FINE} {}: {} tools · {took}", entry.name, tools.len()))?;
        if !tools.is_empty() {
            screen.line(&format!("  {}", tools.join(" ")))?;
        }
        return Ok(());
    };
    screen.line(&format!("{WRONG} {}: {reason}", entry.name))?;
    for line in last.iter().rev().take(5).rev() {
        screen.line(&format!("  │ {line}"))?;
    }
    Ok(())
}

/// Tests them, and says what a test does not show.
async fn doctor(name: Option<&str>, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let tested = test(name, app, screen).await?;
    let (described, problems) = app.described_servers();
    let toolbox = app.toolbox().await?;
    let told = toolbox.problems();
    let mut remarks = Vec::new();
    for Chosen { entry, .. } in described.iter().filter(|chosen| name.is_none_or(|n| n == chosen.entry.name))
    {
        let own = entry.remarks();
        remarks.extend(own.into_iter().map(|remark| format!("{}: {remark}", entry.name)));
        let theirs = format!("`{}.", entry.name);
        remarks.extend(told.iter().filter(|told| told.contains(&theirs)).cloned());
    }
    for problem in problems.iter().chain(&remarks) {
        match screen.json {
            true => screen.value(&json!({"remark": problem}))?,
            false => screen.line(&format!("→ {problem}"))?,
        }
    }
    Ok(if problems.is_empty() { tested } else { code::FAILED })
}

/// Takes over what other programs know.
fn import(from: &[String], names: &[String], app: &App, screen: &Screen) -> Result<u8, Failure> {
    let environment = |name: &str| std::env::var(name).ok();
    let variables = Variables { environment: &environment, workspace: &app.paths.workspace };
    let mut found = BTreeMap::new();
    for from in from.iter().filter_map(|from| Origin::named(from)) {
        for file in from.places(&variables) {
            let servers = from.read(&file, variables.workspace);
            for (name, server) in servers.map_err(|reason| Failure::new(code::SETUP, reason))? {
                if names.is_empty() || names.contains(&name) {
                    found.entry(name).or_insert((file.clone(), server));
                }
            }
        }
    }
    if found.is_empty() {
        return Err(Failure::new(code::FAILED, "there is no such server")
            .hint(format!("looked for in the files of {}", from.join(", "))));
    }
    let done = edit(app, |servers| {
        for (name, (file, server)) in found {
            let fields = server.as_object().cloned().unwrap_or_default();
            let told = Entry::new(&name, &file, fields).told();
            if servers.contains_key(&name) {
                screen.remark(&format!("there is a server `{name}` already, which stays as it is"));
                continue;
            }
            servers.insert(name.clone(), server);
            screen.line(&format!("{name}: {told}, from {}", file.display()))?;
        }
        Ok(())
    })?;
    screen.remark("try them: omni mcp test");
    Ok(done)
}

fn trust(name: &str, trusted: bool, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let (described, _) = app.described_servers();
    let Chosen { entry, .. } =
        described.into_iter().find(|chosen| chosen.entry.name == name).ok_or_else(|| unknown(name))?;
    if !entry.project {
        screen.remark(&format!("`{name}` is in your own file, so it is yours already"));
        return Ok(code::OK);
    }
    Trust::set(&app.paths.data, &entry, trusted)?;
    if trusted {
        screen.remark(&format!("`{name}` may be used as it is now: {}", entry.told()));
    }
    Ok(code::OK)
}

/// Adds a server to the user's file.
fn add(name: &str, mut fields: Value, app: &App, screen: &Screen) -> Result<u8, Failure> {
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) {
        return Err(Failure::new(code::USAGE, format!("{name:?} is no name for a server"))
            .hint("use letters, digits, `_` and `-`"));
    }
    if let Some(fields) = fields.as_object_mut() {
        fields.retain(|_, value| !value.as_object().is_some_and(Map::is_empty));
    }
    let done = edit(app, |servers| match servers.contains_key(name) {
        true => Err(Failure::new(code::USAGE, format!("there is a server `{name}` already"))
            .hint(format!("`omni mcp remove {name}` takes it out"))),
        false => {
            servers.insert(name.to_owned(), fields);
            Ok(())
        }
    })?;
    screen.remark(&format!("try it: omni mcp test {name}"));
    Ok(done)
}

/// Changes the user's file.
fn edit(
    app: &App,
    change: impl FnOnce(&mut Map<String, Value>) -> Result<(), Failure>,
) -> Result<u8, Failure> {
    let file = user_file(&app.paths);
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "{}".to_owned(),
        Err(error) => return Err(error.into()),
    };
    let by_hand = |reason: String| {
        Failure::new(code::FAILED, format!("`{}` is not changed: {reason}", file.display()))
            .hint("edit it by hand")
    };
    // Comments would be lost.
    let mut root: Value = serde_json::from_str(&text).map_err(|error| by_hand(error.to_string()))?;
    let servers = root.as_object_mut().map(|root| root.entry("mcpServers").or_insert_with(|| json!({})));
    let servers = servers.and_then(Value::as_object_mut);
    change(servers.ok_or_else(|| by_hand("it has no object `mcpServers`".to_owned()))?)?;
    let folder = file.parent().expect("a file in a folder");
    std::fs::create_dir_all(folder)?;
    let mut new = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
    serde_json::to_writer_pretty(&mut new, &root).map_err(std::io::Error::from)?;
    new.persist(&file).map_err(|error| error.error)?;
    Ok(code::OK)
}

fn pairs(texts: &[String], between: &str) -> Result<Map<String, Value>, Failure> {
    let pair = |text: &String| match text.split_once(between.trim_end()) {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.trim().into())),
        _ => Err(Failure::new(code::USAGE, format!("write `NAME{between}VALUE`, not {text:?}"))),
    };
    texts.iter().map(pair).collect()
}

fn unknown(name: &str) -> Failure {
    Failure::new(code::USAGE, format!("there is no server `{name}`"))
        .hint("`omni mcp list` shows which there are")
}

/// Why a server that was named is not among those that are used.
pub(super) fn unusable(name: &str, app: &App) -> Failure {
    let (described, _) = app.described_servers();
    let Some(Chosen { entry, server }) = described.into_iter().find(|chosen| chosen.entry.name == name)
    else {
        return unknown(name);
    };
    let reason = server.err().and_then(|left| left.reason(&entry));
    let reason = reason.unwrap_or_else(|| "it is disabled".to_owned());
    Failure::new(code::SETUP, format!("`{name}` is not used: {reason}"))
}
