//! Which tools a model is shown in a turn.

use std::collections::HashSet;
use std::sync::Arc;

use crate::llm::ToolDefinition;
use crate::message::{Message, Role};
use crate::session::window;
use crate::tool::{Definition, Toolbox, find, spill};

/// Tools may take this part of a model's window: one tenth. Where all take more, the model is shown
/// those that the turn seems to be about, and finds the others itself.
const SHARE: usize = 10;
/// Words of a message that say what it is about.
const WORDS: usize = 200;

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

    /// Those for a turn of this conversation with a model of this window. They stay the same to the end of
    /// the turn, in the order of their names: what comes first in a prompt is cached.
    ///
    /// Tools that the conversation has called come first, the latest before the others, then those that
    /// the last message of the user may be about.
    pub(super) fn for_turn(self, window: usize, messages: &[Message]) -> Self {
        let room = window / SHARE;
        if weight(&self.tools) <= room {
            return self;
        }
        let finders: Vec<ToolDefinition> = self.toolbox.finders().iter().map(definition).collect();
        let mut left = room.saturating_sub(weight(&finders));
        let called = messages.iter().rev().flat_map(Message::calls).map(find::about);
        let used = std::iter::once(spill::READ).chain(called);
        let used = used
            .filter_map(|name| self.tools.iter().position(|tool| tool.name == name || tool.title == name));
        let said = messages.iter().rev().find(|message| message.role == Role::User).map(Message::text);
        let said: Vec<_> = said.as_deref().unwrap_or_default().split_whitespace().take(WORDS).collect();
        let relevant = self.toolbox.rank(&said.join(" "));
        let mut shown = HashSet::new();
        for place in used.chain(relevant) {
            let weight = weigh(&self.tools[place]);
            if weight <= left && shown.insert(place) {
                left -= weight;
            }
        }
        let shown = self.tools.iter().enumerate().filter(|(place, _)| shown.contains(place));
        let tools = shown.map(|(_, tool)| tool.clone()).chain(finders).collect();
        Self { tools, ..self }
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
