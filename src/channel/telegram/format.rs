//! Markdown as Telegram shows it: plain text and what stands out in it (pure).
//!
//! Telegram counts in UTF-16 units, takes 4096 of them in a message, and refuses a message whose
//! marks it cannot read. So there are no marks in the text: what is bold is said beside it, by place
//! and length, and what is said keeps to the rules of the Bot API.

use frankenstein::types::{MessageEntity, MessageEntityType};
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use unicode_width::UnicodeWidthStr;

/// UTF-16 units of a message.
pub const LIMIT: usize = 4096;
/// Entities of a message; Telegram leaves out what is more.
const ENTITIES: usize = 100;

/// A text with what stands out in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Text {
    /// The text itself.
    pub text: String,
    /// What stands out.
    pub entities: Vec<MessageEntity>,
}

/// Markdown as messages, each of at most [`LIMIT`] units and none of them empty.
pub fn messages(markdown: &str) -> Vec<Text> {
    messages_of(markdown, LIMIT)
}

/// The same with another limit.
pub fn messages_of(markdown: &str, limit: usize) -> Vec<Text> {
    let mut writer = Writer::default();
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    Parser::new_ext(markdown, options).for_each(|event| writer.event(event));
    writer.table();
    split(&writer.text, &tidy(writer.spans, &writer.text), limit)
}

/// A text that means nothing as markdown.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        if letter.is_ascii_punctuation() {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

/// Text that is no markdown, as messages.
pub fn plain(text: &str) -> Vec<Text> {
    split(&clean(text), &[], LIMIT)
}

/// How many units a text has.
pub fn units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// Whether Telegram makes a link of it.
fn is_link(url: &str) -> bool {
    let rest = ["https://", "http://", "tg://", "mailto:"].iter().find_map(|scheme| url.strip_prefix(scheme));
    rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '['))
        && url.len() < 2048
        && !url.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// What Telegram takes out of a text is taken out before places in it are counted.
fn clean(text: &str) -> String {
    text.chars()
        .filter(|c| !matches!(c, '\r' | '\u{2028}'..='\u{202e}' | '\u{030a}' | '\u{0333}' | '\u{033f}'))
        .map(|c| if c.is_control() && c != '\n' { ' ' } else { c })
        .collect()
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Bold,
    Italic,
    Struck,
    Code,
    Pre(String),
    Link(String),
    Quote,
}

/// Bytes of a text that stand out.
#[derive(Debug, Clone, PartialEq)]
struct Span {
    start: usize,
    end: usize,
    kind: Kind,
}

