//! Tools in processes of their own: what they are given and give back, how they are stopped,
//! and what they are kept from.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use omni::kernel::worker::Strength;
use omni::kernel::{Interpreter, Kernel};
use omni::message::event::EventKind;
use omni::message::{Arguments, ToolCall};
use omni::skill::manifest::Manifest;
use omni::tool::{Error, Output, Scope, Toolbox, result};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::support::mcp::{self, Client};
use super::support::omni::World as Place;
use super::support::tools::{self, PATIENCE};

// Making a world.

/// The skill of these tests under another name, with more in its front matter.
fn variant(folder: &Path, name: &str, metadata: &str) -> PathBuf {
    let origin = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/skills/caged");
    let skill = folder.join(name);
    std::fs::create_dir_all(skill.join("scripts")).unwrap();
    for file in ["harm.py", "escape.py", "endless.py"] {
        std::fs::copy(origin.join("scripts").join(file), skill.join("scripts").join(file)).unwrap();
    }
    let text = format!("---\nname: {name}\ndescription: A variant.\nmetadata:\n{metadata}---\n");
    std::fs::write(skill.join("SKILL.md"), text).unwrap();
    skill
}

/// `caged` as it is, in a process for each call, with everything it can ask for, and one that
/// asks to run in this process.
fn manifest() -> &'static Manifest {
    static MANIFEST: OnceLock<(TempDir, Manifest)> = OnceLock::new();
    let make = || {
        let folder = TempDir::new().unwrap();
        let skills = [
            variant(folder.path(), "caged", "  isolation: worker\n"),
            variant(folder.path(), "once", "  isolation: oneshot\n"),
            variant(
                folder.path(),
                "free",
                "  network: true\n  processes: true\n  environment: CARGO_MANIFEST_DIR\n",
            ),
            variant(folder.path(), "inside", "  isolation: thread\n"),
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_omni"));
        command.env("OMNI_HOME", folder.path().join("home")).current_dir(folder.path());
        for skill in &skills {
            command.arg("--skills").arg(skill);
        }
        let output = command.args(["sync", "--json"]).output().unwrap();
        let mut manifest: Manifest = serde_json::from_slice(&output.stdout).unwrap();
        manifest.skills.retain(|skill| skills.contains(&skill.folder));
        assert_eq!(manifest.skills.len(), 4, "{:?}", manifest.problems().collect::<Vec<_>>());
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
        let program = || Ok(Command::new(env!("CARGO_BIN_EXE_omni")));
        let kernel = Kernel::new(Interpreter::Embedded, manifest(), folder.path().join("data"));
        let set = Map::from_iter([("unit".to_owned(), json!("F"))]);
        let set = ["caged", "once"].map(|skill| (skill.to_owned(), set.clone()));
        let kernel = kernel.started_by(program).with_settings(HashMap::from(set));
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

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn run(&self, tool: &str, arguments: Value) -> Result<Output, Error> {
        let call = ToolCall { id: "c1".into(), name: tool.into(), arguments: Arguments::from(arguments) };
        self.toolbox.call(call, &Arc::new(self.scope.clone())).await
    }

    async fn text(&self, tool: &str, arguments: Value) -> Result<String, Error> {
        let output = self.run(tool, arguments).await?;
        let call = ToolCall { id: "c1".into(), name: tool.into(), arguments: json!({}).into() };
        Ok(result(&call, Ok(output)).text())
    }

    /// What the tool is refused with.
    async fn refused(&self, tool: &str, arguments: Value) -> String {
        match self.text(tool, arguments).await {
            Err(Error::Failed(sentence)) => sentence,
            other => panic!("{tool}: {other:?}"),
        }
    }
}

// As in this process.

#[tokio::test]
async fn a_call_is_as_one_in_this_process() {
    let world = World::new();
    assert_eq!(world.text("caged.says", json!({"text": "grüße"})).await.unwrap(), "grüße");
    let soon = world.run("caged.says_soon", json!({"text": "hi"})).await.unwrap();
    assert_eq!(soon.structured, Some(json!({"text": "hi"})));
    assert_eq!(
        world.run("caged.refuses", json!({})).await,
        Err(Error::Retry("say it in other words".into()))
    );
    assert!(matches!(world.run("caged.breaks", json!({})).await, Err(Error::Broken { .. })));
    let progress = world.events.lock().unwrap().iter().any(|event| {
        matches!(event, EventKind::ToolProgress { message: Some(message), total: Some(total), .. }
            if message == "half" && *total == 2.0)
    });
    assert!(progress, "{:?}", world.events.lock().unwrap());
}

#[tokio::test]
async fn a_skill_is_given_its_own_settings() {
    let world = World::new();
    assert_eq!(world.text("caged.unit", json!({})).await.as_deref(), Ok("F"));
    assert_eq!(world.text("free.unit", json!({})).await.as_deref(), Ok("none"));
}

#[tokio::test]
async fn what_a_skill_remembers_outlives_its_process() {
    let world = World::new();
    for number in 1..=3 {
        assert_eq!(world.text("once.remembers", json!({})).await.as_deref(), Ok(number.to_string().as_str()));
    }
}

#[tokio::test]
async fn a_worker_that_shows_no_sign_of_life_is_stopped() {
    let world = World::new();
    assert_eq!(world.run("caged.beats", json!({"beats": 0})).await, Err(Error::Idle(Duration::from_secs(1))));
    // Another worker, and its imports: they have no part in what is measured.
    world.text("caged.count", json!({})).await.unwrap();
    assert_eq!(world.text("caged.beats", json!({"beats": 8})).await.as_deref(), Ok("beaten"));
}

#[tokio::test]
async fn a_worker_is_kept_and_one_for_a_single_call_is_not() {
    let world = World::new();
    let mut seen = Vec::new();
    for tool in ["caged.count", "caged.count", "once.count", "once.count"] {
        seen.push(world.text(tool, json!({})).await.unwrap());
    }
    assert_eq!(seen, ["1", "2", "1", "1"]);
}

#[tokio::test]
async fn who_asks_for_this_process_and_is_not_trusted_gets_another() {
    let world = World::new();
    let process = world.text("inside.whoami", json!({})).await.unwrap();
    assert_ne!(process, std::process::id().to_string());
}

// Harm.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_harms_its_process_harms_itself_alone() {
    let world = World::new();
    let elapsed = |outcome: &Result<String, Error>| matches!(outcome, Err(Error::Elapsed(_)));
    let broken = |outcome: &Result<String, Error>| matches!(outcome, Err(Error::Broken { .. }));
    let says = |text: &'static str| move |outcome: &Result<String, Error>| outcome.as_deref() == Ok(text);
    let failed = |part: &'static str| move |outcome: &Result<String, Error>| matches!(outcome, Err(Error::Failed(sentence)) if sentence.contains(part));
    type Check = Box<dyn Fn(&Result<String, Error>) -> bool>;
    let cases: Vec<(&str, Check)> = vec![
        ("loops", Box::new(elapsed)),
        ("backtracks", Box::new(elapsed)),
        ("sleeps", Box::new(elapsed)),
        ("blocks", Box::new(elapsed)),
        ("swallows", Box::new(elapsed)),
        ("leaves", Box::new(failed("exit status: 3"))),
        ("crashes", Box::new(failed("SIGSEGV"))),
        ("devours", Box::new(broken)),
        ("multiplies", Box::new(failed("processes: true"))),
        ("leaves_a_thread", Box::new(says("left"))),
        ("shouts", Box::new(says("hoarse"))),
        ("prints", Box::new(says("printed"))),
        ("closes", Box::new(says("closed"))),
        ("exits", Box::new(broken)),
        ("deadlocks", Box::new(elapsed)),
        ("imports", Box::new(elapsed)),
    ];
    for skill in ["caged", "once"] {
        for (tool, check) in &cases {
            let outcome = world.text(&format!("{skill}.{tool}"), json!({})).await;
            assert!(check(&outcome), "{skill}.{tool}: {outcome:?}");
            let next = world.text(&format!("{skill}.says"), json!({"text": "next"})).await;
            assert_eq!(next.as_deref(), Ok("next"), "after {skill}.{tool}");
        }
    }
}

