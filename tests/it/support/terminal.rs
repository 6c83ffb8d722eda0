//! A terminal with the program in it: tmux, on a socket of its own.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::omni::{OMNI, Run, World};

/// No screen here takes longer to come, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal of 80 columns and 24 rows. It is closed when dropped.
pub struct Terminal<'a> {
    world: &'a World,
    socket: PathBuf,
}

impl<'a> Terminal<'a> {
    /// Starts the program in it; `prepare` sets its environment.
    pub fn open(world: &'a World, arguments: &[&str], prepare: impl Fn(Run) -> Run) -> Self {
        Self::run(world, &format!("{OMNI} {}", arguments.join(" ")), prepare)
    }

    /// The same for any command of a shell.
    pub fn run(world: &'a World, command: &str, prepare: impl Fn(Run) -> Run) -> Self {
        let socket = world.home().join(format!("tmux-{}", uuid::Uuid::new_v4().simple()));
        let terminal = Self { world, socket };
        // It stays when the program ends, so that its last words can be read.
        let command = format!("{command}; echo left with $?; sleep 600");
        let words = ["new-session", "-d", "-x", "80", "-y", "24", command.as_str()];
        prepare(terminal.tmux(&words)).run().succeeded();
        terminal
    }

    fn tmux(&self, words: &[&str]) -> Run {
        let socket = self.socket.display().to_string();
        self.world.program(&[&["tmux", "-f", "/dev/null", "-S", &socket], words].concat())
    }

    /// Types text as it is.
    pub fn types(&self, text: &str) -> &Self {
        self.tmux(&["send-keys", "-l", text]).run().succeeded();
        self
    }

    /// Presses keys by their names: `Enter`, `Tab`, `C-c`, `M-Enter`.
    pub fn presses(&self, keys: &[&str]) -> &Self {
        self.tmux(&[&["send-keys"], keys].concat()).run().succeeded();
        self
    }

    /// Changes its width.
    pub fn resize(&self, columns: u16) -> &Self {
        self.tmux(&["resize-window", "-x", &columns.to_string()]).run().succeeded();
        self
    }

    /// What is on the screen, and what has scrolled off it.
    pub fn screen(&self) -> String {
        let captured = self.tmux(&["capture-pane", "-p", "-S", "-"]).run().succeeded();
        let lines: Vec<&str> = captured.out.lines().map(str::trim_end).collect();
        lines.join("\n").trim_end().to_owned()
    }

    /// The same with its colours.
    pub fn coloured(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e", "-S", "-"]).run().succeeded().out
    }

    /// What is on the screen alone.
    pub fn visible(&self) -> String {
        self.tmux(&["capture-pane", "-p"]).run().succeeded().out.trim_end().to_owned()
    }

    /// Waits until these words are on the screen, and returns it.
    #[track_caller]
    pub fn until(&self, words: &str) -> String {
        self.when(&format!("`{words}`"), |screen| screen.contains(words))
    }

    /// Waits until the screen is like this, and returns it.
    #[track_caller]
    pub fn when(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if is_it(&screen) {
                return screen;
            }
            assert!(begun.elapsed() < PATIENCE, "{what} was never there, but:\n{screen}");
            std::thread::sleep(Duration::from_millis(30));
        }
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]).run();
    }
}