impl Span {
    fn has(&self, other: &Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    fn is_verbatim(&self) -> bool {
        matches!(self.kind, Kind::Code | Kind::Pre(_))
    }
}

/// Writes down a document as it is read.
#[derive(Default)]
struct Writer {
    text: String,
    spans: Vec<Span>,
    open: Vec<(Kind, usize)>,
    /// Line ends that come before whatever comes next.
    gap: usize,
    /// The lists that are open; the number of the next item, where they are numbered.
    lists: Vec<Option<u64>>,
    /// The mark of an item is written, and nothing after it.
    fresh: bool,
    rows: Vec<Vec<String>>,
    in_cell: bool,
}

impl Writer {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => self.say(&text),
            Event::Code(code) => {
                self.flush();
                self.opened(Kind::Code);
                self.say(&code);
                self.closed();
            }
            Event::SoftBreak | Event::HardBreak => self.say(if self.in_cell { " " } else { "\n" }),
            Event::Rule => {
                self.apart(2);
                self.say("———");
                self.apart(2);
            }
            Event::TaskListMarker(done) => {
                // In the place of the item's own mark.
                let rest = self.text.strip_suffix("• ").map_or(self.text.len(), str::len);
                self.text.truncate(rest);
                self.say(if done { "☑ " } else { "☐ " });
            }
            // Not asked for.
            Event::InlineMath(text) | Event::DisplayMath(text) | Event::FootnoteReference(text) => {
                self.say(&text);
            }
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Heading { .. } => {
                self.apart(2);
                self.opened(Kind::Bold);
            }
            Tag::BlockQuote(_) => {
                self.apart(2);
                self.opened(Kind::Quote);
            }
            Tag::CodeBlock(kind) => {
                let language = match kind {
                    CodeBlockKind::Fenced(info) => info.split_whitespace().next().map(str::to_owned),
                    CodeBlockKind::Indented => None,
                };
                // Never on the line of something else.
                self.apart(if self.fresh { 1 } else { 2 });
                self.fresh = false;
                self.flush();
                self.opened(Kind::Pre(language.unwrap_or_default()));
            }
            Tag::List(first) => {
                self.apart(if self.lists.is_empty() { 2 } else { 1 });
                self.lists.push(first);
            }
            Tag::Item => {
                self.apart(1);
                self.fresh = false;
                let mark = match self.lists.last_mut() {
                    Some(Some(number)) => {
                        *number += 1;
                        format!("{}. ", *number - 1)
                    }
                    _ => "• ".to_owned(),
                };
                self.flush();
                let indent = "  ".repeat(self.lists.len().saturating_sub(1));
                self.put(&format!("{indent}{mark}"));
                self.fresh = true;
            }
            Tag::Table(_) => self.apart(2),
            Tag::TableRow | Tag::TableHead => self.rows.push(Vec::new()),
            Tag::TableCell => {
                self.in_cell = true;
                if let Some(row) = self.rows.last_mut() {
                    row.push(String::new());
                }
            }
            Tag::Emphasis => self.opened(Kind::Italic),
            Tag::Strong => self.opened(Kind::Bold),
            Tag::Strikethrough => self.opened(Kind::Struck),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => {
                self.opened(Kind::Link(dest_url.into_string()));
            }
            Tag::Paragraph => self.apart(2),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(_) | TagEnd::BlockQuote(_) => {
                self.closed();
                self.apart(2);
            }
            TagEnd::CodeBlock => {
                while self.text.ends_with('\n') {
                    self.text.pop();
                }
                self.closed();
                self.apart(2);
            }
            TagEnd::List(_) => {
                self.lists.pop();
                self.apart(if self.lists.is_empty() { 2 } else { 1 });
            }
            TagEnd::Item => self.apart(1),
            TagEnd::Table => self.table(),
            TagEnd::TableCell => self.in_cell = false,
            TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough => drop(self.closed()),
            TagEnd::Link | TagEnd::Image => self.link(),
            TagEnd::Paragraph => self.apart(2),
            _ => {}
        }
    }

    /// Keeps what comes next away from what there is, unless it is the first of an item.
    fn apart(&mut self, lines: usize) {
        if !self.fresh {
            self.gap = self.gap.max(lines);
        }
    }

    fn flush(&mut self) {
        let gap = std::mem::take(&mut self.gap);
        if !self.text.is_empty() {
            self.text.extend(std::iter::repeat_n('\n', gap));
        }
    }

    fn say(&mut self, text: &str) {
        let text = clean(text);
        if self.in_cell {
            if let Some(cell) = self.rows.last_mut().and_then(|row| row.last_mut()) {
                cell.push_str(&text);
            }
            return;
        }
        self.flush();
        self.fresh &= text.trim().is_empty();
        self.put(&text);
    }

    fn put(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn opened(&mut self, kind: Kind) {
        if !self.in_cell {
            // Line ends that come first are taken off later.
            self.open.push((kind, self.text.len()));
        }
    }

    fn closed(&mut self) -> Option<Span> {
        if self.in_cell {
            return None;
        }
        let (kind, start) = self.open.pop()?;
        let span = Span { start: start.min(self.text.len()), end: self.text.len(), kind };
        self.spans.push(span.clone());
        Some(span)
    }

    /// An address that no link can be made of is told after its text, unless it is a file's.
    fn link(&mut self) {
        let Some(Span { start, end, kind: Kind::Link(url) }) = self.closed() else { return };
        if is_link(&url) {
            return;
        }
        self.spans.pop();
        if url.contains("://") && self.text[start..end] != url {
            self.say(&format!(" ({url})"));
        }
    }

    /// A table in columns, if one was read.
    fn table(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        if columns == 0 {
            return;
        }
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.trim().width()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut lines = Vec::new();
        for (number, row) in rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).map(|(cell, width)| {
                let cell = cell.trim();
                format!("{cell}{}", " ".repeat(width - cell.width()))
            });
            lines.push(cells.collect::<Vec<_>>().join("  ").trim_end().to_owned());
            if number == 0 {
                lines.push(widths.iter().map(|width| "─".repeat(*width)).collect::<Vec<_>>().join("  "));
            }
        }
        self.flush();
        self.opened(Kind::Pre(String::new()));
        self.put(&lines.join("\n"));
        self.closed();
        self.apart(2);
    }
}

