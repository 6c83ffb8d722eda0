//! Where somebody types: lines with history and completion on a terminal, plain lines elsewhere.

use std::borrow::Cow;
use std::io::{self, BufRead, IsTerminal};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reedline::{
    Color, ColumnarMenu, Completer, CompletionResult, EditCommand, Emacs, FileBackedHistory, KeyCode,
    KeyModifiers, MenuBuilder, Prompt, PromptEditMode, PromptHistorySearch, Reedline, ReedlineEvent,
    ReedlineMenu, Signal, Span, Suggestion, ValidationResult, Validator, default_emacs_keybindings,
};
use tokio::sync::{mpsc, oneshot};

/// How long a reader may take to break off.
const PATIENCE: Duration = Duration::from_secs(1);
/// Messages that are kept for the next time.
const HISTORY: usize = 2000;
/// Suggestions that are shown.
const SUGGESTIONS: usize = 40;
/// What Ctrl-C is to the editor.
const INTERRUPT: &str = "interrupt";
const MENU: &str = "completion";

/// What somebody typed.
#[derive(Debug, PartialEq)]
pub(super) enum Typed {
    /// A line, or several.
    Line(String),
    /// Ctrl-C, with nothing on the line.
    Interrupted,
    /// There is no more.
    End,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A message: it is kept in the history, and may have several lines.
    Message,
    /// The answer to a question.
    Answer,
    /// Nothing, but one's turn.
    Nothing,
}

/// What the editor knows of its surroundings.
#[derive(Debug, Clone, Default)]
pub(super) struct Surroundings {
    /// The file that earlier messages are kept in.
    pub(super) history: Option<PathBuf>,
    /// What begins with a slash, and what it does.
    pub(super) commands: Vec<(String, &'static str)>,
    /// Where names of files begin.
    pub(super) workspace: PathBuf,
}

/// The thread that reads. Reading blocks and cannot be cancelled from outside; a reader that is no
/// longer waited for is told to break off.
pub(super) struct Editor {
    requests: mpsc::Sender<Request>,
    broken_off: Arc<AtomicBool>,
}

struct Request {
    wanted: Wanted,
    prompt: String,
    answer: oneshot::Sender<Typed>,
}

impl Editor {
    pub(super) fn start(surroundings: Surroundings) -> Self {
        let (requests, wanted) = mpsc::channel(1);
        let broken_off = Arc::<AtomicBool>::default();
        let editor = Self { requests, broken_off: broken_off.clone() };
        std::thread::spawn(move || serve(wanted, &surroundings, &broken_off));
        editor
    }

    /// Waits until nobody reads any more, and the terminal is as it was before.
    pub(super) async fn rest(&self) {
        // Whoever reads from a pipe is not broken off, and has nothing to restore.
        let _ = tokio::time::timeout(PATIENCE, self.read(Wanted::Nothing, "")).await;
    }

    /// Reads one thing. Dropped while it waits, it takes the prompt away.
    pub(super) async fn read(&self, wanted: Wanted, prompt: &str) -> Typed {
        let (answer, typed) = oneshot::channel();
        let request = Request { wanted, prompt: prompt.to_owned(), answer };
        if self.requests.send(request).await.is_err() {
            return Typed::End;
        }
        let mut waiting = Waiting { typed, broken_off: self.broken_off.clone() };
        (&mut waiting.typed).await.unwrap_or(Typed::End)
    }
}

/// Reads what is wanted, one after the other.
fn serve(mut wanted: mpsc::Receiver<Request>, surroundings: &Surroundings, broken_off: &Arc<AtomicBool>) {
    let mut reader = Reader::new(surroundings, broken_off.clone());
    let mut left = None;
    while let Some(request) = wanted.blocking_recv() {
        broken_off.store(false, Ordering::SeqCst);
        // Who has gone meanwhile is asked nothing.
        if request.answer.is_closed() {
            continue;
        }
        if request.wanted == Wanted::Nothing {
            let _ = request.answer.send(Typed::End);
            continue;
        }
        let typed = left.take().unwrap_or_else(|| reader.read(request.wanted, &request.prompt));
        // What nobody waits for any more is for whoever comes next.
        if let Err(typed @ Typed::Line(_)) = request.answer.send(typed) {
            left = Some(typed);
        }
    }
}

/// Breaks the reading off when it is dropped.
struct Waiting {
    typed: oneshot::Receiver<Typed>,
    broken_off: Arc<AtomicBool>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // In this order: a reader that looks in between sees one of them.
        self.typed.close();
        self.broken_off.store(true, Ordering::SeqCst);
    }
}

enum Reader {
    Terminal { messages: Box<Reedline>, answers: Box<Reedline> },
    Lines,
}

