//! Python inside: what tools are given and give back, how they fail, block and are stopped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, Once, OnceLock};
use std::time::{Duration, Instant};

use futures::future::join_all;
use omni::kernel::{Interpreter, Kernel, describe};
use omni::message::event::EventKind;
use omni::message::{Arguments, Block, ToolCall};
use omni::skill::Engines;
use omni::skill::index::Request;
use omni::skill::manifest::Manifest;
use omni::tool::{Error, Output, Scope, Settings, Toolbox};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::support::kill;
use super::support::tools::{self, PATIENCE};

// Making a world.

fn fixture(skill: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/skills").join(skill)
}

/// The real binary with these skills and a home of its own.
fn binary(home: &Path, skills: &[PathBuf]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_omni"));
    command.env("OMNI_HOME", home).current_dir(home);
    for skill in skills {
        command.arg("--skills").arg(skill);
    }
    command
}

fn described(skills: &[PathBuf]) -> Manifest {
    let home = TempDir::new().unwrap();
    let output = binary(home.path(), skills).args(["sync", "--json"]).output().unwrap();
    let mut manifest: Manifest = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    manifest.skills.retain(|skill| skills.contains(&skill.folder));
    manifest.skills.iter_mut().for_each(|skill| skill.trusted = true);
    assert_eq!(manifest.problems().collect::<Vec<_>>(), Vec::<&omni::skill::manifest::Problem>::new());
    manifest
}

/// The skills of these tests, described once by the real binary.
fn manifest() -> &'static Manifest {
    static MANIFEST: OnceLock<Manifest> = OnceLock::new();
    MANIFEST.get_or_init(|| described(&["lab", "lab-one", "lab-two"].map(fixture)))
}

struct World {
    toolbox: Arc<Toolbox>,
    folder: TempDir,
    scope: Scope,
    events: Arc<Mutex<Vec<EventKind>>>,
}

impl World {
    fn new() -> Self {
        Self::of(manifest())
    }

    fn of(manifest: &Manifest) -> Self {
        let folder = TempDir::new().unwrap();
        let kernel = Kernel::new(Interpreter::Embedded, manifest, folder.path().join("data"));
        let kernel = kernel.started_by(|| Ok(Command::new(env!("CARGO_BIN_EXE_omni"))));
        let settings = Settings { results: Some(folder.path().join("results")), ..tools::settings() };
        let toolbox = Arc::new(Toolbox::new(vec![Arc::new(kernel)], settings));
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
        self.run_in(tool, arguments, &self.scope).await
    }

    async fn run_in(&self, tool: &str, arguments: Value, scope: &Scope) -> Result<Output, Error> {
        let Arguments::Object(arguments) = Arguments::from(arguments) else { panic!("no object") };
        let call = ToolCall { id: "c1".into(), name: tool.into(), arguments: Arguments::Object(arguments) };
        self.toolbox.call(call, &Arc::new(scope.clone())).await
    }

    async fn text(&self, tool: &str, arguments: Value) -> String {
        text(&self.run(tool, arguments).await.unwrap())
    }

    /// A scope that can be cancelled, and cancels itself at the first report of progress.
    fn cancelled_once_it_runs(&self) -> Scope {
        let cancel = CancellationToken::new();
        let stop = cancel.clone();
        Scope { cancel, events: Some(Arc::new(move |_| stop.cancel())), ..self.scope.clone() }
    }
}