/// The spans as the Bot API wants them: nothing in code, no code in links, no quote in a quote,
/// nothing twice, no blanks at the ends.
fn tidy(spans: Vec<Span>, text: &str) -> Vec<Span> {
    let links: Vec<_> = spans.iter().filter(|span| matches!(span.kind, Kind::Link(_))).cloned().collect();
    let verbatim: Vec<_> = spans
        .iter()
        .filter(|span| span.is_verbatim() && !links.iter().any(|link| link.has(span)))
        .cloned()
        .collect();
    let mut tidied: Vec<Span> = Vec::new();
    for span in &spans {
        if span.is_verbatim() && !verbatim.contains(span) {
            continue;
        }
        let inside = spans.iter().any(|other| {
            let same = std::mem::discriminant(&other.kind) == std::mem::discriminant(&span.kind);
            same && other.has(span) && (other.start, other.end) != (span.start, span.end)
        });
        if inside || tidied.contains(span) {
            continue;
        }
        let styled = matches!(span.kind, Kind::Bold | Kind::Italic | Kind::Struck);
        let within = if styled { &verbatim[..] } else { &[] };
        tidied.extend(without(span, within).into_iter().filter_map(|span| trimmed(span, text)));
    }
    tidied.sort_by_key(|span| (span.start, std::cmp::Reverse(span.end)));
    tidied.dedup();
    tidied
}

/// What is left of a span where others are not.
fn without(span: &Span, others: &[Span]) -> Vec<Span> {
    let mut pieces = vec![span.clone()];
    for other in others {
        pieces = pieces
            .into_iter()
            .flat_map(|piece| {
                if other.end <= piece.start || piece.end <= other.start {
                    return vec![piece];
                }
                let before = Span { end: other.start.max(piece.start), ..piece.clone() };
                let after = Span { start: other.end.min(piece.end), ..piece };
                vec![before, after]
            })
            .filter(|piece| piece.start < piece.end)
            .collect();
    }
    pieces
}

fn trimmed(span: Span, text: &str) -> Option<Span> {
    let inside = &text[span.start..span.end];
    let is_pre = matches!(span.kind, Kind::Pre(_));
    let start = match is_pre {
        true => span.start + (inside.len() - inside.trim_start_matches('\n').len()),
        false => span.start + (inside.len() - inside.trim_start().len()),
    };
    let end = span.start + inside.trim_end().len();
    (start < end).then_some(Span { start, end, ..span })
}

/// A text in pieces of at most `limit` units, cut where it hurts least: between paragraphs, lines,
/// words, and in code only where there is no other way.
fn split(text: &str, spans: &[Span], limit: usize) -> Vec<Text> {
    let mut pieces = Vec::new();
    let mut start = skip_blank(text, 0, spans);
    while start < text.len() {
        let end = reach(text, start, limit);
        let cut = if end == text.len() { end } else { cut(text, spans, start, end) };
        pieces.extend(piece(text, spans, start, cut));
        start = skip_blank(text, cut, spans);
    }
    pieces
}

