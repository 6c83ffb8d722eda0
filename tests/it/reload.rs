//! Skills that are edited while they are used: versions, broken edits, who hears of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime};

use omni::config::{Paths, Skills};
use omni::kernel::{Changes, Interpreter, Kernel, describe};
use omni::message::{Arguments, ToolCall};
use omni::skill::watch::Watcher;
use omni::skill::{Catalog, Description, Index, Manifest, Problem, Request, Source};
use omni::tool::{Error, Scope, Toolbox};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::omni::{World, card, write};
use super::support::tools::{self, PATIENCE};

/// A skill that says which version it is, from three files, one of which it imports late.
const MAIN: &str = "
import asyncio, sys, time
from omni import tool
import near

WORD = 0000

@tool(read_only=True)
def word() -> int:
    return WORD

@tool(read_only=True)
def slow(seconds: float) -> list[int]:
    before = WORD
    time.sleep(seconds)
    import late
    return [before, WORD, near.WORD, late.WORD]

@tool(read_only=True)
async def patient(seconds: float) -> list[int]:
    before = WORD
    await asyncio.sleep(seconds)
    import late
    return [before, WORD, near.WORD, late.WORD]

@tool(read_only=True)
def loaded() -> int:
    return sum(name.startswith('omni_skills.NAME') for name in list(sys.modules))
";
/// Modules of one version: the package and its three files.
const MODULES: u64 = 4;

/// What of an edit is wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Edit {
    Fine,
    Syntax,
    Import,
    Hang,
    Schema,
    Twins,
    Card,
}

/// A skill that is edited, and the kernel that runs it.
struct Bench {
    folder: TempDir,
    name: &'static str,
    kernel: Arc<Kernel>,
    toolbox: Arc<Toolbox>,
    /// What is served.
    manifest: Manifest,
    /// Whether the skill runs in this process.
    trusted: bool,
}

impl Bench {
    /// Each test has a skill of its own name: they share an interpreter.
    async fn new(name: &'static str) -> Self {
        Self::running(name, true).await
    }

    async fn running(name: &'static str, trusted: bool) -> Self {
        let folder = TempDir::new().unwrap();
        let (kernel, manifest) =
            (Kernel::new(Interpreter::Embedded, &Manifest::default(), PathBuf::new()), Manifest::default());
        let kernel = Arc::new(kernel.started_by(|| Ok(Command::new(env!("CARGO_BIN_EXE_omni")))));
        let toolbox = toolbox(kernel.clone());
        let mut bench = Self { folder, name, kernel, toolbox, manifest, trusted };
        bench.write(1, Edit::Fine);
        bench.replace(describe).await;
        assert!(bench.manifest.skills[0].problems.is_empty(), "{:?}", bench.manifest);
        bench
    }

    fn skill(&self) -> PathBuf {
        self.folder.path().join("skills").join(self.name)
    }

    /// Writes a version. All have the same size and show the same time.
    fn write(&self, version: u64, edit: Edit) {
        let main = MAIN.replace("0000", &version.to_string()).replace("NAME", self.name);
        let main = match edit {
            Edit::Fine | Edit::Card => main,
            Edit::Syntax => main.replace("import late", "import )ate"),
            Edit::Import => main.replace("import near", "import nowh"),
            Edit::Hang => main.replace("import near", "import near; time.sleep(3600)"),
            Edit::Schema => main.replace("def word()", "def word(*all)"),
            Edit::Twins => main.replace("read_only=True)\ndef word", "name='slow')\ndef word"),
        };
        let word = format!("WORD = {version}\n");
        let title = if edit == Edit::Card { card("another") } else { card(self.name) };
        let title = title.replacen("\n---\n", "\nmetadata:\n  isolation: thread\n---\n", 1);
        for (file, text) in [
            ("SKILL.md", &title),
            ("scripts/main.py", &main),
            ("scripts/near.py", &word),
            ("scripts/late.py", &word),
        ] {
            let file = write(&self.skill().join(file), text);
            let stream = std::fs::File::options().write(true).open(file).unwrap();
            stream.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000)).unwrap();
        }
    }

    fn paths(&self) -> Paths {
        let at = |name: &str| self.folder.path().join(name);
        Paths {
            config: at(""),
            data: at("data"),
            state: at("state"),
            cache: at("cache"),
            workspace: at("work"),
        }
    }

    fn catalog(&self) -> Catalog {
        let settings = Skills { folders: Vec::new(), disabled: Vec::new() };
        let mut catalog = Catalog::find(&self.paths(), &settings, &[]);
        catalog.skills.retain(|found| found.source != Source::Builtin);
        catalog
    }

    /// Takes up what is in the files, as a running program does.
    async fn replace<F>(&mut self, describe: impl FnOnce(Vec<Request>) -> F) -> Changes
    where
        F: Future<Output = Vec<Description>>,
    {
        let index = Index::new(&self.paths().cache, "tests").by_content();
        let mut manifest = index.load_or_build(&self.catalog(), describe).await.keeping(&self.manifest);
        for skill in &mut manifest.skills {
            skill.trusted = self.trusted;
            let old = self.manifest.skill(&skill.card.name).filter(|old| old.digest == skill.digest);
            match old {
                Some(old) => skill.sources = old.sources.clone(),
                None => assert!(skill.hold()),
            }
        }
        let changes = self.kernel.replace(&manifest).await;
        self.manifest = manifest;
        changes
    }

    /// The complaints of the last [`Bench::replace`].
    fn problems(&self) -> String {
        self.manifest.problems().map(|problem| format!("{problem}\n")).collect()
    }

    async fn call(&self, tool: &str, arguments: Value) -> Value {
        call(&self.toolbox.renewed(), self.name, tool, arguments).await.unwrap()
    }

    async fn word(&self) -> u64 {
        self.call("word", json!({})).await.as_u64().unwrap()
    }
}

