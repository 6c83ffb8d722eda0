//! Pages that are made from the program are current. `OMNI_UPDATE=1 make test` writes them.

use std::path::Path;

#[test]
fn the_command_line_page_is_current() {
    check("docs/cli.md", &omni::cli::reference());
}

#[test]
fn the_configuration_page_is_current() {
    check("docs/configuration.md", &omni::config::reference());
}

fn check(page: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    if std::env::var_os("OMNI_UPDATE").is_some() {
        std::fs::write(&path, made).expect("the page can be written");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == made, "`{page}` is not current; OMNI_UPDATE=1 writes it anew");
}
