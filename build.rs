fn main() {
    // `include_dir!` sees a changed file but not a new one.
    println!("cargo:rerun-if-changed=assets/skills");
    pyo3_build_config::use_pyo3_cfgs();
    pyo3_build_config::add_libpython_rpath_link_args();
}
