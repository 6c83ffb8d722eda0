//! `omni setup`: what it finds, what it tries, and what it writes.

use crate::support::omni::{OMNI, Run, World};
use crate::support::terminal::Terminal;
use crate::support::vendor::{Answer, Vendor};

const KEY: &str = "sk-very-secret-0123456789";

/// Nothing is configured but what a test adds.
fn setup(world: &World, arguments: &[&str]) -> Run {
    world.omni([&["setup"], arguments].concat()).without("OMNI_MODEL__NAME").env("OLLAMA_HOST", "127.0.0.1:9")
}

fn with(run: Run, vendor: &Vendor) -> Run {
    run.env("OPENAI_BASE_URL", vendor.openai_url()).env("OPENAI_API_KEY", KEY)
}

fn written(world: &World) -> Option<String> {
    std::fs::read_to_string(world.home().join("config/config.toml")).ok()
}

#[test]
fn with_nothing_there_words_still_go_to_tools() {
    let world = World::new();
    let output = setup(&world, &[]).run().succeeded();
    assert!(output.out.contains("1. offline (words are routed to tools)"), "{output}");
    assert!(output.err.contains("set ANTHROPIC_API_KEY"), "{output}");
    assert_eq!(written(&world), None);
}

#[test]
fn what_is_found_by_itself_is_tried_and_not_written() {
    let (world, vendor) = (World::new(), Vendor::launch());
    vendor.models(&["gpt-5.6"]);
    vendor.answer(Answer::text("ready"));
    let output = with(setup(&world, &[]), &vendor).run().succeeded();
    assert!(output.out.contains("✓ openai/gpt-5.6 answered in"), "{output}");
    assert!(output.out.contains("nothing to write"), "{output}");
    assert_eq!(vendor.requests().len(), 1, "one question");
    assert_eq!(written(&world), None);
}

#[test]
fn another_choice_is_written_beside_what_is_there() {
    let (world, vendor) = (World::new(), Vendor::launch());
    world.settings(
        "# mine\n[limits]\nrounds = 3 # few\n\n[model]\nname = \"offline\" # for now\nretries = 1\n",
    );
    vendor.answer(Answer::text("ready"));
    let output = with(setup(&world, &["--model", "openai/gpt-4o"]), &vendor).run().succeeded();
    assert!(output.out.contains("`model.name` is `openai/gpt-4o` in"), "{output}");
    let kept =
        "# mine\n[limits]\nrounds = 3 # few\n\n[model]\nname = \"openai/gpt-4o\" # for now\nretries = 1\n";
    assert_eq!(written(&world).as_deref(), Some(kept));
}

#[test]
fn a_model_that_does_not_answer_is_not_kept() {
    let (world, vendor) = (World::new(), Vendor::launch());
    vendor.answer(Answer::status(401, &format!("incorrect key: {KEY}")));
    let output = with(setup(&world, &["--model", "openai/gpt-4o"]), &vendor).run().exited(3);
    assert!(output.err.contains("nothing was written"), "{output}");
    assert!(!output.to_string().contains(KEY), "{output}");
    assert_eq!(written(&world), None);
}

#[test]
fn every_editor_is_told_of_by_the_name_that_a_shell_knows() {
    let world = World::new();
    let told = setup(&world, &["--all"]).run().succeeded().out;
    assert!(told.contains(&format!("claude mcp add omni -- {OMNI} mcp")), "{told}");
    let folder = std::path::Path::new(OMNI).parent().expect("a folder").display();
    let told = setup(&world, &["--all"]).env("PATH", folder.to_string()).run().succeeded().out;
    for line in [
        "claude mcp add omni -- omni mcp",
        "codex mcp add omni -- omni mcp",
        r#"code --add-mcp '{"name":"omni","command":"omni","args":["mcp"]}'"#,
        r#""agent_servers": {"omni":{"type":"custom","command":"omni","args":["acp"]}}"#,
        r#"~/.jetbrains/acp.json: {"agent_servers":{"omni":{"command":"omni","args":["acp"]}}}"#,
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
}

#[test]
fn somebody_chooses_at_a_terminal() {
    let (world, vendor) = (World::new(), Vendor::launch());
    let prepare = |run: Run| with(run, &vendor).without("OMNI_MODEL__NAME").env("OLLAMA_HOST", vendor.url());
    vendor.models(&["qwen3"]);
    vendor.answer(Answer::text("ready"));
    let terminal = Terminal::open(&world, &["setup", "--all"], prepare);
    let asked = terminal.until("Which one?");
    assert!(asked.contains("1. openai/qwen3") && asked.contains("2. ollama/qwen3"), "{asked}");
    terminal.types("7").presses(&["Enter"]).until("there is no number 7");
    terminal.types("2").presses(&["Enter"]);
    let done = terminal.until("left with 0");
    assert!(done.contains("claude mcp add omni --") && done.contains("agent_servers"), "{done}");
    assert_eq!(written(&world).as_deref(), Some("[model]\nname = \"ollama/qwen3\"\n"));
}
