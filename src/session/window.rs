//! What of a conversation is shown to a model (pure).

use crate::message::{Block, Message, Part, Role, ToolResult};

/// Characters of a shortened result that stay, so that the model still knows what it was.
const STUB: usize = 200;

/// A conversation that was made to fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    /// What is left, in its order.
    pub messages: Vec<Message>,
    /// Messages left out.
    pub dropped: usize,
    /// Messages whose tool results were shortened.
    pub shortened: usize,
}

/// Fits a repaired conversation into `budget`, as `estimate` measures it.
///
/// Whole old turns go first, oldest first. When the turn that is going on does not fit by
/// itself, its results are shortened, oldest first, then its oldest rounds go, and at last
/// the newest results are shortened too. A call is never parted from its result; the first
/// and the last message of the user in this turn and its newest round stay. Only if these
/// exceed the budget does the first of them go, and then the rest is returned over budget.
///
/// A turn begins at a user message that follows a whole answer.
pub fn pack(messages: &[Message], budget: usize, estimate: &dyn Fn(&Message) -> usize) -> Packed {
    let current = turn_start(messages);
    let (old, turn) = messages.split_at(current);
    let cost = |messages: &[Message]| messages.iter().map(estimate).fold(0, usize::saturating_add);

    let spent = cost(turn);
    if spent > budget {
        let mut packed = squeeze(turn, budget, estimate);
        packed.dropped += old.len();
        return packed;
    }
    let (mut from, mut left) = (old.len(), budget - spent);
    while from > 0 {
        let start = turn_start(&old[..from]);
        let cost = cost(&old[start..from]);
        if cost > left {
            break;
        }
        (from, left) = (start, left - cost);
    }
    Packed { messages: messages[from..].to_vec(), dropped: from, shortened: 0 }
}

/// Tokens a message may cost: a cheap estimate without any vendor's tables, meant to be above
/// the truth rather than below. What the provider counts is the truth.
///
/// English prose is four letters to a token and estimated a little above; code, numbers and
/// JSON are denser; a Chinese, Japanese or Korean letter is a token, an emoji two or three; a picture
/// is a constant, whatever its size.
pub fn estimate(message: &Message) -> usize {
    /// The role and the separators around a message.
    const FRAME: usize = 4;
    FRAME + message.parts.iter().map(part_tokens).sum::<usize>()
}

fn part_tokens(part: &Part) -> usize {
    /// What vendors make of a picture of a million pixels, rounded up.
    const PICTURE: usize = 1600;
    /// Around a call or a result: its id, the name of each field.
    const FRAME: usize = 16;
    match part {
        Part::Text { text } | Part::Reasoning { text } => tokens(text),
        Part::Image { .. } => PICTURE,
        Part::Call(call) => {
            let arguments = serde_json::to_string(&call.arguments).unwrap_or_default();
            FRAME + tokens(&call.name) + tokens(&arguments)
        }
        Part::Result(result) => {
            let blocks = result.content.iter().map(|block| match block {
                Block::Text { text } => tokens(text),
                Block::Image { .. } | Block::Audio { .. } => PICTURE,
                Block::Resource { uri, text: Some(text), .. } => tokens(uri) + tokens(text),
                Block::Resource { uri, .. } => tokens(uri) + PICTURE,
                Block::ResourceLink { uri, name, .. } => tokens(uri) + tokens(name),
            });
            let structured = match (&result.structured, result.content.is_empty()) {
                // The model sees it only where there is nothing else.
                (Some(value), true) => tokens(&value.to_string()),
                _ => 0,
            };
            FRAME + blocks.sum::<usize>() + structured
        }
    }
}

/// Tokens a text may cost, estimated as in [`estimate`]. Counts in twelfths of a token.
pub fn tokens(text: &str) -> usize {
    let twelfths = |letter: char| match letter {
        'a'..='z' | ' ' => 3,
        'A'..='Z' => 4,
        '0'..='9' => 6,
        '\0'..='\x7f' => 8,
        '\u{80}'..='\u{2fff}' => 8,
        '\u{3000}'..='\u{ffff}' => 14,
        _ => 30,
    };
    text.chars().map(twelfths).sum::<usize>().div_ceil(12)
}

