//! What people see: answers on standard output, everything else on standard error.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;

use anstream::{eprint, eprintln};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Globals;
use super::editor::{Editor, Surroundings, Typed, Wanted};
use super::error::{Failure, code};
use super::markdown::Markdown;
use super::style::{BOLD, DIM, FINE, GREEN, PLAIN, RED, WRONG, YELLOW};
use super::tty;
use super::wrap::{Wrap, clip, width};
use crate::message::event::{Approval, Consent, Elicitation, EventKind, Finished, StopReason};
use crate::message::{Event, ToolResult};

/// Columns of a spinner's line that are not its message.
const CLOCK: usize = 12;
/// Lines of one text that are shown at once.
const LINES: usize = 40;

/// Whether somebody sits at both ends.
pub(super) fn is_conversation() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// The terminal, or whatever stands in its place.
pub(super) struct Screen {
    pub(super) json: bool,
    pub(super) quiet: bool,
    pub(super) verbose: bool,
    editor: OnceLock<Editor>,
}

/// Why a question got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// There is nobody to ask.
    Nobody,
    /// Ctrl-C, or another word to end: the exit code that tells of it.
    Interrupted(u8),
}

impl Screen {
    pub(super) fn new(globals: &Globals) -> Self {
        Self { json: globals.json, quiet: globals.quiet, verbose: globals.verbose, editor: OnceLock::new() }
    }

    /// Prints a piece of the answer.
    pub(super) fn print(&self, text: &str) -> io::Result<()> {
        print(text)
    }

    /// Prints a line of the answer.
    pub(super) fn line(&self, text: &str) -> io::Result<()> {
        self.print(&format!("{text}\n"))
    }

    /// Prints a text after something that stands to the left of all its lines.
    pub(super) fn item(&self, lead: &str, text: &str) -> io::Result<()> {
        self.print(&hanging(lead, text))
    }

    /// Prints what was asked and answered before as it looked then, where somebody reads it.
    pub(super) fn before(&self, question: &str, answer: &str) -> io::Result<()> {
        if self.quiet || self.json || !is_conversation() {
            return Ok(());
        }
        let sign = format!("{GREEN}›{PLAIN} ");
        for (number, line) in harmless(question).lines().enumerate() {
            self.item(if number == 0 { &sign } else { "  " }, line)?;
        }
        let mut show = Show::new(self);
        show.text(answer)?;
        show.close()
    }

    /// Prints a value as one line of JSON.
    pub(super) fn value(&self, value: &impl Serialize) -> io::Result<()> {
        tell(value)
    }

    /// Prints a remark, unless told to be quiet.
    pub(super) fn remark(&self, text: &str) {
        if !self.quiet && !self.json {
            let mut wrapped = String::new();
            let mut wrap = Wrap::new(tty::columns(&io::stderr()));
            for line in text.split('\n') {
                wrap.words(line, &mut wrapped);
                wrap.end(&mut wrapped);
            }
            eprint!("{DIM}{wrapped}{PLAIN}");
        }
    }

    /// Empties the screen, where there is one; what was above it can be scrolled to.
    pub(super) fn clear(&self) {
        if renders() && !self.json {
            eprint!("\x1b[2J\x1b[H");
        }
    }

    /// Leaves a line before the next message, where somebody types it.
    pub(super) fn pause(&self) {
        if renders() && io::stdin().is_terminal() && io::stderr().is_terminal() && !self.json {
            eprintln!();
        }
    }

    /// Prints what went wrong.
    pub(super) fn failure(&self, failure: &Failure) {
        if failure.silent {
            return;
        }
        eprintln!("{BOLD}{RED}error:{PLAIN} {}", failure.message);
        if let Some(hint) = &failure.hint {
            eprintln!("{BOLD}hint:{PLAIN} {hint}");
        }
    }

    /// The last line of `--json` where no turn has printed it.
    pub(super) fn failed(&self, failure: &Failure) {
        if self.json && !failure.silent {
            // Nobody to tell that nobody reads.
            let _ = self.value(&result(failure));
        }
    }

    /// Says what messages may be completed with, before the first one is read.
    pub(super) fn surround(&self, surroundings: Surroundings) {
        self.editor.get_or_init(|| Editor::start(surroundings));
    }

