//! What may be chosen in a session: who is asked, which model answers, how much it thinks.

use agent_client_protocol::Error;
use agent_client_protocol::v1::schema::{
    SessionConfigOption, SessionConfigOptionCategory, SessionConfigSelectOption, SessionMode,
    SessionModeState,
};

use super::invalid;
use crate::hub::Mode;

/// What a mode is called where people choose it.
fn title(mode: Mode) -> &'static str {
    match mode {
        Mode::Ask => "Ask",
        Mode::Allow => "Allow",
    }
}

/// How much a model thinks: as it does by itself, or as `model.effort` has it.
const USUAL: &str = "usual";
const EFFORTS: [(&str, &str); 4] =
    [(USUAL, "As usual"), ("low", "Low"), ("medium", "Medium"), ("high", "High")];

/// A model one may choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// Its name.
    pub name: String,
    /// Whether it can be told how much to think.
    pub thinks: bool,
}

/// What was chosen, of what there is.
#[derive(Debug, Clone)]
pub(super) struct Choices {
    pub(super) mode: Mode,
    /// The first is used if none is chosen.
    models: Vec<Offered>,
    model: usize,
    effort: Option<String>,
}

impl Choices {
    pub(super) fn new(models: Vec<Offered>) -> Self {
        Self { mode: Mode::Ask, models, model: 0, effort: None }
    }

    /// The model, if it is another one than is used anyway.
    pub(super) fn model(&self) -> Option<&str> {
        let chosen = self.models.get(self.model).filter(|_| self.model > 0);
        chosen.map(|model| model.name.as_str())
    }

    /// How much it thinks, if that was chosen.
    pub(super) fn effort(&self) -> Option<&str> {
        self.effort.as_deref().filter(|_| self.thinks())
    }

    fn thinks(&self) -> bool {
        self.models.get(self.model).is_some_and(|model| model.thinks)
    }

    /// Chooses; the error says what is wrong with it.
    pub(super) fn choose(&mut self, option: &str, value: &str) -> Result<(), Error> {
        match option {
            "mode" => self.mode = Mode::named(value).map_err(invalid)?,
            "model" => {
                let place = self.models.iter().position(|model| model.name == value);
                self.model =
                    place.ok_or_else(|| invalid(format!("there is no model `{value}` to choose")))?;
            }
            "thought_level" if self.thinks() => {
                let known = EFFORTS.iter().any(|(effort, _)| *effort == value);
                let unknown = || invalid(format!("there is no level `{value}` to choose"));
                let value = known.then(|| value.to_owned()).ok_or_else(unknown)?;
                self.effort = Some(value).filter(|value| value != USUAL);
            }
            other => return Err(invalid(format!("there is no option `{other}`"))),
        }
        Ok(())
    }

    pub(super) fn modes(&self) -> SessionModeState {
        let mode =
            |mode: Mode| SessionMode::new(mode.name(), title(mode)).description(mode.about().to_owned());
        SessionModeState::new(self.mode.name(), Mode::ALL.into_iter().map(mode).collect())
    }

    /// All of it, as editors show it.
    pub(super) fn options(&self) -> Vec<SessionConfigOption> {
        let modes = Mode::ALL.into_iter().map(|mode| {
            SessionConfigSelectOption::new(mode.name(), title(mode)).description(mode.about().to_owned())
        });
        let modes: Vec<_> = modes.collect();
        let mode = SessionConfigOption::select("mode", "Permissions", self.mode.name(), modes);
        let mut options = vec![mode.category(SessionConfigOptionCategory::Mode)];
        if let Some(current) = self.models.get(self.model) {
            let model =
                |model: &Offered| SessionConfigSelectOption::new(model.name.clone(), model.name.clone());
            let models: Vec<_> = self.models.iter().map(model).collect();
            let model = SessionConfigOption::select("model", "Model", current.name.clone(), models);
            options.push(model.category(SessionConfigOptionCategory::Model));
        }
        if self.thinks() {
            let efforts = EFFORTS.map(|(effort, name)| SessionConfigSelectOption::new(effort, name));
            let current = self.effort.clone().unwrap_or_else(|| USUAL.to_owned());
            let level = SessionConfigOption::select("thought_level", "Thinking", current, efforts.to_vec());
            options.push(level.category(SessionConfigOptionCategory::ThoughtLevel));
        }
        options
    }
}
