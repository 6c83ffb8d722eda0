//! Tools: what a call passes through before and after it runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use omni::config;
use omni::message::event::{Approval, Consent, EventKind};
use omni::message::{Arguments, Block, ToolCall};
use omni::tool::policy::{Policy, Verdict};
use omni::tool::schema::{Checker, for_model};
use omni::tool::spill::Spill;
use omni::tool::{
    Annotations, Approver, Audit, Call, Error, Output, Scope, Settings, Spec, Toolbox, Toolset, result,
};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

// Making a world.

fn spec(name: &str) -> Spec {
    Spec {
        name: name.to_owned(),
        title: None,
        description: format!("the tool {name}"),
        input: json!({"type": "object"}),
        output: None,
        annotations: Annotations { read_only: true, destructive: false, ..Annotations::default() },
        ..Spec::default()
    }
}

fn writing(name: &str) -> Spec {
    Spec { annotations: Annotations::default(), ..spec(name) }
}

type Play = dyn Fn(&Call) -> Result<Output, Error> + Send + Sync;

/// A toolset that answers at once.
struct Plain {
    specs: Vec<Arc<Spec>>,
    play: Box<Play>,
}

#[async_trait]
impl Toolset for Plain {
    fn specs(&self) -> Vec<Arc<Spec>> {
        self.specs.clone()
    }

    async fn call(&self, call: Call) -> Result<Output, Error> {
        (self.play)(&call)
    }
}

fn plain(
    specs: Vec<Spec>,
    play: impl Fn(&Call) -> Result<Output, Error> + Send + Sync + 'static,
) -> Arc<dyn Toolset> {
    Arc::new(Plain { specs: specs.into_iter().map(Arc::new).collect(), play: Box::new(play) })
}

fn echo(specs: Vec<Spec>) -> Arc<dyn Toolset> {
    plain(specs, |call| Ok(Output::text(format!("{} {}", call.spec.name, json!(call.arguments)))))
}

fn rules(allow: &[&str], ask: &[&str], deny: &[&str]) -> config::Policy {
    let list = |patterns: &[&str]| patterns.iter().map(|pattern| pattern.to_string()).collect();
    config::Policy { allow: list(allow), ask: list(ask), deny: list(deny) }
}

fn settings() -> Settings {
    Settings {
        policy: Policy::default(),
        timeout: Duration::ZERO,
        idle_timeout: Duration::ZERO,
        result_bytes: 1000,
        results: None,
        audit: None,
        meanings: None,
    }
}

fn with_policy(policy: &config::Policy) -> Settings {
    Settings { policy: Policy::new(policy, false).unwrap(), ..settings() }
}

fn scope() -> Scope {
    Scope { session: Some("s1".into()), ..Scope::new("/") }
}

fn call(name: &str, arguments: Value) -> ToolCall {
    ToolCall { id: "c1".into(), name: name.into(), arguments: arguments.into() }
}

fn boxed(sets: Vec<Arc<dyn Toolset>>, settings: Settings) -> Arc<Toolbox> {
    Arc::new(Toolbox::new(sets, settings))
}

async fn run(toolbox: &Arc<Toolbox>, name: &str, arguments: Value, scope: &Scope) -> Result<String, Error> {
    let outcome = toolbox.call(call(name, arguments), &Arc::new(scope.clone())).await?;
    Ok(result(&call(name, json!({})), Ok(outcome)).text())
}

/// An approver with prepared answers; what it was asked is written down.
fn answering(answers: Vec<Option<Consent>>) -> (Approver, Arc<Mutex<Vec<Approval>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let answers = Mutex::new(answers.into_iter());
    let log = Arc::clone(&asked);
    let approver = move |mut approval: Approval| {
        match answers.lock().unwrap().next().expect("asked too often") {
            Some(consent) => assert!(approval.answer.give(consent)),
            // What is written down must not keep the question open.
            None => approval.answer = omni::message::event::Answer::channel().0,
        }
        log.lock().unwrap().push(approval);
    };
    (Arc::new(approver), asked)
}

// Arguments.

fn check(schema: Value, arguments: Value) -> Result<(), String> {
    let Value::Object(arguments) = arguments else { panic!("no object") };
    let checker = Checker::new(&schema).expect("a schema");
    let given_back = checker.check(arguments.clone())?;
    assert_eq!(given_back, arguments);
    Ok(())
}

fn file_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "path": {"type": "string"},
            "limit": {"type": "integer", "minimum": 1},
            "mode": {"enum": ["text", "hex"]},
            "encoding": {"anyOf": [{"type": "string", "maxLength": 5}, {"type": "null"}], "default": null},
            "ranges": {"type": "array", "items": {
                "type": "object", "properties": {"from": {"type": "integer"}}, "required": ["from"]}},
        },
        "required": ["path"],
    })
}

#[test]
fn arguments_that_fit() {
    check(file_schema(), json!({"path": "a"})).unwrap();
    check(file_schema(), json!({"path": "a", "limit": 3, "encoding": null, "ranges": [{"from": 1}]}))
        .unwrap();
}