/// In the program itself, where a skill may ask to be once somebody vouches for it: whatever a limit
/// or an exception can end. What ends the process, or keeps the interpreter's lock, is not tried.
#[test]
fn who_harms_the_program_itself_is_told_and_the_next_call_works() {
    let world = Place::new();
    variant(&world.home().join("config/skills"), "inside", "  isolation: thread\n");
    world.omni(["--yes", "skill", "trust", "inside"]).run().succeeded();
    world.omni(["sync"]).run().succeeded();
    let cases = [
        ("loops", "time limit"),
        ("sleeps", "time limit"),
        ("blocks", "time limit"),
        ("swallows", "time limit"),
        ("deadlocks", "time limit"),
        ("imports", "time limit"),
        ("exits", "broke"),
        ("leaves_a_thread", "left"),
        ("prints", "printed"),
    ];
    for (tool, told) in cases {
        let server = world.omni(["mcp"]).env("IMPORTS", "endless").talking().start();
        let mut client = Client::on(server).introduced();
        let program = client.server.id().to_string();
        let whoami = |client: &mut Client| mcp::text(&client.call("inside__whoami", json!({}))).to_owned();
        assert_eq!(whoami(&mut client), program, "it runs elsewhere");
        let result = client.call(&format!("inside__{tool}"), json!({}));
        assert!(mcp::text(&result).contains(told), "{tool}: {result}");
        let next = client.call("inside__says", json!({"text": "next"}));
        assert_eq!(mcp::text(&next), "next", "after {tool}");
    }
}

