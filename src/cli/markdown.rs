//! Markdown for a terminal, while it arrives.
//!
//! What was printed stays as it is: no cursor is moved, so that resizing, scrolling back and `tee`
//! cannot spoil anything. A line is printed as far as its marks are closed; tables wait until they
//! are whole, since their columns have to be known.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::style::{BOLD, CYAN, DIM, ITALIC, PLAIN, STRUCK, UNDERLINED};
use super::wrap::{Wrap, width};

/// Stands before a line so that its text is never taken for a block of its own.
const SHIELD: char = '\u{2060}';

/// A renderer in the middle of a text.
#[derive(Debug, Default)]
pub(super) struct Markdown {
    /// What has arrived of a line and is not printed yet.
    waiting: String,
    block: Block,
    /// Rows of a table that is not over.
    table: Vec<String>,
    wrap: Wrap,
}

/// What the line under way belongs to.
#[derive(Debug, Default, PartialEq)]
enum Block {
    /// Nothing of it is printed yet.
    #[default]
    Start,
    /// Its beginning is printed; the rest has this style.
    Within(&'static str),
    /// Code, until a line of at least so many of this letter.
    Code(char, usize),
}

impl Markdown {
    /// Says how wide the screen is from here on.
    pub(super) fn fit(&mut self, columns: usize) {
        self.wrap.columns = columns;
    }

    /// Takes a piece and returns what can be printed.
    pub(super) fn push(&mut self, piece: &str) -> String {
        self.waiting.push_str(piece);
        let mut out = String::new();
        while let Some(end) = self.waiting.find('\n') {
            let line: String = self.waiting.drain(..=end).collect();
            self.line(line.trim_end_matches(['\n', '\r']), &mut out);
        }
        self.part(&mut out);
        out
    }

    /// Returns the rest: there is no more to come.
    pub(super) fn finish(&mut self) -> String {
        let mut out = String::new();
        if !self.waiting.is_empty() {
            let line = std::mem::take(&mut self.waiting);
            self.line(&line, &mut out);
            out.pop();
        }
        self.end_table(&mut out);
        self.block = Block::Start;
        self.wrap.leave();
        out
    }

    /// Prints a line to its end.
    fn line(&mut self, line: &str, out: &mut String) {
        match std::mem::take(&mut self.block) {
            Block::Code(mark, length) if closes(line, mark, length) => dim(line, out),
            Block::Code(mark, length) => {
                self.block = Block::Code(mark, length);
                out.push_str(&format!("{CYAN}{line}{PLAIN}\n"));
            }
            Block::Within(style) => {
                self.words(line, style, out);
                self.wrap.end(out);
            }
            Block::Start if is_row(line) => self.table.push(line.to_owned()),
            Block::Start => {
                self.end_table(out);
                if let Some((mark, length)) = opens(line) {
                    self.block = Block::Code(mark, length);
                    return dim(line, out);
                }
                if is_rule(line) {
                    return dim(&"─".repeat(24), out);
                }
                self.begin(line, out);
                self.wrap.end(out);
            }
        }
    }

    /// Prints the beginning of a line and returns how its text looks.
    fn begin(&mut self, line: &str, out: &mut String) -> &'static str {
        let (lead, style, text) = begin(line);
        self.wrap.begin(&lead, out);
        self.words(text, style, out);
        style
    }

    fn words(&mut self, text: &str, style: &'static str, out: &mut String) {
        let mut styled = String::new();
        inline(text, style, &mut styled);
        self.wrap.words(&styled, out);
    }

    /// Prints as many words of the line under way as cannot change any more.
    fn part(&mut self, out: &mut String) {
        let within = match self.block {
            Block::Code(..) => return,
            Block::Within(style) => Some(style),
            // Too little to tell what it will be.
            Block::Start if self.waiting.len() < 8 || is_row(&self.waiting) => return,
            Block::Start if opens(&self.waiting).is_some() || is_rule(&self.waiting) => return,
            Block::Start => None,
        };
        let Some(end) = settled(&self.waiting) else { return };
        let words: String = self.waiting.drain(..end).collect();
        let style = match within {
            Some(style) => {
                self.words(&words, style, out);
                style
            }
            None => {
                self.end_table(out);
                self.begin(&words, out)
            }
        };
        self.block = Block::Within(style);
    }