#[test]
fn arguments_that_do_not_fit_are_told_field_by_field() {
    let cases = [
        (json!({}), "the argument `path` is missing"),
        (json!({"path": 5}), "`path`: 5 is not of type \"string\""),
        (
            json!({"path": "a", "limit": "3"}),
            "`limit`: \"3\" is not of type \"integer\", send 3 without quotes",
        ),
        (json!({"path": "a", "limit": 0}), "`limit`: 0 is less than the minimum of 1"),
        (json!({"path": "a", "mode": "txt"}), "`mode`: \"txt\" is not one of \"text\" or \"hex\""),
        (json!({"path": "a", "encoding": 8}), "`encoding`: 8 is not of type \"string\""),
        (
            json!({"path": "a", "encoding": "utf-16le"}),
            "`encoding`: \"utf-16le\" is longer than 5 characters",
        ),
        (
            json!({"path": "a", "ranges": [{"from": 1}, {"from": "x"}]}),
            "`ranges[1].from`: \"x\" is not of type \"integer\"",
        ),
        (json!({"path": "a", "ranges": [{}]}), "the argument `ranges[0].from` is missing"),
        (json!({"pth": "a", "path": "b"}), "unknown argument `pth`; did you mean `path`?"),
        (
            json!({"path": "b", "colour": 1}),
            "unknown argument `colour`; known are `path`, `limit`, `mode`, `encoding`, `ranges`",
        ),
    ];
    for (arguments, sentence) in cases {
        assert_eq!(check(file_schema(), arguments.clone()).unwrap_err(), sentence, "for {arguments}");
    }
}

#[test]
fn unknown_arguments_of_a_tool_that_is_open() {
    let open = json!({"type": "object", "properties": {"a": {}}, "additionalProperties": {"type": "string"}});
    check(open.clone(), json!({"b": "x"})).unwrap();
    assert!(check(open, json!({"b": 1})).is_err());
    check(json!({"type": "object"}), json!({"b": 1})).unwrap();
    let none = json!({"type": "object", "properties": {}});
    assert_eq!(check(none, json!({"b": 1})).unwrap_err(), "unknown argument `b`; the tool takes none");
    let composed = json!({"allOf": [{"properties": {"b": {}}}], "properties": {"a": {}}});
    check(composed, json!({"a": 1, "b": 1})).unwrap();
}

#[test]
fn many_and_huge_mistakes_make_a_short_answer() {
    let schema = json!({"type": "object", "additionalProperties": {"type": "integer"}});
    let wrong: Map<String, Value> = (0..200).map(|n| (format!("k{n}"), json!("x".repeat(100_000)))).collect();
    let sentence = check(schema, Value::Object(wrong)).unwrap_err();
    assert!(sentence.len() < 5 * 500, "{} bytes", sentence.len());
    assert!(sentence.ends_with("and more"));
}

#[test]
fn a_schema_that_points_outside() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("schema.json");
    std::fs::write(&file, "{}").unwrap();
    for reference in [format!("file://{}", file.display()), "http://127.0.0.1:9/schema.json".to_owned()] {
        let schema = json!({"type": "object", "properties": {"a": {"$ref": reference}}});
        assert!(Checker::new(&schema).is_err(), "{reference} was followed");
    }
}

#[test]
fn a_schema_for_a_model_is_shorter() {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "SearchArguments",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "title": {"title": "Title", "type": "string", "description": "of the page", "maxLength": 9},
            "tag": {"anyOf": [{"type": "string", "enum": ["a", "b"]}, {"type": "null"}], "default": null, "title": "Tag"},
            "age": {"type": ["integer", "null"], "default": 3},
            "must": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "deep": {"type": "boolean", "default": false},
            "from": {"type": "string", "default": ""},
            "default": {"type": "null"},
            "of": {"type": "array", "items": {"$ref": "#/$defs/Of"}},
        },
        "required": ["title", "must"],
        "$defs": {"Of": {"title": "Of", "type": "object", "properties": {"title": {"const": {"title": "kept"}}}}},
    });
    assert_eq!(
        for_model(&schema),
        json!({
            "type": "object",
            "properties": {
                "title": {"type": "string", "description": "of the page", "maxLength": 9},
                "tag": {"type": "string", "enum": ["a", "b"]},
                "age": {"type": "integer", "default": 3},
                "must": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "deep": {"type": "boolean"},
                "from": {"type": "string"},
                "default": {"type": "null"},
                "of": {"type": "array", "items": {"$ref": "#/$defs/Of"}},
            },
            "required": ["title", "must"],
            "$defs": {"Of": {"type": "object", "properties": {"title": {"const": {"title": "kept"}}}}},
        })
    );
}

// Permission.

#[test]
fn who_decides_about_a_call() {
    let policy = rules(&["git.*", "fs.write", "*.safe.*"], &["git.push", "net.*"], &["git.force*", "*rm"]);
    let quiet = Annotations { read_only: true, destructive: false, ..Annotations::default() };
    let careful = Annotations { destructive: false, ..Annotations::default() };
    let wild = Annotations::default();
    let cases = [
        ("git.status", wild, "allow", "`policy.allow` has `git.*`"),
        ("git", wild, "ask", "it may change or destroy something"),
        ("github.status", wild, "ask", "it may change or destroy something"),
        ("my.git.status", wild, "ask", "it may change or destroy something"),
        ("git.push", quiet, "ask", "`policy.ask` has `git.push`"),
        ("git.pushy", quiet, "allow", "`policy.allow` has `git.*`"),
        ("git.force_push", wild, "deny", "`policy.deny` has `git.force*`"),
        ("fs.write", wild, "allow", "`policy.allow` has `fs.write`"),
        ("fs.writer", wild, "ask", "it may change or destroy something"),
        ("fs.rm", quiet, "deny", "`policy.deny` has `*rm`"),
        ("a.safe.b", wild, "allow", "`policy.allow` has `*.safe.*`"),
        ("a.safe", wild, "ask", "it may change or destroy something"),
        ("net.get", quiet, "ask", "`policy.ask` has `net.*`"),
        ("db.read", quiet, "allow", "it changes nothing"),
        ("db.add", careful, "allow", "it destroys nothing"),
    ];
    for (name, annotations, verdict, rule) in cases {
        let spec = Spec { annotations, ..spec(name) };
        let (unattended, yes) = (Policy::new(&policy, false).unwrap(), Policy::new(&policy, true).unwrap());
        let (expected, with_yes) = match verdict {
            "allow" => (Verdict::Allow(rule.into()), Verdict::Allow(rule.into())),
            "ask" => (Verdict::Ask(rule.into()), Verdict::Allow(format!("`--yes`, though {rule}"))),
            _ => (Verdict::Deny(rule.into()), Verdict::Deny(rule.into())),
        };
        assert_eq!(unattended.decide(&spec), expected, "{name}");
        assert_eq!(yes.decide(&spec), with_yes, "{name} with --yes");
    }
}

