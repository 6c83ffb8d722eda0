//! What may run without asking.

use crate::config;

use super::Spec;

/// The rules of the configuration, ready to decide.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    deny: Vec<String>,
    ask: Vec<String>,
    allow: Vec<String>,
    yes: bool,
}

/// What happens to a call, and which rule says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It runs.
    Allow(String),
    /// A person has to agree.
    Ask(String),
    /// It never runs.
    Deny(String),
}

/// A pattern that can match no tool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`policy.{list}` has {pattern:?}, which is no tool name; write names like `fs.write`, with `*` for any run of characters, as in `git.*`"
)]
pub struct Error {
    /// The list it is in.
    pub list: &'static str,
    /// The pattern.
    pub pattern: String,
}

impl Policy {
    /// Takes the rules from the configuration. `yes` answers every question that is not
    /// settled by `deny`.
    pub fn new(config: &config::Policy, yes: bool) -> Result<Self, Error> {
        Ok(Self {
            deny: patterns("deny", &config.deny)?,
            ask: patterns("ask", &config.ask)?,
            allow: patterns("allow", &config.allow)?,
            yes,
        })
    }

    /// Decides about calls of one tool: deny, then ask, then allow, then what it says of itself.
    pub fn decide(&self, spec: &Spec) -> Verdict {
        let name = spec.name.as_str();
        if let Some(pattern) = first(&self.deny, name) {
            return Verdict::Deny(format!("`policy.deny` has `{pattern}`"));
        }
        if let Some(pattern) = first(&self.ask, name) {
            return self.ask(format!("`policy.ask` has `{pattern}`"));
        }
        if let Some(pattern) = first(&self.allow, name) {
            return Verdict::Allow(format!("`policy.allow` has `{pattern}`"));
        }
        if spec.confirm {
            return self.ask("it wants to be confirmed".to_owned());
        }
        if spec.annotations.read_only {
            return Verdict::Allow("it changes nothing".to_owned());
        }
        if !spec.annotations.destructive {
            return Verdict::Allow("it destroys nothing".to_owned());
        }
        self.ask("it may change or destroy something".to_owned())
    }

    fn ask(&self, reason: String) -> Verdict {
        if self.yes { Verdict::Allow(format!("`--yes`, though {reason}")) } else { Verdict::Ask(reason) }
    }
}

fn patterns(list: &'static str, patterns: &[String]) -> Result<Vec<String>, Error> {
    let valid = |pattern: &str| {
        !pattern.is_empty() && pattern.chars().all(|c| c.is_alphanumeric() || "_-.*/:".contains(c))
    };
    match patterns.iter().find(|pattern| !valid(pattern)) {
        Some(pattern) => Err(Error { list, pattern: pattern.clone() }),
        None => Ok(patterns.to_vec()),
    }
}

fn first<'a>(patterns: &'a [String], name: &str) -> Option<&'a str> {
    patterns.iter().map(String::as_str).find(|pattern| matches(pattern, name))
}

/// Whether the pattern covers the whole name. What stands between two `*` is taken where it
/// first fits, which is enough and never goes back.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*') {
        let Some(at) = name.find(piece) else { return false };
        name = &name[at + piece.len()..];
    }
    name.ends_with(tail)
}