    /// Prints a table in columns; two rows of which the second is no line of dashes are none.
    fn end_table(&mut self, out: &mut String) {
        let rows = std::mem::take(&mut self.table);
        let is_table = rows.get(1).is_some_and(|row| cells(row).iter().all(|cell| is_dashes(cell)));
        if !is_table {
            for row in rows {
                inline(&row, "", out);
                out.push('\n');
            }
            return;
        }
        let right: Vec<bool> =
            cells(&rows[1]).iter().map(|cell| cell.ends_with(':') && !cell.starts_with(':')).collect();
        let rows: Vec<_> = rows.iter().enumerate().filter(|(place, _)| *place != 1).collect();
        let rows: Vec<Vec<(String, usize)>> = rows.iter().map(|(_, row)| measured(row)).collect();
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let widest =
            |column: usize| rows.iter().filter_map(|row| Some(row.get(column)?.1)).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(widest).collect();
        for (place, row) in rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, ((text, taken), width))| {
                let text = if place == 0 { format!("{BOLD}{text}{PLAIN}") } else { text.clone() };
                let gap = " ".repeat(width - taken);
                if right.get(column) == Some(&true) { gap + &text } else { text + &gap }
            });
            out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            out.push('\n');
            if place == 0 {
                let lines: Vec<_> = widths.iter().map(|width| "─".repeat(*width)).collect();
                dim(&lines.join("  "), out);
            }
        }
    }
}

fn dim(line: &str, out: &mut String) {
    out.push_str(&format!("{DIM}{line}{PLAIN}\n"));
}

/// The fence that a line opens: its letter and how many of them.
fn opens(line: &str) -> Option<(char, usize)> {
    let line = line.trim_start();
    let mark = line.chars().next().filter(|mark| ['`', '~'].contains(mark))?;
    let length = line.chars().take_while(|letter| *letter == mark).count();
    (length >= 3 && !(mark == '`' && line[length..].contains('`'))).then_some((mark, length))
}

fn closes(line: &str, mark: char, length: usize) -> bool {
    let line = line.trim();
    line.chars().all(|letter| letter == mark) && line.chars().count() >= length
}

fn is_row(line: &str) -> bool {
    line.trim_start().starts_with('|')
}

fn is_dashes(cell: &str) -> bool {
    cell.contains('-') && cell.chars().all(|letter| ['-', ':'].contains(&letter))
}

/// Whether a line is a rule and nothing else.
fn is_rule(line: &str) -> bool {
    let line = line.trim();
    line.len() >= 3 && ["-", "*", "_"].iter().any(|mark| line.replace(mark, "").trim().is_empty())
}

/// What stands in front of a line's text, how the text looks, and the text.
fn begin(line: &str) -> (String, &'static str, &str) {
    let text = line.trim_start();
    let indent = &line[..line.len() - text.len()];
    let level = text.chars().take_while(|letter| *letter == '#').count();
    if (1..=6).contains(&level) && text[level..].starts_with(' ') {
        return (String::new(), BOLD, text[level..].trim_start());
    }
    if let Some(rest) = text.strip_prefix('>') {
        return (format!("{indent}{DIM}│ {PLAIN}"), DIM, rest.strip_prefix(' ').unwrap_or(rest));
    }
    if let Some(rest) = ["- ", "* ", "+ "].iter().find_map(|mark| text.strip_prefix(mark)) {
        return (format!("{indent}• "), "", rest);
    }
    let digits = text.chars().take_while(char::is_ascii_digit).count();
    if digits > 0 && [". ", ") "].iter().any(|mark| text[digits..].starts_with(mark)) {
        return (format!("{indent}{}", &text[..digits + 2]), "", &text[digits + 2..]);
    }
    (indent.to_owned(), "", text)
}