#[test]
fn a_tool_that_wants_to_be_confirmed_asks_unless_it_is_named_in_allow() {
    let tool = Spec { confirm: true, ..spec("db.read") };
    let decide = |policy: config::Policy, yes| Policy::new(&policy, yes).unwrap().decide(&tool);
    let wish = "it wants to be confirmed".to_owned();
    assert_eq!(decide(rules(&[], &[], &[]), false), Verdict::Ask(wish.clone()));
    assert_eq!(decide(rules(&[], &[], &[]), true), Verdict::Allow(format!("`--yes`, though {wish}")));
    assert!(matches!(decide(rules(&["db.*"], &[], &[]), false), Verdict::Allow(_)));
    assert!(matches!(decide(rules(&[], &[], &["db.*"]), true), Verdict::Deny(_)));
}

#[test]
fn a_pattern_that_is_none() {
    for pattern in ["", "git status", "git.[ab]", "rm;"] {
        let error = Policy::new(&rules(&[], &[pattern], &[]), false).unwrap_err();
        assert!(error.to_string().contains("`policy.ask`") && error.to_string().contains(pattern), "{error}");
    }
}

#[tokio::test]
async fn nobody_is_there_to_ask() {
    let toolbox = boxed(vec![echo(vec![writing("fs.write")])], settings());
    let error = run(&toolbox, "fs__write", json!({}), &scope()).await.unwrap_err();
    let Error::Denied(sentence) = &error else { panic!("{error:?}") };
    assert!(sentence.contains("policy.allow = [\"fs.write\"]") && sentence.contains("--yes"), "{sentence}");
}

#[tokio::test]
async fn a_person_agrees_once_always_not_or_never() {
    let toolbox = boxed(vec![echo(vec![writing("fs.write"), writing("fs.move")])], settings());
    let answers =
        vec![Some(Consent::Once), Some(Consent::No), None, Some(Consent::Always), Some(Consent::Never)];
    let (approver, asked) = answering(answers);
    let scope = Scope { approver: Some(approver), ..scope() };
    let write = |n: u64| run(&toolbox, "fs__write", json!({"n": n}), &scope);

    assert_eq!(write(1).await.unwrap(), "fs.write {\"n\":1}");
    assert!(matches!(write(2).await, Err(Error::Denied(_))));
    let Err(Error::Denied(unanswered)) = write(3).await else { panic!("no answer is a refusal") };
    assert!(unanswered.contains("nobody could be asked"), "{unanswered}");
    assert_eq!(write(4).await.unwrap(), "fs.write {\"n\":4}");
    assert_eq!(write(5).await.unwrap(), "fs.write {\"n\":5}");
    // Consent is for the tool, not for all.
    for _ in 0..2 {
        let refused = run(&toolbox, "fs__move", json!({}), &scope).await;
        assert!(matches!(refused, Err(Error::Denied(why)) if why.contains("in this session")));
    }

    let asked = asked.lock().unwrap();
    let questions: Vec<_> = asked.iter().map(|ask| (ask.tool.as_str(), json!(ask.arguments))).collect();
    let expected = [1, 2, 3, 4].map(|n| ("fs.write", json!({"n": n}))).into_iter();
    assert_eq!(questions, expected.chain([("fs.move", json!({}))]).collect::<Vec<_>>());
}