fn text(output: &Output) -> String {
    output
        .content
        .iter()
        .map(|block| match block {
            Block::Text { text } => text.as_str(),
            other => panic!("no text: {other:?}"),
        })
        .collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn content(file: PathBuf) -> String {
    until("a marker", || std::fs::read_to_string(&file).is_ok_and(|text| !text.is_empty())).await;
    std::fs::read_to_string(file).unwrap()
}

/// The log of this test program, a JSON object a line.
#[derive(Clone, Copy)]
struct Log;

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

impl Log {
    fn begin() -> Self {
        static BEGIN: Once = Once::new();
        BEGIN.call_once(|| {
            let filter = tracing_subscriber::EnvFilter::new("off,python=info,tool=info,kernel=info");
            let subscriber = tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(|| Self);
            subscriber.init();
        });
        Self
    }

    fn lines(self) -> Vec<Value> {
        let bytes = LOG.lock().unwrap();
        bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    fn find(self, words: &str) -> Option<Value> {
        let has = |line: &Value| line["fields"]["message"].as_str().is_some_and(|text| text.contains(words));
        self.lines().into_iter().find(has)
    }

    fn of(self, id: &str) -> Value {
        self.lines().into_iter().find(|line| line["fields"]["id"] == id).expect("the id is in the log")
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

// What a tool is given.

#[tokio::test(flavor = "multi_thread")]
async fn arguments_are_converted_and_defaults_filled_in() {
    let world = World::new();
    let arguments = json!({
        "day": "2026-01-31", "path": "a/b",
        "trip": {"name": "away", "legs": [{"start": "here", "day": "2026-02-01"}]},
    });
    assert_eq!(
        world.text("lab.converted", arguments.clone()).await,
        "date PosixPath Trip date Color int GREEN 2026-01-31 a/b 3"
    );
    let mut with_color = arguments.clone();
    with_color["color"] = json!("red");
    assert!(world.text("lab.converted", with_color).await.contains(" RED "));
    // The schema lets any text through; only pydantic knows that this is no day.
    let mut wrong = arguments;
    wrong["trip"]["legs"][0]["day"] = json!("2026-02-30");
    let error = world.run("lab.converted", wrong).await.unwrap_err();
    let Error::Retry(sentence) = error else { panic!("{error:?}") };
    assert!(sentence.contains("`trip.legs.0.day`"), "{sentence}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_context_knows_where_it_is() {
    let world = World::new();
    let around = world.run("lab.around", json!({})).await.unwrap().structured.unwrap();
    assert_eq!(
        around,
        json!({
            "workspace": world.path("workspace"), "there": true, "data": world.path("data/skills/lab"),
            "session": "s1", "call": "c1", "cancelled": false,
        })
    );
    assert_eq!(std::fs::read_to_string(world.path("data/skills/lab/kept")).unwrap(), "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_progress_arrive_before_the_result() {
    let log = Log::begin();
    for tool in ["lab.reports", "lab.reports_async"] {
        let world = World::new();
        assert_eq!(world.text(tool, json!({})).await, "reported");
        let heard: Vec<_> = world
            .events
            .lock()
            .unwrap()
            .iter()
            .map(|event| match event {
                EventKind::ToolProgress { call, progress, total, message } => {
                    (call.clone(), *progress, *total, message.clone())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let half = |message: Option<&str>| ("c1".to_owned(), 1.0, Some(2.0), message.map(str::to_owned));
        assert_eq!(heard, [half(Some("half")), half(None)], "{tool}");
    }
    let line = log.find("a word to the log").expect("logged");
    assert_eq!((&line["level"], &line["fields"]["call"]), (&json!("WARN"), &json!("c1")));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_whose_name_is_no_unicode() {
    use std::os::unix::ffi::OsStrExt;
    let world = World::new();
    let odd = world.folder.path().join(std::ffi::OsStr::from_bytes(b"odd-\xff"));
    std::fs::create_dir(&odd).unwrap();
    let scope = Scope::new(odd);
    let around = world.run_in("lab.around", json!({}), &scope).await.unwrap().structured.unwrap();
    assert_eq!(around["there"], true, "{around}");
}

// What a tool returns.

#[tokio::test(flavor = "multi_thread")]
async fn structured_results() {
    let world = World::new();
    let output = world.run("lab.structured", json!({})).await.unwrap();
    assert_eq!((text(&output).as_str(), output.structured), (r#"{"a":1}"#, Some(json!({"a": 1}))));
    let output = world.run("lab.structured_async", json!({})).await.unwrap();
    assert_eq!((text(&output).as_str(), output.structured), ("[1,2]", Some(json!({"result": [1, 2]}))));
    let output = world.run("lab.nothing", json!({})).await.unwrap();
    assert_eq!((text(&output).as_str(), output.structured), ("", None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_blocks_of_every_kind() {
    let output = World::new().run("lab.blocks", json!({})).await.unwrap();
    assert_eq!(
        json!(output.content),
        json!([
            {"type": "text", "text": "plain"},
            {"type": "text", "text": "text"},
            {"type": "image", "mime": "image/png", "data": "iVBORw=="},
            {"type": "audio", "mime": "audio/wav", "data": "UklGRg=="},
            {"type": "resource", "uri": "file:///a", "mime": "text/plain", "text": "read me"},
            {"type": "resource", "uri": "file:///b", "blob": "AAE="},
            {"type": "resource_link", "uri": "https://example.org", "name": "example"},
        ])
    );
    assert_eq!(output.structured, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_json_cannot_say_is_replaced() {
    let world = World::new();
    assert_eq!(world.text("lab.odd", json!({"kind": "surrogate"})).await, "half \u{fffd} of a pair");
    let structured = async |kind: &str| {
        world.run("lab.odd", json!({"kind": kind})).await.unwrap().structured.expect("a value")
    };
    assert_eq!(structured("surrogate inside").await, json!({"text": "half \u{fffd}"}));
    assert_eq!(structured("nan").await, json!({"x": null, "y": null}));
    assert_eq!(structured("huge").await, json!({"n": 1e30}));
    assert_eq!(structured("huger").await, json!({"n": null}));
    let keys = structured("keys").await;
    assert_eq!((&keys["1"], &keys["None"], &keys["1,2"]), (&json!("a"), &json!("b"), &json!("c")), "{keys}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_returned_is_the_authors_bug() {
    let log = Log::begin();
    let world = World::new();
    for (kind, reason) in [("object", "object"), ("cycle", "ircular"), ("deep", "list")] {
        let error = world.run("lab.odd", json!({"kind": kind})).await.unwrap_err();
        let Error::Broken { id } = &error else { panic!("{kind}: {error:?}") };
        let line = log.of(id).to_string();
        assert!(line.contains(reason) && line.contains("lab.odd"), "{kind}: {line}");
    }
    assert_eq!(world.text("lab.quick", json!({"number": 7})).await, "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_megabytes_are_kept_and_read_in_pages() {
    let world = World::new();
    let output = world.run("lab.large", json!({"megabytes": 50})).await.unwrap();
    let preview = text(&output);
    assert!(preview.len() < 5000 && preview.starts_with("HEAD") && preview.ends_with("TAIL"));
    let handle = preview.split('`').find(|word| word.len() == 13 && word.starts_with('r')).expect("a handle");
    let page =
        world.text("result.read", json!({"handle": handle, "start": 24_999_000, "length": 1000})).await;
    assert!(page.contains("xxx") && page.len() < 100_000);
    let found = world.text("result.read", json!({"handle": handle, "find": "MIDDLE"})).await;
    assert!(found.contains("MIDDLE"), "{found}");
}

// How a tool fails.

#[tokio::test(flavor = "multi_thread")]
async fn who_acts_next_is_told_by_what_is_raised() {
    let log = Log::begin();
    let world = World::new();
    for tool in ["lab.fail", "lab.fail_async"] {
        let raised = async |kind: &str| world.run(tool, json!({"kind": kind})).await.unwrap_err();
        assert_eq!(raised("retry").await, Error::Retry("use another name".into()));
        assert_eq!(raised("failed").await, Error::Failed("there is no such thing".into()));
        for (kind, class) in [
            ("value", "ValueError: secret detail"),
            ("exit", "SystemExit: 4"),
            ("interrupt", "KeyboardInterrupt"),
            ("base", "BaseException: bottom"),
            ("unspeakable", "Unspeakable"),
        ] {
            let error = raised(kind).await;
            let Error::Broken { id } = &error else { panic!("{tool} {kind}: {error:?}") };
            let told = error.to_string();
            assert!(told.contains(id.as_str()) && !told.contains("secret"), "{told}");
            let line = log.of(id);
            let traceback = line["fields"]["message"].as_str().unwrap();
            assert!(traceback.contains(class), "{tool} {kind}: {traceback}");
            assert!(traceback.contains("lab/scripts/errors.py\", line "), "{traceback}");
            assert!(!traceback.contains("omni/kernel.py"), "{traceback}");
            assert_eq!(line["fields"]["tool"], tool);
        }
    }
}

// What a tool prints.

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tool_prints_is_logged_under_its_call() {
    let log = Log::begin();
    let world = World::new();
    assert_eq!(world.text("lab.talk", json!({})).await, "the result");
    assert_eq!(world.text("lab.talk_async", json!({})).await, "the result");
    for (words, level, call) in [
        ("printed by the tool", "INFO", "c1"),
        ("written to stderr", "WARN", "c1"),
        ("without an end", "INFO", "c1"),
        ("printed by a thread", "INFO", ""),
        ("printed by a coroutine", "INFO", "c1"),
    ] {
        let line = log.find(words).unwrap_or_else(|| panic!("not logged: {words}"));
        assert_eq!((&line["level"], &line["fields"]["call"]), (&json!(level), &json!(call)), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_logs_so_much_and_no_more() {
    let log = Log::begin();
    let world = World::new();
    for (way, word) in [("print", "flood "), ("log", "torrent ")] {
        let call = ToolCall {
            id: way.into(),
            name: "lab.floods_the_log".into(),
            arguments: json!({"way": way}).into(),
        };
        world.toolbox.call(call, &Arc::new(world.scope.clone())).await.unwrap();
        let lines = log.lines();
        let said =
            |line: &&Value| line["fields"]["message"].as_str().is_some_and(|text| text.starts_with(word));
        assert_eq!(lines.iter().filter(said).count(), 1024, "{way}");
        let told = lines.iter().filter(|line| {
            line["fields"]["call"] == way
                && line["fields"]["message"] == "this call has logged too much; the rest is left out"
        });
        assert_eq!(told.count(), 1, "{way}");
    }
}

#[test]
fn the_commands_output_has_the_result_alone() {
    let home = TempDir::new().unwrap();
    let output = binary(home.path(), &[fixture("lab")]).args(["tool", "call", "lab.talk"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "the result\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

// What takes too long.

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeping_tool_runs_out_of_time_and_others_go_on() {
    let world = World::new();
    let sleeping = world.run("lab.sleeps", json!({"seconds": 4}));
    let others = async {
        for number in 0..200 {
            assert_eq!(world.text("lab.quick", json!({"number": number})).await, number.to_string());
        }
    };
    let (slept, ()) = tokio::join!(sleeping, others);
    assert_eq!(slept, Err(Error::Elapsed(Duration::from_millis(500))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_loop_is_interrupted() {
    let world = World::new();
    world.text("lab.process", json!({})).await;
    let marker = world.path("marker");
    let spun = world.run("lab.spins", json!({"marker": marker})).await;
    assert_eq!(spun, Err(Error::Elapsed(Duration::from_millis(500))));
    assert_eq!(content(marker).await, "interrupted");
    assert_eq!(world.text("lab.quick", json!({"number": 1})).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_cannot_be_stopped_costs_its_thread_alone() {
    let world = World::new();
    // More than the threads that are kept.
    let stuck = join_all((0..4).map(|_| world.run("lab.stubborn", json!({})))).await;
    assert_eq!(stuck, vec![Err(Error::Elapsed(Duration::from_millis(500))); 4]);
    for number in 0..50 {
        assert_eq!(world.text("lab.quick", json!({"number": number})).await, number.to_string());
    }
    // Another kernel of this process, which knows nothing of it.
    World::new().text("lab.opens", json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_a_thread_for_good_is_named_and_has_to_leave_the_process() {
    let log = Log::begin();
    let (world, own) = (World::new(), std::process::id().to_string());
    assert_eq!(world.text("lab.process", json!({})).await, own);
    let sleeping = world.run("lab.sleeps", json!({"seconds": 3})).await;
    assert_eq!(sleeping, Err(Error::Elapsed(Duration::from_millis(500))));
    assert!(log.find("`sleeps` of the skill `lab` does not let go").is_some());
    assert_ne!(world.text("lab.process", json!({})).await, own, "it is in a worker now");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_may_notice_that_it_is_cancelled() {
    let world = World::new();
    let marker = world.path("marker");
    let scope = world.cancelled_once_it_runs();
    let outcome = world.run_in("lab.notices", json!({"marker": marker}), &scope).await;
    // It may end before the cancel is seen elsewhere.
    assert!(matches!(outcome, Err(Error::Cancelled) | Ok(_)), "{outcome:?}");
    assert_eq!(content(marker).await, "noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_coroutine_has_cleaned_up_when_its_call_returns() {
    let world = World::new();
    let marker = world.path("marker");
    let outcome = world.run("lab.waits", json!({"marker": marker})).await;
    assert_eq!(outcome, Err(Error::Elapsed(Duration::from_millis(500))));
    // Not polled for: the call waits for its end.
    assert_eq!(std::fs::read_to_string(&marker).unwrap(), "cancelled");
    std::fs::remove_file(&marker).unwrap();
    let scope = world.cancelled_once_it_runs();
    let outcome = world.run_in("lab.waits", json!({"marker": marker}), &scope).await;
    assert_eq!(outcome, Err(Error::Cancelled));
    assert_eq!(content(marker).await, "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coroutine_that_swallows_its_cancellation_keeps_nobody() {
    let world = World::new();
    let marker = world.path("marker");
    let outcome = world.run("lab.swallows", json!({"marker": marker})).await;
    assert_eq!(outcome, Err(Error::Elapsed(Duration::from_millis(500))));
    assert_eq!(content(marker).await, "swallowed");
    assert_eq!(world.text("lab.naps", json!({"seconds": 0.001})).await, "napped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coroutine_that_holds_the_loop_is_interrupted() {
    let log = Log::begin();
    let world = World::new();
    // Imported first: beside a loop of another test that alone may take the call's time.
    world.text("lab.naps", json!({"seconds": 0})).await;
    let marker = world.path("marker");
    let (held, napped) = tokio::join!(
        world.run("lab.blocks_the_loop", json!({"marker": marker})),
        world.run("lab.naps", json!({"seconds": 0.001})),
    );
    assert_eq!(held, Err(Error::Elapsed(Duration::from_millis(500))));
    assert_eq!(text(&napped.unwrap()), "napped");
    assert_eq!(content(marker).await, "interrupted");
    until("its name in the log", || log.find("`lab.blocks_the_loop` does not await").is_some()).await;
    let own = std::process::id().to_string();
    assert_ne!(world.text("lab.process", json!({})).await, own, "it is in a worker now");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_dropped_never_harm_those_that_follow() {
    let world = World::new();
    // Gone before the interrupt is due; what runs on their threads by then is somebody else's.
    for _ in 0..40 {
        let scope = world.cancelled_once_it_runs();
        let short = join_all((0..16).map(|_| world.run_in("lab.edge", json!({"milliseconds": 1}), &scope)));
        short.await;
    }
    let others = (0..4).map(|_| world.run("lab.edge", json!({"milliseconds": 700})));
    for outcome in join_all(others).await {
        assert_eq!(text(&outcome.unwrap()), "over");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_at_the_very_end_of_a_call_does_not_reach_the_next() {
    let world = Arc::new(World::new());
    for round in 0..8 {
        let edges = (0..24).map(|number| {
            let world = world.clone();
            async move {
                let scope = world.cancelled_once_it_runs();
                // The interrupt is due 200 ms after the cancel.
                let milliseconds = 199.0 + f64::from(number) / 8.0 + f64::from(round) / 64.0;
                let _ = world.run_in("lab.edge", json!({"milliseconds": milliseconds}), &scope).await;
                for number in 0..40 {
                    assert_eq!(world.text("lab.quick", json!({"number": number})).await, number.to_string());
                }
            }
        });
        join_all(edges).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_cancelled_before_it_begins_is_no_bug() {
    let log = Log::begin();
    let world = World::new();
    let edge = |milliseconds: u32| world.run("lab.edge", json!({"milliseconds": milliseconds}));
    edge(1).await.unwrap();
    world.text("lab.quick", json!({"number": 1})).await;
    let scope = Scope { cancel: CancellationToken::new(), ..world.scope.clone() };
    let stop = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        scope.cancel.cancel();
    };
    // More than can run at once come before it.
    let busy = join_all((0..40).map(|_| edge(300)));
    let queued = world.run_in("lab.quick", json!({"number": 2}), &scope);
    let (busy, queued, ()) = tokio::join!(busy, queued, stop);
    assert!(busy.iter().all(Result::is_ok), "{busy:?}");
    // Whether it was still in the queue is not ours to say; that it is no bug is.
    assert!(matches!(queued, Err(Error::Cancelled) | Ok(_)), "{queued:?}");
    assert!(log.find("panicked").is_none());
}

// How much goes on at once.

#[tokio::test(flavor = "multi_thread")]
async fn forty_blocking_tools_do_not_keep_the_next_one_for_ever() {
    let world = World::new();
    let blocking = join_all((0..40).map(|_| world.run("lab.edge", json!({"milliseconds": 300}))));
    let (blocked, next) = tokio::join!(blocking, world.text("lab.quick", json!({"number": 41})));
    assert!(blocked.iter().all(Result::is_ok), "{blocked:?}");
    assert_eq!(next, "41");
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_two_tools_block_at_once() {
    let world = World::new();
    // They wait for each other.
    for outcome in join_all((0..32).map(|_| world.run("lab.meets", json!({})))).await {
        assert_eq!(text(&outcome.unwrap()), "met");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_tools_that_come_at_once_do_not_wait_for_each_other() {
    // Three for two idle threads, and no later call that would wake anybody.
    for _ in 0..10 {
        let world = World::new();
        join_all((0..2).map(|number| world.run("lab.quick", json!({"number": number})))).await;
        let stuck = || world.run("lab.stubborn", json!({}));
        let (a, b, opened) = tokio::join!(stuck(), stuck(), world.run("lab.opens", json!({})));
        assert_eq!((text(&a.unwrap()), text(&b.unwrap())), ("let go".into(), "let go".into()));
        opened.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_coroutines_sleep_side_by_side() {
    let world = World::new();
    let began = Instant::now();
    let naps = join_all((0..1000).map(|_| world.run("lab.naps", json!({"seconds": 0.3})))).await;
    assert!(naps.iter().all(|nap| nap.as_ref().is_ok_and(|output| text(output) == "napped")));
    // One after another they would need five minutes.
    assert!(began.elapsed() < PATIENCE);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_not_mixed_up() {
    let world = World::new();
    let calls = (0..600).map(|number| {
        let tool = ["lab.quick", "lab.quick_async"][number % 2];
        world.run(tool, json!({"number": number}))
    });
    for (number, outcome) in join_all(calls).await.into_iter().enumerate() {
        assert_eq!(outcome.unwrap().structured, Some(json!({"result": number})));
    }
}

// What is imported.

#[tokio::test(flavor = "multi_thread")]
async fn two_skills_have_a_sibling_of_the_same_name() {
    let world = World::new();
    assert_eq!(world.text("lab-one.who", json!({})).await, "one one one");
    assert_eq!(world.text("lab-two.who", json!({})).await, "two two two");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_first_callers_import_once() {
    let world = World::new();
    let calls = (0..40).map(|number| world.run(["lab.imports", "lab.imports_async"][number % 2], json!({})));
    for outcome in join_all(calls).await {
        assert_eq!(outcome.unwrap().structured, Some(json!({"result": 1})));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_finished_although_its_caller_has_left() {
    let folder = TempDir::new().unwrap();
    let skill = folder.path().join("slow");
    std::fs::create_dir_all(skill.join("scripts")).unwrap();
    std::fs::write(
        skill.join("SKILL.md"),
        "---\nname: slow\ndescription: Is imported slowly.\nmetadata:\n  isolation: thread\n---\n",
    )
    .unwrap();
    let source = "import sys, time\nsys.omni_slow = getattr(sys, 'omni_slow', 0) + 1\n\
        for _ in range(120):\n    time.sleep(0.005)\n\nfrom omni import tool\n\n\n\
        @tool(read_only=True)\ndef slow() -> int:\n    return sys.omni_slow\n";
    std::fs::write(skill.join("scripts/slow.py"), source).unwrap();
    let world = World::of(&described(&[skill]));
    let scope = Scope { cancel: CancellationToken::new(), ..world.scope.clone() };
    let stop = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        scope.cancel.cancel();
    };
    let (first, ()) = tokio::join!(world.run_in("slow.slow", json!({}), &scope), stop);
    assert_eq!(first, Err(Error::Cancelled));
    assert_eq!(world.text("slow.slow", json!({})).await, "1", "imported a second time");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytecode_that_a_skill_brings_along_is_not_run() {
    let folder = TempDir::new().unwrap();
    let scripts = folder.path().join("poisoned/scripts");
    std::fs::create_dir_all(&scripts).unwrap();
    let card =
        "---\nname: poisoned\ndescription: Brings bytecode along.\nmetadata:\n  isolation: thread\n---\n";
    std::fs::write(folder.path().join("poisoned/SKILL.md"), card).unwrap();
    std::fs::write(scripts.join("utils.py"), "WHO = 'source'\n").unwrap();
    let source = "import utils\nfrom omni import tool\n\n\n\
        @tool(read_only=True)\ndef who() -> str:\n    return utils.WHO + __name__[-3:]\n";
    std::fs::write(scripts.join("who.py"), source).unwrap();
    let evil = folder.path().join("evil.py");
    std::fs::write(&evil, "WHO = 'bytecode'\n").unwrap();
    let compile = "import sys, importlib.util as u, py_compile as p; s, *names = sys.argv[1:]\n\
        for n in names: p.compile(s, u.cache_from_source(n), invalidation_mode=p.PycInvalidationMode.UNCHECKED_HASH)";
    let python = || Command::new(python_of_the_program());
    let targets = [scripts.join("utils.py"), scripts.join("who.py")];
    assert!(python().args(["-c", compile]).arg(&evil).args(&targets).status().unwrap().success());
    // A plain Python falls for it.
    let plain = python().args(["-c", "import utils; print(utils.WHO)"]).env("PYTHONPATH", &scripts).output();
    assert_eq!(String::from_utf8_lossy(&plain.unwrap().stdout), "bytecode\n");
    let world = World::of(&described(&[folder.path().join("poisoned")]));
    assert_eq!(world.text("poisoned.who", json!({})).await, "sourcewho");
    let written: Vec<_> = std::fs::read_dir(scripts.join("__pycache__")).unwrap().collect();
    assert_eq!(written.len(), 2, "bytecode was written");
}

// What the interpreter is like.

fn python_of_the_program() -> String {
    let home = TempDir::new().unwrap();
    let output =
        binary(home.path(), &[fixture("lab")]).args(["tool", "call", "lab.facts", "--json"]).output();
    let result: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    result["structured"]["executable"].as_str().unwrap().to_owned()
}

#[test]
fn the_interpreter_is_alone_with_its_own_files() {
    let home = TempDir::new().unwrap();
    // What would be found first if the current folder were on the path.
    std::fs::write(home.path().join("json.py"), "raise SystemExit('the current folder is on the path')")
        .unwrap();
    // Vouched for, it runs in the process itself.
    let trusted = binary(home.path(), &[fixture("lab")]).args(["skill", "trust", "lab"]).output().unwrap();
    assert!(trusted.status.success(), "{}", String::from_utf8_lossy(&trusted.stderr));
    let output = binary(home.path(), &[fixture("lab")])
        .args(["tool", "call", "lab.facts", "--json"])
        .env("PYTHONHOME", "/nonexistent")
        .env("PYTHONPATH", home.path())
        .env("PYTHONOPTIMIZE", "2")
        .env("PYTHONDEVMODE", "1")
        .env("PYTHONINSPECT", "1")
        .env("PYTHONSTARTUP", home.path().join("json.py"))
        .env("PYTHONPYCACHEPREFIX", home.path().join("cache"))
        .output()
        .unwrap();
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let facts = &result["structured"];
    let flags = &facts["flags"];
    for (flag, value) in [
        ("isolated", json!(1)),
        ("ignore_environment", json!(1)),
        ("no_user_site", json!(1)),
        ("safe_path", json!(true)),
        ("utf8_mode", json!(1)),
        ("optimize", json!(0)),
        ("inspect", json!(0)),
        ("dev_mode", json!(false)),
        ("dont_write_bytecode", json!(1)),
    ] {
        assert_eq!(flags[flag], value, "{flag}: {flags}");
    }
    let path: Vec<_> =
        facts["path"].as_array().unwrap().iter().map(|entry| entry.as_str().unwrap()).collect();
    assert!(path.iter().all(|entry| entry.starts_with('/') && Path::new(entry) != home.path()), "{path:?}");
    // Somebody's, but not Python's: the command listens itself.
    assert_eq!(facts["sigint"], "None");
    let version = Command::new(facts["executable"].as_str().unwrap()).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("Python 3."), "{version:?}");
}

#[test]
fn python_leaves_the_signals_alone() {
    let output = kill::child("kernel::child_that_looks_at_its_signals").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a child of python_leaves_the_signals_alone"]
async fn child_that_looks_at_its_signals() {
    let caught = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        (line("SigCgt"), line("SigIgn"))
    };
    let world = World::new();
    let before = caught();
    world.text("lab.quick", json!({"number": 1})).await;
    world.text("lab.quick_async", json!({"number": 1})).await;
    assert_eq!(before, caught());
}

// What is left behind.

#[test]
fn twenty_thousand_calls_leave_nothing_behind() {
    let output = kill::child("kernel::child_that_calls_and_calls").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Bytes that the process may grow while it calls.
const GROWTH: usize = 6 << 20;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a child of twenty_thousand_calls_leave_nothing_behind"]
async fn child_that_calls_and_calls() {
    let world = World::new();
    let grown = async |calls: usize, leak: bool| {
        let before = resident();
        for number in 0..calls {
            let mut arguments =
                json!({"number": number, "text": "x".repeat(200), "items": [{"a": 1}, {"b": 2}]});
            let tool = ["lab.mixed", "lab.mixed_async"][number % 2];
            if number % 2 == 0 {
                arguments["leak"] = leak.into();
            }
            assert!(world.run(tool, arguments).await.is_ok());
            if number % 100 == 0 {
                let error = world.run("lab.fail", json!({"kind": "retry"})).await;
                assert!(matches!(error, Err(Error::Retry(_))));
            }
        }
        resident().saturating_sub(before)
    };
    grown(4000, false).await;
    let growth = grown(20_000, false).await;
    assert!(growth < GROWTH, "{growth} bytes");
    // The measure itself: a tool that keeps ten kilobytes a call is noticed.
    let growth = grown(2000, true).await;
    assert!(growth > GROWTH, "{growth} bytes");
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

// Files that are described.

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_misbehaves_costs_its_own_file_alone() {
    let folder = fixture("import-crash");
    let mut files: Vec<_> = std::fs::read_dir(folder.join("scripts"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".py"))
        .collect();
    files.sort();
    let requests = files
        .iter()
        .map(|name| Request {
            skill: "import-crash".into(),
            folder: folder.clone(),
            file: format!("scripts/{name}"),
            engines: Engines::new(),
            environment: None,
        })
        .collect();
    let program = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_omni"));
        command.env("RUST_BACKTRACE", "0");
        Ok(command)
    };
    let descriptions = describe::describe(program, requests, Duration::from_secs(3)).await;
    assert_eq!(descriptions.len(), files.len());
    for (file, description) in files.iter().zip(descriptions) {
        let (_, kind) = file.trim_end_matches(".py").split_once('_').unwrap();
        let tools: Vec<_> = description.tools.iter().map(|tool| tool.name()).collect();
        let problems: Vec<_> = description.problems.iter().map(ToString::to_string).collect();
        let reason = match kind {
            "good" | "prints" | "floods" => {
                let function = if kind == "good" { file.trim_end_matches(".py") } else { kind };
                assert_eq!(tools, [format!("import-crash.{function}")], "{file}: {problems:?}");
                assert_eq!(problems, Vec::<String>::new(), "{file}");
                continue;
            }
            "exits" => "SystemExit: 3",
            "leaves" => "exit status: 5",
            "segfault" => "SIGSEGV",
            "hangs" => "took longer than 3 s",
            "closes" => "closed the connection",
            other => panic!("{other}"),
        };
        assert_eq!(tools, Vec::<&str>::new(), "{file}");
        assert!(problems.len() == 1 && problems[0].contains(reason), "{file}: {problems:?}");
    }
}
