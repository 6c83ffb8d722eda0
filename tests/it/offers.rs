//! What skills offer besides tools: documents and prompts. And tools that are kept further away
//! than their skill.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use omni::config;
use omni::kernel::guide::Guide;
use omni::kernel::{Interpreter, Kernel};
use omni::message::{Block, ToolCall};
use omni::skill::manifest::Manifest;
use omni::tool::{Error, Output, Policy, Scope, Settings, Spec, Toolbox};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::tools;

// Making a world.

fn binary(home: &Path) -> Command {
    let skill = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/skills/offers");
    let mut command = Command::new(env!("CARGO_BIN_EXE_omni"));
    command.env("OMNI_HOME", home).current_dir(home).arg("--skills").arg(skill);
    command
}

struct World {
    toolbox: Arc<Toolbox>,
    scope: Arc<Scope>,
    _folder: TempDir,
}

impl World {
    fn new() -> Self {
        Self::denying(&[])
    }

    fn denying(names: &[&str]) -> Self {
        let deny = names.iter().map(|name| name.to_string()).collect();
        let policy = config::Policy { allow: Vec::new(), ask: Vec::new(), deny };
        let folder = TempDir::new().unwrap();
        let output = binary(folder.path()).args(["sync", "--json"]).output().unwrap();
        let mut manifest: Manifest = serde_json::from_slice(&output.stdout).unwrap();
        manifest.skills.retain(|skill| skill.card.name == "offers");
        assert_eq!(manifest.problems().count(), 0, "{:?}", manifest.problems().collect::<Vec<_>>());
        let kernel = Kernel::new(Interpreter::Embedded, &manifest, folder.path().join("data"));
        let kernel = kernel.started_by(|| Ok(Command::new(env!("CARGO_BIN_EXE_omni"))));
        let settings = Settings { policy: Policy::new(&policy, false).unwrap(), ..tools::settings() };
        let guide = Guide::new(&manifest);
        guide.hand_out();
        let sets: Vec<Arc<dyn omni::tool::Toolset>> = vec![Arc::new(kernel), Arc::new(guide)];
        let toolbox = Arc::new(Toolbox::new(sets, settings));
        let workspace = folder.path().join("workspace");
        std::fs::create_dir(&workspace).unwrap();
        let scope = Arc::new(Scope { session: Some("s1".into()), ..Scope::new(workspace) });
        Self { toolbox, scope, _folder: folder }
    }

    async fn read(&self, uri: &str) -> Result<Output, Error> {
        self.toolbox.read(uri, &self.scope).await
    }

    async fn prompt(&self, name: &str, arguments: Value) -> Result<Output, Error> {
        let Value::Object(arguments) = arguments else { panic!("no object") };
        self.toolbox.prompt(name, arguments, &self.scope).await
    }

    async fn call(&self, name: &str) -> Result<Output, Error> {
        let call = ToolCall { id: "c1".into(), name: name.into(), arguments: json!({}).into() };
        self.toolbox.call(call, &self.scope).await
    }
}

fn text(output: Output) -> String {
    match output.content.as_slice() {
        [Block::Text { text }] => text.clone(),
        other => panic!("no text: {other:?}"),
    }
}

fn names<'a>(specs: impl Iterator<Item = &'a Arc<Spec>>) -> Vec<&'a str> {
    specs.map(|spec| spec.name.as_str()).collect()
}

// Documents.

#[tokio::test]
async fn documents_are_listed_and_read() {
    let world = World::new();
    let listed = [
        "offers.dish",
        "offers.picture",
        "offers.today",
        "skill/offers/SKILL.md",
        "skill/offers/references/forms.md",
        "skill/offers/scripts/offers.py",
    ];
    assert_eq!(names(world.toolbox.resources()), listed);
    assert_eq!(text(world.read("offers://today").await.unwrap()), "soup");
    assert_eq!(text(world.read("offers://M%C3%A4rz/4.md").await.unwrap()), "März: 5 s1");
    assert_eq!(text(world.read("skill://offers/references/forms.md").await.unwrap()), "# Forms\n");
    let card = world.read("skill://offers/SKILL.md").await.unwrap();
    assert_eq!(card.structured.as_ref().unwrap()["name"], "offers");
    assert!(text(card).starts_with("---\n"), "it is the whole file");
    let picture = serde_json::to_value(world.read("offers://picture").await.unwrap().content).unwrap();
    assert_eq!((&picture[0]["mime"], &picture[0]["blob"]), (&json!("image/png"), &json!("iVBORw==")));
}