#[tokio::test]
async fn wrong_arguments_are_not_worth_a_question() {
    let tool = Spec { input: file_schema(), ..writing("fs.write") };
    let toolbox = boxed(vec![echo(vec![tool])], settings());
    let (approver, asked) = answering(Vec::new());
    let scope = Scope { approver: Some(approver), ..scope() };
    let error = run(&toolbox, "fs__write", json!({"pth": 1}), &scope).await.unwrap_err();
    assert!(matches!(error, Error::Retry(_)), "{error:?}");
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_denied_tool_is_not_offered_and_does_not_run() {
    let toolbox = boxed(vec![echo(vec![spec("a.b"), spec("a.c")])], with_policy(&rules(&[], &[], &["a.b"])));
    let offered: Vec<_> = toolbox.definitions().iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(offered, ["a.c"]);
    let error = run(&toolbox, "a__b", json!({}), &scope()).await.unwrap_err();
    assert_eq!(error.to_string(), "refused: `policy.deny` has `a.b`; leave `a.b` alone");
}

#[tokio::test]
async fn the_time_limit_does_not_run_while_a_person_thinks() {
    let tool = Spec { timeout: Some(0.05), ..writing("fs.write") };
    let toolbox = boxed(vec![echo(vec![tool])], settings());
    let (sender, mut questions) = tokio::sync::mpsc::unbounded_channel();
    let approver: Approver = Arc::new(move |approval| sender.send(approval).unwrap());
    let scope = Scope { approver: Some(approver), ..scope() };
    let running = tokio::spawn(async move { run(&toolbox, "fs__write", json!({}), &scope).await });
    let question = questions.recv().await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    question.answer.give(Consent::Once);
    assert_eq!(running.await.unwrap().unwrap(), "fs.write {}");
}

// Names.

#[tokio::test]
async fn names_on_the_wire_are_legal_unique_and_lead_back() {
    let long = format!("skill.{}", "x".repeat(80));
    let other = format!("skill.{}y", "x".repeat(80));
    let names = ["git.status", "git__status", "9.lives", "größe.maß", "gr__e.ma_", "a b.c", &long, &other];
    let toolbox = boxed(vec![echo(names.iter().map(|name| spec(name)).collect())], settings());
    let mut seen = BTreeMap::new();
    for tool in toolbox.definitions() {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        assert!(tool.wire.chars().all(legal) && (1..=64).contains(&tool.wire.len()), "{}", tool.wire);
        assert!(!tool.wire.starts_with(|c: char| c.is_ascii_digit() || c == '-'), "{}", tool.wire);
        assert_eq!(seen.insert(tool.wire.clone(), tool.name.clone()), None, "{} twice", tool.wire);
        let answer = run(&toolbox, &tool.wire, json!({}), &Arc::new(scope())).await.unwrap();
        assert_eq!(answer, format!("{} {{}}", tool.name));
    }
    assert_eq!(seen.len(), names.len());
    assert_eq!(seen["git__status"], "git.status");
    assert_eq!(run(&toolbox, "git.status", json!({}), &scope()).await.unwrap(), "git.status {}");

    // The same tools in another order have the same names.
    let again = boxed(vec![echo(names.iter().rev().map(|name| spec(name)).collect())], settings());
    assert_eq!(again.definitions(), toolbox.definitions());
}

#[tokio::test]
async fn two_tools_of_one_name() {
    let second = plain(vec![spec("git.status")], |_| Ok(Output::text("the second")));
    let toolbox = boxed(vec![echo(vec![spec("git.status")]), second], settings());
    assert_eq!(run(&toolbox, "git__status", json!({}), &scope()).await.unwrap(), "git.status {}");
    assert_eq!(toolbox.problems(), ["there are two tools `git.status`; the second one is left out"]);
}

#[tokio::test]
async fn a_tool_that_does_not_exist() {
    let toolbox = boxed(vec![echo(vec![spec("git.status"), spec("git.stash"), spec("fs.read")])], settings());
    let error = run(&toolbox, "git__statsu", json!({}), &scope()).await.unwrap_err();
    assert_eq!(
        error,
        Error::Retry("there is no tool `git__statsu`; did you mean `git__status`, `git__stash`?".into())
    );
    let Err(Error::Retry(sentence)) = run(&toolbox, &"z".repeat(100_000), json!({}), &scope()).await else {
        panic!("it exists")
    };
    assert!(sentence.len() < 300);
}

#[tokio::test]
async fn a_tool_with_a_broken_schema_is_left_out_alone() {
    let broken =
        Spec { input: json!({"type": "object", "properties": {"a": {"type": "strng"}}}), ..spec("a.bad") };
    let toolbox = boxed(vec![echo(vec![broken, spec("a.good")])], settings());
    let offered: Vec<_> = toolbox.definitions().iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(offered, ["a.good"]);
    let problems = toolbox.problems();
    assert!(problems[0].starts_with("the tool `a.bad` is left out: its schema is invalid"), "{problems:?}");
    assert!(matches!(run(&toolbox, "a.bad", json!({}), &scope()).await, Err(Error::Failed(_))));
    assert!(run(&toolbox, "a.good", json!({}), &scope()).await.is_ok());
}

#[test]
fn a_toolbox_is_renewed_when_its_sets_change() {
    struct Growing(AtomicUsize);
    #[async_trait]
    impl Toolset for Growing {
        fn specs(&self) -> Vec<Arc<Spec>> {
            (0..self.0.load(Ordering::SeqCst)).map(|n| Arc::new(spec(&format!("t.n{n}")))).collect()
        }
        async fn call(&self, _: Call) -> Result<Output, Error> {
            Err(Error::Failed("not played".into()))
        }
    }
    let set = Arc::new(Growing(AtomicUsize::new(1)));
    let toolbox = boxed(vec![Arc::clone(&set) as Arc<dyn Toolset>], settings());
    assert!(Arc::ptr_eq(&toolbox, &toolbox.renewed()));
    set.0.store(2, Ordering::SeqCst);
    let renewed = toolbox.renewed();
    assert_eq!((toolbox.definitions().len(), renewed.definitions().len()), (1, 2));
}

// Running.

#[tokio::test]
async fn arguments_that_are_no_json() {
    let toolbox = boxed(vec![echo(vec![spec("a.b")])], settings());
    for text in ["{\"path\": \"a", "[1, 2]", "please"] {
        let arguments = Arguments::parse(text);
        let call = ToolCall { id: "c".into(), name: "a__b".into(), arguments };
        let Err(Error::Retry(sentence)) = toolbox.call(call, &Arc::new(scope())).await else {
            panic!("{text} ran")
        };
        assert!(sentence.contains("`a__b`") && sentence.contains(text), "{sentence}");
    }
}

#[tokio::test]
async fn a_value_without_text_is_also_told_as_text() {
    let set = plain(vec![spec("a.b")], |_| Ok(Output::new(Vec::new(), Some(json!({"n": [1, 2]})))));
    let toolbox = boxed(vec![set], settings());
    let outcome = toolbox.call(call("a__b", json!({})), &Arc::new(scope())).await.unwrap();
    assert_eq!(outcome.content, [Block::text("{\"n\":[1,2]}")]);
    assert_eq!(outcome.structured, Some(json!({"n": [1, 2]})));
}

#[tokio::test]
async fn a_toolset_that_panics() {
    let set = plain(vec![spec("a.b")], |_| panic!("secret detail"));
    let toolbox = boxed(vec![set, echo(vec![spec("a.c")])], settings());
    let error = run(&toolbox, "a__b", json!({}), &scope()).await.unwrap_err();
    assert!(matches!(error, Error::Broken { .. }) && !error.to_string().contains("secret"), "{error}");
    assert!(run(&toolbox, "a__c", json!({}), &scope()).await.is_ok());
}

/// A tool that never ends by itself, and says how it was stopped.
struct Endless {
    spec: Arc<Spec>,
    listens: bool,
    heard: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
}

impl Endless {
    fn set(listens: bool) -> (Arc<dyn Toolset>, Arc<AtomicUsize>, Arc<AtomicUsize>) {
        let (heard, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let spec = Arc::new(Spec { timeout: Some(if listens { 0.05 } else { 0.0 }), ..spec("a.b") });
        let set = Self { spec, listens, heard: Arc::clone(&heard), dropped: Arc::clone(&dropped) };
        (Arc::new(set), heard, dropped)
    }
}

struct Count(Arc<AtomicUsize>);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Toolset for Endless {
    fn specs(&self) -> Vec<Arc<Spec>> {
        vec![Arc::clone(&self.spec)]
    }

    async fn call(&self, call: Call) -> Result<Output, Error> {
        let _count = Count(Arc::clone(&self.dropped));
        (call.context.progress)(omni::tool::Progress { progress: 1.0, total: None, message: None });
        if self.listens {
            call.context.cancel.cancelled().await;
            self.heard.fetch_add(1, Ordering::SeqCst);
            return Ok(Output::text("too late"));
        }
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_tool_that_takes_too_long_is_told_and_stopped() {
    let (set, heard, dropped) = Endless::set(true);
    let toolbox = boxed(vec![set], settings());
    let scope = scope();
    let error = run(&toolbox, "a__b", json!({}), &scope).await.unwrap_err();
    assert_eq!(error, Error::Elapsed(Duration::from_millis(50)));
    assert_eq!((heard.load(Ordering::SeqCst), dropped.load(Ordering::SeqCst)), (1, 1));
    assert!(!scope.cancel.is_cancelled(), "one slow tool ends no turn");
}

/// Reports progress so many times, 20 ms apart, and is silent from then on.
struct Beating {
    spec: Arc<Spec>,
    times: usize,
}

#[async_trait]
impl Toolset for Beating {
    fn specs(&self) -> Vec<Arc<Spec>> {
        vec![Arc::clone(&self.spec)]
    }

    async fn call(&self, call: Call) -> Result<Output, Error> {
        for _ in 0..self.times {
            tokio::time::sleep(Duration::from_millis(20)).await;
            (call.context.progress)(omni::tool::Progress { progress: 1.0, total: None, message: None });
        }
        match call.arguments.is_empty() {
            true => Ok(Output::text("done")),
            false => std::future::pending().await,
        }
    }
}

#[tokio::test]
async fn only_signs_of_life_keep_a_silent_tool_going() {
    let idle = Duration::from_millis(200);
    for (own, configured) in [(Some(idle.as_secs_f64()), Duration::from_secs(600)), (None, idle)] {
        let spec = Spec { idle_timeout: own, ..spec("a.b") };
        let set = Arc::new(Beating { spec: Arc::new(spec), times: 30 });
        let toolbox = boxed(vec![set], Settings { idle_timeout: configured, ..settings() });
        let began = std::time::Instant::now();
        assert_eq!(run(&toolbox, "a__b", json!({}), &scope()).await.unwrap(), "done");
        assert!(began.elapsed() > idle * 2, "it took longer than it may be silent");
        let error = run(&toolbox, "a__b", json!({"then": "silence"}), &scope()).await.unwrap_err();
        assert_eq!(error, Error::Idle(idle));
        assert_eq!(error.to_string(), "the tool was stopped: it gave no sign of life for 0.2 s");
    }
    // Its own zero is no limit, and signs of life do not stretch the total.
    let spec = Spec { idle_timeout: Some(0.0), timeout: Some(0.3), ..spec("a.b") };
    let set = Arc::new(Beating { spec: Arc::new(spec), times: 30 });
    let toolbox = boxed(vec![set], Settings { idle_timeout: Duration::from_millis(1), ..settings() });
    let error = run(&toolbox, "a__b", json!({}), &scope()).await.unwrap_err();
    assert_eq!(error, Error::Elapsed(Duration::from_millis(300)));
}

#[tokio::test]
async fn a_cancel_ends_a_tool_that_does_not_listen() {
    let (set, _, dropped) = Endless::set(false);
    let toolbox = boxed(vec![set], Settings { timeout: Duration::from_secs(600), ..settings() });
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    // The tool reports progress once it runs.
    let events = Arc::new(move |kind: EventKind| {
        if matches!(kind, EventKind::ToolProgress { .. }) {
            stop.cancel();
        }
    });
    let scope = Scope { cancel, events: Some(events), ..scope() };
    assert_eq!(run(&toolbox, "a__b", json!({}), &scope).await, Err(Error::Cancelled));
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    assert_eq!(run(&toolbox, "a__b", json!({}), &scope).await, Err(Error::Cancelled));
}

#[tokio::test]
async fn a_cancel_ends_a_question() {
    let toolbox = boxed(vec![echo(vec![writing("a.b")])], settings());
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let open = Mutex::new(Vec::new());
    let approver: Approver = Arc::new(move |approval| {
        open.lock().unwrap().push(approval);
        stop.cancel();
    });
    let scope = Scope { cancel, approver: Some(approver), ..scope() };
    assert_eq!(run(&toolbox, "a__b", json!({}), &scope).await, Err(Error::Cancelled));
}

/// Read-only calls wait for each other here, so they can only end side by side.
struct Meeting {
    barrier: tokio::sync::Barrier,
    log: Arc<Mutex<Vec<String>>>,
}

#[async_trait]
impl Toolset for Meeting {
    fn specs(&self) -> Vec<Arc<Spec>> {
        let write = Annotations { destructive: false, ..Annotations::default() };
        vec![Arc::new(spec("m.read")), Arc::new(Spec { annotations: write, ..spec("m.write") })]
    }

    async fn call(&self, call: Call) -> Result<Output, Error> {
        let id = call.context.id.clone();
        self.log.lock().unwrap().push(format!("+{id}"));
        if call.spec.annotations.read_only {
            self.barrier.wait().await;
        } else {
            tokio::task::yield_now().await;
        }
        self.log.lock().unwrap().push(format!("-{id}"));
        Ok(Output::text(id))
    }
}

#[tokio::test]
async fn a_round_of_calls() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let set = Meeting { barrier: tokio::sync::Barrier::new(2), log: Arc::clone(&log) };
    let toolbox = boxed(vec![Arc::new(set)], settings());
    let names = ["m__read", "m__read", "m__write", "nothing", "m__write", "m__read", "m__read"];
    let calls = names.iter().enumerate();
    let calls = calls.map(|(n, name)| ToolCall { id: format!("{n}"), ..call(name, json!({})) }).collect();
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let listen = Arc::new(move |kind: EventKind| {
        heard.lock().unwrap().push(match kind {
            EventKind::ToolStarted { call, tool, .. } => format!("+{call} {tool}"),
            EventKind::ToolFinished { call, tool, result, .. } => {
                format!("-{call} {tool} {}", !result.is_error)
            }
            other => format!("{other:?}"),
        });
    });
    let scope = Arc::new(Scope { events: Some(listen), ..scope() });
    let round = toolbox.call_all(calls, &scope);
    let results =
        tokio::time::timeout(Duration::from_secs(60), round).await.expect("the two reads never met");

    let ids: Vec<_> = results.iter().map(|result| result.call.as_str()).collect();
    assert_eq!(ids, ["0", "1", "2", "3", "4", "5", "6"]);
    assert_eq!(results[3].name, "nothing");
    let errors: Vec<_> = results.iter().filter(|result| result.is_error).map(|result| &result.call).collect();
    assert_eq!(errors, ["3"]);
    let log = log.lock().unwrap();
    let at = |entry: &str| log.iter().position(|line| line == entry).unwrap();
    assert!(at("-0") < at("+2") && at("-1") < at("+2"));
    assert!(at("-2") < at("+4") && at("-4") < at("+5") && at("-4") < at("+6"));
    let mut events = events.lock().unwrap().clone();
    events.sort();
    events.dedup();
    assert_eq!(events.len(), 14, "one beginning and one end each: {events:?}");
    assert!(
        events.contains(&"-2 m.write true".to_owned()) && events.contains(&"-3 nothing false".to_owned())
    );
}

// Long results.

fn spilling(folder: &Path, text: String) -> Arc<Toolbox> {
    let set = plain(vec![spec("big.text")], move |_| Ok(Output::text(text.clone())));
    boxed(vec![set], Settings { results: Some(folder.to_owned()), ..settings() })
}

fn handle(preview: &str) -> String {
    preview.split('`').find(|word| word.len() == 13 && word.starts_with('r')).expect("a handle").to_owned()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let sessions = std::fs::read_dir(folder).into_iter().flatten().flatten();
    sessions
        .flat_map(|session| std::fs::read_dir(session.path()).unwrap().flatten())
        .map(|f| f.path())
        .collect()
}

#[tokio::test]
async fn a_long_result_can_be_read_to_its_end() {
    let folder = TempDir::new().unwrap();
    let text: String = (0..3000).map(|n| format!("Zeile {n} – süß 🦀\n")).collect();
    let toolbox = spilling(folder.path(), text.clone());
    let shown = run(&toolbox, "big__text", json!({}), &Arc::new(scope())).await.unwrap();
    assert!(shown.len() < 1300 && shown.starts_with("Zeile 0 –") && shown.ends_with("Zeile 2999 – süß 🦀\n"));
    let handle = handle(&shown);

    let (mut whole, mut start) = (String::new(), 0);
    while start < text.len() {
        let page = run(&toolbox, "result__read", json!({"handle": handle, "start": start}), &scope()).await;
        let page = page.unwrap();
        let (head, body) = page.split_once('\n').unwrap();
        assert!(head.starts_with(&format!("[bytes {start} to ")), "{head}");
        whole.push_str(body);
        start = whole.len();
    }
    assert_eq!(whole, text);
    let beyond = run(&toolbox, "result__read", json!({"handle": handle, "start": 9_999_999}), &scope()).await;
    assert!(beyond.unwrap().contains("nothing there"));
}

#[tokio::test]
async fn text_is_found_in_a_long_result() {
    let folder = TempDir::new().unwrap();
    // Larger than what is searched at a time, with something across that border and shortly before it.
    let mut text = "ä".repeat(1 << 19);
    text.truncate((1 << 20) - 160);
    text.push_str("needle");
    text.push_str(&"ä".repeat(75));
    text.push_str("a needle here");
    text.push_str(&"ö".repeat(1 << 19));
    text.push_str("needle");
    let toolbox = spilling(folder.path(), text.clone());
    let handle = handle(&run(&toolbox, "big__text", json!({}), &scope()).await.unwrap());
    let scope = scope();
    let find = |start: usize, what: &str| {
        run(&toolbox, "result__read", json!({"handle": handle, "find": what, "start": start}), &scope)
    };
    let found = find(0, "needle").await.unwrap();
    let places: Vec<usize> = text.match_indices("needle").map(|(at, _)| at).collect();
    for place in &places {
        assert_eq!(found.matches(&format!("[byte {place}] ")).count(), 1, "{found}");
    }
    assert_eq!(found.matches("[byte ").count(), 3);
    assert!(found.contains("a needle hereö"));
    let later = find(places[0] + 1, "needle").await.unwrap();
    assert_eq!(later.matches("[byte ").count(), 2);
    assert!(find(0, "haystack").await.unwrap().contains("not found"));
    let many = find(0, "ä").await.unwrap();
    assert_eq!(many.matches("[byte ").count(), 20);
    assert!(many.contains("there is more"));
}

#[tokio::test]
async fn handles_are_for_their_session() {
    let folder = TempDir::new().unwrap();
    let toolbox = spilling(folder.path(), "x".repeat(5000));
    let handle = handle(&run(&toolbox, "big__text", json!({}), &scope()).await.unwrap());
    let other = Scope { session: Some("s2".into()), ..scope() };
    for (handle, scope) in [(handle.as_str(), &other), ("r0123456789ab", &scope()), ("../../../x", &scope())]
    {
        let error = run(&toolbox, "result__read", json!({"handle": handle}), scope).await.unwrap_err();
        assert!(matches!(error, Error::Failed(_)), "{error:?}");
    }
    assert!(run(&toolbox, "result__read", json!({"handle": handle}), &scope()).await.is_ok());
}

#[cfg(unix)]
#[tokio::test]
async fn kept_results_are_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().unwrap();
    let results = folder.path().join("results");
    let toolbox = spilling(&results, "x".repeat(5000));
    run(&toolbox, "big__text", json!({}), &Arc::new(scope())).await.unwrap();
    let files = files(&results);
    assert_eq!(files.len(), 1);
    for (path, mode) in [(&results, 0o700), (&files[0], 0o600)] {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
    }
}

#[test]
fn the_oldest_results_make_room() {
    let folder = TempDir::new().unwrap();
    let spill = Spill::new(folder.path(), 1000).with_room(2500);
    let handles: Vec<String> = (0..4)
        .map(|n| {
            let handle = spill.keep(Some(if n == 1 { "other" } else { "s1" }), &"x".repeat(1000)).unwrap();
            // Files of one instant have no order; give each its own.
            let path = files(folder.path()).into_iter().find(|path| path.ends_with(&handle)).unwrap();
            let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + n);
            std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
            handle
        })
        .collect();
    let mut left: Vec<_> = files(folder.path())
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    let mut expected = handles[2..].to_vec();
    left.sort();
    expected.sort();
    assert_eq!(left, expected);
    assert!(spill.keep(None, &"x".repeat(2501)).is_err());
}

#[tokio::test]
async fn a_long_result_without_a_place_to_keep_it() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    for results in [None, Some(file)] {
        let set = plain(vec![spec("big.text")], |_| Ok(Output::text("x".repeat(5000))));
        let toolbox = boxed(vec![set], Settings { results, ..settings() });
        let shown = run(&toolbox, "big__text", json!({}), &Arc::new(scope())).await.unwrap();
        assert!(shown.len() < 1300 && shown.contains("they are lost"), "{shown}");
    }
}

