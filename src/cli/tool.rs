//! `omni tool`: the toolbox without a model.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::ask::unless_told;
use super::error::{Failure, code};
use super::signal::Stop;
use super::skill::told;
use super::ui::{Screen, Silence, hanging};
use crate::app::App;
use crate::mcp::Status;
use crate::message::{Arguments, Block, ToolCall};
use crate::skill::Manifest;
use crate::tool::{self, Spec, Toolbox, Verdict};

/// List, show and call tools.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Tool {
    /// List the tools there are
    List,
    /// Show a tool: what it does, its parameters, whether it asks
    Show {
        /// Its name, as in `git.status`
        name: String,
    },
    /// Call a tool
    ///
    /// Prints what it returns. Exits with 124 when it took too long or was silent for too long, 5
    /// when it was refused, 2 when the arguments are wrong.
    Call {
        /// Its name, as in `git.status`
        name: String,
        /// A JSON object, or `-` to read one from standard input
        #[arg(default_value = "{}")]
        arguments: String,
    },
}

/// How long servers that were never heard of have to say what they have, for a list.
const GREETING: Duration = Duration::from_secs(5);

pub(super) async fn run(command: Tool, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let result = answer(command, app, screen).await;
    app.finish().await;
    result
}

async fn answer(command: Tool, app: &App, screen: &Screen) -> Result<u8, Failure> {
    match command {
        Tool::List => all(app, screen).await,
        Tool::Show { name } => show(app, &*having(app, &name).await?, &name, screen).await,
        Tool::Call { name, arguments } => {
            call(app, &having(app, &name).await?, &name, arguments, screen).await
        }
    }
}

/// Lists all tools, also those of servers.
pub(super) async fn all(app: &App, screen: &Screen) -> Result<u8, Failure> {
    let servers = app.servers().await;
    for silent in servers.met(GREETING).await {
        screen.remark(&format!("the server `{silent}` has not said yet what tools it has"));
    }
    list(&*app.manifest().await?, &*app.toolbox().await?, screen)
}

/// The toolbox with this tool in it. That of a server that was never heard of is waited for.
async fn having(app: &App, name: &str) -> Result<Arc<Toolbox>, Failure> {
    let toolbox = app.toolbox().await?;
    let servers = app.servers().await;
    let Some(server) = servers.of_tool(name).filter(|_| toolbox.find(name).is_none()) else {
        return Ok(toolbox);
    };
    match servers.try_out(server).await {
        Some(Status::Down { reason, last }) => {
            let said = last.last().map(|line| format!("; it said: {line}")).unwrap_or_default();
            Err(Failure::new(code::FAILED, format!("the server `{server}` cannot be used: {reason}{said}")))
        }
        _ => Ok(toolbox.renewed()),
    }
}

fn list(manifest: &Manifest, toolbox: &Toolbox, screen: &Screen) -> Result<u8, Failure> {
    if screen.json {
        for spec in toolbox.specs() {
            screen.value(&**spec)?;
        }
        return Ok(code::OK);
    }
    let width = toolbox.specs().map(|spec| spec.name.len()).max().unwrap_or(0);
    let mut page = String::new();
    for spec in toolbox.specs() {
        let about = spec.description.lines().next().unwrap_or_default();
        page.push_str(&hanging(&format!("{:width$}  {:5}  ", spec.name, mark(toolbox, spec)), about));
    }
    screen.print(&page)?;
    // A tool that is missed is looked for here.
    for problem in manifest.problems().filter(|problem| problem.is_error()) {
        screen.remark(&told(problem));
    }
    Ok(code::OK)
}

/// What the policy makes of a tool, in a word.
fn mark(toolbox: &Toolbox, spec: &Spec) -> &'static str {
    match toolbox.verdict(&spec.name) {
        Some(Verdict::Ask(_)) => "asks",
        Some(Verdict::Deny(_)) => "denied",
        _ if spec.annotations.read_only => "reads",
        _ => "",
    }
}

async fn show(app: &App, toolbox: &Toolbox, name: &str, screen: &Screen) -> Result<u8, Failure> {
    let Some(spec) = toolbox.find(name) else {
        return Err(unknown(&*app.manifest().await?, toolbox, name));
    };
    if screen.json {
        screen.value(&**spec)?;
        return Ok(code::OK);
    }
    let rule = match toolbox.verdict(&spec.name) {
        Some(Verdict::Allow(rule)) => format!("runs at once ({rule})"),
        Some(Verdict::Ask(rule)) => format!("asks first ({rule})"),
        Some(Verdict::Deny(rule)) => format!("never runs ({rule})"),
        None => String::new(),
    };
    screen.line(&format!("{}\n\n{}\n\n{rule}\n\nparameters", spec.name, spec.description.trim()))?;
    screen.line(&pretty(&spec.input))?;
    if let Some(output) = &spec.output {
        screen.line(&format!("result\n{}", pretty(output)))?;
    }
    Ok(code::OK)
}