/// Whether a process is there and no zombie.
fn lives(process: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "not yet: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_a_killed_worker_has_started_ends_with_it() {
    let world = World::new();
    let marker = world.path("workspace/marker");
    let orphan = world.text("free.orphans", json!({"marker": marker})).await.unwrap();
    assert!(lives(&orphan));
    assert!(matches!(world.run("free.sleeps", json!({})).await, Err(Error::Elapsed(_))));
    until("the orphan has ended", || !lives(&orphan)).await;
}

#[tokio::test]
async fn a_fork_bomb_ends_with_its_call() {
    let world = World::new();
    let outcome = world.text("free.multiplies", json!({})).await;
    assert!(outcome.is_err(), "{outcome:?}");
    assert_eq!(world.text("free.says", json!({"text": "next"})).await.as_deref(), Ok("next"));
}

#[tokio::test]
async fn no_worker_outlives_the_kernel() {
    let world = World::new();
    let worker = world.text("caged.whoami", json!({})).await.unwrap();
    assert!(lives(&worker));
    drop(world);
    until("the worker has ended", || !lives(&worker)).await;
}

// Escapes.

#[tokio::test]
async fn nothing_leads_out_of_the_cage() {
    assert_eq!(Strength::of_this_machine(), Strength::Full, "this kernel cannot confine");
    let world = World::new();
    let outside = TempDir::new().unwrap();
    let secret = outside.path().join("id_ed25519");
    std::fs::write(&secret, "secret").unwrap();
    let socket = outside.path().join("agent.sock");
    let _agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let me = std::process::id();
    let attempts = [
        ("read", json!({"path": secret})),
        ("read", json!({"path": "/etc/shadow"})),
        ("read", json!({"path": format!("/proc/{me}/cmdline")})),
        ("links", json!({"target": secret})),
        ("write", json!({"path": outside.path().join("new")})),
        ("write", json!({"path": secret})),
        ("write", json!({"path": "/usr/bin/new"})),
        ("connects", json!({"port": port})),
        ("connects_locally", json!({"path": socket})),
        ("fetches", json!({"url": format!("http://127.0.0.1:{port}/")})),
        ("traces", json!({})),
        ("signals", json!({"process": me})),
        ("environment", json!({"process": me})),
        ("starts", json!({"program": "true"})),
    ];
    for (tool, arguments) in attempts {
        let sentence = world.refused(&format!("caged.{tool}"), arguments).await;
        assert!(sentence.contains("[Errno 1") && sentence.contains("runs confined"), "{tool}: {sentence}");
    }
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 2);
    assert_eq!(world.text("caged.writes_own", json!({})).await.as_deref(), Ok("written"));
    let names = world.text("caged.own_environment", json!({})).await.unwrap();
    assert!(!names.contains("CARGO") && names.contains("TMPDIR"), "{names}");
}

#[tokio::test]
async fn a_skill_has_what_it_asks_for() {
    let world = World::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(world.text("free.connects", json!({"port": port})).await.as_deref(), Ok("connected"));
    assert_eq!(
        world.text("free.starts", json!({"program": "pwd"})).await.map(|text| !text.is_empty()),
        Ok(true)
    );
    let names = world.text("free.own_environment", json!({})).await.unwrap();
    assert!(names.contains("CARGO_MANIFEST_DIR"), "{names}");
    // And no more than that: services of this machine are no network.
    let socket = world.path("agent.sock");
    let _agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    world.refused("free.connects_locally", json!({"path": socket})).await;
}

// Over time.