impl Reader {
    fn new(surroundings: &Surroundings, broken_off: Arc<AtomicBool>) -> Self {
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            return Self::Lines;
        }
        let answers = plain(broken_off.clone());
        Self::Terminal { messages: Box::new(messages(surroundings, broken_off)), answers: Box::new(answers) }
    }

    fn read(&mut self, wanted: Wanted, prompt: &str) -> Typed {
        let editor = match self {
            Self::Lines => return line(prompt),
            Self::Terminal { messages, .. } if wanted == Wanted::Message => messages,
            Self::Terminal { answers, .. } => answers,
        };
        loop {
            let colour = if wanted == Wanted::Message { Color::Green } else { Color::Default };
            match editor.read_line(&Sign { text: prompt.to_owned(), colour }) {
                Ok(Signal::Success(text)) => {
                    // Nobody waits for this thread when the program ends.
                    let _ = editor.sync_history();
                    return Typed::Line(text);
                }
                Ok(Signal::HostCommand(_)) if !editor.current_buffer_contents().is_empty() => {
                    editor.run_edit_commands(&[EditCommand::Clear]);
                }
                Ok(Signal::HostCommand(_) | Signal::CtrlC | Signal::ExternalBreak(_)) => {
                    anstream::eprintln!();
                    return Typed::Interrupted;
                }
                Ok(Signal::CtrlD | _) | Err(_) => return Typed::End,
            }
        }
    }
}

/// A line from a pipe, or from a terminal whose other end is none.
fn line(prompt: &str) -> Typed {
    if io::stdin().is_terminal() {
        anstream::eprint!("{prompt}");
    }
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line) {
        Ok(0) | Err(_) => Typed::End,
        Ok(_) => Typed::Line(line.trim_end_matches(['\n', '\r']).to_owned()),
    }
}

fn plain(broken_off: Arc<AtomicBool>) -> Reedline {
    Reedline::create()
        .with_ansi_colors(coloured())
        .with_break_signal(broken_off)
        .with_edit_mode(Box::new(Emacs::new(keys())))
}

fn messages(surroundings: &Surroundings, broken_off: Arc<AtomicBool>) -> Reedline {
    let completer =
        Names { commands: surroundings.commands.clone(), workspace: surroundings.workspace.clone() };
    // The colours of the terminal, whichever they are.
    let plain_text = Color::Default;
    let menu = ColumnarMenu::default()
        .with_name(MENU)
        .with_marker("")
        .with_text_style(plain_text.normal())
        .with_match_text_style(plain_text.bold())
        .with_selected_text_style(plain_text.reverse())
        .with_selected_match_text_style(plain_text.reverse())
        .with_description_text_style(plain_text.dimmed());
    let mut editor = plain(broken_off)
        .use_bracketed_paste(true)
        .with_validator(Box::new(Whole))
        .with_completer(Box::new(completer))
        .with_partial_completions(true)
        .with_quick_completions(true)
        .with_menu(ReedlineMenu::EngineCompleter(Box::new(menu)))
        // What begins with a space is nobody's business.
        .with_history_exclusion_prefix(Some(" ".to_owned()));
    if let Some(history) = surroundings.history.as_deref().and_then(history) {
        editor = editor.with_history(Box::new(history));
    }
    if let Some(command) = ["VISUAL", "EDITOR"].iter().find_map(|name| std::env::var(name).ok()) {
        let mut words = command.split_whitespace();
        if let Some(program) = words.next() {
            let mut command = Command::new(program);
            command.args(words);
            let draft = std::env::temp_dir().join(format!("omni-message-{}.md", std::process::id()));
            editor = editor.with_buffer_editor(command, draft);
        }
    }
    editor
}

/// The messages of earlier times; only their owner can read them.
fn history(file: &Path) -> Option<FileBackedHistory> {
    std::fs::create_dir_all(file.parent()?).ok()?;
    let opened = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(file).ok()?;
    opened.set_permissions(std::fs::Permissions::from_mode(0o600)).ok()?;
    FileBackedHistory::with_file(HISTORY, file.to_owned()).ok()
}

fn keys() -> reedline::Keybindings {
    let mut keys = default_emacs_keybindings();
    let interrupt = ReedlineEvent::ExecuteHostCommand(INTERRUPT.to_owned());
    let interrupt = ReedlineEvent::Multiple(vec![ReedlineEvent::Esc, interrupt]);
    keys.add_binding(KeyModifiers::CONTROL, KeyCode::Char('c'), interrupt);
    let newline = ReedlineEvent::Edit(vec![EditCommand::InsertNewline]);
    keys.add_binding(KeyModifiers::ALT, KeyCode::Enter, newline.clone());
    keys.add_binding(KeyModifiers::SHIFT, KeyCode::Enter, newline);
    let complete = vec![ReedlineEvent::Menu(MENU.to_owned()), ReedlineEvent::MenuNext];
    keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, ReedlineEvent::UntilFound(complete));
    keys.add_binding(KeyModifiers::SHIFT, KeyCode::BackTab, ReedlineEvent::MenuPrevious);
    keys
}