#[tokio::test]
async fn what_is_long_but_no_text() {
    let image = |length: usize| Block::Image { mime: "image/png".into(), data: "A".repeat(length) };
    let set = plain(vec![spec("a.b")], move |_| {
        let content = vec![image(100), image(6 << 20), Block::text("short")];
        Ok(Output::new(content, Some(json!("y".repeat(5000)))))
    });
    let toolbox = boxed(vec![set], settings());
    let outcome = toolbox.call(call("a__b", json!({})), &Arc::new(scope())).await.unwrap();
    assert_eq!(outcome.content[0], image(100));
    let Block::Text { text } = &outcome.content[1] else { panic!("{:?}", outcome.content[1]) };
    assert!(text.contains("image/png") && text.len() < 100);
    assert_eq!((outcome.content.len(), outcome.structured), (3, None));

    let whole = Arc::new(Scope { whole: true, ..scope() });
    let outcome = toolbox.call(call("a__b", json!({})), &whole).await.unwrap();
    assert_eq!((&outcome.content[1], outcome.structured.is_some()), (&image(6 << 20), true));
}

#[tokio::test]
async fn a_tool_cannot_take_the_name_of_the_reader() {
    let folder = TempDir::new().unwrap();
    let impostor = plain(vec![spec("result.read")], |_| Ok(Output::text("mine")));
    let toolbox = boxed(vec![impostor], Settings { results: Some(folder.path().to_owned()), ..settings() });
    assert!(run(&toolbox, "result__read", json!({"handle": "r"}), &scope()).await.is_err());
    assert_eq!(toolbox.problems().len(), 1);
}

