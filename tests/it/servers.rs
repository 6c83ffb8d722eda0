//! MCP servers of others: their tools, everything that goes wrong with them, and the files they are in.

use std::path::{Path, PathBuf};

use omni::mcp::Status;
use omni::mcp::config::{Entry, Files, Left, Place, Reach, Server, Transport, Trust, Variables, servers};
use serde_json::{Value, json};

use crate::support::mcp::{Client, python, said, text, until};
use crate::support::omni::{World, write};
use crate::support::relay::Relay;
use crate::support::servers::{self, Remote, fixture, odd, with};
use crate::support::tools::PATIENCE;

/// A world whose user has these servers.
fn world(servers: Value) -> World {
    let world = World::new();
    write(&world.home().join("config/mcp.json"), &json!({ "mcpServers": servers }).to_string());
    world
}

/// What a tool answers when the program is asked to call it.
fn call(world: &World, tool: &str, arguments: Value) -> Value {
    world.omni(["tool", "call", "--json", tool, &arguments.to_string()]).run().last()
}

/// Whether a process is there, and no zombie.
fn is_alive(process: &str) -> bool {
    let stat = said(Path::new(&format!("/proc/{process}/stat")));
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

// Their tools are tools.

#[test]
fn tools_of_a_program_are_listed_shown_and_called() {
    let world = world(json!({"sdk": fixture(&["sdk.py"])}));
    let listed = world.omni(["tool", "list"]).run().succeeded();
    assert!(listed.out.contains("sdk.add") && listed.out.contains("Add two numbers."), "{listed}");
    let shown = world.omni(["tool", "show", "sdk.add", "--json"]).run().succeeded().last();
    assert_eq!(shown["title"], "The sum");
    assert_eq!(shown["annotations"]["read_only"], true);
    assert_eq!(call(&world, "sdk.add", json!({"a": 2}))["structured"], json!({"sum": 3}));
    assert_eq!(call(&world, "sdk__picture", json!({}))["content"][0]["type"], "image");
    let failed = call(&world, "sdk.fails", json!({}));
    assert!(failed["is_error"] == true && text(&failed).contains("fails"), "{failed}");
    // Checked by us, before it is asked.
    let wrong = call(&world, "sdk.add", json!({"a": "x"}));
    assert!(text(&wrong).contains("`a`: \"x\" is not of type"), "{wrong}");
}

#[test]
fn tools_of_an_address_are_the_same() {
    let mut remote = Remote::start("sdk.py");
    let world = world(json!({"far": remote.described()}));
    assert_eq!(call(&world, "far.add", json!({"a": 2}))["structured"], json!({"sum": 3}));
    let mut client = Client::greeted(&world, &[]);
    assert_eq!(client.call("far__add", json!({"a": 4}))["structuredContent"], json!({"sum": 5}));
    // One that was started again is used again.
    let port = remote.port;
    drop(remote);
    let gone = client.call("far__add", json!({"a": 4}));
    assert!(gone["isError"] == true && text(&gone).contains("refused"), "{gone}");
    remote = Remote::at("sdk.py", port);
    assert_eq!(client.call("far__add", json!({"a": 4}))["structuredContent"], json!({"sum": 5}));
    drop(remote);
}

#[test]
fn a_model_calls_them_by_the_names_it_is_given() {
    let world = world(json!({"sdk": fixture(&["sdk.py"])}));
    // Known from here on: the first turn has them.
    world.omni(["mcp", "test", "sdk"]).run().succeeded();
    let steps =
        [json!({"calls": [{"name": "sdk__add", "arguments": {"a": 40, "b": 2}}]}), json!({"text": "said"})];
    let output = world.omni(["--json", "ask", "add"]).model(&world.script("adds", &steps)).run().succeeded();
    let events = output.json();
    let done = events.iter().find(|event| event["type"] == "tool.completed").unwrap();
    assert_eq!(
        (&done["tool"], &done["result"]["structured"]),
        (&json!("sdk.add"), &json!({"sum": 42})),
        "{done}"
    );
}

#[test]
fn what_may_destroy_asks_unless_its_user_has_said_otherwise() {
    let refused = call(&world(json!({"sdk": fixture(&["sdk.py"])})), "sdk.destroys", json!({}));
    assert!(text(&refused).starts_with("refused: "), "{refused}");
    let allowed = with(fixture(&["sdk.py"]), json!({"autoApprove": ["destroys"]}));
    assert_eq!(text(&call(&world(json!({ "sdk": allowed })), "sdk.destroys", json!({}))), "gone");
    // A project says nothing of the kind.
    let world = World::new();
    let allowed = with(fixture(&["sdk.py"]), json!({"trust": true}));
    world.write(".mcp.json", &json!({"mcpServers": {"sdk": allowed}}).to_string());
    world.omni(["mcp", "trust", "sdk"]).run().succeeded();
    assert!(text(&call(&world, "sdk.destroys", json!({}))).starts_with("refused: "));
}

#[test]
fn only_the_tools_that_are_wanted_are_there() {
    let only =
        with(fixture(&["sdk.py"]), json!({"includeTools": ["add", "fails"], "excludeTools": ["fails"]}));
    let listed = world(json!({ "sdk": only })).omni(["tool", "list"]).run().succeeded();
    assert!(
        listed.out.contains("sdk.add")
            && !listed.out.contains("sdk.fails")
            && !listed.out.contains("sdk.naps")
    );
}

#[test]
fn progress_and_cancellation_go_through() {
    let world = world(json!({"sdk": fixture(&["sdk.py"])}));
    world.omni(["mcp", "test"]).run().succeeded();
    let mut client = Client::greeted(&world, &[]);
    let token = json!({"progressToken": 1});
    client.ask("tools/call", json!({"name": "sdk__steps", "arguments": {}, "_meta": token}));
    let steps: Vec<_> =
        client.told.drain(..).filter(|told| told["method"] == "notifications/progress").collect();
    assert_eq!(steps.len(), 5, "{steps:?}");
    assert!(steps.iter().any(|step| step["params"]["message"] == "step 3"), "{steps:?}");
    let marker = world.work().join("marker");
    let arguments = json!({"seconds": 600, "marker": marker});
    let id = client.begin("tools/call", json!({"name": "sdk__naps", "arguments": arguments}));
    client.call("sdk__add", json!({"a": 1}));
    client.say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}));
    until("the server was told", || said(&marker) == "cancelled");
}

