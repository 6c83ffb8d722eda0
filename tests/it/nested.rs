//! What a tool asks for while it runs, in this process and from a worker: other tools, the
//! person, the model.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use futures::future::join_all;
use omni::kernel::{Interpreter, Kernel};
use omni::message::ToolCall;
use omni::message::event::{Approval, Consent, Elicitation, EventKind};
use omni::skill::manifest::Manifest;
use omni::tool::nested::Sample;
use omni::tool::{Error, Scope, Toolbox, result};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::support::tools::{self, PATIENCE};

// Making a world.

/// The same skill in this process and in workers.
const BOTH: [&str; 2] = ["inside", "outside"];

fn variant(folder: &Path, name: &str, level: &str) -> PathBuf {
    let origin = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/skills/asks");
    let skill = folder.join(name);
    std::fs::create_dir_all(skill.join("scripts")).unwrap();
    std::fs::copy(origin.join("scripts/asks.py"), skill.join("scripts/asks.py")).unwrap();
    let text = format!("---\nname: {name}\ndescription: A variant.\nmetadata:\n  isolation: {level}\n---\n");
    std::fs::write(skill.join("SKILL.md"), text).unwrap();
    skill
}

fn manifest() -> &'static Manifest {
    static MANIFEST: OnceLock<(TempDir, Manifest)> = OnceLock::new();
    let make = || {
        let folder = TempDir::new().unwrap();
        let skills =
            [variant(folder.path(), "inside", "thread"), variant(folder.path(), "outside", "worker")];
        let mut command = Command::new(env!("CARGO_BIN_EXE_omni"));
        command.env("OMNI_HOME", folder.path().join("home")).current_dir(folder.path());
        for skill in &skills {
            command.arg("--skills").arg(skill);
        }
        let output = command.args(["sync", "--json"]).output().unwrap();
        let mut manifest: Manifest = serde_json::from_slice(&output.stdout).unwrap();
        manifest.skills.retain(|skill| skills.contains(&skill.folder));
        manifest.skills.iter_mut().for_each(|skill| skill.trusted = true);
        assert_eq!(manifest.problems().count(), 0, "{:?}", manifest.problems().collect::<Vec<_>>());
        (folder, manifest)
    };
    &MANIFEST.get_or_init(make).1
}

struct World {
    toolbox: Arc<Toolbox>,
    folder: TempDir,
    scope: Scope,
    events: Arc<Mutex<Vec<EventKind>>>,
}