#[test]
fn a_call_that_failed_as_a_result() {
    let call = call("a__b", json!({}));
    let failed = result(&call, Err(Error::Elapsed(Duration::from_secs(3))));
    assert!(failed.is_error);
    assert_eq!(failed.text(), "the tool was stopped after 3 s, its time limit");
    assert_eq!((failed.call.as_str(), failed.name.as_str()), ("c1", "a__b"));
    let empty = result(&call, Ok(Output::default()));
    assert!(!empty.is_error && !empty.text().is_empty());
}

// The audit.

/// A file in memory.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Memory {
    fn lines(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).expect("a whole line of JSON")).collect()
    }
}

#[tokio::test]
async fn each_decision_is_written_down_before_the_tool_runs() {
    let file = Memory::default();
    let seen = file.clone();
    let set = plain(vec![spec("read"), writing("write"), writing("other"), spec("secret")], move |call| {
        let last = seen.lines().pop().expect("a line");
        assert_eq!(last["tool"], call.spec.name.as_str());
        Ok(Output::text("done"))
    });
    let policy = Policy::new(&rules(&[], &[], &["secret"]), false).unwrap();
    let audit = Some(Arc::new(Audit::new(file.clone())));
    let toolbox = boxed(vec![set], Settings { policy, audit, ..settings() });
    let (approver, _) = answering(vec![Some(Consent::Once), Some(Consent::No)]);
    let scope = Scope { approver: Some(approver), turn: Some("t1".into()), ..scope() };
    run(&toolbox, "read", json!({"path": "a value that may be secret"}), &scope).await.unwrap();
    run(&toolbox, "write", json!({}), &scope).await.unwrap();
    run(&toolbox, "other", json!({}), &scope).await.unwrap_err();
    run(&toolbox, "secret", json!({}), &scope).await.unwrap_err();
    let told: Vec<_> = file
        .lines()
        .iter()
        .map(|line| ["tool", "verdict", "who"].map(|key| line[key].as_str().unwrap().to_owned()))
        .collect();
    let expected = [
        ["read", "allowed", "policy"],
        ["write", "allowed", "person"],
        ["other", "denied", "person"],
        ["secret", "denied", "policy"],
    ];
    assert_eq!(told, expected);
    let first = &file.lines()[0];
    assert_eq!(
        (&first["session"], &first["turn"], &first["call"]),
        (&json!("s1"), &json!("t1"), &json!("c1"))
    );
    assert_eq!(first["arguments"], json!(["path"]), "names, and no values");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_decision_is_lost_when_there_are_many() {
    let file = Memory::default();
    let audit = Arc::new(Audit::new(file.clone()));
    let toolbox =
        boxed(vec![echo(vec![spec("read")])], Settings { audit: Some(audit.clone()), ..settings() });
    let toolbox = Arc::new(toolbox);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let toolbox = toolbox.clone();
        callers.spawn(async move {
            for _ in 0..200 {
                run(&toolbox, "read", json!({}), &Arc::new(scope())).await.unwrap();
            }
        });
    }
    callers.join_all().await;
    audit.flush();
    assert_eq!(file.lines().len(), 4000);
}