    /// Reads a message.
    pub(super) async fn message(&self, prompt: &str) -> Typed {
        self.editor().read(Wanted::Message, prompt).await
    }

    /// Reads the answer to a question; `None` if there is none.
    pub(super) async fn read(&self, prompt: &str) -> Option<String> {
        self.answer(prompt).await.ok()
    }

    async fn answer(&self, prompt: &str) -> Result<String, Silence> {
        match self.editor().read(Wanted::Answer, prompt).await {
            Typed::Line(line) => Ok(line),
            Typed::Interrupted => Err(Silence::Interrupted(code::INTERRUPTED)),
            Typed::End => Err(Silence::Nobody),
        }
    }

    /// Waits until the terminal is nobody's, before the program ends while something was asked.
    pub(super) async fn rest(&self) {
        if let Some(editor) = self.editor.get() {
            editor.rest().await;
        }
    }

    fn editor(&self) -> &Editor {
        self.editor.get_or_init(|| Editor::start(Surroundings::default()))
    }

    /// Whether somebody can be asked.
    fn asks(&self) -> Result<(), Silence> {
        if io::stdin().is_terminal() && !self.json { Ok(()) } else { Err(Silence::Nobody) }
    }

    /// Asks what a tool wants to know; `None` declines.
    pub(super) async fn elicit(&self, question: &Elicitation) -> Result<Option<Map<String, Value>>, Silence> {
        self.asks()?;
        let Elicitation { tool, message, schema, .. } = question;
        eprintln!("{BOLD}{YELLOW}?{PLAIN} {BOLD}{tool}{PLAIN} asks: {}", harmless(message));
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut answer = Map::new();
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            match value(self, name, property).await? {
                Some(value) => drop(answer.insert(name.clone(), value)),
                None if required.contains(&name.as_str()) => {
                    self.remark("declined");
                    return Ok(None);
                }
                None => {}
            }
        }
        Ok(Some(answer))
    }

    /// Asks a question that is answered in words. Without a terminal there is nobody to ask.
    pub(super) async fn asked(&self, question: &str) -> Option<String> {
        self.asks().ok()?;
        self.read(question).await
    }

    /// Asks a question that is answered with yes or no. Without a terminal there is nobody to ask.
    pub(super) async fn agree(&self, question: &str) -> Option<bool> {
        self.asks().ok()?;
        let answer = self.read(&format!("{BOLD}{YELLOW}?{PLAIN} {question} [y/N]: ")).await?;
        Some(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }

    /// Asks whether a call may run, and shows exactly what would.
    pub(super) async fn approve(&self, approval: &Approval) -> Result<Consent, Silence> {
        self.asks()?;
        let Approval { tool, arguments, folder, reason, .. } = approval;
        eprintln!("{BOLD}{YELLOW}?{PLAIN} {BOLD}{tool}{PLAIN} wants to run ({reason})");
        let diff = edited(arguments);
        for (name, value) in arguments.iter().filter(|(name, _)| diff.is_none() || !is_edit(name)) {
            eprintln!("    {name}: {}", argument(name, value));
        }
        eprint!("{}", diff.unwrap_or_default());
        eprintln!("    {DIM}in {}{PLAIN}", folder.display());
        loop {
            let answer =
                self.answer("  run it? [y]es once, [a]lways in this session, [n]o, [d] never: ").await?;
            match answer.trim().to_lowercase().as_str() {
                "y" | "yes" => return Ok(Consent::Once),
                "a" | "always" => return Ok(Consent::Always),
                "n" | "no" | "" => return Ok(Consent::No),
                "d" | "never" => return Ok(Consent::Never),
                _ => {}
            }
        }
    }
}

/// A text after something that stands to the left of all its lines.
pub(super) fn hanging(lead: &str, text: &str) -> String {
    let mut wrap = Wrap::new(tty::columns(&io::stdout()));
    let mut out = String::new();
    wrap.begin(lead, &mut out);
    wrap.words(text, &mut out);
    wrap.end(&mut out);
    out
}

pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| io::Error::new(error.kind(), format!("cannot write to standard output: {error}")))
}