/// Where a piece begins: after blanks; in a block of code those of its first line belong to it.
fn skip_blank(text: &str, from: usize, spans: &[Span]) -> usize {
    let rest = &text[from..];
    let blank = rest.len() - rest.trim_start().len();
    let begins = from + blank;
    let block = |span: &&Span| matches!(span.kind, Kind::Pre(_)) && span.start < begins && begins < span.end;
    match spans.iter().find(block) {
        Some(span) => {
            let start = from.max(span.start);
            let rest = &text[start..];
            start + (rest.len() - rest.trim_start_matches('\n').len())
        }
        None => begins,
    }
}

/// How far `limit` units go.
fn reach(text: &str, start: usize, limit: usize) -> usize {
    let mut left = limit;
    for (place, letter) in text[start..].char_indices() {
        match left.checked_sub(letter.len_utf16()) {
            Some(rest) => left = rest,
            None => return start + place,
        }
    }
    text.len()
}

fn cut(text: &str, spans: &[Span], start: usize, end: usize) -> usize {
    let window = &text[start..end];
    let code =
        |place: usize| spans.iter().find(|span| span.is_verbatim() && span.start < place && place < span.end);
    let last = |mark: &str| {
        let mut places = window.rmatch_indices(mark).map(|(place, _)| start + place);
        places.find(|place| code(*place).is_none())
    };
    let late = |place: &usize| place - start > (end - start) / 2;
    let some = |place: &usize| place - start > (end - start) / 4;
    let block = code(end).map(|span| span.start).filter(|place| *place > start);
    last("\n\n")
        .filter(late)
        .or_else(|| last("\n").filter(late))
        .or_else(|| block.filter(some))
        .or_else(|| last(" ").filter(late))
        .or_else(|| window.rfind('\n').map(|place| start + place).filter(late))
        .or_else(|| window.rfind(' ').map(|place| start + place).filter(late))
        .unwrap_or(end)
}

/// What is between two places, as a message; `None` if there is nothing to see.
fn piece(text: &str, spans: &[Span], start: usize, end: usize) -> Option<Text> {
    let body = text[start..end].trim_end();
    if body.chars().all(is_invisible) {
        return None;
    }
    let end = start + body.len();
    // The units before each byte, counted once.
    let mut before = vec![0u16; body.len() + 1];
    for (place, letter) in body.char_indices() {
        before[place + letter.len_utf8()] = before[place] + letter.len_utf16() as u16;
    }
    let mut entities = Vec::new();
    for span in spans.iter().filter(|span| span.start < end && start < span.end) {
        let inside = Span { start: span.start.max(start), end: span.end.min(end), kind: span.kind.clone() };
        let Some(span) = trimmed(inside, text) else { continue };
        let (from, to) = (before[span.start - start], before[span.end - start]);
        entities.push(entity(span.kind, from, to - from));
    }
    entities.truncate(ENTITIES);
    Some(Text { text: body.to_owned(), entities })
}

/// Telegram takes a message of these alone for an empty one.
fn is_invisible(letter: char) -> bool {
    letter.is_whitespace()
        || matches!(letter, '\u{00ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fe00}'..='\u{fe0f}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}' | '\u{115f}' | '\u{1160}' | '\u{e0000}'..='\u{e0fff}')
}

fn entity(kind: Kind, offset: u16, length: u16) -> MessageEntity {
    let (type_field, url, language) = match kind {
        Kind::Bold => (MessageEntityType::Bold, None, None),
        Kind::Italic => (MessageEntityType::Italic, None, None),
        Kind::Struck => (MessageEntityType::Strikethrough, None, None),
        Kind::Code => (MessageEntityType::Code, None, None),
        Kind::Pre(language) => (MessageEntityType::Pre, None, Some(language).filter(|it| !it.is_empty())),
        Kind::Link(url) => (MessageEntityType::TextLink, Some(url), None),
        Kind::Quote => (MessageEntityType::Blockquote, None, None),
    };
    MessageEntity {
        type_field,
        offset,
        length,
        url,
        user: None,
        language,
        custom_emoji_id: None,
        unix_time: None,
        date_time_format: None,
    }
}
