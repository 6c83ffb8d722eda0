//! What is made for shells and manuals: completed by the real shells, set by the real groff.

use std::path::Path;
use std::process::Command;

use crate::support::omni::{OMNI, Run, World};
use crate::support::terminal::Terminal;

/// With the program where a shell looks for it.
fn on_path(run: Run) -> Run {
    let folder = Path::new(OMNI).parent().expect("a folder").display();
    let path = std::env::var("PATH").expect("a path");
    run.env("PATH", format!("{folder}:{path}"))
}

/// A shell that was told how to complete.
fn shell<'a>(world: &'a World, command: &str, lines: &[&str]) -> Terminal<'a> {
    let terminal = Terminal::run(world, command, on_path);
    for line in lines {
        terminal.types(line).presses(&["Enter"]);
    }
    terminal.types("echo re''ady").presses(&["Enter"]).until("ready");
    terminal
}

/// Completes a command, a command of a command, and a flag; what is hidden stays so.
fn completes(terminal: &Terminal<'_>, tabs: &[&str]) {
    let clear = || terminal.presses(&["C-u"]).when("an empty line", |screen| screen.ends_with("\n>"));
    terminal.types("omni to").presses(tabs);
    terminal.when("both commands", |screen| screen.contains("tool") && screen.contains("token"));
    for (typed, completed) in [
        ("omni ses", "omni session"),
        ("omni session exp", "omni session export"),
        ("omni ask --verb", "omni ask --verbose"),
    ] {
        clear();
        terminal.types(typed).presses(&["Tab"]).until(completed);
    }
    clear();
    terminal.types("omni wor").presses(&["Tab"]).types("X").until("omni worX");
}

#[test]
fn bash_completes() {
    let world = World::cold();
    let lines = ["PS1='> '", "source <(omni completions bash)"];
    completes(&shell(&world, "bash --norc --noprofile -i", &lines), &["Tab", "Tab"]);
}

#[test]
fn zsh_completes() {
    let world = World::cold();
    std::fs::create_dir(world.home().join("functions")).expect("a folder");
    let file = world.home().join("functions/_omni");
    std::fs::write(&file, world.omni(["completions", "zsh"]).run().succeeded().out).expect("a file");
    let place = format!("PS1='> '; fpath=({} $fpath)", world.home().join("functions").display());
    completes(&shell(&world, "zsh -f -i", &[&place, "autoload -U compinit && compinit -D -u"]), &["Tab"]);
}

#[test]
fn fish_completes() {
    let world = World::cold();
    let lines = ["function fish_prompt; echo '> '; end", "omni completions fish | source"];
    completes(&shell(&world, "fish --no-config --private -i", &lines), &["Tab"]);
}

#[test]
fn an_unknown_shell_is_told_which_there_are() {
    let output = World::cold().omni(["completions", "ksh"]).run().exited(2);
    assert!(output.err.contains("bash, elvish, fish, powershell, zsh"), "{output}");
}

#[test]
fn every_command_has_a_manual_page_that_can_be_set() {
    let world = World::cold();
    let folder = world.work().join("man/man1");
    world.omni(["man", &folder.display().to_string()]).run().succeeded();
    let mut pages = 0;
    for page in std::fs::read_dir(&folder).expect("a folder") {
        let page = page.expect("an entry").path();
        let set =
            Command::new("groff").args(["-man", "-Tutf8", "-ww", "-P-c"]).arg(&page).output().expect("groff");
        assert!(set.status.success() && set.stderr.is_empty(), "{}: {set:?}", page.display());
        pages += 1;
    }
    let page = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a page");
    assert!(pages > 40 && page("omni.1").contains("An assistant that gets things done"), "{pages}");
    assert!(page("omni-tool-call.1").contains("NAME"));
    assert!(!folder.join("omni-worker.1").exists(), "what is hidden has none");
    let refused = world.omni(["man", "/proc/nope"]).run().exited(1);
    assert!(refused.err.contains("cannot write manual pages in `/proc/nope`"), "{refused}");
}