async fn call(
    app: &App,
    toolbox: &Arc<Toolbox>,
    name: &str,
    arguments: String,
    screen: &Screen,
) -> Result<u8, Failure> {
    let arguments = match arguments.as_str() {
        "-" => std::io::read_to_string(std::io::stdin())?,
        _ => arguments,
    };
    // The toolbox would say the same in words for a model.
    let Some(spec) = toolbox.find(name) else {
        return Err(unknown(&*app.manifest().await?, toolbox, name));
    };
    if let Some(Verdict::Deny(rule)) = toolbox.verdict(&spec.name) {
        let failure = Failure::new(code::DENIED, format!("`{}` never runs: {rule}", spec.name));
        return Err(failure.hint("`omni config show --origin` shows where that is set"));
    }
    let arguments = Arguments::parse(&arguments);
    if let Arguments::Unreadable(text) = &arguments {
        return Err(unreadable(text, &spec.name));
    }
    let call = ToolCall { id: "cli".to_owned(), name: name.to_owned(), arguments };
    let (outcome, told) = carry_out(app, toolbox, call.clone(), screen).await?;
    if screen.json {
        screen.value(&tool::result(&call, outcome.clone()))?;
        let failed = |error| told.unwrap_or(Failure::from(error).code());
        return Ok(outcome.map_or_else(failed, |_| code::OK));
    }
    let output = outcome.map_err(|error| match (error, told) {
        (tool::Error::Cancelled, Some(code)) => Failure::new(code, "the call was cancelled"),
        (error @ tool::Error::Retry(_), _) => {
            Failure::from(error).hint(format!("`omni tool show {name}` shows its parameters"))
        }
        (error, _) => Failure::from(error),
    })?;
    for block in &output.content {
        screen.line(&readable(block, &output.structured))?;
    }
    Ok(code::OK)
}

/// Runs a call, asks a person where it has to, and stops it when told to; then the exit code
/// for that comes along.
async fn carry_out(
    app: &App,
    toolbox: &Arc<Toolbox>,
    call: ToolCall,
    screen: &Screen,
) -> Result<(Result<tool::Output, tool::Error>, Option<u8>), Failure> {
    let (approver, mut approvals) = tokio::sync::mpsc::channel(1);
    let (asker, mut questions) = tokio::sync::mpsc::channel(1);
    let mut scope = app.scope();
    scope.whole = true;
    scope.approver = Some(Arc::new(move |approval| drop(approver.try_send(approval))));
    scope.asker = Some(Arc::new(move |question| drop(asker.try_send(question))));
    let (cancel, scope) = (scope.cancel.clone(), Arc::new(scope));
    let mut stop = Stop::listen()?;
    let mut told = None;
    let mut work = std::pin::pin!(toolbox.call(call, &scope));
    loop {
        tokio::select! {
            outcome = &mut work => return Ok((outcome, told)),
            Some(approval) = approvals.recv() => {
                match unless_told(screen.approve(&approval), screen, &mut stop).await {
                    Ok(consent) => drop(approval.answer.give(consent)),
                    Err(silence) => told = interrupted(silence, &cancel).or(told),
                }
            }
            Some(question) = questions.recv() => {
                match unless_told(screen.elicit(&question), screen, &mut stop).await {
                    Ok(answer) => drop(question.answer.give(answer)),
                    Err(silence) => told = interrupted(silence, &cancel).or(told),
                }
            }
            code = stop.told() => {
                told = Some(code);
                cancel.cancel();
            }
        }
    }
}

/// Ctrl-C instead of an answer cancels the call.
fn interrupted(silence: Silence, cancel: &CancellationToken) -> Option<u8> {
    match silence {
        Silence::Interrupted(code) => {
            cancel.cancel();
            Some(code)
        }
        Silence::Nobody => None,
    }
}

/// A block for people: structured values over several lines.
fn readable(block: &Block, structured: &Option<Value>) -> String {
    match (block, structured) {
        // Without text of its own the toolbox gives a value as one line of JSON.
        (Block::Text { text }, Some(value))
            if serde_json::from_str(text).is_ok_and(|same: Value| same == *value) =>
        {
            pretty(value)
        }
        (Block::Text { text }, _) => text.trim_end_matches('\n').to_owned(),
        (other, _) => json!(other).to_string(),
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("keys are texts and numbers are finite")
}

fn unreadable(arguments: &str, name: &str) -> Failure {
    let reason = match serde_json::from_str::<Value>(arguments) {
        Ok(_) => "they are JSON, but no object".to_owned(),
        Err(error) => error.to_string(),
    };
    Failure::new(code::USAGE, format!("the arguments of `{name}` cannot be read: {reason}")).hint(format!(
        "write one JSON object, as in `{{\"key\": \"value\"}}`; `omni tool show {name}` has the keys"
    ))
}

fn unknown(manifest: &Manifest, toolbox: &Toolbox, name: &str) -> Failure {
    let near = toolbox
        .specs()
        .map(|spec| (strsim::jaro_winkler(&spec.name, name), &spec.name))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let failure = Failure::new(code::USAGE, format!("there is no tool `{name}`"));
    let skill = name.split_once('.').and_then(|(skill, _)| manifest.skill(skill));
    let problem = skill.and_then(|skill| skill.problems.iter().find(|problem| problem.is_error()));
    match near {
        // The skill that should have it says itself why it does not.
        _ if problem.is_some() => failure.hint(problem.map(told).unwrap_or_default()),
        Some((likeness, near)) if likeness > 0.7 => failure.hint(format!("did you mean `{near}`?")),
        _ => failure.hint("`omni tool list` shows what there is"),
    }
}
