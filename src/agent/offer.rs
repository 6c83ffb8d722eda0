//! Which tools a model is shown in a turn.

use std::collections::HashSet;
use std::sync::Arc;

use crate::llm::ToolDefinition;
use crate::message::{Message, Role};
use crate::session::window;
use crate::tool::{Definition, Toolbox, find, spill};

/// Tools may take this part of a model's window: one tenth. Where all take more, the model is shown
/// those that the conversation seems to be about, and finds the others itself.
const SHARE: usize = 10;
/// Tokens that tools may take of any window; one that is too small for these is too small for tools.
const LEAST: usize = 2000;
/// Words of a message that say what it is about.
const WORDS: usize = 200;
/// As many of the tools that a message may be about have to be there; others are there for what comes later.
const FIRST: usize = 5;
/// Messages that are looked at, counted from the last one.
const MESSAGES: usize = 50;

/// The tools of a turn.
#[derive(Clone)]
pub(super) struct Offer {
    pub(super) toolbox: Arc<Toolbox>,
    pub(super) tools: Arc<[ToolDefinition]>,
}

impl Offer {
    /// All there are.
    pub(super) fn new(toolbox: Arc<Toolbox>) -> Self {
        let tools = toolbox.definitions().iter().map(definition).collect();
        Self { toolbox, tools }
    }

    /// Whether a model of this window is shown all of them.
    pub(super) fn fits(&self, window: usize) -> bool {
        weight(&self.tools) <= room(window)
    }

    /// Those for a turn of this conversation with a model of this window, in the order of their names. `used` are
    /// those that have worked where something like it was asked; they come before others.
    ///
    /// They stay the same to the end of the turn, and as far as they can from turn to turn: what comes first in a
    /// prompt is cached. A message adds what it may be about; only where there is no more room they begin anew
    /// with it.
    pub(super) async fn for_turn(self, window: usize, messages: &[Message], used: &[String]) -> Self {
        if self.fits(window) {
            return self;
        }
        let finders: Vec<ToolDefinition> = self.toolbox.finders().iter().map(definition).collect();
        let room = room(window).saturating_sub(weight(&finders));
        let used = self.places(used.iter().map(String::as_str));
        let mut shown = Shown::default();
        shown.add_each(&used, room / 2, &self.tools);
        let from = messages.len().saturating_sub(MESSAGES);
        let messages = &messages[from..];
        for wanted in self.wanted(messages).await {
            let first = &wanted[..wanted.len().min(FIRST)];
            if !shown.add(first, room, &self.tools) {
                shown = Shown::default();
                shown.add_each(&used, room / 2, &self.tools);
                shown.add(first, room, &self.tools);
            }
            // Half of the room is left for what comes later.
            shown.add_each(&wanted[first.len()..], room / 2, &self.tools);
        }
        let shown = self.tools.iter().enumerate().filter(|(place, _)| shown.places.contains(place));
        let tools = shown.map(|(_, tool)| tool.clone()).chain(finders).collect();
        Self { tools, ..self }
    }

    /// The places of the tools that each message calls or may be about, the likeliest first.
    async fn wanted(&self, messages: &[Message]) -> Vec<Vec<usize>> {
        let said = messages.iter().filter(|message| message.role == Role::User).map(|message| {
            let said = message.text();
            said.split_whitespace().take(WORDS).collect::<Vec<_>>().join(" ")
        });
        let said: Vec<String> = said.collect();
        let ranked = self.toolbox.rank(&said.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let mut ranked = ranked.into_iter();
        let wanted = messages.iter().map(|message| match message.role {
            Role::User => ranked.next().unwrap_or_default(),
            // What was kept of a result is for another tool.
            Role::Tool => self.places(std::iter::once(spill::READ)),
            _ => self.places(message.calls().map(find::about)),
        });
        wanted.collect()
    }

    fn places<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<usize> {
        let place = |name: &str| self.tools.iter().position(|tool| tool.name == name || tool.title == name);
        names.filter_map(place).collect()
    }
}

/// The places of tools that are shown.
#[derive(Default)]
struct Shown {
    places: HashSet<usize>,
    weight: usize,
}

impl Shown {
    /// Adds these where they do not take more than `room` with those that are there; says whether they are there
    /// now.
    fn add(&mut self, places: &[usize], room: usize, tools: &[ToolDefinition]) -> bool {
        let more: HashSet<usize> =
            places.iter().copied().filter(|place| !self.places.contains(place)).collect();
        let weight = more.iter().map(|place| weigh(&tools[*place])).sum::<usize>();
        let fits = more.is_empty() || self.weight + weight <= room;
        if fits {
            self.places.extend(more);
            self.weight += weight;
        }
        fits
    }

    /// Adds each of these for which there is room.
    fn add_each(&mut self, places: &[usize], room: usize, tools: &[ToolDefinition]) {
        for place in places {
            self.add(&[*place], room, tools);
        }
    }
}

/// Tokens that tools may take of a window.
fn room(window: usize) -> usize {
    (window / SHARE).max(LEAST)
}

/// Tokens of the definitions of tools, estimated.
pub(super) fn weight(tools: &[ToolDefinition]) -> usize {
    tools.iter().map(weigh).sum()
}

fn weigh(tool: &ToolDefinition) -> usize {
    window::tokens(&tool.name)
        + window::tokens(&tool.description)
        + window::tokens(&tool.parameters.to_string())
}

fn definition(tool: &Definition) -> ToolDefinition {
    ToolDefinition {
        name: tool.wire.clone(),
        title: tool.name.clone(),
        description: tool.description.clone(),
        parameters: tool.parameters.clone(),
        examples: tool.examples.clone(),
        read_only: tool.read_only,
        fits: tool.fits,
    }
}
