//! Who must not come in at the HTTP door, and what no client would send.

use std::io::{Read, Write};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::http::Door;
use crate::support::omni::World;

fn open(world: &World) -> Door {
    let model = world.script("model", &[json!({"text": "hello", "loop": true})]);
    Door::open(world.omni(["serve", "--bind", "127.0.0.1:0"]).model(&model))
}

/// Sends these bytes and reads until the other side hangs up.
fn heard(door: &Door, bytes: &[u8]) -> String {
    let mut stream = door.raw(bytes).stream.into_inner();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).expect("it hangs up");
    String::from_utf8_lossy(&text).into_owned()
}

const BODY: &str = r#"{"session_id": "s", "message": "hi"}"#;
/// What a smuggler would have answered as well.
const INNER: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

fn post(headers: &str, body: &str) -> String {
    format!(
        "POST /message HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}\r\n{body}"
    )
}

#[test]
fn what_is_no_http_is_refused_and_nothing_is_smuggled() {
    let world = World::new();
    let door = open(&world);
    let (length, after) = (BODY.len(), format!("{BODY}{INNER}"));
    let sized = |rest: &str| format!("Content-Length: {length}\r\n{rest}");
    let chunks = format!("0\r\n\r\n{INNER}");
    for (what, request) in [
        ("two lengths", post(&sized("Content-Length: 0\r\n"), &after)),
        ("a list of lengths", post(&format!("Content-Length: {length}, 0\r\n"), &after)),
        ("a length with a sign", post(&format!("Content-Length: +{length}\r\n"), BODY)),
        ("a length below zero", post("Content-Length: -1\r\n", BODY)),
        ("a length in hexadecimal", post("Content-Length: 0x24\r\n", BODY)),
        ("a length and chunks", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", &chunks)),
        ("chunks and a length", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", &chunks)),
        ("chunks that are none", post("Transfer-Encoding: xchunked\r\n", &chunks)),
        ("chunks inside of something", post("Transfer-Encoding: chunked, identity\r\n", &chunks)),
        ("two encodings", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", &chunks)),
        ("a chunk of no size", post("Transfer-Encoding: chunked\r\n", &format!("zz\r\n{BODY}\r\n{chunks}"))),
        (
            "a chunk of any size",
            post("Transfer-Encoding: chunked\r\n", &format!("{}\r\n{BODY}", "f".repeat(17))),
        ),
        ("a folded header", post(&sized("X-Thing: a\r\n b\r\n"), BODY)),
        ("a space before the colon", post(&format!("Content-Length : {length}\r\n"), BODY)),
        ("a NUL in a value", post(&sized("X-Thing: a\0b\r\n"), BODY)),
        ("a NUL in a name", post(&sized("X-Th\0ing: b\r\n"), BODY)),
        ("a bare CR", post(&sized("X-Thing: a\rX-Other: b\r\n"), BODY)),
        ("no version", "GET /healthz\r\n\r\n".to_owned()),
    ] {
        let answer = heard(&door, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: {answer}");
        assert!(!answer.contains("\"status\":\"ok\""), "{what}: {answer}");
    }
    let large =
        format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Thing: {}\r\n\r\n", "a".repeat(1 << 20));
    let many: String = (0..2000).map(|number| format!("X-{number}: a\r\n")).collect();
    for head in [large, format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{many}\r\n")] {
        let answer = heard(&door, head.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    // Where chunks count, a length does not, and the connection is not used again.
    let chunked = format!("{length:x}\r\n{BODY}\r\n{chunks}");
    let both = post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", &chunked);
    assert_eq!(heard(&door, both.as_bytes()).matches("HTTP/1.1 ").count(), 1);
    assert_eq!(door.post("/message", &json!({"message": "hi"})).status, 200);
}

#[test]
fn a_path_leads_nowhere_else() {
    let world = World::new();
    let door = open(&world);
    let status = |method: &str, path: &str| door.send(method, path, &[], "{}").status;
    for path in [
        "/healthz/../run_tool",
        "/healthz/..%2frun_tool",
        "/%2e%2e/run_tool",
        "//run_tool",
        "/run_tool/",
        "/RUN_TOOL",
        "/run_tool%00",
        "/run_tool;x",
        "/v1\\..\\run_tool",
        "/./run_tool",
    ] {
        assert_eq!(status("POST", path), 404, "{path}");
    }
    // Ids are names, whatever is in them.
    for id in ["..%2f..%2fetc%2fpasswd", "%00", "..", "%2e%2e", "a%0d%0ab", "%25%32%66"] {
        for path in
            [format!("/api/v1/sessions/{id}"), format!("/v1/responses/{id}"), format!("/api/v1/runs/{id}")]
        {
            let answer = door.get(&path);
            assert_eq!(answer.status, 404, "{path}: {answer:?}");
        }
    }
    assert_eq!(status("GET", "/api/v1/sessions/%ff%fe"), 400);
}

#[test]
fn a_request_that_names_two_hosts_is_refused_unless_both_are_this_machine() {
    let world = World::new();
    let door = open(&world);
    let ask = |target: &str, host: &str| {
        let answer =
            heard(&door, format!("GET {target} HTTP/1.1\r\n{host}Connection: close\r\n\r\n").as_bytes());
        answer.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok()).expect("a status")
    };
    assert_eq!(ask("http://example.org/v1/models", "Host: localhost\r\n"), 403);
    assert_eq!(ask("http://localhost/v1/models", "Host: example.org\r\n"), 403);
    assert_eq!(ask("/v1/models", ""), 403);
    assert_eq!(ask("http://127.0.0.1/v1/models", "Host: localhost\r\n"), 200);
}

#[test]
fn deep_json_is_refused_wherever_it_is() {
    let world = World::new();
    let door = open(&world);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (path, body) in [
        ("/message", format!(r#"{{"message": {deep}}}"#)),
        ("/run_tool", format!(r#"{{"command": "time.now", "arguments": {{"a": {deep}}}}}"#)),
        ("/v1/chat/completions", format!(r#"{{"messages": [{{"role": "user", "content": {deep}}}]}}"#)),
        ("/v1/responses", format!(r#"{{"input": "hi", "metadata": {{"a": {deep}}}}}"#)),
    ] {
        let answer = door.send("POST", path, &[], &body);
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
    }
    assert_eq!(door.get("/healthz").status, 200);
}

#[test]
fn a_body_of_a_gigabyte_is_given_up_long_before_its_end() {
    let world = World::new();
    let door = open(&world);
    let head = post("Transfer-Encoding: chunked\r\n", "");
    let mut stream = door.raw(head.as_bytes()).stream.into_inner();
    stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
    let taken = (0..1024).take_while(|_| stream.write_all(chunk.as_bytes()).is_ok()).count();
    // What the system keeps for a connection comes on top of what is read.
    assert!(taken < 64, "{taken} MiB were taken");
    assert_eq!(door.get("/healthz").status, 200);
}

#[test]
fn whoever_is_slow_to_say_what_they_want_is_answered_so_or_hung_up_on() {
    let world = World::new();
    let door = open(&world);
    // Ten seconds of silence in a body, for one of each protocol.
    let slow = [("Content-Length", "100")];
    let asked = ["/message", "/v1/responses", "/run_tool"].map(|path| door.begin("POST", path, &slow, "{"));
    for answer in asked.map(|reader| reader.end()) {
        assert_eq!(answer.status, 408, "{answer:?}");
        let told: Value = answer.json();
        assert_eq!(told.get("code").unwrap_or(&told["error"]["code"]), "slow_body", "{answer:?}");
    }
}