#[tokio::test]
async fn what_is_no_document_is_told() {
    let world = World::new();
    for (uri, told) in [
        ("offers://nothing", "there is no resource `offers://nothing`"),
        ("offers://may/x.md", "`number`"),
        ("skill://offers/scripts", "there is no resource"),
    ] {
        let error = world.read(uri).await.unwrap_err();
        assert!(matches!(&error, Error::Retry(words) if words.contains(told)), "{uri}: {error}");
    }
}

// Prompts.

#[tokio::test]
async fn prompts_are_listed_and_said() {
    let world = World::new();
    assert_eq!(names(world.toolbox.prompts()), ["offers.dialogue", "offers.greet", "skill/offers"]);
    let greet = world.prompt("offers.greet", json!({"name": "Ada"})).await.unwrap();
    assert_eq!(text(greet), "Greet Ada in English.");
    let dialogue = world.prompt("offers.dialogue", json!({})).await.unwrap().structured.unwrap();
    assert_eq!(
        dialogue["result"][1],
        json!({"role": "assistant", "content": {"type": "text", "text": "Who is there?"}})
    );
    assert_eq!(text(world.prompt("skill/offers", json!({})).await.unwrap()), "Read the references first.\n");
    for (name, told) in
        [("offers.greet", "`name`"), ("offers.nothing", "there is no prompt `offers.nothing`")]
    {
        let error = world.prompt(name, json!({})).await.unwrap_err();
        assert!(error.to_string().contains(told), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_model_neither_sees_nor_calls_them() {
    let world = World::new();
    let offered: Vec<_> = world.toolbox.definitions().iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(offered, ["offers.process", "offers.process_once", "skill.read"]);
    assert_eq!(names(world.toolbox.specs()), offered);
    for name in ["offers.today", "offers__greet", "skill/offers"] {
        let refused = world.call(name).await;
        assert!(matches!(refused, Err(Error::Retry(_))), "{name}: {refused:?}");
    }
}

#[tokio::test]
async fn what_the_policy_denies_is_not_there() {
    let world = World::denying(&["offers.today", "offers.greet"]);
    assert!(!names(world.toolbox.resources()).contains(&"offers.today"));
    assert!(world.read("offers://today").await.is_err());
    assert!(world.prompt("offers.greet", json!({"name": "Ada"})).await.is_err());
}

// Tools that are kept further away.

#[tokio::test]
async fn a_tool_may_have_a_process_for_each_call() {
    let world = World::new();
    let mut processes = Vec::new();
    for name in ["offers.process", "offers.process_once", "offers.process_once", "offers.process"] {
        processes.push(text(world.call(name).await.unwrap()));
    }
    assert_eq!(processes[0], processes[3], "the skill's worker is kept");
    processes.sort();
    processes.dedup();
    assert_eq!(processes.len(), 3);
}

// Wrong ones.

#[tokio::test]
async fn what_does_not_fit_is_told_where_it_is_written() {
    let folder = TempDir::new().unwrap();
    let skill = folder.path().join("wrong");
    std::fs::create_dir_all(skill.join("scripts")).unwrap();
    std::fs::write(skill.join("SKILL.md"), "---\nname: wrong\ndescription: Wrong.\n---\n").unwrap();
    for (body, told) in [
        ("@resource('a b')\ndef f() -> str: return ''\n", "is no URI"),
        ("@resource('a://{x}')\ndef f(y: str) -> str: return ''\n", "parameters differ in `x`, `y`"),
        ("@prompt\ndef f(number: int) -> str: return ''\n", "the parameter `number` of a prompt is no text"),
        ("@tool(isolation='thread')\ndef f() -> str: return ''\n", "isolation is `worker` or `oneshot`"),
    ] {
        let source = format!("from omni import prompt, resource, tool\n\n{body}");
        std::fs::write(skill.join("scripts/wrong.py"), source).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_omni"));
        command.env("OMNI_HOME", folder.path().join("home")).current_dir(folder.path());
        let output = command.arg("--skills").arg(&skill).args(["skill", "check"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(told) && said.contains("wrong.py"), "{body}: {said}");
    }
}