/// Where the last word ends before which no mark is open.
fn settled(text: &str) -> Option<usize> {
    let mut last = None;
    let mut open = Open::default();
    let mut letters = text.char_indices().peekable();
    let mut before = ' ';
    while let Some((place, letter)) = letters.next() {
        match letter {
            '\\' => drop(letters.next()),
            '`' | '*' | '_' | '~' => {
                let mut length = 1;
                while letters.next_if(|(_, next)| *next == letter).is_some() {
                    length += 1;
                }
                open.mark(letter, length, before, letters.peek().map_or(' ', |(_, next)| *next));
            }
            '[' | '<' => open.brackets += 1,
            ']' | '>' => open.brackets = open.brackets.saturating_sub(1),
            ' ' if open.is_nothing() => last = Some(place + 1),
            _ => {}
        }
        before = letter;
    }
    // A list's or a quotation's mark alone says nothing yet.
    last.filter(|end| text[..*end].trim().chars().any(char::is_alphanumeric))
}

/// What was opened in a line and not closed. Where it is doubtful it stays open: the line is printed a
/// little later then.
#[derive(Debug, Default)]
struct Open {
    /// The marks of a piece of code.
    code: Option<usize>,
    marks: Vec<(char, usize)>,
    brackets: usize,
}

impl Open {
    fn is_nothing(&self) -> bool {
        self.code.is_none() && self.marks.is_empty() && self.brackets == 0
    }

    /// So many of this letter, between those.
    fn mark(&mut self, letter: char, length: usize, before: char, after: char) {
        match self.code {
            Some(open) if letter == '`' && length == open => self.code = None,
            Some(_) => return,
            None if letter == '`' => self.code = Some(length),
            None => {}
        }
        let (closes, opens) = (!before.is_whitespace(), !after.is_whitespace());
        // As in `snake_case`.
        if letter == '`' || (letter == '_' && before.is_alphanumeric() && after.is_alphanumeric()) {
            return;
        }
        let opened = self.marks.iter().rposition(|(mark, _)| *mark == letter).filter(|_| closes);
        match opened {
            Some(place) if self.marks[place].1 > length => self.marks[place].1 -= length,
            Some(place) => drop(self.marks.remove(place)),
            None if opens => self.marks.push((letter, length)),
            None => {}
        }
    }
}

/// The cells of a row.
fn cells(row: &str) -> Vec<String> {
    let row = row.trim().trim_start_matches('|');
    let row = row.strip_suffix('|').unwrap_or(row);
    row.replace("\\|", "\u{1}").split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect()
}

/// The cells as they are printed, and how many columns each takes.
fn measured(row: &str) -> Vec<(String, usize)> {
    let measure = |cell: String| {
        let mut styled = String::new();
        inline(&cell, "", &mut styled);
        let width = width(&styled);
        (styled, width)
    };
    cells(row).into_iter().map(measure).collect()
}

/// Styles what stands within a line; `base` is how the line looks otherwise.
fn inline(text: &str, base: &'static str, out: &mut String) {
    let shielded = format!("{SHIELD}{text}");
    let mut styles = vec![base];
    let mut address = None;
    out.push_str(base);
    for event in Parser::new_ext(&shielded, Options::ENABLE_STRIKETHROUGH) {
        let style = match &event {
            Event::Start(Tag::Strong) => BOLD,
            Event::Start(Tag::Emphasis) => ITALIC,
            Event::Start(Tag::Strikethrough) => STRUCK,
            Event::Start(Tag::Link { dest_url, .. }) => {
                address = Some((dest_url.to_string(), out.len()));
                UNDERLINED
            }
            Event::End(TagEnd::Strong | TagEnd::Emphasis | TagEnd::Strikethrough | TagEnd::Link) => {
                styles.pop();
                out.push_str(PLAIN);
                styles.iter().for_each(|style| out.push_str(style));
                if let (TagEnd::Link, Some((address, from))) = (end(&event), address.take())
                    && !out[from..].contains(&address)
                {
                    out.push_str(&format!(" {DIM}({address}){PLAIN}"));
                    styles.iter().for_each(|style| out.push_str(style));
                }
                continue;
            }
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => {
                out.push_str(text.trim_start_matches(SHIELD));
                continue;
            }
            Event::Code(code) => {
                out.push_str(&format!("{CYAN}{code}{PLAIN}"));
                styles.iter().for_each(|style| out.push_str(style));
                continue;
            }
            Event::Start(Tag::Image { dest_url, .. }) => {
                out.push_str(&format!("[{dest_url}] "));
                continue;
            }
            _ => continue,
        };
        styles.push(style);
        out.push_str(style);
    }
    // The parser takes what is around a text away.
    out.push_str(&text[text.trim_end().len()..]);
    if !base.is_empty() {
        out.push_str(PLAIN);
    }
}

