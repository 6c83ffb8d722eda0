//! Describes the Python that is built in: which one, where its library is, where ours is.

fn main() {
    // Whole: a target folder may be shared with another checkout, whose paths are baked in below.
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo");
    println!("cargo:rerun-if-changed={root}/build.rs");
    // `include_dir!` sees a changed file but not a new one.
    println!("cargo:rerun-if-changed=assets/skills");
    pyo3_build_config::use_pyo3_cfgs();
    if std::env::var_os("CARGO_FEATURE_EMBED").is_some() {
        pyo3_build_config::add_libpython_rpath_link_args();
        describe();
    }
}

/// Bakes the paths of the interpreter that was found at build time into `kernel::interpreter`.
fn describe() {
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
