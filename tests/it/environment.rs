//! Skills with packages: what they declare, how they are installed, removed, and kept apart.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use omni::kernel::{Interpreter, Kernel};
use omni::message::{Arguments, ToolCall};
use omni::skill::Manifest;
use omni::skill::environment::OWN;
use omni::tool::{Error, Scope, Toolbox};
use serde_json::{Value, json};

use crate::support::omni::{OMNI, Output, Run, World, card, write};
use crate::support::tools;

const NUMBERS: &str = r#"# /// script
# dependencies = ["numpy>=2"]
# ///
import numpy
from omni import tool


@tool(read_only=True)
def mean(values: list[float]) -> dict[str, float | str]:
    """The mean of numbers."""
    import pydantic

    return {"mean": float(numpy.mean(values)), "numpy": numpy.__version__, "pydantic": pydantic.VERSION}
"#;

const OLDER: &str = r#"import os

import pydantic
from omni import Failed, tool


class Point(pydantic.BaseModel):
    x: int
    y: int = 0


@tool(read_only=True)
def about(point: Point) -> dict[str, int | str]:
    """What there is."""
    try:
        import markdownify
    except ImportError:
        return {"pydantic": pydantic.VERSION, "x": point.x, "process": os.getpid()}
    raise Failed(f"{markdownify} was never declared")
"#;

const SMALL: &str = r#"import annotated_types
from omni import tool


@tool(read_only=True)
def bound() -> int:
    """A number."""
    return annotated_types.Gt(3).gt
"#;

/// A folder with a skill that is not installed.
fn skill(world: &World, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = world.work().join("offers").join(name);
    write(&folder.join("SKILL.md"), &card(name));
    for (file, text) in files {
        write(&folder.join(file), text);
    }
    folder
}

/// One whose package is small, and in every environment anyway.
fn small(world: &World, name: &str) -> PathBuf {
    skill(world, name, &[("requirements.txt", "annotated-types\n"), ("scripts/small.py", SMALL)])
}

