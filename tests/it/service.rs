//! Units of systemd: what is written, and that systemd takes it.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::omni::{OMNI, World, write};

fn printed(world: &World, folder: &std::path::Path) -> String {
    world
        .omni(["service", "install", "--print", "--bind", "127.0.0.1:0"])
        .within(folder)
        .run()
        .succeeded()
        .out
}

#[test]
fn a_unit_says_what_is_run_and_where() {
    let world = World::new();
    let folder = world.work().join("50% of \"all\" $things");
    std::fs::create_dir_all(folder.join(".omni")).expect("a folder");
    let unit = printed(&world, &folder);
    let has = |line: &str| assert!(unit.lines().any(|own| own == line), "`{line}` is not in\n{unit}");
    has(&format!("WorkingDirectory={}", folder.display().to_string().replace('%', "%%")));
    has(&format!("ExecStart=\"{OMNI}\" serve --bind \"127.0.0.1:0\""));
    has(&format!("EnvironmentFile=-{}", world.home().join("config/environment").display()));
    has(&format!("Environment=\"OMNI_HOME={}\"", world.home().display()));
    has("Restart=always");

    // Systemd itself reads it, where it is installed.
    let file = write(&world.home().join("omni-test.service"), &unit);
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--user"]).arg(&file).env("XDG_RUNTIME_DIR", world.home());
    match verify.output() {
        Ok(told) => {
            let err = String::from_utf8_lossy(&told.stderr);
            let own: Vec<_> = err.lines().filter(|line| line.contains("omni-test")).collect();
            assert!(told.status.success() && own.is_empty(), "{err}");
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}"),
    }
}

#[test]
fn installing_tells_systemd_and_uninstalling_leaves_nothing() {
    let world = World::new();
    // The programs that are not real: a test must not touch the services of who runs it.
    let bin = world.home().join("bin");
    let said = world.home().join("said");
    for name in ["systemctl", "journalctl"] {
        let script = format!("#!/bin/sh\necho {name} \"$@\" | tee -a '{}'\n", said.display());
        let fake = write(&bin.join(name), &script);
        std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).expect("a file of ours");
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let service = |word: &str| world.omni(["service", word]).env("PATH", &path).run();
    let installed = service("install").succeeded();
    let file = std::path::PathBuf::from(installed.out.lines().next().expect("a path"));
    assert!(
        file.ends_with(file.file_name().expect("a name"))
            && file.parent().is_some_and(|folder| folder.ends_with(".config/systemd/user"))
    );
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(name.starts_with("omni-work-") && name.ends_with(".service"), "{name}");
    assert!(std::fs::read_to_string(&file).expect("a unit").contains("ExecStart="));
    // What systemd says goes straight to whoever asks.
    assert!(service("status").succeeded().out.starts_with("systemctl --user"));
    assert!(service("logs").succeeded().out.starts_with("journalctl --user"));
    service("uninstall").succeeded();
    assert!(!file.exists());
    let told = std::fs::read_to_string(&said).expect("it was called");
    let expected = [
        "systemctl --user daemon-reload".to_owned(),
        format!("systemctl --user enable {name}"),
        format!("systemctl --user restart {name}"),
        format!("systemctl --user --no-pager status {name}"),
        format!("journalctl --user --no-pager --lines 100 --unit {name}"),
        format!("systemctl --user disable --now {name}"),
        "systemctl --user daemon-reload".to_owned(),
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
    assert!(service("uninstall").exited(2).err.contains("there is no unit"));
    let nothing = world.home().join("empty");
    std::fs::create_dir_all(&nothing).expect("a folder");
    let without = world.omni(["service", "status"]).env("PATH", &nothing).run().exited(1);
    assert!(without.err.contains("cannot run `systemctl`"), "{without}");
}
