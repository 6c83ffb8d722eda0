//! Settings in the environment, and every other variable that is read.
//!
//! `OMNI_SECTION__KEY` sets `section.key`: two underscores stand for the dot, letters are
//! lowered (`OMNI_LIMITS__TOOL_CALLS`, `OMNI_PROVIDER__LAB__API_KEY`). The value is read as
//! TOML (`30`, `true`, `["a", "b"]`); where a text is wanted, or it is no TOML, it is taken as
//! the text it is. An empty value counts as not set.

use super::layers::known_keys;

/// Variables with a meaning of their own, and what it is.
pub const VARIABLES: &[(&str, &str)] =
    &[("OMNI_HOME", "A folder that takes the place of the configuration, data, state and cache folders.")];

/// The environment of this process, for [`load`](super::load). A variable that is no Unicode is
/// left out: it can be no setting.
pub fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// What the name of a variable says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// It sets the key of this path.
    Setting(Vec<String>),
    /// It sets nothing, but looks as if it should set this key.
    Almost(String),
    /// It is none of ours, or no setting.
    Other,
}

/// Reads the name of a variable. One without two underscores sets nothing: other programs use
/// `OMNI_` too, so it is left alone unless it is exactly a key with one underscore missing.
pub(super) fn name(variable: &str) -> Name {
    let Some(rest) = variable.strip_prefix("OMNI_") else { return Name::Other };
    if VARIABLES.iter().any(|(known, _)| *known == variable) {
        return Name::Other;
    }
    if rest.contains("__") {
        return Name::Setting(rest.to_ascii_lowercase().split("__").map(str::to_owned).collect());
    }
    let meant = |key: &String| key.replace('.', "_").eq_ignore_ascii_case(rest);
    known_keys().into_iter().find(meant).map_or(Name::Other, Name::Almost)
}

/// The variable that sets `key`.
pub fn variable(key: &str) -> String {
    format!("OMNI_{}", key.replace('.', "__").to_ascii_uppercase())
}

/// The value of a variable, where the setting is a text or is not.
pub(super) fn value(text: &str, wants_text: bool) -> toml::Value {
    match text.trim().parse::<toml::Value>() {
        Ok(value) if value.is_str() || !wants_text => value,
        _ => toml::Value::String(text.to_owned()),
    }
}
