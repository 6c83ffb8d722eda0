//! The terminal itself: how wide it is, and whether it shows what is typed.

use std::io::IsTerminal;
use std::os::fd::AsRawFd;

/// How many letters fit beside each other; `None` where it is no terminal.
pub(super) fn columns(of: &impl AsRawFd) -> Option<usize> {
    // SAFETY: the call writes a `winsize`, which is what it is given.
    let size = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        (libc::ioctl(of.as_raw_fd(), libc::TIOCGWINSZ, &mut size) == 0).then_some(size)
    };
    size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Keeps what is typed off the screen until it is dropped. It is not lost: whoever reads next has it.
pub(super) struct Hush(Option<libc::termios>);

impl Hush {
    /// Does nothing where nobody types, or where questions are asked without an editor.
    pub(super) fn begin() -> Self {
        let input = std::io::stdin();
        if !(input.is_terminal() && std::io::stderr().is_terminal()) {
            return Self(None);
        }
        // SAFETY: the calls read and write a `termios` of our own. One that is set from the background
        // would stop the process, which is why it is asked first whose terminal it is.
        let before = unsafe {
            let mut mode: libc::termios = std::mem::zeroed();
            let is_ours = libc::tcgetpgrp(input.as_raw_fd()) == libc::getpgrp();
            (is_ours && libc::tcgetattr(input.as_raw_fd(), &mut mode) == 0).then_some(mode)
        };
        if let Some(mut mode) = before {
            mode.c_lflag &= !libc::ECHO;
            set(&mode);
        }
        Self(before)
    }
}

impl Drop for Hush {
    fn drop(&mut self) {
        if let Some(mode) = &self.0 {
            set(mode);
        }
    }
}

fn set(mode: &libc::termios) {
    // SAFETY: the call reads a `termios`. Where it fails the screen is less tidy, and that is all.
    unsafe { libc::tcsetattr(std::io::stdin().as_raw_fd(), libc::TCSANOW, mode) };
}
