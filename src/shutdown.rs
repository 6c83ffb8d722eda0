//! One stop signal, and waiting for everyone who heard it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tells the parts of a running program to stop, and waits for them.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    signal: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// The signal; a part that works on its own watches it.
    pub fn signal(&self) -> &CancellationToken {
        &self.signal
    }

    /// Runs a task that [`Shutdown::finish`] will wait for.
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Gives the signal and waits at most `patience`. Returns whether all have stopped.
    pub async fn finish(&self, patience: Duration) -> bool {
        self.signal.cancel();
        self.tasks.close();
        tokio::time::timeout(patience, self.tasks.wait()).await.is_ok()
    }
}