fn toolbox(kernel: Arc<Kernel>) -> Arc<Toolbox> {
    tools::toolbox(kernel)
}

async fn call(toolbox: &Arc<Toolbox>, skill: &str, tool: &str, arguments: Value) -> Result<Value, Error> {
    let call =
        ToolCall { id: "c1".into(), name: format!("{skill}.{tool}"), arguments: Arguments::from(arguments) };
    let output = toolbox.call(call, &Arc::new(Scope::new("/"))).await?;
    Ok(output.structured.expect("a value")["result"].clone())
}

/// In a process of its own, as the program does it.
async fn describe(requests: Vec<Request>) -> Vec<Description> {
    describe_within(requests, describe::IMPORT).await
}

async fn describe_within(requests: Vec<Request>, limit: Duration) -> Vec<Description> {
    describe::describe(|| Ok(Command::new(env!("CARGO_BIN_EXE_omni"))), requests, limit).await
}

fn numbers(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
}

/// Calls all the time. Every result is of one version, and of none that was replaced when the
/// call began.
async fn load(
    toolbox: Arc<Toolbox>,
    skill: &'static str,
    tool: &'static str,
    current: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> u64 {
    let mut calls = 0;
    while !stop.load(SeqCst) {
        let began = current.load(SeqCst);
        let seconds = 0.001 * (calls % 20) as f64;
        let seen = numbers(&call(&toolbox, skill, tool, json!({"seconds": seconds})).await.unwrap());
        assert!(seen.iter().all(|version| *version == seen[0]), "{tool} mixes versions: {seen:?}");
        assert!(seen[0] >= began, "{tool} began at {began} and was in {}", seen[0]);
        assert!(!seen[0].is_multiple_of(3), "{tool} was in the broken version {}", seen[0]);
        calls += 1;
    }
    calls
}

/// The child describes thirty of them. It would take minutes for all; what it says of the others
/// is played.
#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_edits_under_load() {
    let mut bench = Bench::new("hot").await;
    bench.write(1000, Edit::Fine);
    bench.replace(describe).await;
    let said = bench.manifest.skills[0].tools.clone();
    let (current, stop) = (Arc::new(AtomicU64::new(1000)), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = ["slow", "patient", "slow", "patient"]
        .map(|tool| tokio::spawn(load(bench.toolbox.renewed(), "hot", tool, current.clone(), stop.clone())))
        .into();
    let most = MODULES * (callers.len() as u64 + 3);
    for version in 1001..=1500 {
        let broken = version % 3 == 0;
        bench.write(version, if broken { Edit::Syntax } else { Edit::Fine });
        let changes = match version % 17 {
            0 => bench.replace(describe).await,
            _ => {
                let played = Description {
                    tools: if broken { Vec::new() } else { said.clone() },
                    problems: broken
                        .then(|| Problem::error("scripts/main.py", Some(1), "SyntaxError"))
                        .into_iter()
                        .collect(),
                    ..Description::default()
                };
                bench
                    .replace(async |requests| {
                        assert_eq!(requests.len(), 1, "the edit was not seen: {version}");
                        vec![played]
                    })
                    .await
            }
        };
        assert!(!changes.are_listed());
        assert_eq!(changes.skills.is_empty(), broken);
        assert_eq!(bench.problems().contains("SyntaxError"), broken, "{}", bench.problems());
        let expected = if broken { version - 1 } else { version };
        current.store(expected, SeqCst);
        assert_eq!(bench.word().await, expected);
        let loaded = bench.call("loaded", json!({})).await.as_u64().unwrap();
        assert!(loaded <= most, "{loaded} modules at version {version}");
    }
    stop.store(true, SeqCst);
    for caller in callers {
        assert!(caller.await.unwrap() > 20);
    }
    bench.write(1501, Edit::Fine);
    bench.replace(async |_| vec![Description { tools: said, ..Description::default() }]).await;
    assert_eq!(bench.call("slow", json!({"seconds": 0})).await, json!([1501, 1501, 1501, 1501]));
    assert_eq!(bench.call("loaded", json!({})).await, json!(MODULES));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_in_the_version_it_began_in() {
    let mut bench = Bench::new("begun").await;
    for tool in ["slow", "patient"] {
        let (before, toolbox) = (bench.word().await, bench.toolbox.renewed());
        let running =
            tokio::spawn(async move { call(&toolbox, "begun", tool, json!({"seconds": 3})).await.unwrap() });
        tokio::time::sleep(Duration::from_millis(500)).await;
        bench.write(before + 1, Edit::Fine);
        bench.replace(describe).await;
        assert!(!running.is_finished(), "the machine is too slow for this test");
        assert_eq!(bench.word().await, before + 1);
        assert_eq!(running.await.unwrap(), json!([before, before, before, before]), "{tool}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_edit_leaves_the_old_tools() {
    let mut bench = Bench::new("fragile").await;
    // Even those that were never called, whose files are broken by now.
    for (edit, complaint) in [
        (Edit::Syntax, "SyntaxError"),
        (Edit::Import, "No module named 'nowh'"),
        (Edit::Hang, "took longer than 2 s"),
        (Edit::Schema, "takes `*all`"),
        (Edit::Twins, "there is another tool `fragile.slow`"),
        (Edit::Card, "`name` is `another`"),
    ] {
        bench.write(7, edit);
        let changes = bench.replace(|requests| describe_within(requests, Duration::from_secs(2))).await;
        assert_eq!(changes, Changes::default(), "{edit:?}");
        assert!(bench.problems().contains(complaint), "{edit:?}: {}", bench.problems());
        assert_eq!(bench.call("slow", json!({"seconds": 0})).await, json!([1, 1, 1, 1]), "{edit:?}");
    }
    bench.write(8, Edit::Fine);
    bench.replace(describe).await;
    assert_eq!((bench.problems().as_str(), bench.word().await), ("", 8));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_changed_is_told() {
    let mut bench = Bench::new("told").await;
    let edit = |from: &str, to: &str| {
        let file = bench.skill().join("scripts/main.py");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from));
        write(&file, &text.replace(from, to));
    };
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let skills = named(&["told"]);
    edit("return WORD", "return WORD + 1");
    let code = Changes { skills: skills.clone(), ..Changes::default() };
    let toolbox = bench.toolbox.renewed();
    edit_is(&mut bench, &code).await;
    assert!(!code.are_listed() && Arc::ptr_eq(&toolbox, &toolbox.renewed()));
    let edit = |from: &str, to: &str| {
        let file = bench.skill().join("scripts/main.py");
        let text = std::fs::read_to_string(&file).unwrap();
        write(&file, &text.replace(from, to));
    };
    edit("def word() -> int:", "def term(more: int = 0) -> int:");
    edit("def loaded() -> int:", "def loaded() -> int:\n    'Counts.'");
    let list = Changes {
        added: named(&["told.term"]),
        removed: named(&["told.word"]),
        altered: named(&["told.loaded"]),
        skills: skills.clone(),
    };
    assert!(list.are_listed());
    edit_is(&mut bench, &list).await;
    let renewed = toolbox.renewed();
    assert!(renewed.find("told.term").is_some() && renewed.find("told.word").is_none());
    assert_eq!(bench.call("term", json!({})).await, json!(2));
    assert!(matches!(call(&toolbox, "told", "word", json!({})).await, Err(Error::Failed(_))));
    edit_is(&mut bench, &Changes::default()).await;
    std::fs::remove_dir_all(bench.skill()).unwrap();
    let gone = ["told.loaded", "told.patient", "told.slow", "told.term"];
    edit_is(&mut bench, &Changes { removed: named(&gone), skills, ..Changes::default() }).await;
}

async fn edit_is(bench: &mut Bench, expected: &Changes) {
    assert_eq!(bench.replace(describe).await, *expected, "{}", bench.problems());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_hears_of_folders_that_come_and_go() {
    let temp = TempDir::new().unwrap();
    let skills = temp.path().join("a/skills");
    let mut watcher = Watcher::new(vec![skills.clone(), temp.path().join("trusted.json")]).unwrap();
    let file = skills.join("git/scripts/git.py");
    heard(&mut watcher, || drop(write(&file, "1"))).await;
    heard(&mut watcher, || drop(write(&file, "2"))).await;
    heard(&mut watcher, || drop(write(&skills.join("new/SKILL.md"), "1"))).await;
    heard(&mut watcher, || std::fs::remove_dir_all(temp.path().join("a")).unwrap()).await;
    heard(&mut watcher, || drop(write(&file, "3"))).await;
    heard(&mut watcher, || drop(write(&temp.path().join("trusted.json"), "{}"))).await;
    // Our own reading, and what is none of its business.
    std::fs::read_to_string(&file).unwrap();
    write(&temp.path().join("other.json"), "{}");
    write(&skills.join("git/scripts/.git.py.swp"), "");
    let more = tokio::time::timeout(Duration::from_secs(1), watcher.changed()).await;
    assert!(more.is_err(), "it hears what is nothing");
}

async fn heard(watcher: &mut Watcher, change: impl FnOnce()) {
    change();
    tokio::time::timeout(PATIENCE, watcher.changed()).await.expect("the change was not heard of");
}

#[test]
fn a_skill_is_edited_during_a_talk() {
    const TOOL: &str =
        "from omni import tool\n@tool(read_only=True)\ndef word() -> str:\n    return 'w:one'\n";
    let world = World::new();
    let folder = world.skill("live", TOOL);
    let edit = |text: &str| drop(write(&folder.join("scripts/tools.py"), text));
    let steps = [json!({"calls": [{"name": "live__word"}]}), json!({"text": "said", "loop": true})];
    let mut talk = world.omni(["--json", "chat"]).model(&world.script("talk", &steps)).talking().start();
    let mut ask = || {
        talk.say("say it");
        let line = talk.until("tool.completed");
        talk.until("\"type\":\"result\"");
        line
    };
    let mut until = |word: &str| {
        let end = Instant::now() + PATIENCE;
        while !ask().contains(word) {
            assert!(Instant::now() < end, "`{word}` was never said");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let logged = |words: &str| {
        let end = Instant::now() + PATIENCE;
        while !log(&world).contains(words) {
            assert!(Instant::now() < end, "`{words}` is not in the log: {}", log(&world));
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    until("w:one");
    edit(&TOOL.replace("one", "two"));
    until("w:two");
    edit(&TOOL.replace("'w:one'", "("));
    logged("tools.py:4: SyntaxError");
    until("w:two");
    let listed = world.omni(["skill", "list"]).run().succeeded();
    assert!(listed.out.contains("SyntaxError"), "{listed}");
    edit(&TOOL.replace("word()", "word(*all)"));
    logged("takes `*all`");
    until("w:two");
    edit(&TOOL.replace("one", "six"));
    until("w:six");
    talk.end().succeeded();
}

fn log(world: &World) -> String {
    let files = std::fs::read_dir(world.home().join("state")).unwrap().map(|entry| entry.unwrap().path());
    let logs = files.filter(|path: &PathBuf| path.extension() == Some("log".as_ref()));
    logs.map(|path: PathBuf| std::fs::read_to_string(Path::new(&path)).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_have_versions_too() {
    let mut bench = Bench::running("reload-worker", false).await;
    let toolbox = bench.toolbox.renewed();
    let early = tokio::spawn(async move {
        call(&toolbox, "reload-worker", "slow", json!({"seconds": 1.0})).await.unwrap()
    });
    assert_eq!(bench.word().await, 1);
    tokio::time::sleep(Duration::from_millis(300)).await;
    bench.write(2, Edit::Fine);
    bench.replace(describe).await;
    assert_eq!(bench.word().await, 2);
    assert_eq!(numbers(&early.await.unwrap()), [1, 1, 1, 1], "it ends in the version it began in");
    bench.write(3, Edit::Syntax);
    bench.replace(describe).await;
    assert_eq!(bench.word().await, 2);
    assert!(bench.problems().contains("SyntaxError"), "{}", bench.problems());
}
