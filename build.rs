//! Describes the Python that is built in: which one, where its library is, where ours is. With `OMNI_BUNDLE`, which
//! names what `tools/bundle` has made, it travels inside the program.

use std::path::Path;

fn main() {
    // Whole: a target folder may be shared with another checkout, whose paths are baked in below.
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo");
    println!("cargo:rerun-if-changed={root}/build.rs");
    // `include_dir!` sees a changed file but not a new one.
    println!("cargo:rerun-if-changed=assets/skills");
    println!("cargo:rustc-check-cfg=cfg(bundled)");
    told(&root);
    pyo3_build_config::use_pyo3_cfgs();
    if std::env::var_os("CARGO_FEATURE_EMBED").is_some() {
        println!("cargo:rerun-if-env-changed=OMNI_BUNDLE");
        match std::env::var_os("OMNI_BUNDLE") {
            Some(folder) => bundle(Path::new(&folder)),
            None => describe(),
        }
    }
}

/// What `--version --verbose` says of the build. Which commit it is, is not among it: each would build all anew.
fn told(root: &str) {
    let set = |name: &str| std::env::var(name).expect("set by cargo");
    let compiler =
        std::process::Command::new(set("RUSTC")).arg("--version").output().expect("the compiler runs");
    let compiler = String::from_utf8(compiler.stdout).expect("text");
    let lock = format!("{root}/Cargo.lock");
    println!("cargo:rerun-if-changed={lock}");
    let lock = std::fs::read_to_string(lock).unwrap_or_default();
    let lancedb =
        lock.split_once("name = \"lancedb\"\nversion = \"").and_then(|(_, rest)| rest.split_once('"'));
    println!("cargo:rustc-env=OMNI_TARGET={}", set("TARGET"));
    println!("cargo:rustc-env=OMNI_PROFILE={}", set("PROFILE"));
    println!("cargo:rustc-env=OMNI_RUSTC={}", compiler.trim());
    println!("cargo:rustc-env=OMNI_LANCEDB={}", lancedb.map_or("unknown", |(version, _)| version));
}

/// Puts a Python in: its files as an archive, its library into the program and nothing else.
fn bundle(folder: &Path) {
    let file = |name: &str| folder.join(name).into_os_string().into_string().expect("a path in UTF-8");
    let read = |name: &str| {
        println!("cargo:rerun-if-changed={}", file(name));
        std::fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{}: {error}", file(name)))
    };
    for argument in read("link.args").lines() {
        println!("cargo:rustc-link-arg-bin=omni={argument}");
    }
    // Addresses to be adjusted at the start take a tenth of their place; glibc reads them so since 2.36.
    println!("cargo:rustc-link-arg-bin=omni=-Wl,-z,pack-relative-relocs");
    for (name, value) in read("layout.txt").lines().filter_map(|line| line.split_once('=')) {
        println!("cargo:rustc-env=OMNI_BUNDLE_{}={value}", name.to_uppercase());
    }
    println!("cargo:rustc-env=OMNI_BUNDLE_ARCHIVE={}", file("runtime.tar.zst"));
    println!("cargo:rustc-cfg=bundled");
}

/// Bakes the paths of the interpreter that was found at build time into `kernel::interpreter`.
fn describe() {
    pyo3_build_config::add_libpython_rpath_link_args();
    const SCRIPT: &str = "import sys, sysconfig as s\n\
        print(sys.executable, sys.base_prefix, s.get_path('stdlib'), s.get_config_var('DESTSHARED') or '', s.get_path('purelib'), sep='\\n')";
    let answer = pyo3_build_config::get()
        .run_python_script(SCRIPT)
        .expect("the Python that PYO3_PYTHON names can be run");
    let source = format!("{}/python", std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let names = ["EXECUTABLE", "PREFIX", "STDLIB", "DYNLOAD", "PACKAGES"];
    for (name, value) in names.iter().zip(answer.lines()) {
        println!("cargo:rustc-env=OMNI_PYTHON_{name}={value}");
    }
    println!("cargo:rustc-env=OMNI_PYTHON_SOURCE={source}");
}
