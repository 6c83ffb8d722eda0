//! A Python that is somebody else's: it is asked.

use std::path::PathBuf;

use pyo3::prelude::*;

/// Where it reads modules from, and what it is a part of.
#[cfg(not(feature = "embed"))]
pub(super) fn folders() -> Vec<PathBuf> {
    let ask = |py: Python<'_>| -> PyResult<Vec<PathBuf>> {
        let sys = py.import("sys")?;
        let mut folders: Vec<PathBuf> = sys.getattr("path")?.extract()?;
        for name in ["prefix", "exec_prefix", "base_prefix", "base_exec_prefix"] {
            folders.push(sys.getattr(name)?.extract()?);
        }
        // The current folder, as `""`, is none of its own.
        folders.retain(|folder| folder.is_absolute() && folder.exists());
        folders.sort();
        folders.dedup();
        Ok(folders)
    };
    Python::attach(ask).unwrap_or_default()
}

/// The console script.
pub(super) fn script() -> Result<PathBuf, String> {
    let ask = |py: Python<'_>| -> PyResult<PathBuf> {
        py.import("sysconfig")?.call_method1("get_path", ("scripts",))?.extract()
    };
    let script = Python::attach(ask).map_err(|error| error.to_string())?.join("omni");
    match script.is_file() {
        true => Ok(script),
        false => Err(format!("`{}` is not there: install the wheel", script.display())),
    }
}