/// Prints a value as one line of JSON.
pub(super) fn tell(value: &impl Serialize) -> io::Result<()> {
    print(&format!("{}\n", serde_json::to_string(value)?))
}

/// What did not become a turn, as the line that every turn ends in.
pub(super) fn result(failure: &Failure) -> Value {
    let stop = match failure.code() {
        code::INTERRUPTED | code::TERMINATED => "cancelled",
        _ => "failed",
    };
    let (error, hint) = (&failure.message, &failure.hint);
    json!({"type": "result", "text": "", "stop": stop, "error": error, "hint": hint})
}

/// An argument as it is shown before it is used.
fn argument(name: &str, value: &Value) -> String {
    match (name, value) {
        ("argv", Value::Array(words)) if words.iter().all(Value::is_string) => typed(words),
        _ => indented(value),
    }
}

/// Whether an argument of this name is shown as one side of a diff.
fn is_edit(name: &str) -> bool {
    ["old", "new"].contains(&name)
}

/// What a call would take away and put there, if it is one that edits.
fn edited(arguments: &Map<String, Value>) -> Option<String> {
    let text = |name: &str| arguments.get(name).and_then(Value::as_str);
    Some(diff(text("old")?, text("new")?))
}

/// Two texts as one; lines that both begin and end with are there once.
fn diff(old: &str, new: &str) -> String {
    let (old, new) = (harmless(old), harmless(new));
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same = |(old, new): &(&&str, &&str)| old == new;
    let (mut head, mut tail) = (old.iter().zip(&new).take_while(same).count(), 0);
    match old.len() == new.len() && head == old.len() {
        // Another end of the last line: something to be seen all the same.
        true => head = 0,
        false => tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(same).count(),
    }
    let (gone, come) = (old.len() - tail, new.len() - tail);
    let parts = [
        (DIM, " ", &old[..head]),
        (RED, "-", &old[head..gone]),
        (GREEN, "+", &new[head..come]),
        (DIM, " ", &old[gone..]),
    ];
    let shown = |(colour, sign, lines): (&str, &str, &[&str])| {
        let kept = lines.iter().take(LINES).map(|line| format!("    {colour}{sign} {line}{PLAIN}\n"));
        let more = lines.len().saturating_sub(LINES);
        let rest = (more > 0).then(|| format!("    {DIM}{sign} … {more} more lines{PLAIN}\n"));
        kept.chain(rest).collect::<String>()
    };
    parts.map(shown).concat()
}

/// A program and its arguments as they would be typed.
fn typed(words: &[Value]) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./=:,+@%".contains(letter);
    let quote = |word: &str| match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", harmless(word).replace('\'', r"'\''")),
    };
    let words: Vec<_> = words.iter().filter_map(Value::as_str).map(quote).collect();
    indented(&words.join(" ").into())
}

