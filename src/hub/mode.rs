//! Whether tools ask first: chosen by a person, for one conversation.

use super::Lane;

/// Whether tools that may destroy something ask first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They do.
    Ask,
    /// They do not.
    Allow,
}

impl Mode {
    /// The modes there are, the usual one first.
    pub const ALL: [Self; 2] = [Self::Ask, Self::Allow];

    /// The mode of this name.
    pub fn named(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|mode| mode.name() == name);
        found.ok_or_else(|| {
            format!("there is no mode `{name}`; there are {}", Self::ALL.map(Self::name).join(" and "))
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::Allow => "allow",
        }
    }

    /// What it means.
    pub fn about(self) -> &'static str {
        match self {
            Self::Ask => "Ask before a tool changes or destroys something",
            Self::Allow => "Run tools without asking; what `policy.deny` names stays denied",
        }
    }
}

impl Lane {
    /// Whether tools ask in this session.
    pub fn mode(&self) -> Mode {
        if self.consents.is_all() { Mode::Allow } else { Mode::Ask }
    }

    /// Chooses that, for as long as somebody holds the lane. What was never to run stays so.
    pub fn choose(&self, mode: Mode) {
        self.consents.keep_all(mode == Mode::Allow);
    }
}

/// Does what `/mode` says, and says what came of it.
pub(super) fn said(lane: Option<&Lane>, words: &str, asks: bool) -> String {
    let Some(lane) = lane else {
        return "this is chosen when omni is started, and not here: `--yes`, or `policy.allow` in the settings"
            .to_owned();
    };
    if words.is_empty() {
        let now = lane.mode();
        let line = |mode: Mode| {
            let mark = if mode == now { " (now)" } else { "" };
            format!("{}{mark}: {}", mode.name(), mode.about())
        };
        let mut lines: Vec<_> = Mode::ALL.into_iter().map(line).collect();
        if !asks {
            lines.push("no tool asks anyway: the settings or `--yes` say so".to_owned());
        }
        return lines.join("\n");
    }
    match Mode::named(words) {
        Ok(mode) => {
            lane.choose(mode);
            format!("{}, in this conversation: {}", mode.name(), mode.about())
        }
        Err(unknown) => unknown,
    }
}
