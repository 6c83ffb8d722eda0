//! The clock on the wall of a whole program, which a test sets while the program runs.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use jiff::Timestamp;

use super::omni::{Run, write};

/// The clock. It goes as fast as the true one; how long something takes is not touched.
pub struct Wall {
    folder: tempfile::TempDir,
    ahead: std::fs::File,
}

impl Wall {
    /// A clock that shows this time.
    pub fn at(time: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let source = write(&folder.path().join("wall.c"), include_str!("wall.c"));
        let made = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&folder.path().join("wall.so"), &source])
            .status();
        assert!(made.expect("cc, which Rust needs as well").success());
        let ahead = std::fs::File::create(folder.path().join("ahead")).expect("a file of our own");
        let wall = Self { folder, ahead };
        wall.set(time);
        wall
    }

    /// From now on it shows this time.
    pub fn set(&self, time: &str) {
        let time: Timestamp = time.parse().expect("a time");
        let ahead = time.as_second() - Timestamp::now().as_second();
        self.ahead.write_all_at(&ahead.to_ne_bytes(), 0).expect("a file of our own");
    }

    /// A program that looks at this clock.
    pub fn over(&self, run: Run) -> Run {
        let file = |name: &str| Path::join(self.folder.path(), name);
        run.env("LD_PRELOAD", file("wall.so")).env("OMNI_TEST_WALL", file("ahead"))
    }
}