/// Asks for one value, described by JSON Schema, until the answer is one; `None` for an empty line
/// where there is no default.
async fn value(screen: &Screen, name: &str, schema: &Value) -> Result<Option<Value>, Silence> {
    let about = ["title", "description"].iter().find_map(|key| schema[key].as_str()).unwrap_or(name);
    let choices: Vec<&Value> = schema["enum"].as_array().into_iter().flatten().collect();
    let default = schema.get("default");
    let kind = match schema["type"].as_str() {
        _ if !choices.is_empty() => choices.iter().map(|choice| plain(choice)).collect::<Vec<_>>().join(", "),
        Some("boolean") => "yes or no".to_owned(),
        Some(kind @ ("integer" | "number")) => kind.to_owned(),
        _ => "text".to_owned(),
    };
    let default_shown = default.map(|value| format!("; {} if empty", plain(value))).unwrap_or_default();
    loop {
        let line = screen.answer(&format!("  {about} ({kind}{default_shown}): ")).await?;
        let line = line.trim();
        if line.is_empty() {
            return Ok(default.cloned());
        }
        let read = match schema["type"].as_str() {
            _ if !choices.is_empty() => choices.iter().find(|choice| plain(choice) == line).copied().cloned(),
            Some("boolean") => match line.to_lowercase().as_str() {
                "y" | "yes" | "true" => Some(true.into()),
                "n" | "no" | "false" => Some(false.into()),
                _ => None,
            },
            Some("integer") => line.parse::<i64>().ok().map(Value::from),
            Some("number") => line.parse::<f64>().ok().map(Value::from),
            _ => Some(line.into()),
        };
        match read {
            Some(value) => return Ok(Some(value)),
            None => eprintln!("  `{line}` is not one of: {kind}"),
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A text without what a terminal would take for orders: whoever wrote it must not be able to hide
/// or forge what is on the screen.
fn harmless(text: &str) -> Cow<'_, str> {
    let is_order = |letter: char| letter.is_control() && !['\n', '\t'].contains(&letter);
    match text.contains(is_order) {
        true => Cow::Owned(text.replace("\r\n", "\n").replace(is_order, "\u{fffd}")),
        false => Cow::Borrowed(text),
    }
}

/// A value over several lines as people read it, clipped.
fn indented(value: &Value) -> String {
    let text = match value {
        Value::String(text) => harmless(text).into_owned(),
        other => other.to_string(),
    };
    let lines: Vec<_> = text.lines().take(LINES).collect();
    let rest = text.lines().count().saturating_sub(lines.len());
    let shown = lines.join("\n      ");
    if rest == 0 { shown } else { format!("{shown}\n      … {rest} more lines") }
}

/// Shows one turn while it goes on.
pub(super) struct Show<'a> {
    screen: &'a Screen,
    spinner: Option<ProgressBar>,
    /// Whether the answer's last line is still open.
    open: bool,
    shown: usize,
    /// Who answers.
    model: String,
    /// Makes markdown readable, on a terminal that can show it.
    markdown: Option<Markdown>,
    /// What calls that go on will have changed, where nobody was shown it before.
    edits: HashMap<String, String>,
    last: Last,
}

/// What was shown last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Nothing,
    /// A piece of the answer.
    Words,
    /// A line about what goes on.
    Work,
}

impl<'a> Show<'a> {
    pub(super) fn new(screen: &'a Screen) -> Self {
        let markdown = renders().then(Markdown::default);
        Self {
            screen,
            spinner: None,
            open: false,
            shown: 0,
            model: String::new(),
            markdown,
            edits: HashMap::new(),
            last: Last::Nothing,
        }
    }

    /// Leaves a line between words and work, where both are on the same screen.
    fn turn_to(&mut self, next: Last) {
        let last = std::mem::replace(&mut self.last, next);
        let is_airy = self.markdown.is_some() && io::stderr().is_terminal() && !self.screen.quiet;
        if is_airy && last != Last::Nothing && last != next {
            self.rest();
            eprintln!();
        }
    }

