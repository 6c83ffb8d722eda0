//! Extensions of skills: what serves where one is asked for, building them, and what is said
//! when something is wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use omni::kernel::{Interpreter, Kernel};
use omni::message::{Arguments, ToolCall};
use omni::skill::build::{Error, Plan};
use omni::skill::{Engine, Manifest};
use omni::tool::{Scope, Toolbox};
use serde_json::{Map, Value, json};

use super::support::omni::{Output, Run, World, copy, write};
use super::support::tools::{self, PATIENCE};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/skills/extended")
}

/// A world whose user has the skill with extensions.
fn world() -> (World, PathBuf) {
    let world = World::new();
    let skill = world.home().join("config/skills/extended");
    copy(&fixture(), &skill);
    (world, skill)
}

/// The program, where cargo can be found: the one that runs these tests.
fn omni(world: &World, arguments: &[&str]) -> Run {
    let cargo = PathBuf::from(std::env::var_os("CARGO").expect("set by cargo"));
    let path = std::env::var("PATH").expect("set everywhere");
    let path = format!("{}:{path}", cargo.parent().expect("in a folder").display());
    world.omni(arguments).env("PATH", path)
}

fn call(world: &World, tool: &str, arguments: &str) -> Output {
    omni(world, &["tool", "call", tool, arguments]).run()
}

