//! Being told to stop.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::code;

/// Hears Ctrl-C, and what `timeout`, `docker stop` and service managers send. From its making
/// on nothing is missed, and neither ends the process by itself any more.
pub(super) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    pub(super) fn listen() -> io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one and returns the exit code that tells of it.
    pub(super) async fn told(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => code::INTERRUPTED,
            _ = self.terminate.recv() => code::TERMINATED,
        }
    }
}