// Results that are kept, and calls that wait.

#[tokio::test]
async fn a_result_is_good_for_the_same_call_for_a_while() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let cached = |name: &str| Spec { cache_ttl: Some(60.0), ..spec(name) };
    let writes = Spec { cache_ttl: Some(60.0), ..writing("writes") };
    let short = Spec { cache_ttl: Some(0.000_001), ..spec("short") };
    let set = plain(vec![cached("a"), cached("fails"), writes, short, spec("b")], move |call| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        match call.spec.name.as_str() {
            "fails" => Err(Error::Failed("no".into())),
            _ => Ok(Output::text(number.to_string())),
        }
    });
    let policy = rules(&["writes"], &[], &[]);
    let toolbox = boxed(vec![set], with_policy(&policy));
    let text = async |name, arguments, scope: &Scope| run(&toolbox, name, arguments, scope).await.unwrap();
    assert_eq!(text("a", json!({"x": 1, "y": 2}), &scope()).await, "0");
    assert_eq!(text("a", json!({"y": 2, "x": 1}), &scope()).await, "0", "the same arguments");
    assert_eq!(text("a", json!({"x": 2, "y": 2}), &scope()).await, "1");
    let elsewhere = Scope::new("/tmp");
    assert_eq!(text("a", json!({"x": 1, "y": 2}), &elsewhere).await, "2", "another workspace");
    for name in ["b", "writes", "short"] {
        let first = text(name, json!({}), &scope()).await;
        assert_ne!(text(name, json!({}), &scope()).await, first, "{name}");
    }
    let before = calls.load(Ordering::SeqCst);
    for _ in 0..2 {
        run(&toolbox, "fails", json!({}), &scope()).await.unwrap_err();
    }
    assert_eq!(calls.load(Ordering::SeqCst), before + 2, "an error is not kept");
}