/// `omni skill …` as somebody runs it who can install: the files that were downloaded are kept
/// from run to run, and where they come from is as the environment says.
fn manage(world: &World, arguments: &[&str]) -> Run {
    let mut run = world.omni(["skill"].iter().chain(arguments));
    for (name, value) in std::env::vars_os() {
        let plain = name.to_string_lossy().to_lowercase();
        if plain.starts_with("uv_") || plain.starts_with("ssl_") || plain.ends_with("_proxy") {
            run = run.env(&name.to_string_lossy(), value);
        }
    }
    run.env("UV_CACHE_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("uv"))
}

fn install(world: &World, what: &Path) -> Output {
    manage(world, &["install", "--yes", what.to_str().unwrap()]).run()
}

/// The program where there is no network, and no `uv`.
fn offline(world: &World, arguments: &[&str]) -> Run {
    let dead = "http://127.0.0.1:9";
    let run = world.omni(arguments).env("PATH", "/usr/bin:/bin").env("UV_OFFLINE", "1");
    run.env("HTTPS_PROXY", dead).env("HTTP_PROXY", dead).env("ALL_PROXY", dead)
}

fn count(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count()
}

fn environments(world: &World) -> usize {
    count(&world.home().join("cache/environments"))
}

fn locks(world: &World) -> usize {
    count(&world.home().join("data/locks"))
}

fn installed(world: &World, name: &str) -> PathBuf {
    world.home().join("config/skills").join(name)
}

fn toolbox(world: &World, manifest: &Manifest) -> Arc<Toolbox> {
    let kernel = Kernel::new(Interpreter::Embedded, manifest, world.home().join("data"));
    let kernel = kernel.started_by(|| Ok(Command::new(OMNI)));
    tools::toolbox(Arc::new(kernel))
}

async fn call(world: &World, toolbox: &Arc<Toolbox>, tool: &str, arguments: Value) -> Result<Value, Error> {
    let call = ToolCall { id: "c1".into(), name: tool.into(), arguments: Arguments::from(arguments) };
    Ok(toolbox.call(call, &Arc::new(Scope::new(world.work()))).await?.structured.expect("a value"))
}

fn manifest(world: &World) -> Manifest {
    serde_json::from_value(world.omni(["sync", "--json"]).run().last()).unwrap()
}

// Side by side.

#[tokio::test(flavor = "multi_thread")]
async fn packages_that_exclude_each_other_work_side_by_side_and_offline() {
    let world = World::new();
    install(&world, &skill(&world, "numbers", &[("scripts/numbers.py", NUMBERS)])).succeeded();
    let older = [("requirements.txt", "pydantic==2.7.4\n"), ("scripts/older.py", OLDER)];
    let folder = skill(&world, "older", &older);
    // What it asks for is for skills without packages, vouched for or not.
    write(
        &folder.join("SKILL.md"),
        &card("older").replacen("\n---\n", "\nmetadata:\n  isolation: thread\n---\n", 1),
    );
    install(&world, &folder).succeeded();
    world.omni(["skill", "trust", "older"]).run().succeeded();
    assert_eq!((environments(&world), locks(&world)), (2, 2));

    let toolbox = toolbox(&world, &manifest(&world));
    let (numbers, point) = (json!({"values": [1, 2, 6]}), json!({"point": {"x": 3}}));
    for _ in 0..2 {
        let (mean, about) = tokio::join!(
            call(&world, &toolbox, "numbers.mean", numbers.clone()),
            call(&world, &toolbox, "older.about", point.clone()),
        );
        let (mean, about) = (mean.unwrap(), about.unwrap());
        assert_eq!(mean["mean"], 3.0);
        assert!(mean["numpy"].as_str().unwrap().starts_with("2."), "{mean}");
        assert_ne!(mean["pydantic"], "2.7.4");
        assert_eq!((&about["pydantic"], &about["x"]), (&json!("2.7.4"), &json!(3)));
        assert_ne!(about["process"], std::process::id());
    }

    let told = offline(&world, &["tool", "call", "numbers.mean", &numbers.to_string()]).run().succeeded();
    assert!(told.out.contains("\"mean\": 3.0"), "{told}");
    let told = offline(&world, &["tool", "call", "older.about", &point.to_string()]).run().succeeded();
    assert!(told.out.contains("2.7.4"), "{told}");
}

#[test]
fn a_start_with_packages_opens_no_connection_and_runs_no_other_program() {
    let world = World::new();
    install(&world, &small(&world, "small")).succeeded();
    let trace = world.home().join("trace");
    let by = ["strace", "-f", "-qq", "-e", "trace=connect,execve", "-e", "status=successful", "-o"];
    let by: Vec<&str> = by.into_iter().chain([trace.to_str().unwrap()]).collect();
    let told = world.under(&by, ["tool", "call", "small.bound"]).run().succeeded();
    assert_eq!(told.out.trim(), "3");
    let trace = fs::read_to_string(trace).unwrap();
    let started: Vec<&str> = trace.lines().filter(|line| line.contains("execve(")).collect();
    assert!(
        started.len() == 2
            && started.iter().all(|line| line.contains("omni") || line.contains("/proc/self/exe")),
        "{trace}"
    );
    assert!(!trace.contains("AF_INET"), "{trace}");
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_environments_are_warm_at_once() {
    let world = World::new();
    install(&world, &small(&world, "small")).succeeded();
    let mut manifest = manifest(&world);
    let model = manifest.skill("small").unwrap().clone();
    let environment = model.environment.clone().unwrap();
    // Each of them another folder with the same in it.
    let many: Vec<String> = (0..10).map(|number| format!("small-{number}")).collect();
    manifest.skills = Vec::new();
    for name in &many {
        let link = world.home().join("cache").join(name);
        std::os::unix::fs::symlink(&environment, &link).unwrap();
        let mut skill = model.clone();
        skill.card.name.clone_from(name);
        Arc::make_mut(&mut skill.tools[0].spec).name = format!("{name}.bound");
        skill.environment = Some(link);
        manifest.skills.push(skill);
    }
    let toolbox = toolbox(&world, &manifest);
    for name in many.iter().chain(&many) {
        let result = call(&world, &toolbox, &format!("{name}.bound"), json!({})).await;
        assert_eq!(result, Ok(json!({"result": 3})), "{name}");
    }
    let home = world.home().display().to_string();
    let alive = || processes(&home).len();
    for _ in 0..200 {
        if alive() <= 8 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!((1..=8).contains(&alive()), "{:?}", processes(&home));
}

/// The command lines of zygotes that have this in them, with one process each.
fn processes(words: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let own = std::process::id().to_string();
    let children = all.filter(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        stat.rsplit(')').next().and_then(|rest| rest.split(' ').nth(2)) == Some(&own)
    });
    let lines = children.map(|entry| fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default());
    lines
        .map(|line| line.replace('\0', " "))
        .filter(|line| line.contains("--zygote") && line.contains(words))
        .collect()
}

// What is missing.

#[test]
fn a_skill_without_its_packages_says_what_installs_them() {
    let world = World::new();
    let folder = installed(&world, "small");
    write(&folder.join("SKILL.md"), &card("small"));
    write(&folder.join("requirements.txt"), "# what it needs\nannotated-types\n");
    write(&folder.join("scripts/small.py"), SMALL);
    let told = "requirements.txt:2: error: its packages are not installed: run `omni skill install small`";
    let list = world.omni(["skill", "list"]).run().succeeded();
    assert!(list.out.contains(told), "{list}");
    let check = world.omni(["skill", "check"]).run().exited(1);
    assert!(check.out.contains(told), "{check}");
    let call = world.omni(["tool", "call", "small.bound"]).run().exited(2);
    assert!(call.err.contains(told), "{call}");

    manage(&world, &["install", "--yes", "small"]).run().succeeded();
    assert!(world.omni(["tool", "call", "small.bound"]).run().succeeded().out.contains('3'));
    // The cache may be emptied at any time; the tool is known, and says the same.
    fs::remove_dir_all(world.home().join("cache/environments")).unwrap();
    let call = world.omni(["tool", "call", "small.bound"]).run().exited(1);
    assert!(call.err.contains("run `omni skill install small`"), "{call}");
    // With the lock there is nothing to choose.
    let lock = fs::read_dir(world.home().join("data/locks")).unwrap().next().unwrap().unwrap().path();
    let before = fs::read_to_string(&lock).unwrap();
    install(&world, &folder).succeeded();
    assert_eq!(fs::read_to_string(&lock).unwrap(), before);
    world.omni(["tool", "call", "small.bound"]).run().succeeded();

    // Another declaration, other packages.
    write(&folder.join("requirements.txt"), "annotated-types\ntyping-inspection\n");
    let check = world.omni(["skill", "check"]).run().exited(1);
    assert!(check.out.contains("run `omni skill install small`"), "{check}");
}

#[test]
fn another_python_is_told_with_both_versions() {
    let world = World::new();
    let folder = installed(&world, "newer");
    write(&folder.join("SKILL.md"), &card("newer"));
    write(&folder.join("pyproject.toml"), "[project]\nname = \"newer\"\nrequires-python = \">=4\"\n");
    write(&folder.join("scripts/small.py"), SMALL);
    let check = world.omni(["skill", "check"]).run().exited(1);
    let told = "pyproject.toml:3: error: needs Python >=4, and the one inside omni is 3.";
    assert!(check.out.contains(told), "{check}");
    let install = install(&world, &folder).exited(1);
    assert!(install.err.contains("needs Python >=4"), "{install}");
}

#[test]
fn what_cannot_be_had_is_told() {
    let world = World::new();
    for (requirement, told) in [
        ("pydantic<2", "omni itself needs pydantic 2.7 or newer"),
        ("annotated-types==99", "annotated-types==99"),
        ("docopt==0.6.2", "`--build` lets packages without wheels be built"),
    ] {
        let folder =
            skill(&world, "small", &[("requirements.txt", requirement), ("scripts/small.py", SMALL)]);
        let install = install(&world, &folder).exited(1);
        assert!(install.err.contains(told), "{install}");
    }
    assert_eq!((count(&world.home().join("config/skills")), environments(&world), locks(&world)), (0, 0, 0));
}

#[test]
fn a_skill_cannot_choose_where_packages_come_from() {
    let world = World::new();
    let elsewhere = "[tool.uv]\nindex-url = \"http://127.0.0.1:9/simple\"\n";
    let folder = small(&world, "small");
    write(&folder.join("pyproject.toml"), elsewhere);
    write(&folder.join("uv.toml"), "index-url = \"http://127.0.0.1:9/simple\"\n");
    manage(&world, &["install", "--yes", "."]).within(&folder).run().succeeded();
}

// Installing.

#[test]
fn nothing_is_done_without_consent() {
    let world = World::new();
    let told = manage(&world, &["install", small(&world, "small").to_str().unwrap()]).run().exited(5);
    assert!(told.err.contains("`--yes` agrees beforehand"), "{told}");
    for line in ["from", "small.bound", "annotated-types", "read and write the workspace"] {
        assert!(told.out.contains(line), "{line}: {told}");
    }
    let folder = skill(&world, "loud", &[]);
    let card =
        card("loud").replace("The skill", "\"\\e[2J\\e[1;1HThe skill").replace("of a test.", "of a test.\"");
    write(&folder.join("SKILL.md"), &card);
    let told = manage(&world, &["install", folder.to_str().unwrap()]).run().exited(5);
    assert!(told.out.starts_with("loud: \u{fffd}[2J\u{fffd}[1;1HThe skill"), "{told}");
    assert_eq!((count(&world.home().join("config/skills")), environments(&world), locks(&world)), (0, 0, 0));
}

#[test]
fn a_skill_comes_from_a_folder_an_archive_or_a_repository() {
    let world = World::repository();
    let folder = skill(&world, "plain", &[("scripts/run.sh", "#!/bin/sh\n"), (".git/config", "x")]);
    fs::set_permissions(folder.join("scripts/run.sh"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let offers = world.work().join("offers");

    let zip = offers.join("plain.zip");
    let mut archive = zip::ZipWriter::new(File::create(&zip).unwrap());
    archive.start_file("plain/SKILL.md", zip::write::SimpleFileOptions::default()).unwrap();
    archive.write_all(card("plain").as_bytes()).unwrap();
    archive.finish().unwrap();

    let tar = offers.join("plain.tar.gz");
    let mut archive =
        tar::Builder::new(flate2::write::GzEncoder::new(File::create(&tar).unwrap(), Default::default()));
    archive.append_path_with_name(folder.join("SKILL.md"), "SKILL.md").unwrap();
    archive.append_path_with_name(folder.join("scripts/run.sh"), "./scripts/run.sh").unwrap();
    archive.into_inner().unwrap().finish().unwrap();

    fs::remove_dir_all(folder.join(".git")).unwrap();
    skill(&world, "other", &[]);
    world.git(&["add", "offers/plain", "offers/other"]);
    world.git(&["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "-m", "skills"]);
    let repository = format!("file://{}", world.work().display());
    let named = format!("{repository}#offers/plain");

    let copy = installed(&world, "plain");
    for (what, has_program) in [
        (folder.to_str().unwrap(), true),
        (zip.to_str().unwrap(), false),
        (tar.to_str().unwrap(), true),
        (&named, true),
    ] {
        manage(&world, &["install", "--yes", what]).run().succeeded();
        assert_eq!(fs::read_to_string(copy.join("SKILL.md")).unwrap(), card("plain"), "{what}");
        assert!(!copy.join(".git").exists());
        let mode = fs::metadata(copy.join("scripts/run.sh")).map(|meta| meta.permissions());
        let runs = mode.is_ok_and(|mode| std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777 == 0o755);
        assert_eq!(runs, has_program, "{what}");
        let again = manage(&world, &["install", "--yes", what]).run().exited(1);
        assert!(again.err.contains("`--replace`"), "{again}");
        manage(&world, &["remove", "--yes", "plain"]).run().succeeded();
        assert!(!copy.exists());
    }
    let several = manage(&world, &["install", "--yes", &format!("{repository}#offers")]).run().exited(1);
    assert!(several.err.contains("it has several skills, `other`, `plain`"), "{several}");
    assert_eq!(fs::read_dir(world.home().join("config/skills")).unwrap().count(), 0);
}

#[test]
fn what_leads_out_of_an_archive_is_refused() {
    let world = World::new();
    let outside = world.work().join("outside");
    let tar = world.work().join("bad.tar.gz");
    let entry = |name: &str, kind: tar::EntryType, link: &str| {
        let gz = flate2::write::GzEncoder::new(File::create(&tar).unwrap(), Default::default());
        let mut archive = tar::Builder::new(gz);
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(if kind.is_file() { 2 } else { 0 });
        header.set_mode(0o644);
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        header.set_cksum();
        archive.append(&header, &b"hi"[..if kind.is_file() { 2 } else { 0 }]).unwrap();
        archive.into_inner().unwrap().finish().unwrap();
        manage(&world, &["install", "--yes", tar.to_str().unwrap()]).run().exited(1)
    };
    use tar::EntryType;
    for (name, kind, link, told) in [
        ("../../outside", EntryType::Regular, "", "leads out of it"),
        ("/outside", EntryType::Regular, "", "leads out of it"),
        ("link", EntryType::Symlink, "/etc/passwd", "is a link"),
        ("link", EntryType::Link, "/etc/passwd", "is a link"),
        ("pipe", EntryType::Fifo, "", "is a link, or no file"),
        ("SKILL", EntryType::Regular, "", "there is no `SKILL.md` in it"),
    ] {
        let refused = entry(name, kind, link);
        assert!(refused.err.contains(told), "{name}: {refused}");
    }
    let zip = world.work().join("bad.zip");
    let mut archive = zip::ZipWriter::new(File::create(&zip).unwrap());
    archive.start_file("../outside", zip::write::SimpleFileOptions::default()).unwrap();
    archive.finish().unwrap();
    let refused = manage(&world, &["install", "--yes", zip.to_str().unwrap()]).run().exited(1);
    assert!(refused.err.contains("leads out of it"), "{refused}");
    let mut archive = zip::ZipWriter::new(File::create(&zip).unwrap());
    for number in 0..4097 {
        archive.add_directory(number.to_string(), zip::write::SimpleFileOptions::default()).unwrap();
    }
    archive.finish().unwrap();
    let refused = manage(&world, &["install", "--yes", zip.to_str().unwrap()]).run().exited(1);
    assert!(refused.err.contains("it has more than 4096 files"), "{refused}");
    let link = skill(&world, "linked", &[]).join("references");
    std::os::unix::fs::symlink("/etc", link).unwrap();
    let refused = install(&world, &world.work().join("offers/linked")).exited(1);
    assert!(refused.err.contains("is a link"), "{refused}");
    assert!(!outside.exists());
    assert_eq!(fs::read_dir(world.home().join("config/skills")).unwrap().count(), 0);
}

// Removing.

#[test]
fn removing_a_skill_leaves_nothing_of_it() {
    let world = World::new();
    install(&world, &small(&world, "small")).succeeded();
    install(&world, &small(&world, "twin")).succeeded();
    assert_eq!((environments(&world), locks(&world)), (1, 1));
    world.omni(["skill", "trust", "small"]).run().succeeded();
    let data = write(&world.home().join("data/skills/small/notes"), "mine");
    let trust = world.home().join("data/trusted-skills.json");

    manage(&world, &["remove", "--yes", "--keep-data", "small"]).run().succeeded();
    assert!(!installed(&world, "small").exists() && data.exists());
    assert!(!fs::read_to_string(&trust).unwrap().contains("skills/small"));
    // The other one uses the packages.
    assert_eq!((environments(&world), locks(&world)), (1, 1));
    world.omni(["tool", "call", "twin.bound"]).run().succeeded();

    install(&world, &small(&world, "small")).succeeded();
    manage(&world, &["remove", "--yes", "small"]).run().succeeded();
    assert!(!data.parent().unwrap().exists());
    manage(&world, &["remove", "--yes", "twin"]).run().succeeded();
    assert_eq!((environments(&world), locks(&world)), (0, 0));
    assert_eq!(fs::read_dir(world.home().join("config/skills")).unwrap().count(), 0);

    for unknown in ["small", "../skills", "git"] {
        let refused = manage(&world, &["remove", "--yes", unknown]).run().exited(1);
        assert!(refused.err.contains("no skill of yours"), "{refused}");
    }
    let foreign = world.write(".omni/skills/theirs/SKILL.md", &card("theirs"));
    let refused = manage(&world, &["remove", "--yes", "theirs"]).run().exited(1);
    assert!(refused.err.contains("was not put there by `omni skill install`"), "{refused}");
    assert!(foreign.exists());
}

#[test]
fn a_new_version_takes_the_place_and_the_packages_of_the_old_one() {
    let world = World::new();
    install(&world, &small(&world, "small")).succeeded();
    let folder = small(&world, "small");
    write(&folder.join("requirements.txt"), "typing-inspection\n");
    write(&folder.join("scripts/small.py"), &SMALL.replace("Gt(3)", "Gt(4)"));
    manage(&world, &["install", "--yes", "--replace", folder.to_str().unwrap()]).run().succeeded();
    assert!(world.omni(["tool", "call", "small.bound"]).run().succeeded().out.contains('4'));
    assert_eq!(locks(&world), 1);
}

#[test]
fn what_omni_needs_is_what_its_package_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let project = fs::read_to_string(root.join("pyproject.toml")).unwrap();
    for requirement in OWN {
        assert!(project.contains(&format!("\"{requirement}\"")), "{requirement}");
    }
}
