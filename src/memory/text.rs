//! Text as the index sees it, and what of it is not kept (pure).

use std::sync::LazyLock;

use regex::Regex;

/// Chinese, Japanese and Korean are written without spaces, so a run of them becomes pairs of
/// neighbours: `会議室` is found by `会議` and by `議室`. Everything else stays as it is.
pub fn spaced(text: &str) -> String {
    let mut spaced = String::with_capacity(text.len() + text.len() / 4);
    let mut run: Vec<char> = Vec::new();
    for letter in text.chars() {
        if is_cjk(letter) {
            run.push(letter);
            continue;
        }
        flush(&mut run, &mut spaced);
        spaced.push(letter);
    }
    flush(&mut run, &mut spaced);
    spaced
}

fn flush(run: &mut Vec<char>, spaced: &mut String) {
    if run.is_empty() {
        return;
    }
    spaced.push(' ');
    match run.as_slice() {
        [single] => spaced.extend([*single, ' ']),
        letters => letters.windows(2).for_each(|pair| spaced.extend([pair[0], pair[1], ' '])),
    }
    run.clear();
}

fn is_cjk(letter: char) -> bool {
    matches!(u32::from(letter),
        0x3040..=0x30ff | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xac00..=0xd7af | 0xf900..=0xfaff | 0x20000..=0x3ffff)
}

/// Words that a question has and what is asked for has not, by their stems.
const ASKING: &[&str] = &[
    "what", "when", "where", "who", "whom", "which", "whi", "how", "did", "do", "doe", "has", "have", "had",
    "would", "could", "i", "you", "he", "she", "his", "her", "him", "me", "my", "your", "s",
];

/// The words of a question that say what it is about; all of them where none does.
pub fn asked(words: Vec<String>) -> Vec<String> {
    let telling: Vec<String> =
        words.iter().filter(|word| !ASKING.contains(&word.as_str())).cloned().collect();
    if telling.is_empty() { words } else { telling }
}

/// What is never kept: its name, and how it looks.
pub const SECRETS: &[(&str, &str)] = &[
    ("private key", r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)"),
    ("key", r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}"),
    ("key", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    ("key", r"\bAIza[A-Za-z0-9_-]{35}"),
    ("token", r"\b(?:gh[pousr]|github_pat|glpat|xox[abprs]|hf|npm|pypi)[_-][A-Za-z0-9_-]{16,}"),
    ("token", r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*"),
    ("token", r"(?i)\bbearer\s+[A-Za-z0-9._~+/-]{12,}=*"),
    ("password", r"(?i)[a-z][a-z0-9+.-]*://[^\s/:@]+:[^\s/@]+@"),
    (
        "password",
        r#"(?i)\b[a-z0-9_-]*(?:password|passwd|passwort|secret|token|api[_-]?key)["']?\s*(?:[:=]|\bis\b|\bist\b)\s*["']?[^\s"',;]{4,}"#,
    ),
    ("card", r"\b(?:\d[ -]?){13,19}\b"),
    ("e-mail", r"(?i)\b[a-z0-9._%+-]+@[a-z0-9.-]+\.[a-z]{2,}\b"),
];

static RULES: LazyLock<Vec<(&str, Regex)>> = LazyLock::new(|| {
    SECRETS.iter().map(|(name, rule)| (*name, Regex::new(rule).expect("a test compiles them"))).collect()
});

/// The text with `[key]`, `[password]` and so on in the place of what is not kept.
pub fn without_secrets(text: &str) -> String {
    RULES.iter().fold(text.to_owned(), |text, (name, rule)| {
        let replaced = rule.replace_all(&text, |found: &regex::Captures<'_>| {
            match *name != "card" || is_card(&found[0]) {
                true => format!("[{name}]"),
                false => found[0].to_owned(),
            }
        });
        replaced.into_owned()
    })
}

/// Luhn's check: most long numbers are none of a card.
fn is_card(text: &str) -> bool {
    let digits = text.chars().rev().filter_map(|letter| letter.to_digit(10));
    let sum: u32 = digits
        .enumerate()
        .map(|(place, digit)| if place % 2 == 0 { digit } else { digit * 2 - if digit > 4 { 9 } else { 0 } })
        .sum();
    sum.is_multiple_of(10)
}

/// The first `limit` characters, with an ellipsis where something is missing. NUL, which
/// PostgreSQL refuses in a text, is left out.
pub fn cut(text: &str, limit: usize) -> String {
    let mut letters = text.trim().chars().filter(|letter| *letter != '\0');
    let mut short: String = letters.by_ref().take(limit).collect();
    if letters.next().is_some() {
        short.pop();
        short.push('…');
    }
    short
}
