//! Signing in to servers that want to know who calls them.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::mcp::{said, text};
use crate::support::omni::{World, write};
use crate::support::servers::{Remote, with};

/// A world whose user has a server that wants to know them. Tokens are said to end after so long.
fn world(seconds: &str) -> (World, Remote) {
    let remote = Remote::start(&format!("guarded.py http {seconds}"));
    let world = World::new();
    describe(&world, remote.described());
    (world, remote)
}

fn describe(world: &World, server: Value) {
    write(&world.home().join("config/mcp.json"), &json!({"mcpServers": {"far": server}}).to_string());
}

fn call(world: &World, tool: &str) -> Value {
    world.omni(["tool", "call", "--json", tool]).run().last()
}

/// Where a page sends those who come to it.
fn sent_on(page: &str) -> String {
    let (status, location, _) = Remote::get(page.trim());
    assert_eq!(status, 302);
    location.unwrap()
}

/// Signs in, as a browser on this machine would.
fn sign_in(world: &World) -> String {
    let mut login = world.omni(["mcp", "login", "far", "--no-browser"]).talking().start();
    let back = sent_on(&login.until("\n"));
    // Somebody else's tab is not who was waited for.
    let other = back.replace("state=", "state=x");
    assert_eq!(Remote::get(&other).0, 404);
    let (status, _, told) = Remote::get(&back);
    assert!(status == 200 && told.contains("close this page"), "{status} {told}");
    let output = login.end().succeeded();
    assert!(output.out.contains("signed in to far: 2 tools"), "{output}");
    output.out + &output.err
}

fn accounts(world: &World) -> Vec<PathBuf> {
    let files = std::fs::read_dir(world.home().join("data/accounts"));
    let files = files.into_iter().flatten().map(|file| file.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|end| end == "json")).collect()
}

fn seen(remote: &Remote) -> Vec<String> {
    let (_, _, seen) = Remote::get(&format!("http://127.0.0.1:{}/seen", remote.port));
    serde_json::from_str(&seen).unwrap()
}

#[test]
fn a_person_signs_in_once() {
    let (world, remote) = world("3600");
    let refused = world.omni(["mcp", "test", "far"]).run().exited(1);
    assert!(refused.out.contains("`omni mcp login far` signs in"), "{refused}");
    let told = sign_in(&world);
    let [file] = accounts(&world).try_into().unwrap();
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(said(&file).contains("s3cret-access"), "that is where it is kept");
    let reads = call(&world, "far.reads");
    assert_eq!(text(&reads), "reads as read");
    let logs = std::fs::read_dir(world.home().join("state")).unwrap();
    let logs: String = logs.map(|log| said(&log.unwrap().path())).collect();
    assert!(!told.contains("s3cret") && !logs.contains("s3cret"), "and nowhere else");
    assert_eq!(seen(&remote), ["register", "authorize client-1 read", "authorization_code"]);
    // Forgotten, we are nobody again.
    let gone = world.omni(["mcp", "logout", "far"]).run().succeeded();
    assert!(gone.err.contains("takes none back"), "{gone}");
    assert_eq!(accounts(&world), Vec::<PathBuf>::new());
    let refused = world.omni(["tool", "call", "far.reads"]).run().exited(1);
    assert!(refused.err.contains("omni mcp login far"), "{refused}");
    let again = world.omni(["mcp", "logout", "far"]).run().succeeded();
    assert!(again.err.contains("nobody was signed in"), "{again}");
}

