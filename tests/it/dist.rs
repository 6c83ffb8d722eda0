//! The one file that travels: no Python on the machine, many starts at once, kills, full disks, and what changed
//! meanwhile. `make dist-test` runs these against `dist/omni`, or what `OMNI_TEST_DIST` names.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::kill::until;
use crate::support::omni::{Run, World, card, write};

/// What every Linux has, and all that there is here.
const SYSTEM: [&str; 6] =
    ["libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1"];
const LIBRARIES: &str = "/lib/x86_64-linux-gnu";
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// The file.
fn file() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = std::env::var_os("OMNI_TEST_DIST").map_or_else(|| root.join("dist/omni"), PathBuf::from);
    assert!(path.is_file(), "`{}` is not there; `make dist` builds it", path.display());
    path.into_os_string().into_string().expect("a path in UTF-8")
}

/// It, in a world.
fn dist(world: &World, arguments: &[&str]) -> Run {
    world.program(&[&[file().as_str()], arguments].concat())
}

/// It, in a root that holds the C library, a home and nothing else; without a network. `more` are words for bubblewrap.
fn alone(world: &World, more: &[&str], arguments: &[&str]) -> Run {
    let mut words: Vec<String> = "bwrap --unshare-all --die-with-parent --clearenv --tmpfs / --dir /lib64 --dev /dev \
                                  --proc /proc --dir /tmp --dir /var/tmp --setenv TZ UTC --setenv OMNI_MODEL__NAME offline"
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let mut bind = |how: &str, from: &str, to: &str| words.extend([how, from, to].map(str::to_owned));
    bind("--ro-bind", LOADER, LOADER);
    for library in SYSTEM {
        let path = format!("{LIBRARIES}/{library}");
        bind("--ro-bind", &path, &path);
    }
    // Where it all is outside as well: things are found by their path.
    bind("--ro-bind", &file(), &file());
    let (home, work) = (world.home().display().to_string(), world.work().display().to_string());
    bind("--bind", &home, &home);
    bind("--bind", &work, &work);
    words.extend(
        ["--setenv", "HOME", &home, "--setenv", "OMNI_HOME", &home, "--chdir", &work].map(str::to_owned),
    );
    words.extend(more.iter().map(|&word| word.to_owned()));
    words.push(file());
    words.extend(arguments.iter().map(|&word| word.to_owned()));
    world.program(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

fn cache(world: &World) -> PathBuf {
    world.home().join("cache")
}

/// The Pythons in a cache, and what is left of others.
fn unpacked(cache: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let entries = fs::read_dir(cache).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
    let (mut whole, mut parts) = (Vec::new(), Vec::new());
    for entry in entries {
        match entry.file_name().to_string_lossy() {
            name if name.starts_with("python-") => whole.push(entry.path()),
            name if name.starts_with(".python-") => parts.push(entry.path()),
            _ => {}
        }
    }
    (whole, parts)
}

/// How often it was unpacked into this cache.
fn unpackings(cache: &Path) -> usize {
    fs::read_to_string(cache.join(".python-lock")).unwrap_or_default().lines().count()
}

/// Words for bubblewrap: no place for files but the home.
const NOWHERE: [&str; 7] =
    ["--tmpfs", "/var/tmp", "--remount-ro", "/var/tmp", "--setenv", "TMPDIR", "/nowhere"];
const TIME: [&str; 3] = ["tool", "call", "time.now"];

#[test]
#[ignore = "needs the one file: make dist-test"]
fn it_needs_the_c_library_alone() {
    let said = World::cold().program(&["ldd", &file()]).run().succeeded();
    for line in said.out.lines() {
        let name = line.trim();
        let known = ["linux-vdso", "libm.so", "libc.so", "/lib64/ld-linux"];
        assert!(known.iter().any(|known| name.starts_with(known)), "{said}");
    }
}

#[test]
#[ignore = "needs the one file: make dist-test"]
fn in_an_empty_root_a_question_is_answered_by_a_python_tool() {
    let world = World::cold();
    let answer = alone(&world, &[], &["ask", "what time is it?"]).run().succeeded();
    assert!(answer.out.contains("UTC"), "{answer}");
    // In a worker as well, with a cage around it.
    let tool = "from omni import tool\n\n\n@tool\ndef about() -> str:\n    \"\"\"Who runs this.\"\"\"\n    import sys\n\n    return sys.executable\n";
    let folder = world.skill("own", tool);
    let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
    let said = alone(&world, &[], &["--yes", "tool", "call", &format!("{name}.about")]).run().succeeded();
    assert!(said.out.contains("/cache/python-"), "{said}");
}

#[test]
#[ignore = "needs the one file: make dist-test"]
fn in_an_empty_root_the_standard_library_is_whole() {
    let world = World::cold();
    let script = "import ssl, sqlite3, asyncio, ctypes, zoneinfo, hashlib, bz2, lzma, zlib, uuid, decimal, json, pydantic\n\
                  assert sqlite3.connect(':memory:').execute('select 1').fetchone() == (1,)\n\
                  assert str(zoneinfo.ZoneInfo('Europe/Berlin')) == 'Europe/Berlin'\n\
                  assert ctypes.pythonapi.Py_IsInitialized()\n\
                  asyncio.run(asyncio.sleep(0))\n\
                  print(ssl.OPENSSL_VERSION)";
    let said = alone(&world, &[], &["python", "-I", "-c", script]).run().succeeded();
    assert!(said.out.starts_with("OpenSSL 3"), "{said}");
}

#[test]
#[ignore = "needs the one file: make dist-test"]
fn it_says_what_it_is_made_of_and_under_which_licences() {
    let world = World::cold();
    let said = alone(&world, &[], &["--version", "--verbose"]).run().succeeded();
    assert!(said.out.contains(", inside\n") && !said.out.contains("development"), "{said}");
    let said = alone(&world, &[], &["licenses"]).run().succeeded();
    for part in ["lancedb", "pydantic", "pip", "libstdc++6"] {
        assert!(said.out.contains(&format!("\n  {part} ")), "{part} is not named");
    }
    assert!(said.out.contains("Version 2.0, January 2004"), "the texts are missing");
}

#[test]
#[ignore = "needs the one file: make dist-test"]
fn in_an_empty_root_processes_are_started_in_every_way() {
    let world = World::cold();
    world.write(
        "many.py",
        "import multiprocessing, subprocess, sys\n\n\ndef square(x):\n    return x * x\n\n\n\
         if __name__ == '__main__':\n    for way in ('spawn', 'forkserver', 'fork'):\n        \
         with multiprocessing.get_context(way).Pool(2) as pool:\n            \
         print(way, pool.map(square, range(4)))\n    \
         print(subprocess.check_output([sys.executable, '-c', 'print(6 * 7)'], text=True).strip())\n",
    );
    let said = alone(&world, &[], &["python", "many.py"]).run().succeeded();
    assert_eq!(said.out, "spawn [0, 1, 4, 9]\nforkserver [0, 1, 4, 9]\nfork [0, 1, 4, 9]\n42\n");
}

#[test]
#[ignore = "needs the one file: make dist-test"]
fn it_is_a_python_in_every_way_that_scripts_use() {
    let world = World::cold();
    let python = |arguments: &[&str]| dist(&world, &[&["python"], arguments].concat());
    python(&["-c", "import sys; sys.exit(7)"]).run().exited(7);
    assert_eq!(python(&[]).input("print(6 * 7)").run().succeeded().out, "42\n");
    assert_eq!(python(&["-"]).input("print(1)").run().succeeded().out, "1\n");
    assert!(python(&["--help"]).run().succeeded().out.starts_with("usage:"));
    assert!(python(&["-m", "json.tool"]).input("[1]").run().succeeded().out.contains('1'));
    let failed = python(&["-c", "1 / 0"]).run().exited(1);
    assert!(failed.err.contains("ZeroDivisionError"), "{failed}");
    // An environment, whose programs are environments' and whose `pip` is its own.
    python(&["-m", "venv", "env"]).run().succeeded();
    let own = world.work().join("env/bin/python").display().to_string();
    let said = world
        .program(&[&own, "-c", "import sys; print(sys.prefix != sys.base_prefix, sys.executable)"])
        .run();
    assert_eq!(said.succeeded().out, format!("True {own}\n"));
    world.program(&[&own, "-m", "pip", "--version"]).run().succeeded();
    let refused = python(&["-m", "pip", "install", "six"]).run();
    assert_ne!(refused.code(), 0, "the Python inside is nobody's to install into\n{refused}");
}

#[test]
#[ignore = "needs the one file: make dist-test"]
fn an_interrupted_script_ends_as_python_does() {
    let world = World::cold();
    let mut run = dist(&world, &["python", "-c", "print('on', flush=True)\nwhile True: pass"]).start();
    run.until("on");
    run.signal(libc::SIGINT);
    let said = run.end();
    assert!(said.err.contains("KeyboardInterrupt"), "{said}");
    assert!(!said.status.success());
}

#[test]
#[ignore = "needs the one file, and packages from their index: make dist-test"]
fn in_an_empty_root_a_skill_has_its_packages() {
    let world = World::cold();
    let folder = world.work().join("offers/numbers");
    write(&folder.join("SKILL.md"), &card("numbers"));
    write(
        &folder.join("scripts/numbers.py"),
        "# /// script\n# dependencies = [\"numpy>=2\"]\n# ///\nimport numpy\nfrom omni import tool\n\n\n\
         @tool(read_only=True)\ndef mean(values: list[float]) -> float:\n    \"\"\"The mean of numbers.\"\"\"\n    \
         return float(numpy.mean(values))\n",
    );
    let mut install = dist(&world, &["skill", "install", "--yes", folder.to_str().expect("a path")]);
    for (name, value) in std::env::vars_os() {
        let plain = name.to_string_lossy().to_lowercase();
        if plain.starts_with("uv_") || plain.starts_with("ssl_") || plain.ends_with("_proxy") {
            install = install.env(&name.to_string_lossy(), value);
        }
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let python = std::env::var("OMNI_TEST_PYTHON").expect("`make dist-test` says where it is");
    let beside = Path::new(&python).parent().expect("a folder").display().to_string();
    install.env("PATH", format!("{beside}:{path}")).run().succeeded();
    let call = ["tool", "call", "numbers.mean", r#"{"values": [1, 2, 6]}"#];
    let said = alone(&world, &[], &call).run().succeeded();
    assert_eq!(said.out.trim(), "3.0");
}

#[test]
#[ignore = "needs the one file: make dist-test"]
fn fifty_that_start_at_once_unpack_it_once() {
    let world = World::cold();
    let runs: Vec<_> =
        (0..50).map(|_| dist(&world, &["python", "-c", "import pydantic; print(6 * 7)"]).start()).collect();
    for run in runs {
        assert_eq!(run.end().succeeded().out, "42\n");
    }
    let (whole, parts) = unpacked(&cache(&world));
    assert_eq!((whole.len(), parts.len(), unpackings(&cache(&world))), (1, 0, 1));
}

#[test]
#[ignore = "needs the one file: make dist-test"]
fn a_start_that_is_killed_while_it_unpacks_leaves_the_next_one_fine() {
    let world = World::cold();
    for _ in 0..20 {
        let mut run = dist(&world, &TIME).start();
        until(|| unpacked(&cache(&world)).1.pop());
        run.kill();
        drop(run);
    }
    dist(&world, &TIME).run().succeeded();
    let (whole, parts) = unpacked(&cache(&world));
    assert_eq!((whole.len(), parts.len()), (1, 0), "what the killed left behind is gone");
}

#[test]
#[ignore = "needs the one file: make dist-test"]
fn what_was_changed_in_the_cache_is_put_right() {
    let world = World::cold();
    dist(&world, &TIME).run().succeeded();
    let folder = unpacked(&cache(&world)).0.remove(0);
    let json = folder.join("lib/python3.11/json/__init__.py");
    let changes: [&dyn Fn(); 4] = [
        &|| write(&json, "raise SystemExit('not yours')\n").exists().then_some(()).expect("written"),
        &|| fs::remove_file(folder.join("lib/python3.11/typing.py")).expect("it was there"),
        &|| fs::remove_dir_all(folder.join("lib/python3.11/asyncio")).expect("it was there"),
        &|| drop(write(&folder.join("lib/python3.11/more.py"), "")),
    ];
    for (turn, change) in changes.iter().enumerate() {
        change();
        let said = dist(&world, &TIME).run().succeeded();
        assert!(said.out.contains("UTC"), "{turn}: {said}");
        assert_eq!(unpackings(&cache(&world)), turn + 2);
    }
    assert!(!folder.join("lib/python3.11/more.py").exists());
    dist(&world, &TIME).run().succeeded();
    assert_eq!(unpackings(&cache(&world)), 5, "nothing had changed");
}

#[test]
#[ignore = "needs the one file: make dist-test"]
fn it_finds_another_place_where_the_home_is_read_only_and_says_so_where_there_is_none() {
    let world = World::cold();
    let home = world.home().display().to_string();
    let bound = ["--remount-ro", &home];
    let run = |more: &[&str]| {
        alone(&world, &[&bound, more].concat(), &["python", "-c", "import sys; print(sys.prefix)"])
    };
    let said = run(&[]).run().succeeded();
    assert!(said.out.starts_with("/var/tmp/omni-"), "{said}");
    let refused = run(&NOWHERE).run().exited(3);
    for word in ["MB of disk", &home, "/var/tmp/omni-", "OMNI_HOME"] {
        assert!(refused.err.contains(word), "{word}: {refused}");
    }
    // One that is there and whole is used as it is.
    dist(&world, &TIME).run().succeeded();
    let said = run(&[]).run().succeeded();
    assert!(said.out.starts_with(&home), "{said}");
}

#[test]
#[ignore = "needs the one file: make dist-test"]
fn a_folder_of_somebody_else_is_not_used() {
    let world = World::cold();
    let home = world.home().display().to_string();
    // Others may write there.
    let id = json!(
        fs::metadata(&home).map(|meta| std::os::unix::fs::MetadataExt::uid(&meta)).expect("it is there")
    );
    let open = format!("/var/tmp/omni-{id}");
    let more = ["--remount-ro", &home, "--perms", "0777", "--dir", &open];
    let said = alone(&world, &more, &["python", "-c", "import sys; print(sys.prefix)"]).run().succeeded();
    assert!(said.out.starts_with("/tmp/omni-"), "{said}");
}

#[test]
#[ignore = "needs the one file: make dist-test"]
fn a_full_disk_is_told_and_nothing_is_left_on_it() {
    let world = World::cold();
    let home = world.home().display().to_string();
    let script = "import sys; print(sys.prefix)";
    let full = ["--size", "20000000", "--tmpfs", &home];
    let refused = alone(&world, &[&full[..], &NOWHERE].concat(), &["python", "-c", script]).run().exited(3);
    assert!(refused.err.contains("No space left"), "{refused}");
    // Where there is another place, that is taken.
    let said = alone(&world, &full, &["python", "-c", script]).run().succeeded();
    assert!(said.out.starts_with("/var/tmp/omni-"), "{said}");
}

#[test]
#[ignore = "needs the one file: make dist-test"]
fn it_may_be_moved() {
    let world = World::cold();
    let places = ["one", "two"].map(|name| world.work().join(name));
    let mut seen = Vec::new();
    fs::copy(file(), &places[0]).expect("a copy");
    for turn in 0..2 {
        let own = places[turn].to_str().expect("a path");
        let script = "import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', 'print(1)']), sys.executable)";
        seen.push(world.program(&[own, "python", "-c", script]).run().succeeded().out);
        if turn == 0 {
            fs::rename(&places[0], &places[1]).expect("a move");
        }
    }
    assert_eq!(seen[0], seen[1]);
}
