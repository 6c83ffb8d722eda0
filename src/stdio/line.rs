//! Lines as they come in: each is whole, or said to be none.

use std::fs::File;
use std::io;

use tokio::io::{AsyncBufReadExt, BufReader};

/// Bytes of one line.
pub(super) const LONGEST: usize = 4 << 20;

/// What was read.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    /// A line, without its end.
    Text(String),
    /// No line that can be used, and why.
    Bad(String),
}

/// Lines of a file that may be a pipe.
pub(super) struct Lines {
    from: BufReader<tokio::fs::File>,
    end: u8,
    /// What there is of the line under way, and how long it is: more than is kept of one that is too long.
    line: Vec<u8>,
    length: usize,
    count: u64,
}

impl Lines {
    /// Lines that end with this byte.
    pub(super) fn new(from: File, end: u8) -> Self {
        let from = BufReader::new(tokio::fs::File::from_std(from));
        Self { from, end, line: Vec::new(), length: 0, count: 0 }
    }

    /// The number of the line that was read last, from 1.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The next line; `None` at the end. Dropped while it waits, it loses nothing.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let available = self.from.fill_buf().await?;
            if available.is_empty() {
                return Ok((self.length > 0).then(|| self.whole()));
            }
            let end = available.iter().position(|byte| *byte == self.end);
            let piece = &available[..end.unwrap_or(available.len())];
            self.length += piece.len();
            if self.length <= LONGEST {
                self.line.extend_from_slice(piece);
            } else {
                self.line = Vec::new();
            }
            let taken = piece.len() + usize::from(end.is_some());
            self.from.consume(taken);
            if end.is_some() {
                return Ok(Some(self.whole()));
            }
        }
    }

    fn whole(&mut self) -> Line {
        self.count += 1;
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.length) > LONGEST {
            return Line::Bad(format!("it is longer than {} MB", LONGEST >> 20));
        }
        match String::from_utf8(line) {
            Ok(text) => Line::Text(text),
            Err(error) => {
                Line::Bad(format!("byte {} of it is no UTF-8", error.utf8_error().valid_up_to() + 1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    async fn read(bytes: &[u8], end: u8) -> Vec<Line> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).and_then(|()| file.rewind()).expect("it is written");
        let (mut lines, mut read) = (Lines::new(file, end), Vec::new());
        while let Some(line) = lines.next().await.expect("a file can be read") {
            read.push(line);
        }
        assert_eq!(lines.count(), read.len() as u64);
        read
    }

    fn texts(lines: &[&str]) -> Vec<Line> {
        lines.iter().map(|line| Line::Text((*line).to_owned())).collect()
    }

    #[tokio::test]
    async fn a_line_ends_with_its_mark_or_with_the_file() {
        assert_eq!(read(b"one\n\ntwo", b'\n').await, texts(&["one", "", "two"]));
        assert_eq!(read(b"one\nmore\0two\0", 0).await, texts(&["one\nmore", "two"]));
        assert_eq!(read(b"", b'\n').await, []);
    }

    #[tokio::test]
    async fn a_line_that_is_none_harms_no_other() {
        let bad = |reason: &str| Line::Bad(reason.to_owned());
        let long = [&vec![b'x'; LONGEST + 1][..], b"\nshort\n"].concat();
        assert_eq!(read(&long, b'\n').await, [bad("it is longer than 4 MB"), Line::Text("short".to_owned())]);
        let whole = read(&long[1..], b'\n').await;
        assert!(matches!(&whole[0], Line::Text(text) if text.len() == LONGEST));
        assert_eq!(
            read(b"ab\xff\nc\n", b'\n').await,
            [bad("byte 3 of it is no UTF-8"), Line::Text("c".to_owned())]
        );
    }
}
