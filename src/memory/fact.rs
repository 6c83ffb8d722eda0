//! Which note takes the place of which (pure): one that says something else of the same.
//!
//! Nobody is asked what a note means, so the rule is careful: both have to be one short sentence
//! that says the same up to where something is given a value. What is not seen stays beside the
//! older note, which is how it would be without a rule.

/// Words of a note that is looked at, and of the value in it.
const WORDS: usize = 16;
const VALUE: usize = 5;
/// Words behind which there is a value, of whatever they are said.
const NAMING: &[&[&str]] = &[
    &["is", "called"],
    &["is", "named"],
    &["are", "called"],
    &["lives", "in"],
    &["runs", "on"],
    &["listens", "on"],
    &["is", "in"],
    &["is", "at"],
    &["heißt"],
    &["liegt", "in"],
    &["叫"],
];
/// The same behind what belongs to something: of a person alone, `is` may say several things.
const BEING: &[&[&str]] = &[&["is"], &["are"], &["ist"], &["sind"]];
/// Signs that something belongs to something.
const OWNING: &[&str] =
    &["my", "our", "your", "his", "her", "their", "its", "of", "mein", "meine", "unser", "von"];
/// Words that only say since when.
const SINCE: &[&str] = &["now", "currently", "today", "actually", "instead", "jetzt", "nun", "现在"];

/// What a note gives a value to, in words that are the same for the same; `None` where it does not
/// look like that.
pub fn about(note: &str) -> Option<String> {
    let note = note.trim().trim_end_matches(['.', '!', '。']);
    if note.contains(['\n', ';', '?']) || note.contains(". ") {
        return None;
    }
    if let Some((name, value)) = note.split_once(['=', ':']).filter(|(_, value)| !value.starts_with("//")) {
        let is_short = |text: &str, most: usize| (1..=most).contains(&text.split_whitespace().count());
        return (is_short(name, VALUE) && is_short(value, VALUE)).then(|| plain(name).join(" "));
    }
    let words = plain(note);
    if words.len() > WORDS {
        return None;
    }
    let at = |link: &[&str]| words.windows(link.len()).position(|words| words == link);
    let named = NAMING.iter().find_map(|link| Some((at(link)?, *link)));
    let named = named.or_else(|| {
        BEING.iter().find_map(|link| Some((at(link)?, *link))).filter(|(place, _)| {
            let owner = |word: &String| OWNING.contains(&word.as_str()) || word.ends_with("'s");
            words[..*place].iter().any(owner)
        })
    });
    let (place, link) = named?;
    let value = words.len() - place - link.len();
    (place > 0 && (1..=VALUE).contains(&value)).then(|| words[..place + link.len()].join(" "))
}

/// Small letters, one apostrophe, and nothing that only says since when.
fn plain(text: &str) -> Vec<String> {
    let words = text.split([' ', '\t', ',']).filter(|word| !word.is_empty());
    let words = words.map(|word| word.to_lowercase().replace('’', "'"));
    words.filter(|word| !SINCE.contains(&word.as_str())).collect()
}