#[tokio::test]
async fn no_more_calls_of_a_tool_run_at_once_than_it_says() {
    struct Crowd(AtomicUsize, AtomicUsize);
    #[async_trait]
    impl Toolset for Crowd {
        fn specs(&self) -> Vec<Arc<Spec>> {
            vec![Arc::new(Spec { concurrency: Some(2), ..spec("a") })]
        }
        async fn call(&self, _: Call) -> Result<Output, Error> {
            let here = self.0.fetch_add(1, Ordering::SeqCst) + 1;
            self.1.fetch_max(here, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            self.0.fetch_sub(1, Ordering::SeqCst);
            Ok(Output::text("done"))
        }
    }
    let crowd = Arc::new(Crowd(AtomicUsize::new(0), AtomicUsize::new(0)));
    let toolbox = boxed(vec![crowd.clone()], settings());
    let scope = scope();
    let calls = (0..10).map(|_| run(&toolbox, "a", json!({}), &scope));
    assert!(futures::future::join_all(calls).await.iter().all(Result::is_ok));
    assert_eq!(crowd.1.load(Ordering::SeqCst), 2);
    // One that waits is cancelled like one that runs.
    let waiting = Scope::new("/");
    waiting.cancel.cancel();
    assert_eq!(run(&toolbox, "a", json!({}), &waiting).await, Err(Error::Cancelled));
}
