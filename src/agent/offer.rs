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

    /// Those for a turn of this conversation with a model of this window, in the order of their names.
    ///
    /// They stay the same to the end of the turn, and as far as they can from turn to turn: what comes first in a
    /// prompt is cached. A message adds what it may be about; only where there is no more room they begin anew
    /// with it.
    pub(super) fn for_turn(self, window: usize, messages: &[Message]) -> Self {
        let room = (window / SHARE).max(LEAST);
        if weight(&self.tools) <= room {
            return self;
        }
        let finders: Vec<ToolDefinition> = self.toolbox.finders().iter().map(definition).collect();
        let room = room.saturating_sub(weight(&finders));
        let mut shown = Shown::default();
        let from = messages.len().saturating_sub(MESSAGES);
        for message in &messages[from..] {
            let wanted = self.wanted(message);
            let first = &wanted[..wanted.len().min(FIRST)];
            if !shown.add(first, room, &self.tools) {
                shown = Shown::default();
                shown.add(first, room, &self.tools);
            }
            // Half of the room is left for what comes later.
            for place in &wanted[first.len()..] {
                shown.add(&[*place], room / 2, &self.tools);
            }
        }
        let shown = self.tools.iter().enumerate().filter(|(place, _)| shown.places.contains(place));
        let tools = shown.map(|(_, tool)| tool.clone()).chain(finders).collect();
        Self { tools, ..self }
    }

    /// The places of the tools that a message calls or may be about, the likeliest first.
    fn wanted(&self, message: &Message) -> Vec<usize> {
        match message.role {
            Role::User => {
                let said = message.text();
                let said: Vec<_> = said.split_whitespace().take(WORDS).collect();
                self.toolbox.rank(&said.join(" "))
            }
            // What was kept of a result is for another tool.
            Role::Tool => self.places(std::iter::once(spill::READ)),
            _ => self.places(message.calls().map(find::about)),
        }
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