    /// Shows an event. An error means that nobody reads any more.
    pub(super) fn event(&mut self, event: &Event) -> io::Result<()> {
        if self.screen.json {
            return self.screen.value(event);
        }
        match &event.kind {
            EventKind::Started { model } => {
                self.model.clone_from(model);
                self.spin(model);
            }
            EventKind::Recalled { episodes } => {
                self.close()?;
                let (notes, them) = if episodes.len() == 1 { ("note", "it") } else { ("notes", "them") };
                let count = episodes.len();
                self.screen.remark(&format!("recalled {count} {notes}; `omni memory why` shows {them}"));
            }
            EventKind::Text { text } => self.text(text)?,
            EventKind::Reasoning { text } if self.screen.verbose => {
                self.rest();
                eprint!("{DIM}{}{PLAIN}", harmless(text));
            }
            // What a tool calls is its own affair, unless somebody wants to know it all.
            EventKind::ToolStarted { parent: Some(_), .. }
            | EventKind::ToolFinished { parent: Some(_), .. }
                if !self.screen.verbose => {}
            EventKind::ToolStarted { call, tool, arguments, .. } => self.started(call, tool, arguments)?,
            EventKind::ToolProgress { progress, total, message, .. } => {
                self.spin(&progress_line(*progress, *total, message.as_deref()));
            }
            EventKind::ToolFinished { tool, result, milliseconds, .. } => {
                self.finished(tool, result, *milliseconds)?;
            }
            EventKind::Notice { text } => {
                self.work()?;
                self.screen.remark(&format!("note: {text}"));
            }
            EventKind::Finished(finished) => self.end(finished)?,
            EventKind::Approval(approval) => {
                self.edits.remove(&approval.call);
                self.rest();
            }
            EventKind::Reasoning { .. } | EventKind::Elicitation(_) | EventKind::Usage(_) => self.rest(),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        self.shown += text.len();
        match &mut self.markdown {
            Some(markdown) => {
                markdown.fit(tty::columns(&io::stdout()).unwrap_or(usize::MAX));
                let ready = markdown.push(&harmless(text));
                self.put(&ready)
            }
            None if io::stdout().is_terminal() => self.put(&harmless(text)),
            None => self.put(text),
        }
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        if !self.open {
            self.turn_to(Last::Words);
        }
        self.rest();
        self.open = !text.ends_with('\n');
        self.screen.print(text)
    }

    fn started(&mut self, call: &str, tool: &str, arguments: &Map<String, Value>) -> io::Result<()> {
        self.work()?;
        self.edits.extend(edited(arguments).map(|diff| (call.to_owned(), diff)));
        if self.screen.verbose {
            eprintln!("{DIM}● {tool} {}{PLAIN}", Value::Object(arguments.clone()));
        }
        self.spin(tool);
        Ok(())
    }

    fn finished(&mut self, tool: &str, result: &ToolResult, milliseconds: f64) -> io::Result<()> {
        self.work()?;
        let edit = self.edits.remove(&result.call).filter(|_| !result.is_error);
        if self.screen.quiet {
            return Ok(());
        }
        let sign = if result.is_error { WRONG } else { FINE };
        // What was refused took no time.
        let gist = match milliseconds < 0.05 {
            true => summary(result),
            false => format!("{} · {}", lasted(milliseconds), summary(result)),
        };
        let room =
            tty::columns(&io::stderr()).map_or(usize::MAX, |columns| columns.saturating_sub(width(tool) + 3));
        eprintln!("{sign} {BOLD}{tool}{PLAIN} {DIM}{}{PLAIN}", clip(&gist, room));
        eprint!("{}", edit.unwrap_or_default());
        if self.screen.verbose {
            eprintln!("{DIM}{}{PLAIN}", harmless(&result.text()));
        }
        // It is the model's turn again, and that may take a while.
        let model = self.model.clone();
        self.spin(&model);
        Ok(())
    }

    fn end(&mut self, finished: &Finished) -> io::Result<()> {
        self.rest();
        if self.shown == 0 && !finished.text.is_empty() {
            self.text(&finished.text)?;
        }
        self.close()?;
        if finished.stop == StopReason::Cancelled {
            self.screen.remark("cancelled; what there was is kept");
        }
        if let Some(error) = &finished.error {
            let mut failure = Failure::new(1, error.clone());
            if finished.stop == StopReason::Unauthorized {
                failure = failure.hint("check the key; `omni doctor` says which one is used, and why");
            }
            self.screen.failure(&failure);
        }
        if self.screen.verbose {
            let usage = finished.usage;
            self.screen.remark(&format!(
                "{} · {} model calls · {} tool calls · {} tokens in ({} cached), {} out",
                lasted(finished.milliseconds),
                finished.rounds,
                finished.tool_calls,
                usage.input,
                usage.cached,
                usage.output
            ));
        }
        Ok(())
    }

    /// Makes room for a line about what goes on.
    fn work(&mut self) -> io::Result<()> {
        self.close()?;
        self.turn_to(Last::Work);
        Ok(())
    }

    /// Ends an open line of the answer, so that what follows begins a line.
    fn close(&mut self) -> io::Result<()> {
        if let Some(markdown) = &mut self.markdown {
            let rest = markdown.finish();
            self.put(&rest)?;
        }
        self.rest();
        if std::mem::take(&mut self.open) { self.screen.print("\n") } else { Ok(()) }
    }

    /// Shows that somebody works, until something is printed.
    pub(super) fn spin(&mut self, text: &str) {
        if self.screen.quiet || self.open || !io::stderr().is_terminal() {
            return;
        }
        let spinner = self.spinner.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{spinner:.dim} {msg:.dim} {elapsed:.dim}");
            let spinner = ProgressBar::new_spinner().with_style(style.expect("a fixed template"));
            spinner.enable_steady_tick(Duration::from_millis(120));
            spinner
        });
        // What is longer than a line is not taken away again.
        let room = tty::columns(&io::stderr()).map_or(usize::MAX, |columns| columns.saturating_sub(CLOCK));
        spinner.set_message(clip(&harmless(text), room));
    }

    /// Takes the spinner away: something is about to be printed.
    pub(super) fn rest(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }
}