impl World {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let kernel = Kernel::new(Interpreter::Embedded, manifest(), folder.path().join("data"));
        let kernel = kernel.started_by(|| Ok(Command::new(env!("CARGO_BIN_EXE_omni"))));
        let toolbox = tools::toolbox(Arc::new(kernel));
        let workspace = folder.path().join("workspace");
        std::fs::create_dir(&workspace).unwrap();
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = events.clone();
        let scope = Scope {
            session: Some("s1".into()),
            events: Some(Arc::new(move |kind| heard.lock().unwrap().push(kind))),
            ..Scope::new(workspace)
        };
        Self { toolbox, folder, scope, events }
    }

    /// One whose skills are imported already, which takes its time on a busy machine.
    async fn warm() -> Self {
        let world = Self::new();
        for own in BOTH {
            world.text(format!("{own}.doubles"), json!({"number": 1})).await;
        }
        world
    }

    fn workspace(&self, file: &str) -> PathBuf {
        self.folder.path().join("workspace").join(file)
    }

    async fn run_in(&self, tool: &str, arguments: Value, scope: Scope) -> Result<String, Error> {
        let call = ToolCall { id: "c1".into(), name: tool.into(), arguments: arguments.into() };
        let output = self.toolbox.call(call.clone(), &Arc::new(scope)).await?;
        Ok(result(&call, Ok(output)).text())
    }

    async fn run(&self, tool: &str, arguments: Value) -> Result<String, Error> {
        self.run_in(tool, arguments, self.scope.clone()).await
    }

    async fn text(&self, tool: String, arguments: Value) -> String {
        self.run(&tool, arguments).await.unwrap_or_else(|error| panic!("{tool}: {error}"))
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

// Other tools.

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_calls_tools_wherever_they_are() {
    let world = World::new();
    for (own, other) in [("inside", "outside"), ("outside", "inside"), ("inside", "inside")] {
        for calls in ["calls", "calls_soon"] {
            for doubles in ["doubles", "doubles_soon"] {
                let asked = json!({"name": format!("{other}.{doubles}"), "arguments": {"number": 4}});
                let said = world.text(format!("{own}.{calls}"), asked).await;
                assert_eq!(said, r#"{"number":8} {'number': 8}"#, "{own}.{calls} {other}.{doubles}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_tools_change_in_files_is_with_the_result_of_the_outermost() {
    let world = World::new();
    // The second is too long to be kept.
    let lengths = json!({ "lengths": [1, 256 << 10, 2] });
    for own in BOTH {
        for edits in ["edits", "edits_soon"] {
            let asked = json!({ "name": format!("{own}.{edits}"), "arguments": lengths });
            let calls = [(format!("{own}.{edits}"), lengths.clone()), ("inside.calls".to_owned(), asked)];
            for (tool, arguments) in calls {
                let call = ToolCall { id: "c1".into(), name: tool.clone(), arguments: arguments.into() };
                let results = world.toolbox.call_all(vec![call], &Arc::new(world.scope.clone())).await;
                let shown = json!(results[0].changes);
                let expected =
                    json!([{ "path": "0.txt", "new": "x" }, { "path": "2.txt", "old": "old", "new": "xx" }]);
                assert_eq!(shown, expected, "{tool}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_there_is_for_the_tool_to_know() {
    let world = World::new();
    for own in BOTH {
        for (asked, told) in [
            (json!({"name": "inside.nothing", "arguments": {}}), "there is no tool `inside.nothing`"),
            (json!({"name": "outside.doubles", "arguments": {"number": "x"}}), "`number`"),
            (json!({"name": "inside.calls", "arguments": {"name": 3, "arguments": {}}}), "`name`"),
        ] {
            for calls in ["calls", "calls_soon"] {
                let said = world.text(format!("{own}.{calls}"), asked.clone()).await;
                assert!(said.starts_with("failed: ") && said.contains(told), "{own}.{calls}: {said}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_reported_under_the_call_that_made_it() {
    for own in BOTH {
        let world = World::new();
        let asked = json!({"name": format!("{own}.calls"), "arguments":
            {"name": "inside.doubles", "arguments": {"number": 4}}});
        world.text(format!("{own}.calls"), asked).await;
        let events = world.events.lock().unwrap();
        let told = events.iter().map(|event| match event {
            EventKind::ToolStarted { call, parent, tool, .. } => format!("+{call} {parent:?} {tool}"),
            EventKind::ToolFinished { call, parent, result, .. } => {
                format!("-{call} {parent:?} {}", result.is_error)
            }
            other => panic!("{other:?}"),
        });
        let expected = [
            format!("+c1.1 Some(\"c1\") {own}.calls"),
            "+c1.1.1 Some(\"c1.1\") inside.doubles".to_owned(),
            "-c1.1.1 Some(\"c1.1\") false".to_owned(),
            "-c1.1 Some(\"c1\") false".to_owned(),
        ];
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_and_the_person_have_their_say() {
    let world = World::new();
    for own in BOTH {
        let asked = json!({"name": "outside.writes", "arguments": {"text": "x"}});
        let refused = world.text(format!("{own}.calls"), asked.clone()).await;
        assert!(refused.contains("nobody could be asked"), "{refused}");
        for (consent, said) in [(Consent::Once, "written: x"), (Consent::No, "does not want")] {
            let questions = Arc::new(Mutex::new(Vec::new()));
            let heard = questions.clone();
            let approver = move |approval: Approval| {
                approval.answer.give(consent);
                heard.lock().unwrap().push((approval.call, approval.tool));
            };
            let scope = Scope { approver: Some(Arc::new(approver)), ..world.scope.clone() };
            let told = world.run_in(&format!("{own}.calls"), asked.clone(), scope).await.unwrap();
            assert!(told.contains(said), "{told}");
            assert_eq!(*questions.lock().unwrap(), [("c1.1".to_owned(), "outside.writes".to_owned())]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn they_come_out_of_one_budget() {
    let world = World::new();
    for own in BOTH {
        world.scope.budget.grant(3);
        let four =
            json!({"name": "inside.doubles", "several": [{"number": 1}, {"number": 2}, {"number": 3}]});
        world.text(format!("{own}.gathers"), four).await;
        let asked = json!({"name": "inside.doubles", "arguments": {"number": 1}});
        let said = world.text(format!("{own}.calls"), asked).await;
        assert_eq!(said, "failed: this turn has no tool calls left");
        assert_eq!(world.scope.budget.spent().0, 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_nested_so_deep_and_never_in_what_waits_for_them() {
    let world = World::new();
    for own in BOTH {
        let said = world.text(format!("{own}.falls"), json!({"name": format!("{own}.falls")})).await;
        assert_eq!(said, format!("`{own}.falls` is not called: calls are nested 8 deep already"));
        let said = world.text(format!("{own}.alone"), json!({"name": format!("{own}.alone")})).await;
        assert!(said.contains("would wait for its own end"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_are_awaited_together_run_side_by_side() {
    let world = World::new();
    for (own, other) in [("inside", "inside"), ("outside", "outside"), ("outside", "inside")] {
        let folder = world.workspace(&format!("{own}-{other}"));
        std::fs::create_dir(&folder).unwrap();
        let several = json!([{"folder": folder, "own": "a", "other": "b"},
            {"folder": folder, "own": "b", "other": "a"}]);
        let asked = json!({"name": format!("{other}.meets"), "several": several});
        assert_eq!(world.text(format!("{own}.gathers"), asked).await, r#"["a","b"]"#);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_calls_wait_for_others_than_there_are_threads_or_workers() {
    let world = World::new();
    for (own, count) in [("inside", 100), ("outside", 24)] {
        // Each waits for one that waits for one.
        let asked = json!({"name": format!("{own}.calls"), "arguments":
            {"name": format!("{own}.doubles"), "arguments": {"number": 4}}});
        let calls = (0..count).map(|_| world.text(format!("{own}.calls"), asked.clone()));
        let said = tokio::time::timeout(PATIENCE, join_all(calls)).await.expect("they wait for each other");
        assert!(said.iter().all(|said| said.contains("'number': 8") || said.contains("\"number\":8")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_called_off_takes_along_what_it_has_called() {
    for own in BOTH {
        for calls in ["calls", "calls_soon"] {
            let world = World::new();
            let marker = world.workspace("marker");
            let cancel = CancellationToken::new();
            let stop = cancel.clone();
            let scope = Scope {
                cancel,
                events: Some(Arc::new(move |kind| {
                    if matches!(kind, EventKind::ToolProgress { .. }) {
                        stop.cancel();
                    }
                })),
                ..world.scope.clone()
            };
            let asked = json!({"name": "inside.waits", "arguments": {"marker": marker}});
            let outcome = world.run_in(&format!("{own}.{calls}"), asked, scope).await;
            assert_eq!(outcome, Err(Error::Cancelled), "{own}.{calls}");
            until("the end of the other", || marker.exists()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_wait_for_it_ends_it() {
    for own in BOTH {
        for (tool, said) in [("gives_up", "gave up"), ("leaves", "left")] {
            let world = World::warm().await;
            let marker = world.workspace("marker");
            let asked = json!({"name": "inside.waits", "arguments": {"marker": marker}});
            assert_eq!(world.text(format!("{own}.{tool}"), asked).await, said);
            until("the end of the other", || marker.exists()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signs_of_life_of_the_other_are_its_own() {
    let world = World::warm().await;
    for own in BOTH {
        let said = world.text(format!("{own}.listens"), json!({"name": "outside.beats"})).await;
        assert_eq!(said, "beat");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_on_the_event_loop() {
    let world = World::new();
    for own in BOTH {
        let held = world.run(&format!("{own}.holds"), json!({"name": "inside.doubles"})).await;
        assert!(matches!(held, Err(Error::Broken { .. })), "{held:?}");
    }
}

// The person.

/// A scope with a person who takes longer for these answers than a call may.
fn with_person(world: &World, answers: Vec<Option<Value>>) -> (Scope, Arc<Mutex<Vec<Value>>>) {
    let (answers, schemas) = (Mutex::new(answers.into_iter()), Arc::new(Mutex::new(Vec::new())));
    let heard = schemas.clone();
    let asker = move |question: Elicitation| {
        assert_eq!((question.call.as_str(), question.message.as_str()), ("c1", "What shall it be?"));
        heard.lock().unwrap().push(question.schema);
        let answer = answers.lock().unwrap().next().expect("it is asked once too often");
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(1200)).await;
            question.answer.give(answer.map(|answer| answer.as_object().unwrap().clone()));
        });
    };
    (Scope { asker: Some(Arc::new(asker)), ..world.scope.clone() }, schemas)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_asked_and_has_time() {
    let world = World::warm().await;
    for own in BOTH {
        for tool in ["orders", "orders_soon"] {
            let answer = json!({"name": "Ada", "size": "large", "gift": true});
            let (scope, schemas) = with_person(&world, vec![Some(answer), None]);
            let tool = format!("{own}.{tool}");
            let said = world.run_in(&tool, json!({}), scope.clone()).await.unwrap();
            assert_eq!(said, "Order(name='Ada', size='large', count=1, gift=True)");
            assert_eq!(world.run_in(&tool, json!({}), scope).await.unwrap(), "nothing");
            let schema = schemas.lock().unwrap()[0].clone();
            assert_eq!(schema["properties"]["size"]["enum"], json!(["small", "large"]));
            assert_eq!(schema["required"], json!(["name", "size"]));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_answer_and_none_are_told() {
    let world = World::warm().await;
    for own in BOTH {
        let tool = format!("{own}.orders");
        let (scope, _) = with_person(&world, vec![Some(json!({"name": "Ada", "size": "huge"}))]);
        let said = world.run_in(&tool, json!({}), scope).await.unwrap();
        assert!(said.contains("does not fit") && said.contains("size"), "{said}");
        assert_eq!(world.text(tool.clone(), json!({})).await, "failed: nobody can be asked here");
        let leaves = |question: Elicitation| drop(question);
        let scope = Scope { asker: Some(Arc::new(leaves)), ..world.scope.clone() };
        let said = world.run_in(&tool, json!({}), scope).await.unwrap();
        assert_eq!(said, "failed: nobody can be asked here");
        let said = world.text(format!("{own}.asks_too_much"), json!({})).await;
        assert!(said.starts_with("`Nested.order` is no text"), "{said}");
    }
}

// The model.

#[tokio::test(flavor = "multi_thread")]
async fn the_model_is_asked() {
    let world = World::new();
    let sampler = |sample: Sample| -> futures::future::BoxFuture<'static, Result<String, Error>> {
        Box::pin(async move {
            match sample.prompt.as_str() {
                "fail" => Err(Error::Failed("no connection".into())),
                prompt => Ok(format!("{prompt}! {:?}", sample.system)),
            }
        })
    };
    for own in BOTH {
        let scope = Scope { sampler: Some(Arc::new(sampler)), ..world.scope.clone() };
        let ask = async |tool: &str, prompt: &str| {
            world.run_in(&format!("{own}.{tool}"), json!({"prompt": prompt}), scope.clone()).await
        };
        assert_eq!(ask("thinks", "hi").await.unwrap(), "hi! Some(\"You are terse.\")");
        assert_eq!(ask("thinks_soon", "hi").await.unwrap(), "hi! None");
        assert_eq!(ask("thinks", "fail").await.unwrap(), "failed: no connection");
        let said = world.text(format!("{own}.thinks"), json!({"prompt": "hi"})).await;
        assert_eq!(said, "failed: there is no model to be asked here");
    }
}
