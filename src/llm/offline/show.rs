//! What the model that is none says. Pure.

use serde_json::Value;

use crate::llm::ToolDefinition;
use crate::message::{Message, ToolResult};

/// Characters of one result that are shown.
const SHOWN: usize = 4_000;
/// Tools that are proposed.
const PROPOSED: usize = 6;

/// The results of a round, readable.
pub fn results(message: &Message, tools: &[ToolDefinition]) -> String {
    let shown = message.tool_results().map(|result| self::result(result, tools));
    shown.collect::<Vec<_>>().join("\n\n")
}

/// What can be done without a model, and how to get one.
pub fn help(tools: &[ToolDefinition]) -> String {
    let mut text =
        "There is no language model here, so I only understand plain requests for one of the tools."
            .to_owned();
    let proposed = proposed(tools);
    if !proposed.is_empty() {
        text.push_str(" For example:\n\n");
        for tool in proposed {
            match tool.examples.first() {
                Some(example) => text.push_str(&format!("- {example} (`{}`)\n", tool.title)),
                None => text.push_str(&format!("- {}: {}\n", tool.title, first_sentence(&tool.description))),
            }
        }
    }
    text.push_str(
        "\nTo talk to a model, set a key such as `ANTHROPIC_API_KEY` or `OPENAI_API_KEY`, or `OPENAI_BASE_URL` for a \
         server of your own, or start Ollama; then `omni doctor` shows what was found.",
    );
    text
}

/// The question for a parameter.
pub fn question(tool: &ToolDefinition, name: &str) -> String {
    let schema = tool.parameters.get("properties").and_then(|properties| properties.get(name));
    let description = schema.and_then(|schema| schema.get("description")).and_then(Value::as_str);
    let options = schema.and_then(|schema| schema.get("enum")).and_then(Value::as_array);
    let mut text = format!("`{}` needs `{name}`", tool.title);
    if let Some(description) = description {
        text.push_str(&format!(" ({})", first_sentence(description).trim_end_matches('.')));
    }
    if let Some(options) = options {
        let options: Vec<_> = options.iter().filter_map(Value::as_str).collect();
        text.push_str(&format!(": one of {}", options.join(", ")));
    }
    text.push_str(". What shall it be? (\"cancel\" to drop it)");
    text
}

fn result(result: &ToolResult, tools: &[ToolDefinition]) -> String {
    let tool = tools.iter().find(|tool| tool.name == result.name);
    let title = tool.map_or(result.name.as_str(), |tool| tool.title.as_str());
    let text = result.text();
    let text = match (text.trim(), &result.structured) {
        ("", Some(value)) => pretty(value),
        ("", None) => "done".to_owned(),
        (text, _) => match serde_json::from_str::<Value>(text) {
            Ok(value) if value.is_object() || value.is_array() => pretty(&value),
            _ => text.to_owned(),
        },
    };
    let verb = if result.is_error { " failed" } else { "" };
    let gap = if text.contains('\n') { "\n\n" } else { " " };
    format!("{title}{verb}:{gap}{}", clip(&text))
}

// Flat objects as `key: value` lines, everything else as JSON.
fn pretty(value: &Value) -> String {
    let is_flat = |value: &Value| !(value.is_object() || value.is_array());
    match value {
        Value::String(text) => text.clone(),
        Value::Object(map) if !map.is_empty() && map.values().all(is_flat) => {
            let lines = map.iter().map(|(key, value)| match value {
                Value::String(text) => format!("{key}: {text}"),
                other => format!("{key}: {other}"),
            });
            lines.collect::<Vec<_>>().join("\n")
        }
        Value::Array(list) if !list.is_empty() && list.iter().all(Value::is_string) => list
            .iter()
            .filter_map(Value::as_str)
            .map(|line| format!("- {line}"))
            .collect::<Vec<_>>()
            .join("\n"),
        other => serde_json::to_string_pretty(other).unwrap_or_else(|_| other.to_string()),
    }
}

fn clip(text: &str) -> String {
    let length = text.chars().count();
    if length <= SHOWN {
        return text.to_owned();
    }
    let shown: String = text.chars().take(SHOWN).collect();
    format!("{shown}\n… ({} more characters)", length - SHOWN)
}

// One of each family, the harmless and the ones with a sentence to say first.
fn proposed(tools: &[ToolDefinition]) -> Vec<&ToolDefinition> {
    let mut sorted: Vec<&ToolDefinition> = tools.iter().collect();
    sorted.sort_by_key(|tool| (tool.examples.is_empty(), !tool.read_only));
    let mut families = std::collections::HashSet::new();
    let family = |tool: &ToolDefinition| tool.title.split('.').next().unwrap_or_default().to_owned();
    sorted.into_iter().filter(|tool| families.insert(family(tool))).take(PROPOSED).collect()
}

fn first_sentence(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    line.split_once(". ").map_or(line, |(sentence, _)| sentence)
}
