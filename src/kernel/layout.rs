//! Where the Python inside has its files: on the machine it was built on, or unpacked from this program.

use std::path::{Path, PathBuf};

/// Where they are.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// The program that runs scripts with this Python.
    pub(super) executable: PathBuf,
    /// What `sys.prefix` is.
    pub(super) prefix: PathBuf,
    /// The standard library.
    pub(super) stdlib: PathBuf,
    /// Its modules that are shared objects.
    pub(super) dynload: PathBuf,
    /// The folder that `omni` is in.
    pub(super) source: PathBuf,
    /// What `omni` needs.
    pub(super) packages: PathBuf,
}

impl Layout {
    /// Finds them; what has to be unpacked is, once.
    pub(super) fn find() -> Result<&'static Self, String> {
        #[cfg(bundled)]
        return super::bundle::layout();
        #[cfg(not(bundled))]
        Ok(baked())
    }

    /// The folders a process of this Python reads from.
    pub(super) fn folders(&self) -> [&Path; 5] {
        [&self.prefix, &self.stdlib, &self.dynload, &self.source, &self.packages].map(PathBuf::as_path)
    }
}

/// Those of the Python that was found at build time.
#[cfg(not(bundled))]
fn baked() -> &'static Layout {
    static BAKED: std::sync::LazyLock<Layout> = std::sync::LazyLock::new(|| Layout {
        executable: env!("OMNI_PYTHON_EXECUTABLE").into(),
        prefix: env!("OMNI_PYTHON_PREFIX").into(),
        stdlib: env!("OMNI_PYTHON_STDLIB").into(),
        dynload: env!("OMNI_PYTHON_DYNLOAD").into(),
        source: env!("OMNI_PYTHON_SOURCE").into(),
        packages: env!("OMNI_PYTHON_PACKAGES").into(),
    });
    &BAKED
}