/// The file of an extension's that was built.
fn built(world: &World, name: &str, file: &str) -> PathBuf {
    let folder = world.home().join("cache/extensions/extended").join(name);
    let entries = std::fs::read_dir(&folder).expect("something was built");
    let mut all: Vec<_> = entries.map(|entry| entry.unwrap().path().join(file)).collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn built_and_used() {
    let (world, skill) = world();
    let listed = omni(&world, &["skill", "list"]).run().succeeded();
    let lines: Vec<_> = listed.out.lines().filter(|line| line.contains("  extension ")).collect();
    let told = |name: &str| lines.iter().find(|line| line.contains(&format!("extension {name}: "))).copied();
    assert!(told("search").unwrap().contains("python fallback, because it is not built; `omni skill build`"));
    assert!(told("quick").unwrap().contains("python fallback, because it is not built"));
    assert!(told("words").unwrap().contains("nothing, because it is not built"));
    assert!(told("notes").unwrap().ends_with("python"));
    assert!(listed.out.contains("extensions/words/extension.toml: error: gives nothing"), "{listed}");

    assert_eq!(call(&world, "extended.double", r#"{"number": 21}"#).succeeded().out, "42\n");
    assert_eq!(call(&world, "extended.engine", "{}").succeeded().out, "python\n");
    let missing = call(&world, "extended.count", r#"{"text": "a b"}"#).exited(1);
    let told =
        "the extension `words` of the skill `extended` is not built; `omni skill build extended` does that";
    assert!(missing.err.contains(told), "{missing}");

    // Nobody is there to ask.
    let refused = omni(&world, &["skill", "build", "extended"]).run().exited(5);
    assert!(
        refused.err.contains("`cargo build --release --lib --locked`") && refused.err.contains("--yes"),
        "{refused}"
    );
    let done = omni(&world, &["skill", "build", "extended", "--yes"]).run().succeeded();
    assert_eq!(done.out.lines().count(), 2, "{done}");
    assert!(done.err.contains("cc -O1 -o {out}/words words.c"), "{done}");
    assert!(!skill.join("extensions/quick/target").exists(), "its own folder stays as it is");

    assert_eq!(call(&world, "extended.engine", "{}").succeeded().out, "rust\n");
    assert_eq!(call(&world, "extended.double", r#"{"number": 21}"#).succeeded().out, "42\n");
    assert_eq!(call(&world, "extended.count", r#"{"text": "a \"b\"\nc é"}"#).succeeded().out, "4\n");
    let again = omni(&world, &["skill", "build", "extended"]).run().succeeded();
    assert!(again.err.contains("nothing to build"), "{again}");
    let checked = omni(&world, &["skill", "check"]).run().succeeded();
    assert!(checked.err.contains("extended: extension quick: rust"), "{checked}");
    assert!(checked.err.contains("extended: extension words: program"), "{checked}");

    // Another source is another extension.
    let file = skill.join("extensions/quick/src/lib.rs");
    let source = std::fs::read_to_string(&file).unwrap();
    write(&file, &source.replace("2 * number", "3 * number"));
    assert_eq!(call(&world, "extended.engine", "{}").succeeded().out, "python\n");
    omni(&world, &["skill", "build", "extended", "--yes", "--json"]).run().succeeded();
    assert_eq!(call(&world, "extended.double", r#"{"number": 2}"#).succeeded().out, "6\n");
}

#[test]
fn a_library_that_is_damaged_is_told_of() {
    let (world, _) = world();
    omni(&world, &["skill", "build", "extended", "--yes"]).run().succeeded();
    write(&built(&world, "quick", "extension.so"), "no library");
    assert_eq!(call(&world, "extended.engine", "{}").succeeded().out, "python\n");
    let checked = omni(&world, &["skill", "check"]).run().exited(1);
    assert!(checked.out.contains("extensions/quick/extension.toml:1: error: `"), "{checked}");
    assert!(checked.out.contains("cannot be loaded"), "{checked}");
    omni(&world, &["skill", "build", "extended", "--force", "--yes"]).run().succeeded();
    assert_eq!(call(&world, "extended.engine", "{}").succeeded().out, "rust\n");
}

#[test]
fn a_build_that_fails_shows_what_was_said() {
    let (world, skill) = world();
    let file = skill.join("extensions/quick/src/lib.rs");
    let source = std::fs::read_to_string(&file).unwrap();
    write(&file, &source.replace("2 * number", "2 * nonsense"));
    let failed = omni(&world, &["skill", "build", "extended", "--yes"]).run().exited(1);
    assert!(failed.err.contains("cannot find value `nonsense`"), "{failed}");
    assert!(failed.out.contains("built extended/words"), "the other one is fine: {failed}");
    // It is a library, and not what `extension.toml` says.
    write(&file, &source.replace("PyInit_quick", "PyInit_other"));
    let useless = omni(&world, &["skill", "build", "extended", "--yes"]).run().exited(1);
    assert!(useless.err.contains("is of no use") && useless.err.contains("PyInit_quick"), "{useless}");
    assert_eq!(call(&world, "extended.engine", "{}").succeeded().out, "python\n");
    write(&file, &source);
    let cargo = skill.join("extensions/quick/Cargo.toml");
    let text = std::fs::read_to_string(&cargo).unwrap();
    write(&cargo, &text.replace("\"cdylib\"", "\"rlib\""));
    let nothing = omni(&world, &["skill", "build", "extended", "--yes"]).run().exited(1);
    assert!(nothing.err.contains("there is no `libquick.so`") && nothing.err.contains("cdylib"), "{nothing}");
    let places = std::fs::read_dir(world.home().join("cache/extensions/extended/quick")).unwrap();
    assert_eq!(places.count(), 0, "nothing is left behind");
}

#[test]
fn without_cargo() {
    let (world, _) = world();
    let folder = world.home().join("bin");
    std::fs::create_dir(&folder).unwrap();
    let build = world.omni(["skill", "build", "extended", "--yes"]).env("PATH", &folder);
    let failed = build.run().exited(1);
    assert!(
        failed.err.contains("`cargo` is needed to build `extended/quick`, and is not on PATH"),
        "{failed}"
    );
    assert!(failed.err.contains("rustup.rs, or do without: `slow.py` serves meanwhile"), "{failed}");
    assert!(failed.err.contains("`cc` is needed to build `extended/words`"), "{failed}");
}

#[test]
fn only_what_may_run_is_built() {
    let world = World::new();
    copy(&fixture(), &world.work().join(".omni/skills/extended"));
    let refused = omni(&world, &["skill", "build", "extended", "--yes"]).run().exited(1);
    assert!(refused.err.contains("omni skill trust extended"), "{refused}");
    omni(&world, &["skill", "trust", "extended"]).run().succeeded();
    omni(&world, &["skill", "build", "extended", "--yes"]).run().succeeded();
    let unknown = omni(&world, &["skill", "build", "nobody"]).run().exited(1);
    assert!(unknown.err.contains("there is no skill `nobody` to build"), "{unknown}");
}

#[test]
fn a_build_sees_no_secrets_and_is_stopped_in_time() {
    let (world, skill) = world();
    let text = std::fs::read_to_string(skill.join("extensions/words/extension.toml")).unwrap();
    let with = |command: &str| {
        let build = format!("build = [\"sh\", \"-c\", \"{command}\"]");
        let lines = text.lines().map(|line| if line.starts_with("build") { build.as_str() } else { line });
        let lines: Vec<_> = lines.collect();
        write(&skill.join("extensions/words/extension.toml"), &lines.join("\n"));
        let manifest = manifest(&world);
        let skill = manifest.skill("extended").unwrap().clone();
        let extension = skill.extensions.iter().find(|extension| extension.text.name == "words").unwrap();
        Plan::new(&skill, extension, &world.home().join("cache")).expect("it has to be built")
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // SAFETY: nothing else reads this variable.
    unsafe { std::env::set_var("A_KEY_OF_THIS_TEST", "secret") };
    let plan = with("env; exit 3");
    let error = runtime.block_on(plan.run()).unwrap_err();
    let Error::Failed { said, status, .. } = &error else { panic!("{error}") };
    assert_eq!(status.code(), Some(3));
    assert!(said.contains("PYO3_NO_PYTHON=1") && !said.contains("secret"), "{said}");
    let plan = with("echo begun; sleep 1000 & sleep 1000");
    let began = Instant::now();
    let error = runtime.block_on(plan.run_for(Duration::from_secs(1))).unwrap_err();
    assert!(matches!(&error, Error::Elapsed { said, .. } if said == "begun"), "{error}");
    assert!(began.elapsed() < PATIENCE, "it does not wait for what the build has started");
}

fn manifest(world: &World) -> Manifest {
    let output = omni(world, &["sync", "--json"]).run();
    serde_json::from_str(&output.out).unwrap_or_else(|error| panic!("{error}: {output}"))
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let (world, skill) = world();
    let fine = "name = \"notes\"\nruntime = \"python\"\nentry = \"main.py\"\n";
    let cases = [
        ("fallbck = \"x.py\"", 4, "unknown field `fallbck`"),
        ("provides = \"x\"", 4, "invalid type"),
        ("omni = \"new\"", 4, "`omni` is a version, `0.1` or `0.1.2`, not `new`"),
        ("platforms = [\"windows\"]", 4, "there is no platform `windows`: `linux` or `macos`"),
        ("build = [\"make\"]", 4, "`build` is for `runtime = \"executable\"`"),
        ("fallback = \"x.py\"", 4, "`fallback` is for `runtime = \"rust\"`"),
        ("runtime = \"java\"", 2, "unknown variant `java`, expected one of `python`, `rust`, `executable`"),
        ("name = \"other\"", 1, "`name` is `other` but the folder is `notes`: rename one of them"),
        ("entry = \"../main.py\"", 3, "`entry` is a Python file of the extension, not `../main.py`"),
        ("provides = [\"a-b\"]", 4, "`a-b` in `provides` is no name of a function"),
    ];
    for (line, number, message) in cases {
        let key = line.split(' ').next().unwrap();
        let mut lines: Vec<_> = fine.lines().collect();
        match lines.iter().position(|other| other.starts_with(&format!("{key} "))) {
            Some(place) => lines[place] = line,
            None => lines.push(line),
        }
        let file = write(&skill.join("extensions/notes/extension.toml"), &lines.join("\n"));
        let problems: Vec<_> = manifest(&world).problems().map(ToString::to_string).collect();
        let told = format!("{}:{number}: {message}", file.display());
        assert!(problems.iter().any(|problem| problem.contains(&told)), "{told} is not in {problems:#?}");
    }
    write(&skill.join("extensions/notes/extension.toml"), &format!("{fine}omni = \"999.0\"\n"));
    let manifest = manifest(&world);
    let notes = &manifest.skill("extended").unwrap().extensions[0];
    assert_eq!(notes.text.name, "notes");
    let reason = format!("it needs omni 999.0 or newer, and this is {}", env!("CARGO_PKG_VERSION"));
    assert_eq!(notes.engine(), Engine::Nothing(reason.clone()));
    let called = call(&world, "extended.remember", "{}").exited(1);
    assert!(called.err.contains(&reason), "{called}");
    let log = omni(&world, &["skill", "check"]).run().exited(1);
    assert!(log.out.contains(&reason), "{log}");
}

/// A toolbox on this manifest, as the program has it.
fn toolbox(world: &World, manifest: &Manifest) -> (Arc<Kernel>, Arc<Toolbox>, Arc<Scope>) {
    let program = || Ok(std::process::Command::new(env!("CARGO_BIN_EXE_omni")));
    let kernel = Kernel::new(Interpreter::Embedded, manifest, world.home().join("data")).started_by(program);
    let kernel = Arc::new(kernel);
    let toolbox = tools::toolbox(kernel.clone());
    (kernel, toolbox, Arc::new(Scope::new(world.work())))
}

async fn play(
    toolbox: &Arc<Toolbox>,
    scope: &Arc<Scope>,
    name: &str,
    arguments: Map<String, Value>,
) -> String {
    let arguments = Arguments::Object(arguments);
    let call = ToolCall { id: "call".to_owned(), name: name.to_owned(), arguments };
    match toolbox.call(call, scope).await {
        Ok(output) => format!("{output:?}"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_gone_is_torn_down_in_its_worker() {
    let (world, skill) = world();
    let before = manifest(&world);
    let (kernel, toolbox, scope) = toolbox(&world, &before);
    let said = play(&toolbox, &scope, "extended__remember", Map::new()).await;
    assert!(said.contains("extended/notes"), "{said}");
    write(&skill.join("extensions/notes/main.py"), "name = 'another'\n");
    let file = world.work().join("torn-down");
    assert!(!file.exists());
    kernel.replace(&manifest(&world)).await;
    let began = Instant::now();
    while !file.exists() {
        assert!(began.elapsed() < PATIENCE, "`teardown` was not called");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let said = play(&toolbox, &scope, "extended__remember", Map::new()).await;
    assert!(said.contains("another"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_dies_harms_its_call_alone() {
    let (world, _) = world();
    omni(&world, &["skill", "build", "extended", "--yes"]).run().succeeded();
    let (_kernel, toolbox, scope) = toolbox(&world, &manifest(&world));
    let text = Map::from_iter([("text".to_owned(), json!("a b c"))]);
    let said = play(&toolbox, &scope, "extended__count", text.clone()).await;
    assert!(said.contains('3'), "{said}");
    let said = play(&toolbox, &scope, "extended__die", Map::new()).await;
    assert!(said.contains("the tool broke"), "{said}");
    let said = play(&toolbox, &scope, "extended__count", text).await;
    assert!(said.contains('3'), "{said}");
}