/// Whether answers go to a terminal with colours; everything else gets them as they are.
fn renders() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
    let colours = anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
    io::stdout().is_terminal() && colours && !is_dumb
}

fn progress_line(progress: f64, total: Option<f64>, message: Option<&str>) -> String {
    let count = match total {
        Some(total) => format!("{progress}/{total}"),
        None => format!("{progress}"),
    };
    message.map_or(count.clone(), |message| format!("{count} {message}"))
}

/// A duration as people say it.
pub(super) fn lasted(milliseconds: f64) -> String {
    match milliseconds {
        under if under < 10.0 => format!("{under:.1} ms"),
        under if under < 1000.0 => format!("{under:.0} ms"),
        over => format!("{:.1} s", over / 1000.0),
    }
}

/// The gist of a result: its one line, what is in it, or how much there is.
fn summary(result: &ToolResult) -> String {
    let text = harmless(&result.text()).into_owned();
    if let Ok(value @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(&text) {
        return contents(&value);
    }
    let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("no output").trim();
    if lines > 1 && !result.is_error {
        return format!("{lines} lines");
    }
    clip(first, 100)
}

/// What a value of JSON has in it, in a line.
fn contents(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let is_empty = |value: &Value| value.is_null() || value.as_str() == Some("");
            let fields = map.iter().filter(|(_, value)| !is_empty(value));
            fields.map(|(name, value)| format!("{name}: {}", contents(value))).collect::<Vec<_>>().join(", ")
        }
        Value::Array(values) => format!("{} entries", values.len()),
        Value::String(text) => match text.trim().split_once('\n') {
            Some((first, _)) => format!("{} …", first.trim_end()),
            None => text.trim().to_owned(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_result_is_told_in_a_line() {
        let told = |text: &str| {
            let content = vec![crate::message::Block::Text { text: text.to_owned() }];
            let (call, name) = ("c".to_owned(), "t".to_owned());
            summary(&ToolResult {
                call,
                name,
                content,
                structured: None,
                is_error: false,
                changes: Vec::new(),
            })
        };
        assert_eq!(told("one\n\ntwo\n"), "2 lines");
        assert_eq!((told("  done "), told("")), ("done".to_owned(), "no output".to_owned()));
        let ran = json!({"exit_code": 0, "stdout": "12 passed\nin 3 s\n", "stderr": "", "note": null, "files": [1, 2]});
        assert_eq!(told(&ran.to_string()), "exit_code: 0, stdout: 12 passed …, files: 2 entries");
    }

    #[test]
    fn an_edit_is_shown_as_a_diff() {
        let plain = |old: &str, new: &str| anstream::adapter::strip_str(&diff(old, new)).to_string();
        assert_eq!(plain("a\nb\nz", "a\nc\nd\nz"), "      a\n    - b\n    + c\n    + d\n      z\n");
        assert_eq!(plain("a\na", "a"), "      a\n    - a\n");
        assert_eq!(plain("", "a"), "    + a\n");
        assert_eq!(plain("a", "a\n"), "    - a\n    + a\n");
        assert_eq!(plain("", &"x\n".repeat(LINES + 2)).lines().last(), Some("    + … 2 more lines"));
    }

    #[test]
    fn a_program_is_shown_as_it_would_be_typed() {
        let shown = |words: Value| argument("argv", &words);
        assert_eq!(shown(json!(["ls", "-l", "a/b.txt"])), "ls -l a/b.txt");
        assert_eq!(shown(json!(["sh", "-c", "echo it's; ls", ""])), r"sh -c 'echo it'\''s; ls' ''");
        assert_eq!(shown(json!(["printf", "\u{1b}[2J"])), "printf '\u{fffd}[2J'");
        assert_eq!(shown(json!(["a", 1])), r#"["a",1]"#);
    }
}
