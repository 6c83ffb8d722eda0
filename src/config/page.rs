//! The settings as people read them: those in effect, and the reference page.

use std::collections::BTreeMap;
use std::fmt::Write;

use toml::{Table, Value};
use toml_edit::{Document, Key};

use super::environment::{VARIABLES, variable};
use super::{DEFAULTS, Loaded, Origin};

/// The settings in effect, as TOML in the order of the defaults; with `origin`, each says where
/// it is from. Secrets are stars, references to them (`env:NAME`) are shown.
pub fn show(loaded: &Loaded, origin: bool) -> String {
    let values = Table::try_from(&loaded.config).expect("settings are TOML");
    let order = Document::parse(DEFAULTS).expect("the defaults are TOML; a test reads them");
    let mut page = Page { text: String::new(), origins: origin.then_some(&loaded.origins) };
    for (section, keys) in order.as_table().iter() {
        let Some(values) = values.get(section).and_then(Value::as_table) else { continue };
        if section == "provider" || section == "skill" {
            for (name, values) in values {
                let keys = values.as_table().into_iter().flatten();
                page.section(&[section, name], keys.map(|(key, value)| (key.as_str(), value)));
            }
            continue;
        }
        let keys = keys.as_table_like().into_iter().flat_map(|keys| keys.iter());
        page.section(&[section], keys.filter_map(|(key, _)| Some((key, values.get(key)?))));
    }
    page.text
}

struct Page<'a> {
    text: String,
    origins: Option<&'a BTreeMap<String, Origin>>,
}

impl Page<'_> {
    fn section<'a>(&mut self, path: &[&str], values: impl Iterator<Item = (&'a str, &'a Value)>) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let quoted: Vec<String> = path.iter().map(|name| Key::new(*name).to_string()).collect();
        self.line(&format!("[{}]", quoted.join(".")));
        for (key, value) in values {
            let dotted = format!("{}.{key}", path.join("."));
            let origin = self.origins.and_then(|origins| origins.get(&dotted));
            let from = origin.map(|origin| format!("  # from {}", one_line(origin))).unwrap_or_default();
            self.line(&format!("{key} = {value}{from}"));
        }
    }

    fn line(&mut self, line: &str) {
        writeln!(self.text, "{line}").expect("a String takes everything");
    }
}

/// A path may have any letter, a comment may not.
fn one_line(origin: &Origin) -> String {
    origin.to_string().replace(char::is_control, "?")
}

/// The page `docs/configuration.md`, made from the defaults and their comments.
pub fn reference() -> String {
    let mut page = String::from("# Configuration\n\n<!-- Made from src/config/defaults.toml. -->\n\n");
    let mut comment: Vec<&str> = Vec::new();
    let mut section = "";
    for line in DEFAULTS.lines().chain([""]) {
        if let Some(text) = line.strip_prefix('#') {
            comment.push(text.strip_prefix(' ').unwrap_or(text));
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
            page += &format!("## `[{section}]`\n\n{}\n", prose(&comment));
        } else if let Some((key, value)) = line.split_once(" = ") {
            let key = format!("{section}.{key}");
            page += &format!(
                "### `{key}`\n\n{}\nDefault: `{value}`. Environment: `{}`.\n\n",
                prose(&comment),
                variable(&key)
            );
        } else if section.is_empty() && !comment.is_empty() {
            page += &format!("{}\n{}\n", prose(&comment), environment());
        }
        comment.clear();
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn environment() -> String {
    let mut text = String::from(
        "## Environment\n\n\
         `OMNI_SECTION__KEY` sets `section.key`: two underscores stand for the dot, and letters are\n\
         lowered, as in `OMNI_LIMITS__TOOL_CALLS=50` or `OMNI_PROVIDER__LAB__API_KEY=env:LAB_KEY`. The value\n\
         is read as TOML (`30`, `[\"a\", \"b\"]`); where a text is wanted, or it is no TOML, it is taken as the\n\
         text it is. An empty value counts as not set. These have a meaning of their own:\n\n",
    );
    for (name, meaning) in VARIABLES {
        text += &format!("* `{name}`: {meaning}\n");
    }
    text
}

/// A comment as markdown: what is indented in it is an example.
fn prose(comment: &[&str]) -> String {
    let mut text = String::new();
    let mut example = false;
    for line in comment {
        let code = line.strip_prefix("  ");
        if code.is_some() != example {
            text += match code {
                Some(code) if code.trim_start().starts_with('[') => "```toml\n",
                Some(_) => "```text\n",
                None => "```\n",
            };
            example = !example;
        }
        text += code.unwrap_or(line);
        text.push('\n');
    }
    text + if example { "```\n" } else { "" }
}