#[test]
fn a_tool_is_handed_on_as_its_server_describes_it() {
    let world = world(json!({"sdk": fixture(&["sdk.py"]), "odd": odd(&["none"])}));
    world.omni(["mcp", "test"]).run().succeeded();
    let ours = Client::greeted(&world, &[]).tools();
    for (server, count) in [("sdk", 9), ("odd", 4)] {
        let theirs = Client::on(started(&world, server)).introduced().tools();
        assert_eq!(theirs.len(), count);
        for mut tool in theirs {
            tool["name"] = format!("{server}__{}", tool["name"].as_str().unwrap()).into();
            let own = ours.iter().find(|own| own["name"] == tool["name"]).unwrap();
            let (own, tool) = (own.as_object().unwrap(), tool.as_object().unwrap());
            assert!(own.keys().all(|key| tool.contains_key(key)) && own.len() == tool.len(), "{own:?}");
            for (key, value) in tool {
                assert_eq!(&own[key], value, "{key}");
                // What is the server's own stays in its order, too.
                let has_order = ["inputSchema", "outputSchema", "_meta"].contains(&key.as_str());
                if has_order {
                    assert_eq!(own[key].to_string(), value.to_string(), "{key}");
                }
            }
        }
    }
}

#[test]
fn a_result_is_handed_on_as_its_server_wrote_it() {
    let world = world(json!({"odd": odd(&["marked"])}));
    world.omni(["mcp", "test"]).run().succeeded();
    let theirs = Client::on(started(&world, "odd")).introduced().call("odd", json!({}));
    assert_eq!(theirs["content"].as_array().unwrap().len(), 5);
    let mut ours = Client::greeted(&world, &["--yes"]).call("odd__odd", json!({}));
    assert_eq!(ours, theirs);
    // A model of ours reads what it can.
    ours = call(&world, "odd.odd", json!({}));
    assert_eq!((text(&ours), &ours["structured"]), ("for you alone", &json!({"found": 3})));
}