/// What this process holds: its threads, descriptors and children.
fn held() -> (usize, usize, usize) {
    let count = |folder: &str| std::fs::read_dir(folder).unwrap().count();
    (count("/proc/self/task"), count("/proc/self/fd"), children(std::process::id()).len())
}

fn children(process: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<_>>()).collect()
}

fn parent(process: &str) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    line.trim().parse().unwrap()
}

/// Bytes of memory of a process that are in use and not shared.
fn memory(process: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find(|line| line.starts_with("Pss_Anon:")).unwrap_or("0 0");
    line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Calls that end well, crash, hang and are cancelled, while the skill is replaced again and
/// again. Returns what this process and the zygote held a tenth of the way, and at the end.
async fn stress(calls: u64) -> [(u64, u64); 2] {
    let folder = TempDir::new().unwrap();
    let program = || Ok(Command::new(env!("CARGO_BIN_EXE_omni")));
    let kernel = Kernel::new(Interpreter::Embedded, manifest(), folder.path().join("data"));
    let kernel = Arc::new(kernel.started_by(program));
    let toolbox = tools::toolbox(kernel.clone());
    let whoami = ToolCall { id: "c".into(), name: "caged.whoami".into(), arguments: json!({}).into() };
    let worker = toolbox.call(whoami.clone(), &Arc::new(Scope::new(folder.path()))).await;
    let zygote = parent(&result(&whoami, worker).text());
    let mut weighed = Vec::new();
    let mut seed = 7_u64;
    let mut random = move |below: u64| {
        // Any spread will do, the same in every run.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut running = tokio::task::JoinSet::new();
    for number in 0..calls {
        if number % 100 == 99 {
            let mut next = manifest().clone();
            next.skills.iter_mut().for_each(|skill| skill.digest = number.to_string());
            kernel.replace(&next).await;
        }
        if [calls / 10, calls - 1].contains(&number) {
            weighed.push((memory(std::process::id()), memory(zygote)));
        }
        if running.len() >= 4 {
            running.join_next().await.unwrap().unwrap();
        }
        let toolbox = toolbox.clone();
        let scope = Arc::new(Scope::new(folder.path()));
        let (tool, patience) = match random(20) {
            0 => ("leaves", None),
            1 => ("crashes", None),
            2 => ("leaves_a_thread", None),
            3 => ("loops", Some(random(30))),
            4 => ("sleeps", Some(random(30))),
            5 => ("blocks", Some(random(30))),
            6..=8 => ("says", Some(random(3))),
            _ => ("says", None),
        };
        running.spawn(async move {
            let arguments = if tool == "says" { json!({"text": number.to_string()}) } else { json!({}) };
            let name = format!("caged.{tool}");
            let call = ToolCall { id: "c".into(), name, arguments: Arguments::from(arguments) };
            if let Some(milliseconds) = patience {
                let cancel = scope.cancel.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                    cancel.cancel();
                });
            }
            let outcome = toolbox.call(call.clone(), &scope).await;
            match (tool, patience) {
                ("says", None) => assert_eq!(result(&call, outcome).text(), number.to_string()),
                ("says", Some(_)) => assert!(matches!(outcome, Ok(_) | Err(Error::Cancelled)), "{outcome:?}"),
                ("leaves_a_thread", _) => assert!(outcome.is_ok(), "{outcome:?}"),
                ("leaves" | "crashes", _) => assert!(matches!(outcome, Err(Error::Failed(_))), "{outcome:?}"),
                _ => assert_eq!(outcome, Err(Error::Cancelled), "{tool}"),
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
    drop((toolbox, kernel));
    until("the zygote has ended", || !lives(&zygote.to_string())).await;
    [weighed[0], weighed[1]]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_end_in_every_way_leave_nobody_behind() {
    stress(400).await;
}

#[ignore = "takes minutes: make soak"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_ten_thousand_calls_leave_nothing_behind() {
    // What is made once is made.
    stress(200).await;
    let before = held();
    let [(own, zygote), (own_later, zygote_later)] = stress(10_000).await;
    until("threads, descriptors and children are as before", || {
        let now = held();
        now.0 <= before.0 && now.1 <= before.1 && now.2 <= before.2
    })
    .await;
    assert!(own_later < own + (8 << 20), "this process grew from {own} to {own_later} bytes");
    assert!(zygote_later < zygote + (1 << 20), "the zygote grew from {zygote} to {zygote_later} bytes");
}
