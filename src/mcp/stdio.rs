//! Standard input and output, kept for the protocol alone.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::stdio::{dup2_stdin, dup2_stdout};

/// What was standard input and output of this process.
#[derive(Debug)]
pub struct Pipes {
    /// Where the client speaks.
    pub input: File,
    /// Where it is answered.
    pub output: File,
}

impl Pipes {
    /// Takes both for the protocol. From here on standard input has ended, and what anybody prints,
    /// a tool, a C library or a child process, goes to standard error.
    pub fn take() -> io::Result<Self> {
        // The copies are not handed on to children.
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        dup2_stdin(File::open("/dev/null")?)?;
        dup2_stdout(io::stderr())?;
        Ok(Self { input: input.into(), output: output.into() })
    }
}