/// A server itself, as the user has described it.
fn started(world: &World, name: &str) -> crate::support::omni::Started {
    let file = said(&world.home().join("config/mcp.json"));
    let entry = serde_json::from_str::<Value>(&file).unwrap()["mcpServers"][name].clone();
    let mut words: Vec<String> = vec![entry["command"].as_str().unwrap().to_owned()];
    words.extend(entry["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    world.program(&words).talking().start()
}

// What goes wrong with one harms nobody else.

#[test]
fn a_turn_waits_for_no_server() {
    let servers = json!({
        "silent": with(odd(&["silent"]), json!({"startup_timeout_sec": 600})),
        "unlisted": with(odd(&["unlisted"]), json!({"startup_timeout_sec": 600})),
        "slow": odd(&["slow", "600"]),
        "exits": odd(&["exits"]),
        "missing": {"command": "there-is-no-such-program"},
        "unset": {"command": "true", "env": {"TOKEN": "${THERE_IS_NO_SUCH_VARIABLE}"}},
        "nowhere": {"url": "http://127.0.0.1:9/mcp"},
        "well": odd(&["none"]),
    });
    let world = world(servers);
    world.omni(["mcp", "test", "well"]).run().succeeded();
    let steps =
        [json!({"calls": [{"name": "well__echo", "arguments": {"text": "hello"}}]}), json!({"text": "said"})];
    let output =
        world.omni(["--json", "ask", "hello"]).model(&world.script("talks", &steps)).run().succeeded();
    let done = output.json().into_iter().find(|event| event["type"] == "tool.completed").unwrap();
    assert_eq!(text(&done["result"]), "hello");
}

#[test]
fn a_plain_question_is_answered_beside_every_fault() {
    let world = World::new();
    let marker = |name: &str| world.work().join(name).to_str().unwrap().to_owned();
    let (died, pids) = (marker("died"), marker("pids"));
    let kinds: [&[&str]; 18] = [
        &["slow", "600"],
        &["silent"],
        &["unlisted"],
        &["exits"],
        &["banner"],
        &["floods"],
        &["endless"],
        &["modern"],
        &["names"],
        &["many"],
        &["long"],
        &["lies"],
        &["shapeless"],
        &["deaf"],
        &["changes"],
        &["storms"],
        &["dies", &died],
        &["stubborn", &pids],
    ];
    let answered = |name: &str, server: Value| {
        write(&world.home().join("config/mcp.json"), &json!({"mcpServers": {"odd": server}}).to_string());
        let model = world.script("says", &[json!({"text": "said"})]);
        let output = world.omni(["ask", "hello"]).model(&model).run().succeeded();
        assert_eq!(output.out.trim(), "said", "{name}: {output}");
    };
    for kind in kinds {
        // What would be waited for takes longer than the test has patience.
        answered(kind[0], with(odd(kind), json!({"startup_timeout_sec": 600})));
    }
    for status in ["401", "403", "404", "405", "429", "500", "odd-discover"] {
        let remote = Remote::start(&format!("plain.py http {status}"));
        answered(status, with(remote.described(), json!({"startup_timeout_sec": 600})));
    }
}

#[test]
fn what_is_wrong_is_said() {
    let servers = json!({
        "silent": with(odd(&["silent"]), json!({"startup_timeout_sec": 1})),
        "exits": odd(&["exits"]),
        "missing": {"command": "there-is-no-such-program"},
        "homeless": {"command": "true", "cwd": "/there/is/no/such/folder"},
        "nowhere": {"url": "http://127.0.0.1:9/mcp"},
        "endless": odd(&["endless"]),
    });
    let world = world(servers);
    let told = |name: &str| {
        let output = world.omni(["mcp", "test", name]).run().exited(1);
        output.out
    };
    assert!(told("silent").contains("not said what tools it has in 1 s"), "{}", told("silent"));
    let exits = told("exits");
    assert!(exits.contains("exit status: 3") && exits.contains("cannot find my licence"), "{exits}");
    assert!(told("missing").contains("no program `there-is-no-such-program`"));
    assert!(told("homeless").contains("no folder `/there/is/no/such/folder`"));
    assert!(told("nowhere").contains("refused"), "{}", told("nowhere"));
    assert!(told("endless").contains("does not end"), "{}", told("endless"));
    let output = world.omni(["tool", "call", "exits.anything"]).run().exited(1);
    assert!(output.err.contains("cannot find my licence"), "{output}");
}

#[test]
fn odd_servers_work_as_far_as_they_can() {
    for kind in ["banner", "floods", "modern", "pages", "slow"] {
        let world = world(json!({"odd": odd(&[kind, "1"])}));
        let result = call(&world, "odd.echo", json!({"text": kind}));
        assert_eq!(text(&result), kind, "{result}");
    }
}

#[test]
fn a_server_that_dies_is_started_again_and_what_is_safe_is_asked_again() {
    let world = World::new();
    let marker = world.work().join("died");
    let server = odd(&["dies", marker.to_str().unwrap()]);
    write(&world.home().join("config/mcp.json"), &json!({"mcpServers": {"odd": server}}).to_string());
    world.omni(["mcp", "test"]).run().succeeded();
    let mut client = Client::greeted(&world, &["--yes"]);
    let first = client.call("odd__process", json!({}));
    assert_eq!(
        text(&client.call("odd__odd", json!({}))),
        "well again",
        "it changes nothing, so it is asked again"
    );
    let second = client.call("odd__process", json!({}));
    assert_ne!(text(&first), text(&second), "it is another process");
    std::fs::remove_file(&marker).unwrap();
    let lost = client.call("odd__careful", json!({}));
    assert!(lost["isError"] == true && text(&lost).contains("not known"), "{lost}");
    // Killed from outside, while nobody asked it anything.
    let process = client.call("odd__process", json!({}));
    let process: libc::pid_t = text(&process).parse().unwrap();
    // SAFETY: plain system call.
    unsafe { libc::kill(process, libc::SIGKILL) };
    until("it is gone", || !is_alive(&process.to_string()));
    assert_ne!(text(&client.call("odd__process", json!({}))), process.to_string());
}

#[test]
fn a_wrong_answer_harms_its_own_call() {
    let told = |kind: &str| {
        let world = world(json!({"odd": with(odd(&[kind]), json!({"tool_timeout_sec": 20}))}));
        world.omni(["mcp", "test"]).run().succeeded();
        let mut client = Client::greeted(&world, &[]);
        let before = client.call("odd__process", json!({}));
        let result = client.call("odd__odd", json!({}));
        let after = client.call("odd__process", json!({}));
        assert_eq!(text(&before), text(&after), "{kind}: it is still the same process");
        assert_eq!(result["isError"], true, "{result}");
        text(&result).to_owned()
    };
    assert!(told("long").contains("longer than"));
    assert!(told("lies").contains("no JSON-RPC message"));
    assert!(told("shapeless").contains("no result"));
}

#[test]
fn a_call_that_is_never_answered_ends_in_time() {
    let world = world(json!({"odd": with(odd(&["deaf"]), json!({"tool_timeout_sec": 1}))}));
    let output = world.omni(["tool", "call", "odd.odd"]).run().exited(124);
    assert!(output.err.contains("time limit"), "{output}");
    let sdk = with(fixture(&["sdk.py"]), json!({"idle_timeout_sec": 1}));
    let output =
        self::world(json!({ "sdk": sdk })).omni(["tool", "call", "sdk.naps", "{\"seconds\": 600}"]).run();
    assert!(output.exited(124).err.contains("sign of life"));
}

#[test]
fn names_that_models_cannot_say_are_mapped_back() {
    let world = world(json!({"odd": odd(&["names"])}));
    world.omni(["mcp", "test"]).run().succeeded();
    let mut client = Client::greeted(&world, &[]);
    let tools = client.tools();
    let names: Vec<&str> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    let ours: Vec<&str> = names.iter().copied().filter(|name| name.starts_with("odd__")).collect();
    let fits =
        |name: &&str| name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
    assert!(ours.iter().all(fits), "{ours:?}");
    let mut once = ours.clone();
    once.dedup();
    assert_eq!((once.len(), ours.len()), (8, 8), "{ours:?}");
    for name in ours.iter().filter(|name| name.contains("nnnn") || name.contains("messen")) {
        let answer = client.call(name, json!({}));
        let own = text(&answer);
        assert!(own == "n".repeat(200) || own.contains("messen"), "{name}: {answer}");
    }
}

#[test]
fn many_tools_come_in_pages() {
    let world = world(json!({"many": odd(&["many"])}));
    world.omni(["mcp", "test"]).run().succeeded();
    let mut client = Client::greeted(&world, &[]);
    let first = client.ask("tools/list", json!({}))["result"].clone();
    let cursor = &first["nextCursor"];
    let second = client.ask("tools/list", json!({ "cursor": cursor }))["result"].clone();
    assert!(second["nextCursor"].is_null(), "{second}");
    let all = [&first, &second].map(|page| page["tools"].as_array().unwrap().clone()).concat();
    let mut names: Vec<String> = all.iter().map(|tool| tool["name"].to_string()).collect();
    assert!(names.iter().filter(|name| name.starts_with("\"many__")).count() == 1100);
    let all = names.len();
    names.dedup();
    assert!(names.is_sorted() && names.len() == all);
    assert_eq!(client.ask("tools/list", json!({"cursor": "nonsense"}))["error"]["code"], -32602);
}

#[test]
fn tools_that_change_are_taken_up_and_told_of() {
    let remote = Remote::start("sdk.py");
    let world =
        world(json!({"odd": odd(&["changes"]), "storm": odd(&["storms"]), "far": remote.described()}));
    world.omni(["mcp", "test"]).run().succeeded();
    let mut client = Client::greeted(&world, &["--yes"]);
    assert!(!client.tools().iter().any(|tool| tool["name"] == "odd__late"));
    assert_eq!(text(&client.call("odd__odd", json!({}))), "changed");
    client.hears("notifications/tools/list_changed");
    assert_eq!(text(&client.call("odd__late", json!({}))), "late");
    // A server of the newer era tells those who listen.
    assert_eq!(text(&client.call("far__grows", json!({}))), "grown");
    client.hears("notifications/tools/list_changed");
    assert_eq!(text(&client.call("far__late", json!({}))), "new");
    assert_eq!(text(&client.call("storm__odd", json!({}))), "stormed");
    assert_eq!(text(&client.call("storm__echo", json!({"text": "calm"}))), "calm");
}

#[test]
fn a_stream_of_news_that_is_cut_is_taken_up_again() {
    let remote = Remote::start("sdk.py");
    let relay = Relay::to(remote.port);
    let world = world(json!({"far": {"url": format!("http://127.0.0.1:{}/mcp", relay.port)}}));
    world.omni(["mcp", "test"]).run().succeeded();
    let mut client = Client::greeted(&world, &["--yes"]);
    // A call needs a connection of its own as soon as the stream of news has one.
    until("it listens", || {
        assert_eq!(client.call("far__add", json!({"a": 2}))["structuredContent"], json!({"sum": 3}));
        relay.open() > 1
    });
    // Something is new while nobody can hear of it.
    relay.cut();
    let other = self::world(json!({"far": remote.described()}));
    assert_eq!(text(&call(&other, "far.grows", json!({}))), "grown");
    relay.mend();
    client.hears("notifications/tools/list_changed");
    assert_eq!(text(&client.call("far__late", json!({}))), "new");
}

#[test]
fn skills_of_a_server_are_read_when_they_are_wanted() {
    let world = world(json!({"odd": odd(&["skills"])}));
    let shown = world.omni(["tool", "show", "odd.load_skill", "--json"]).run().succeeded().last();
    assert!(shown["description"].as_str().unwrap().contains("- forms: Fill in forms."), "{shown}");
    let read = call(&world, "odd.load_skill", json!({"skill": "forms"}));
    assert!(text(&read).ends_with("Read FIELDS.md first.\n"), "{read}");
    let file = json!({"skill": "forms", "file": "references/FIELDS.md"});
    assert_eq!(text(&call(&world, "odd.load_skill", file)), "Name and place.\n");
    let wrong = call(&world, "odd.load_skill", json!({"skill": "forms", "file": "../../etc/passwd"}));
    assert!(text(&wrong).contains("it has no file"), "{wrong}");
    let wrong = call(&world, "odd.load_skill", json!({"skill": "none"}));
    assert_eq!(wrong["is_error"], true, "{wrong}");
}

#[test]
fn an_address_that_refuses_says_how() {
    let told = [
        ("401", "`omni mcp login far` signs in"),
        ("403", "HTTP 403"),
        ("404", "HTTP 404"),
        ("405", "HTTP 405"),
        ("429", "HTTP 429"),
        ("500", "HTTP 500"),
    ];
    for (status, reason) in told {
        let remote = Remote::start(&format!("plain.py http {status}"));
        let tested = world(json!({"far": remote.described()})).omni(["mcp", "test", "far"]).run().exited(1);
        assert!(tested.out.contains(reason), "{status}: {tested}");
    }
    // One that is there and then refuses a call harms that call.
    for (status, reason) in [("403", "HTTP 403"), ("429", "HTTP 429"), ("500", "HTTP 500")] {
        let remote = Remote::start(&format!("plain.py http call-{status}"));
        let result = call(&world(json!({"far": remote.described()})), "far.echo", json!({}));
        assert!(result["is_error"] == true && text(&result).contains(reason), "{result}");
    }
    // One that says something to everything is taken for what it is.
    let remote = Remote::start("plain.py http odd-discover");
    assert_eq!(text(&call(&world(json!({"far": remote.described()})), "far.echo", json!({}))), "well");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_connections_that_were_closed() {
    let remote = Remote::start("plain.py http well");
    let folder = tempfile::TempDir::new().unwrap();
    let described = [("far", remote.described()), ("near", odd(&["none"]))];
    let connect = async || {
        let (shutdown, servers) = servers::servers(&described, folder.path());
        for (name, _) in &described {
            assert_eq!(servers.try_out(name).await, Some(Status::Up));
        }
        assert!(shutdown.finish(PATIENCE).await);
    };
    for _ in 0..3 {
        connect().await;
    }
    let before = open_files();
    for _ in 0..10 {
        connect().await;
    }
    // Other tests of this process open and close files meanwhile; a leak of one a time would be 20.
    until("what was open is closed", || open_files() < before + 20);
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Kilobytes of this process that are in memory.
fn resident() -> usize {
    let status = said(Path::new("/proc/self/status"));
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
#[ignore = "takes minutes: make soak"]
#[expect(clippy::print_stdout, reason = "the numbers are of interest")]
fn soak_two_hundred_connections_leave_nothing() {
    let remotes = [Remote::start("plain.py http well"), Remote::start("sdk.py")];
    let folder = tempfile::TempDir::new().unwrap();
    let described = [
        ("old", remotes[0].described()),
        ("new", remotes[1].described()),
        ("near", odd(&["none"])),
        ("modern", odd(&["modern"])),
        ("exits", odd(&["exits"])),
    ];
    let connect = async || {
        let (shutdown, servers) = servers::servers(&described, folder.path());
        for (name, _) in &described {
            let status = servers.try_out(name).await;
            assert_eq!(status == Some(Status::Up), *name != "exits", "{name}: {status:?}");
        }
        assert!(shutdown.finish(PATIENCE).await);
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut after_twenty = (0, 0);
    for round in 1..=200 {
        runtime.block_on(connect());
        if round == 20 {
            after_twenty = (open_files(), resident());
        }
    }
    until("what was open is closed", || open_files() <= after_twenty.0);
    let (files, memory) = (open_files(), resident());
    println!("after 20: {after_twenty:?} files and kB; after 200: {files} and {memory}");
    assert!(memory < after_twenty.1 + 8 * 1024, "{after_twenty:?} → {memory} kB");
    let own = std::process::id().to_string();
    let is_child =
        |stat: &String| stat.rsplit(')').next().unwrap_or_default().split(' ').nth(2) == Some(&own);
    let stats = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| said(&entry.path().join("stat")));
    let children: Vec<String> = stats.filter(is_child).collect();
    assert_eq!(children.len(), remotes.len(), "{children:?}");
}

// Processes.

#[test]
fn a_server_gets_the_variables_that_are_for_it() {
    let world = world(
        json!({"sdk": with(fixture(&["sdk.py"]), json!({"env": {"TOKEN": "${SECRET}-${OTHER:-none}"}}))}),
    );
    let run =
        world.omni(["tool", "call", "--json", "sdk.variables"]).env("SECRET", "s3cret").env("MINE", "no");
    let variables = run.run().last()["structured"].clone();
    assert_eq!(variables["TOKEN"], "s3cret-none");
    assert!(
        variables["PATH"].is_string() && variables.get("SECRET").is_none() && variables.get("MINE").is_none()
    );
}

#[test]
fn nothing_that_a_server_has_started_outlives_us() {
    let world = World::new();
    let note = world.work().join("processes");
    let server = odd(&["stubborn", note.to_str().unwrap()]);
    write(&world.home().join("config/mcp.json"), &json!({"mcpServers": {"odd": server}}).to_string());
    let processes = || said(&note).split(' ').map(str::to_owned).collect::<Vec<_>>();

    assert_eq!(text(&call(&world, "odd.echo", json!({"text": "x"}))), "x");
    assert_eq!(processes().len(), 2);
    assert!(processes().iter().all(|process| !is_alive(process)), "the end of a command ends all of it");

    let mut client = Client::greeted(&world, &[]);
    client.call("odd__echo", json!({}));
    assert!(processes().iter().all(|process| is_alive(process)));
    assert!(client.server.kill());
    let [server, child] = processes().try_into().unwrap();
    until("the server dies with us", || !is_alive(&server));
    assert!(is_alive(&child), "what it has started hears of nothing");
    let mut client = Client::greeted(&world, &[]);
    client.call("odd__echo", json!({}));
    until("the next start ends it", || !is_alive(&child));
    assert!(processes().iter().all(|process| is_alive(process)), "but not its own");
    drop(client.server.end());
    until("all is gone", || processes().iter().all(|process| !is_alive(process)));
}

#[test]
fn what_a_server_has_said_once_is_known_before_it_is_started() {
    let world = World::new();
    let note = world.work().join("processes");
    let server = odd(&["stubborn", note.to_str().unwrap()]);
    let file = world.home().join("config/mcp.json");
    write(&file, &json!({ "mcpServers": { "odd": server } }).to_string());
    assert!(world.omni(["mcp", "list"]).run().succeeded().out.contains("not met"));
    world.omni(["mcp", "test"]).run().succeeded();
    std::fs::remove_file(&note).unwrap();
    assert!(world.omni(["mcp", "list"]).run().succeeded().out.contains("4 tools"));
    assert!(world.omni(["tool", "list"]).run().succeeded().out.contains("odd.echo"));
    assert!(!note.exists(), "a list starts nothing");
    // Described otherwise, it is another server.
    write(&file, &json!({"mcpServers": {"odd": with(server, json!({"description": "new"}))}}).to_string());
    assert!(world.omni(["mcp", "list"]).run().succeeded().out.contains("not met"));
}

// Files.

#[test]
fn a_projects_servers_are_used_when_their_user_has_agreed() {
    let world = World::new();
    let note = world.work().join("processes");
    let described =
        |more: Value| json!({"mcpServers": {"odd": with(odd(&["stubborn", note.to_str().unwrap()]), more)}});
    world.write(".mcp.json", &described(json!({})).to_string());
    let listed = world.omni(["mcp", "list"]).run().succeeded();
    assert!(
        listed.out.contains("untrusted") && listed.out.contains("`omni mcp trust odd` agrees to it"),
        "{listed}"
    );
    assert!(!world.omni(["tool", "list"]).run().succeeded().out.contains("odd.echo"));
    assert!(!note.exists(), "nothing of it has run");
    world.omni(["mcp", "trust", "odd"]).run().succeeded();
    assert!(world.omni(["tool", "list"]).run().succeeded().out.contains("odd.echo"));
    world.write(".mcp.json", &described(json!({"env": {"A": "b"}})).to_string());
    assert!(world.omni(["mcp", "list"]).run().succeeded().out.contains("changed"));
    assert!(!world.omni(["tool", "list"]).run().succeeded().out.contains("odd.echo"));
    world.omni(["mcp", "trust", "odd"]).run().succeeded();
    world.omni(["mcp", "distrust", "odd"]).run().succeeded();
    assert!(world.omni(["mcp", "list"]).run().succeeded().out.contains("untrusted"));
}

#[test]
fn servers_are_added_tested_and_removed() {
    let world = World::new();
    let python = python().display().to_string();
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/servers/sdk.py").display().to_string();
    let add = ["mcp", "add", "sdk", "--env", "A=b=c", "--", python.as_str(), script.as_str(), "stdio"];
    world.omni(add).run().succeeded();
    let tested = world.omni(["mcp", "test", "sdk"]).run().succeeded();
    assert!(tested.out.contains("sdk: 9 tools") && tested.out.contains("add steps"), "{tested}");
    assert_eq!(call(&world, "sdk.variables", json!({}))["structured"]["A"], "b=c");
    world.omni(add).run().exited(2);
    world.omni(["mcp", "add", "a b", "--", "true"]).run().exited(2);
    let url = [
        "mcp",
        "add",
        "far",
        "--url",
        "https://example.org/mcp",
        "--header",
        "Authorization: Bearer ${TOKEN}",
    ];
    world.omni(url).run().succeeded();
    let listed = world.omni(["mcp", "list"]).run().succeeded();
    assert!(listed.out.contains("environment variable `TOKEN` is not set"), "{listed}");
    let disabled = world.omni(["mcp", "list", "--set", "mcp.disabled=[\"far\"]"]).run().succeeded();
    assert!(disabled.out.contains("disabled"), "{disabled}");
    world.omni(["mcp", "remove", "far"]).run().succeeded();
    world.omni(["mcp", "remove", "far"]).run().exited(2);
    // What a person has written with comments is left to them.
    let file = write(&world.home().join("config/mcp.json"), "{\"mcpServers\": {} // none\n}");
    let refused = world.omni(["mcp", "add", "x", "--", "true"]).run().exited(1);
    assert!(refused.err.contains("by hand"), "{refused}");
    assert!(said(&file).contains("// none"));
}

#[test]
fn what_other_programs_know_is_taken_over() {
    let world = World::new();
    let home = world.work().join("home");
    let from = |program: &str, file: &str, text: &str, told: &str| {
        write(&home.join(file), text);
        let name = format!("of-{program}");
        let import = ["mcp", "import", "--from", program, &name];
        let imported = world.omni(import).env("HOME", &home).run().succeeded();
        assert!(imported.out.contains(told), "{program}: {imported}");
        world.omni(["mcp", "list"]).run().succeeded().out
    };
    let cursor = r#"{"mcpServers": {"of-cursor": {"command": "x", "env": {"K": "${env:HOME}"}}, "no": {"command": "y"}}}"#;
    let listed = from("cursor", ".cursor/mcp.json", cursor, "of-cursor: x K=…, from ");
    assert!(!listed.contains("no "), "{listed}");
    let code = "{\"servers\": {\"of-vscode\": {\"type\": \"http\", \"url\": \"https://x\",},}, // end\n}";
    from("vscode", ".config/Code/User/mcp.json", code, "of-vscode: https://x");
    let claude = format!(
        r#"{{"mcpServers": {{"of-claude": {{"command": "everywhere"}}}}, "projects": {{{:?}: {{"mcpServers": {{"of-claude": {{"command": "here"}}}}}}}}}}"#,
        world.work()
    );
    from("claude", ".claude.json", &claude, "of-claude: here");
    let codex = "[mcp_servers.of-codex]\ncommand = \"x\"\nargs = [\"y\"]\n";
    from("codex", ".codex/config.toml", codex, "of-codex: x y");
    let gemini =
        r#"{"theme": "x", "mcpServers": {"of-gemini": {"command": "$TOOL", "args": ["a$b", "$5"]}}}"#;
    let listed = from("gemini", ".gemini/settings.json", gemini, "of-gemini: ${TOOL} a${b} $5");
    assert!(listed.contains("the environment variable `TOOL` is not set"), "{listed}");
    let zed = r#"{"theme": "x", "context_servers": {"of-zed": {"command": {"path": "x", "args": ["y"]}}}}"#;
    from("zed", ".config/zed/settings.json", zed, "of-zed: ");
    // What is there stays.
    write(&home.join(".cursor/mcp.json"), r#"{"mcpServers": {"of-cursor": {"command": "other"}}}"#);
    let again = world.omni(["mcp", "import", "--from", "cursor"]).env("HOME", &home).run().succeeded();
    assert!(again.err.contains("there is a server `of-cursor` already"), "{again}");
    world.omni(["mcp", "import", "--from", "zed", "nobody"]).env("HOME", &home).run().exited(1);
}

#[test]
fn a_doctor_says_what_a_test_does_not_show() {
    let described = with(odd(&["names"]), json!({"timeout": 30, "colour": "red"}));
    let found = world(json!({"odd": described})).omni(["mcp", "doctor"]).run().succeeded();
    for told in
        ["✓", "`timeout` is taken for 30 seconds", "`colour` is not understood", "`odd.bad` is left out"]
    {
        assert!(found.out.contains(told), "{told}: {found}");
    }
    world(json!({"odd": odd(&["exits"])})).omni(["mcp", "doctor"]).run().exited(1);
}

#[test]
fn a_file_may_be_named_for_one_run() {
    let world = world(json!({"odd": {"command": "there-is-no-such-program"}}));
    let file = write(&world.work().join("mine.json"), &json!({"odd": odd(&["none"])}).to_string());
    let file = file.to_str().unwrap();
    let result = world.omni(["tool", "call", "--mcp-config", file, "odd.echo", "{\"text\": \"hi\"}"]).run();
    assert_eq!(result.succeeded().out.trim(), "hi");
    let missing = world.omni(["mcp", "list", "--mcp-config", "/there/is/none"]).run().exited(3);
    assert!(missing.err.contains("no file of servers `/there/is/none`"), "{missing}");
}

/// What a file with one server in it means, where `TOKEN` is `t` and `HOME` is `/home/ada`.
fn meant(text: &str) -> Result<Server, String> {
    let name = servers(text)?.keys().next().unwrap().clone();
    let folder = tempfile::TempDir::new().unwrap();
    let place = Place { file: write(&folder.path().join("mcp.json"), text), project: false };
    let mut files = Files::read(&[place]);
    assert_eq!(files.problems, Vec::<String>::new());
    let entry: Entry = files.entries.remove(&name).unwrap();
    let environment = |name: &str| match name {
        "TOKEN" | "OMNI_INPUT_KEY" => Some("t".to_owned()),
        "HOME" => Some("/home/ada".to_owned()),
        _ => None,
    };
    entry.server(&Variables { environment: &environment, workspace: Path::new("/site") })
}

#[test]
fn every_dialect_is_understood() {
    let program = |text: &str| match meant(text).unwrap().reach {
        Reach::Program(program) => {
            let line = [vec![program.command], program.arguments].concat().join(" ");
            let variables: String =
                program.environment.iter().map(|(name, value)| format!(" {name}={value}")).collect();
            format!("{line}{variables} in {}", program.folder.display())
        }
        Reach::Address(address) => panic!("{}", address.url),
    };
    let address = |text: &str| match meant(text).unwrap().reach {
        Reach::Address(address) => {
            let headers: String =
                address.headers.iter().map(|(name, value)| format!(" {name}: {value}")).collect();
            format!(
                "{}{headers}{}",
                address.url,
                if address.transport == Transport::Events { " (events)" } else { "" }
            )
        }
        Reach::Program(program) => panic!("{}", program.command),
    };
    // Claude Desktop, Claude Code.
    let claude = r#"{"mcpServers": {"a": {"type": "stdio", "command": "npx", "args": ["-y", "x"], "env": {"K": "${TOKEN}"}}}}"#;
    assert_eq!(program(claude), "npx -y x K=t in /site");
    let claude = r#"{"mcpServers": {"a": {"type": "http", "url": "https://x/${NONE:-mcp}", "headers": {"A": "Bearer ${TOKEN}"}}}}"#;
    assert_eq!(address(claude), "https://x/mcp A: Bearer t");
    // Cursor.
    let cursor = r#"{"mcpServers": {"a": {"command": "${workspaceFolder}/x", "args": ["${userHome}${/}y", "${env:TOKEN}"]}}}"#;
    assert_eq!(program(cursor), "/site/x /home/ada/y t in /site");
    // VS Code, with comments and commas.
    let code = "{\"inputs\": [{\"id\": \"key\"}], // asked for\n \"servers\": {\"a\": {\"command\": \"x\", \"env\": {\"K\": \"${input:key}\"}, \"cwd\": \"~/y\",},},}";
    assert_eq!(program(code), "x K=t in /home/ada/y");
    // Zed, now and before.
    assert_eq!(program(r#"{"context_servers": {"a": {"command": "x", "args": ["y"]}}}"#), "x y in /site");
    assert_eq!(
        program(r#"{"context_servers": {"a": {"command": {"path": "x", "args": ["y"]}}}}"#),
        "x y in /site"
    );
    // Windsurf, Gemini CLI, Cline, Copilot, OpenCode, Codex as JSON, FastMCP.
    assert_eq!(address(r#"{"mcpServers": {"a": {"serverUrl": "https://x"}}}"#), "https://x");
    assert_eq!(
        address(r#"{"mcpServers": {"a": {"httpUrl": "https://x", "url": "https://y"}}}"#),
        "https://x"
    );
    assert_eq!(
        address(r#"{"mcpServers": {"a": {"type": "streamableHttp", "url": "https://x"}}}"#),
        "https://x"
    );
    assert_eq!(
        program(r#"{"mcpServers": {"a": {"type": "local", "command": "x", "tools": ["*"]}}}"#),
        "x in /site"
    );
    assert_eq!(
        program(
            r#"{"mcp": {"a": {"type": "local", "command": ["x", "y"], "environment": {"K": "{env:TOKEN}"}}}}"#
        ),
        "x y K=t in /site"
    );
    assert_eq!(
        address(r#"{"mcp_servers": {"a": {"url": "https://x", "bearer_token_env_var": "TOKEN"}}}"#),
        "https://x Authorization: Bearer t"
    );
    assert_eq!(
        address(r#"{"mcpServers": {"a": {"url": "https://x", "transport": "sse"}}}"#),
        "https://x (events)"
    );
    // Without a key around them.
    assert_eq!(program(r#"{"a": {"command": "x"}}"#), "x in /site");
    // What is no variable stays.
    assert_eq!(
        program(r#"{"a": {"command": "x", "args": ["$TOKEN", "{\"a\": 1}", "$${TOKEN}"]}}"#),
        "x $TOKEN {\"a\": 1} ${TOKEN} in /site"
    );
}

#[test]
fn times_have_the_unit_that_was_meant() {
    let times = |fields: &str| {
        let server = meant(&format!(r#"{{"a": {{"command": "x"{fields}}}}}"#)).unwrap();
        (server.start.as_secs_f64(), server.timeout, server.idle_timeout)
    };
    assert_eq!(times(""), (60.0, None, None));
    assert_eq!(times(r#", "timeout": 30, "startup_timeout_sec": 5"#), (5.0, Some(30.0), None));
    assert_eq!(times(r#", "timeout": 30000, "connectionTimeout": 2500"#), (2.5, Some(30.0), None));
    assert_eq!(
        times(r#", "tool_timeout_sec": 3600, "idle_timeout_ms": 500"#),
        (60.0, Some(3600.0), Some(0.5))
    );
    assert_eq!(meant(r#"{"a": {"command": "/usr/bin/npx"}}"#).unwrap().start.as_secs(), 180);
}

#[test]
fn mistakes_are_named_with_their_place() {
    let wrong = |fields: &str| meant(&format!(r#"{{"a": {fields}}}"#)).unwrap_err();
    let ends = |fields: &str, end: &str| {
        let reason = wrong(fields);
        assert!(reason.ends_with(end) && reason.contains("mcp.json`: server `a`: `"), "{reason}");
    };
    ends(
        r#"{"command": "x", "env": {"K": "${NOPE}"}}"#,
        "`env.K`: the environment variable `NOPE` is not set",
    );
    ends(r#"{"command": "x", "args": ["${input:nope}"]}"#, "set the environment variable `OMNI_INPUT_NOPE`");
    ends(r#"{"command": "x", "args": ["${odd:nope}"]}"#, "there is no variable `${odd:nope}`");
    ends(r#"{"command": "x", "args": "y"}"#, "`args`: must be a list of texts");
    ends(r#"{"command": "x", "timeout": "soon"}"#, "`timeout`: must be a number, not below 0");
    ends(r#"{"url": "ftp://x"}"#, "`url`: must begin with `https://` or `http://`");
    ends(
        r#"{"url": "https://x", "bearer_token_env_var": "NOPE"}"#,
        "the environment variable `NOPE` is not set",
    );
    ends(r#"{"command": "x", "type": "pigeon"}"#, "must be `stdio`, `http` or `sse`, not `pigeon`");
    assert!(servers("{\n\"mcpServers\": {\n} oops").unwrap_err().contains("line 3"));
    assert!(servers("[]").unwrap_err().contains("must be an object"));
    assert!(servers(r#"{"settings": {"theme": "dark"}}"#).unwrap_err().contains("it has no `mcpServers`"));
}

#[test]
fn an_earlier_file_wins_whole() {
    let folder = tempfile::TempDir::new().unwrap();
    let place =
        |name: &str, text: &str, project| Place { file: write(&folder.path().join(name), text), project };
    let files = Files::read(&[
        place(
            "one",
            r#"{"mcpServers": {"a": {"command": "x"}, "b": {"command": "y", "disabled": true}}}"#,
            true,
        ),
        place(
            "two",
            r#"{"mcpServers": {"a": {"command": "z", "env": {"K": "v"}}, "c": {"command": "${NOPE}"}, "d.e": {"command": "x"}}}"#,
            false,
        ),
        place("three", "{", false),
        Place { file: PathBuf::from("/there/is/none"), project: false },
    ]);
    assert_eq!(files.problems.len(), 1);
    assert!(files.problems[0].contains("three`: EOF"), "{:?}", files.problems);
    assert_eq!(files.entries["a"].told(), "x");
    let variables = Variables { environment: &|_| None, workspace: folder.path() };
    let chosen = files.choose(&Trust::default(), &["d-e".to_owned()], &variables);
    let left = |name: &str| {
        chosen.iter().find(|chosen| chosen.entry.name == name).unwrap().server.clone().unwrap_err()
    };
    assert_eq!([left("a"), left("b"), left("d-e")], [Left::Unknown, Left::Disabled, Left::Disabled]);
    assert!(matches!(left("c"), Left::Wrong(reason) if reason.contains("`NOPE`")));
}