#[test]
fn tokens_are_taken_back_when_nobody_needs_them() {
    for how in ["takes", "posts"] {
        let (world, remote) = world(&format!("3600 {how}"));
        sign_in(&world);
        let gone = world.omni(["mcp", "logout", "far"]).run().succeeded();
        assert!(gone.err.contains("worth nothing any more"), "{how}: {gone}");
        assert_eq!(accounts(&world), Vec::<PathBuf>::new());
        let taken = ["revoke refresh_token s3cret-renewal-0", "revoke access_token s3cret-access-0"];
        assert_eq!(seen(&remote)[3..], taken, "{how}");
        assert!(!gone.err.contains("s3cret"), "{gone}");
    }
    // They are gone here in any case.
    for (how, reason) in [("refuses", "HTTP 503: temporarily_unavailable"), ("hangs", "no answer in 10 s")] {
        let (world, _remote) = world(&format!("3600 {how}"));
        sign_in(&world);
        let gone = world.omni(["mcp", "logout", "far"]).run().succeeded();
        assert!(gone.err.contains("not taken back") && gone.err.contains(reason), "{how}: {gone}");
        assert_eq!(accounts(&world), Vec::<PathBuf>::new());
    }
    let (world, remote) = world("3600 takes");
    sign_in(&world);
    drop(remote);
    let gone = world.omni(["mcp", "logout", "far"]).run().succeeded();
    assert!(gone.err.contains("not taken back"), "{gone}");
    assert_eq!(accounts(&world), Vec::<PathBuf>::new());
}

#[test]
fn more_is_asked_for_where_it_is_missing_and_the_address_may_be_pasted() {
    let (world, remote) = world("3600");
    sign_in(&world);
    let refused = call(&world, "far.writes");
    assert!(text(&refused).contains("`omni mcp login far --scope 'write'`"), "{refused}");
    let mut login = world.omni(["mcp", "login", "far", "--scope", "write"]).talking().start();
    let back = sent_on(&login.until("\n"));
    login.say(&back);
    login.end().succeeded();
    let writes = call(&world, "far.writes");
    assert_eq!(text(&writes), "writes as read write");
    assert!(seen(&remote).iter().any(|seen| seen.ends_with("read write")), "{:?}", seen(&remote));
}

#[test]
fn what_is_no_answer_of_the_page_signs_nobody_in() {
    let (world, _remote) = world("3600");
    let answers = [
        ("see https://example.org", "is not the address of a page"),
        (
            "http://127.0.0.1:1/callback?error=access_denied&error_description=not+you",
            "access_denied: not you",
        ),
        ("http://127.0.0.1:1/callback?code=x&state=somebody-elses", "state"),
        ("http://127.0.0.1:1/callback?state=x", "missing code"),
    ];
    for (pasted, reason) in answers {
        let mut login = world.omni(["mcp", "login", "far", "--no-browser"]).talking().start();
        login.until("\n");
        login.say(pasted);
        let output = login.end().exited(1);
        assert!(output.err.to_lowercase().contains(reason), "{pasted}: {output}");
    }
    // Another issuer than the one that was asked.
    let mut login = world.omni(["mcp", "login", "far", "--no-browser"]).talking().start();
    let back = sent_on(&login.until("\n"));
    login.say(&back.replace("iss=http", "iss=https"));
    let output = login.end().exited(1);
    assert!(output.err.contains("issuer mismatch"), "{output}");
    assert_eq!(accounts(&world), Vec::<PathBuf>::new());
}

#[test]
fn tokens_are_renewed_by_one_at_a_time() {
    let (world, remote) = world("1");
    sign_in(&world);
    // What renews them can be used once. The tokens end before each of these begins.
    for _ in 0..2 {
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let calls: Vec<_> =
            (0..3).map(|_| world.omni(["tool", "call", "--json", "far.reads"]).start()).collect();
        for call in calls {
            let output = call.end().succeeded();
            assert_eq!(text(&output.last()), "reads as read");
        }
    }
    let renewed = seen(&remote).iter().filter(|seen| *seen == "refresh_token").count();
    assert!(renewed >= 2, "{:?}", seen(&remote));
}

#[test]
fn nobody_signs_in_where_nobody_is_asked_to() {
    let open = Remote::start("sdk.py");
    let world = World::new();
    describe(&world, open.described());
    let refused = world.omni(["mcp", "login", "far"]).run().exited(1);
    assert!(refused.err.contains("does not want to know who you are"), "{refused}");
    describe(&world, json!({"command": "true"}));
    let refused = world.omni(["mcp", "login", "far"]).run().exited(1);
    assert!(refused.err.contains("it is a program"), "{refused}");
    describe(&world, with(open.described(), json!({"headers": {"Authorization": "Bearer x"}})));
    world.omni(["mcp", "login", "far"]).run().exited(1);
    world.omni(["mcp", "login", "nobody"]).run().exited(2);
}