/// Where the last turn of `messages` begins.
fn turn_start(messages: &[Message]) -> usize {
    let begins = |place: &usize| {
        messages[*place].role == Role::User
            && match place.checked_sub(1).map(|before| &messages[before]) {
                None => true,
                Some(before) => before.role == Role::Assistant && before.calls().next().is_none(),
            }
    };
    (0..messages.len()).rev().find(begins).unwrap_or(0)
}

/// A message, or an assistant's message with the results of its calls.
struct Unit {
    messages: Vec<Message>,
    cost: usize,
    pinned: bool,
    shortened: usize,
}

fn squeeze(turn: &[Message], budget: usize, estimate: &dyn Fn(&Message) -> usize) -> Packed {
    let mut units = units(turn, estimate);
    pin(&mut units);
    let total = |units: &[Unit]| units.iter().map(|unit| unit.cost).fold(0, usize::saturating_add);
    let newest = units.len().saturating_sub(1);

    for place in 0..newest {
        if total(&units) <= budget {
            break;
        }
        shorten(&mut units[place], estimate);
    }
    while total(&units) > budget {
        match units.iter().position(|unit| !unit.pinned) {
            Some(place) => drop(units.remove(place)),
            None => break,
        }
    }
    if total(&units) > budget
        && let Some(unit) = units.last_mut()
    {
        shorten(unit, estimate);
    }
    let users = units.iter().filter(|unit| unit.is_user()).count();
    if total(&units) > budget && users > 1 {
        units.remove(0);
    }
    let shortened = units.iter().map(|unit| unit.shortened).sum();
    let messages: Vec<Message> = units.into_iter().flat_map(|unit| unit.messages).collect();
    Packed { dropped: turn.len() - messages.len(), messages, shortened }
}

fn units(turn: &[Message], estimate: &dyn Fn(&Message) -> usize) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for message in turn {
        let cost = estimate(message);
        match units.last_mut() {
            Some(unit) if message.role == Role::Tool => {
                unit.cost = unit.cost.saturating_add(cost);
                unit.messages.push(message.clone());
            }
            _ => units.push(Unit { messages: vec![message.clone()], cost, pinned: false, shortened: 0 }),
        }
    }
    units
}

/// The first and the last message of the user, and the newest round.
fn pin(units: &mut [Unit]) {
    let first = units.iter().position(Unit::is_user);
    let last = units.iter().rposition(Unit::is_user);
    for place in [first, last, units.len().checked_sub(1)].into_iter().flatten() {
        units[place].pinned = true;
    }
}

impl Unit {
    fn is_user(&self) -> bool {
        self.messages[0].role == Role::User
    }
}

/// Replaces results by stubs, where that makes them cheaper.
fn shorten(unit: &mut Unit, estimate: &dyn Fn(&Message) -> usize) {
    unit.cost = 0;
    for message in &mut unit.messages {
        let whole = estimate(message);
        let short = (message.role == Role::Tool).then(|| stub(message));
        match short.map(|short| (estimate(&short), short)) {
            Some((cost, short)) if cost < whole => {
                *message = short;
                unit.cost = unit.cost.saturating_add(cost);
                unit.shortened += 1;
            }
            _ => unit.cost = unit.cost.saturating_add(whole),
        }
    }
}

fn stub(message: &Message) -> Message {
    let parts = message.parts.iter().map(|part| match part {
        Part::Result(result) => Part::Result(stub_result(result)),
        other => other.clone(),
    });
    Message::of(message.role, parts.collect())
}

fn stub_result(result: &ToolResult) -> ToolResult {
    let text = result.text();
    let end = text.char_indices().nth(STUB).map_or(text.len(), |(end, _)| end);
    let all: usize = result.content.iter().map(block_bytes).sum();
    let left_out = all.saturating_sub(end);
    if left_out == 0 {
        return result.clone();
    }
    let note = format!("{}\n[{left_out} bytes of this result were left out to save room]", &text[..end]);
    ToolResult { content: vec![Block::text(note)], structured: None, ..result.clone() }
}

fn block_bytes(block: &Block) -> usize {
    match block {
        Block::Text { text } => text.len(),
        Block::Image { data, .. } | Block::Audio { data, .. } => data.len(),
        Block::Resource { text, blob, .. } => {
            text.as_ref().map_or(0, String::len) + blob.as_ref().map_or(0, String::len)
        }
        Block::ResourceLink { uri, name, .. } => uri.len() + name.len(),
    }
}