fn end(event: &Event<'_>) -> TagEnd {
    match event {
        Event::End(end) => *end,
        _ => TagEnd::Paragraph,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text as it looks without colours, in pieces of each size: it must not matter how it comes.
    fn shown(text: &str) -> String {
        let render = |size: usize| {
            let mut markdown = Markdown::default();
            let letters: Vec<char> = text.chars().collect();
            let pieces = letters.chunks(size).map(|piece| markdown.push(&piece.iter().collect::<String>()));
            let mut out: String = pieces.collect();
            out.push_str(&markdown.finish());
            out
        };
        let whole = anstream::adapter::strip_str(&render(usize::MAX)).to_string();
        for size in [1, 2, 3, 7] {
            assert_eq!(anstream::adapter::strip_str(&render(size)).to_string(), whole, "in pieces of {size}");
        }
        whole
    }

    #[test]
    fn marks_become_looks_and_words_stay() {
        assert_eq!(
            shown("Some **bold** and *soft* words, `a_b*c` too.\n"),
            "Some bold and soft words, a_b*c too.\n"
        );
        assert_eq!(
            shown("It holds **one new file**, ~~not two~~, *as was said*.\n"),
            "It holds one new file, not two, as was said.\n"
        );
        assert_eq!(
            shown("a ***very loud* word** here and `two words` there\n"),
            "a very loud word here and two words there\n"
        );
        assert_eq!(shown("# A title\ntext"), "A title\ntext");
        assert_eq!(
            shown("- one\n- two\n  - three\n1. first\n> said\n---\n"),
            "• one\n• two\n  • three\n1. first\n│ said\n────────────────────────\n"
        );
        assert_eq!(
            shown("see [the page](https://example.org/a_b) now\n"),
            "see the page (https://example.org/a_b) now\n"
        );
        assert_eq!(shown("2 * 3 * 4 = 24 and snake_case_name\n"), "2 * 3 * 4 = 24 and snake_case_name\n");
        assert_eq!(shown("a < b > c & d\n"), "a < b > c & d\n");
    }

    #[test]
    fn code_is_left_as_it_is() {
        let code = "```python\ndef f(a, *b):\n    return `a`  # **not bold**\n```\nafter\n";
        assert_eq!(shown(code), code);
        assert_eq!(shown("~~~~\n```\n~~~~\n"), "~~~~\n```\n~~~~\n");
        assert_eq!(shown("```\nnever closed\n"), "```\nnever closed\n");
    }

    #[test]
    fn tables_have_columns() {
        let table = "| name | size |\n|---|--:|\n| `a` | 1 |\n| 日本語 | **22** |\n\nend\n";
        assert_eq!(shown(table), "name    size\n──────  ────\na          1\n日本語    22\n\nend\n");
        assert_eq!(shown("| no table\nat all\n"), "| no table\nat all\n");
        assert_eq!(shown("| a | b |\n|---|---|\n| 1 | 2 |"), "a  b\n─  ─\n1  2\n");
    }

    #[test]
    fn words_come_before_their_line_is_over() {
        let mut markdown = Markdown::default();
        assert_eq!(markdown.push("The first words of"), "The first words");
        assert_eq!(markdown.push(" a **long"), " of a");
        assert!(markdown.push(" line** and").contains("long line"));
        assert_eq!(markdown.finish(), " and");
    }

    #[test]
    fn a_line_is_as_wide_as_the_screen_is_by_then() {
        let mut markdown = Markdown::default();
        markdown.fit(16);
        assert_eq!(markdown.push("- some words in a list\n"), "• some words in\n  a list\n");
        assert!(markdown.push("> said **very loud").contains("said"));
        markdown.fit(12);
        let rest = markdown.push("ly** by all\n");
        assert_eq!(anstream::adapter::strip_str(&rest).to_string(), " very\n│ loudly by\n│ all\n");
        let code = "```\na line of code that is wide\n```\n";
        assert_eq!(anstream::adapter::strip_str(&markdown.push(code)).to_string(), code);
    }
}