fn coloured() -> bool {
    anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never
}

/// The sign in front of what is typed.
struct Sign {
    text: String,
    colour: Color,
}

impl Prompt for Sign {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.text)
    }

    fn get_prompt_color(&self) -> Color {
        self.colour
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed("  ")
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        Cow::Owned(format!("earlier, with `{}`: ", search.term))
    }
}

/// Says when a message is whole: not after a backslash, and not within a fence.
struct Whole;

impl Validator for Whole {
    fn validate(&self, text: &str) -> ValidationResult {
        let fences = text.lines().filter(|line| line.trim_start().starts_with("```")).count();
        match text.ends_with('\\') || fences % 2 == 1 {
            true => ValidationResult::Incomplete,
            false => ValidationResult::Complete,
        }
    }
}

/// Completes `/commands` and, after an `@`, names of files.
struct Names {
    commands: Vec<(String, &'static str)>,
    workspace: PathBuf,
}

impl Completer for Names {
    fn complete(&mut self, line: &str, end: usize) -> CompletionResult {
        let typed = &line[..end];
        let start = typed.rfind(char::is_whitespace).map_or(0, |place| place + 1);
        let span = Span::new(start, end);
        let word = &typed[start..];
        let suggestions = match word.strip_prefix('@') {
            Some(path) => files(&self.workspace, path, span),
            None if start == 0 && word.starts_with('/') => self.commands(word, span),
            None => Vec::new(),
        };
        CompletionResult::Fresh { suggestions: suggestions.into(), partial: None }
    }
}

impl Names {
    fn commands(&self, word: &str, span: Span) -> Vec<Suggestion> {
        let fitting = self.commands.iter().filter(|(name, _)| name.starts_with(word));
        let suggest = |(name, about): &(String, &'static str)| Suggestion {
            value: name.clone(),
            description: Some((*about).to_owned()),
            span,
            append_whitespace: true,
            ..Suggestion::default()
        };
        fitting.map(suggest).collect()
    }
}

/// Files whose path begins like that; those that are hidden only when a dot is typed.
fn files(workspace: &Path, path: &str, span: Span) -> Vec<Suggestion> {
    let (folder, begin) = path.rsplit_once('/').map_or(("", path), |(folder, begin)| (folder, begin));
    let Ok(entries) = std::fs::read_dir(workspace.join(folder)) else { return Vec::new() };
    let mut names: Vec<(String, bool)> = entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path().is_dir())))
        .filter(|(name, _)| name.starts_with(begin) && (begin.starts_with('.') || !name.starts_with('.')))
        .collect();
    names.sort();
    let before = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let suggest = |(name, is_folder): (String, bool)| Suggestion {
        value: format!("@{before}{name}{}", if is_folder { "/" } else { "" }),
        span,
        append_whitespace: !is_folder,
        ..Suggestion::default()
    };
    names.into_iter().take(SUGGESTIONS).map(suggest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suggested(names: &mut Names, line: &str) -> Vec<String> {
        let result = names.complete(line, line.len());
        result.suggestions().iter().map(|suggestion| suggestion.value.clone()).collect()
    }

    #[test]
    fn commands_and_files_are_completed() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("src")).expect("a folder");
        for name in ["src/main.rs", "read me.md", ".hidden", "Cargo.toml"] {
            std::fs::write(folder.path().join(name), "").expect("a file");
        }
        let commands = [("/new", "begin anew"), ("/resume", "go on"), ("/reset", "forget")];
        let commands = commands.map(|(name, about)| (name.to_owned(), about)).to_vec();
        let mut names = Names { commands, workspace: folder.path().to_owned() };
        assert_eq!(suggested(&mut names, "/re"), ["/resume", "/reset"]);
        assert!(suggested(&mut names, "what is /re").is_empty(), "a command stands first");
        assert_eq!(suggested(&mut names, "look at @"), ["@Cargo.toml", "@read me.md", "@src/"]);
        assert_eq!(suggested(&mut names, "look at @src/"), ["@src/main.rs"]);
        assert_eq!(suggested(&mut names, "@.h"), ["@.hidden"]);
        assert!(suggested(&mut names, "@nowhere/x").is_empty());
    }

    #[test]
    fn a_message_is_whole_when_nothing_is_open() {
        let is_whole = |text: &str| matches!(Whole.validate(text), ValidationResult::Complete);
        assert!(is_whole("a question") && is_whole("```\ncode\n```") && is_whole(""));
        assert!(!is_whole("a line \\") && !is_whole("```rust\nfn main() {}"));
    }
}
