//! Words that go to the next line where they do not fit.

use unicode_width::UnicodeWidthChar;

/// Where the last word has ended, on a screen of some width.
#[derive(Debug)]
pub(super) struct Wrap {
    /// How wide it is.
    pub(super) columns: usize,
    /// What stands in front of a line that goes on, and how wide that is.
    lead: String,
    indent: usize,
    column: usize,
    /// Blanks that nothing came after yet.
    gap: usize,
}

impl Default for Wrap {
    fn default() -> Self {
        Self { columns: usize::MAX, lead: String::new(), indent: 0, column: 0, gap: 0 }
    }
}

impl Wrap {
    /// For a screen of so many columns, or for none.
    pub(super) fn new(columns: Option<usize>) -> Self {
        Self { columns: columns.unwrap_or(usize::MAX), ..Self::default() }
    }

    /// Begins a line with this. What goes on below has as much in front: `│` again, or blanks.
    pub(super) fn begin(&mut self, lead: &str, out: &mut String) {
        let is_bar = lead.contains('│');
        self.indent = width(lead);
        self.lead = if is_bar { lead.to_owned() } else { " ".repeat(self.indent) };
        (self.column, self.gap) = (self.indent, 0);
        out.push_str(lead);
    }

    /// Adds words, with their colours.
    pub(super) fn words(&mut self, styled: &str, out: &mut String) {
        for piece in styled.split_inclusive(' ') {
            let word = piece.trim_end_matches(' ');
            self.word(word, out);
            self.gap += piece.len() - word.len();
        }
    }

    fn word(&mut self, word: &str, out: &mut String) {
        let width = width(word);
        if width == 0 {
            out.push_str(word);
            return;
        }
        let begins = self.column == self.indent;
        if !begins && self.column + self.gap + width > self.columns {
            out.push('\n');
            out.push_str(&self.lead);
            self.column = self.indent;
        } else {
            out.push_str(&" ".repeat(self.gap));
            self.column += self.gap;
        }
        self.gap = 0;
        out.push_str(word);
        self.column += width;
        // What is wider than the screen is broken by the terminal.
        if self.column > self.columns {
            self.column %= self.columns.max(1);
        }
    }

    /// Ends the line.
    pub(super) fn end(&mut self, out: &mut String) {
        out.push('\n');
        self.leave();
    }

    /// What comes next begins a line, as somebody else has ended this one.
    pub(super) fn leave(&mut self) {
        *self = Self { columns: self.columns, ..Self::default() };
    }
}

/// A plain text, cut where it would be wider than this.
pub(super) fn clip(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(1);
    let fits = |letter: &char| {
        let rest = left.checked_sub(letter.width().unwrap_or(0));
        left = rest.unwrap_or(0);
        rest.is_some()
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// How many columns a text with its colours takes.
pub(super) fn width(styled: &str) -> usize {
    let mut letters = styled.chars();
    let mut width = 0;
    while let Some(letter) = letters.next() {
        match letter {
            '\x1b' => drop(letters.by_ref().find(char::is_ascii_alphabetic)),
            letter => width += letter.width().unwrap_or(0),
        }
    }
    width
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(columns: usize, lead: &str, pieces: &[&str]) -> String {
        let (mut wrap, mut out) = (Wrap { columns, ..Wrap::default() }, String::new());
        wrap.begin(lead, &mut out);
        pieces.iter().for_each(|piece| wrap.words(piece, &mut out));
        wrap.end(&mut out);
        out
    }

    #[test]
    fn words_stay_whole_and_below_each_other() {
        assert_eq!(wrapped(10, "", &["one two ", "three four"]), "one two\nthree four\n");
        assert_eq!(wrapped(10, "• ", &["one two three"]), "• one two\n  three\n");
        assert_eq!(wrapped(10, "│ ", &["one two three"]), "│ one two\n│ three\n");
        assert_eq!(wrapped(8, "", &["日本語 日本語"]), "日本語\n日本語\n");
        assert_eq!(wrapped(5, "", &["a_word_that_is_too_long b"]), "a_word_that_is_too_long b\n");
        assert_eq!(wrapped(usize::MAX, "", &["one  two "]), "one  two\n");
    }

    #[test]
    fn what_is_too_wide_is_cut() {
        assert_eq!((clip("four", 4).as_str(), clip("fives", 4).as_str()), ("four", "fiv…"));
        assert_eq!((clip("日本語", 5).as_str(), clip("", 0).as_str()), ("日本…", ""));
    }

    #[test]
    fn colours_take_no_place_and_go_with_their_word() {
        assert_eq!(wrapped(7, "", &["one \x1b[1mtwo\x1b[0m ", "six"]), "one \x1b[1mtwo\x1b[0m\nsix\n");
        assert_eq!(wrapped(6, "", &["one \x1b[1mtwo\x1b[0m"]), "one\n\x1b[1mtwo\x1b[0m\n");
    }
}
