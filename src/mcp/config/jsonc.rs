//! JSON as people write it: with comments and commas at the end.

/// The same text as plain JSON. Everything stays on its line, so that errors name the right one.
pub(super) fn plain(text: &str) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => string(rest),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest[2..].find("*/").map_or(rest.len(), |end| end + 4),
            _ => first.len_utf8(),
        };
        let (piece, after) = rest.split_at(length);
        match first {
            '/' if length > 1 => out.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
            '}' | ']' => {
                drop_comma(&mut out);
                out.push(first);
            }
            _ => out.push_str(piece),
        }
        rest = after;
    }
    out
}

/// The length of the string at the beginning.
fn string(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let closes = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        closes
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

/// Takes the comma away that ends the text, if one does.
fn drop_comma(out: &mut String) {
    if let Some(at) = out.rfind(|c: char| !c.is_whitespace()).filter(|at| out[*at..].starts_with(',')) {
        out.replace_range(at..=at, " ");
    }
}
