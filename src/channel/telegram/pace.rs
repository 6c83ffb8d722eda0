//! How often Telegram may be told something: thirty times a second, once a second in a chat, twenty
//! times a minute in a group. Whoever comes more often is made to wait by the server.
//!
//! Calls are on their way for different times, so it counts when one has ended, not when it began:
//! whatever its way is like, the server then sees no more than it wants to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Calls in a second, of which so many are kept for what has to be said.
const CALLS: usize = 28;
const NEEDED: usize = 12;
const SECOND: Duration = Duration::from_millis(1010);
/// Between two messages of a chat, from the end of one to the beginning of the other.
const CHAT: Duration = Duration::from_millis(1050);
const GROUP: Duration = Duration::from_millis(3100);
/// Chats that are remembered; of more, those go that may speak.
const CHATS: usize = 1000;

/// Who may speak when.
#[derive(Debug)]
pub struct Pace {
    calls: Arc<Semaphore>,
    chats: Mutex<HashMap<i64, Arc<tokio::sync::Mutex<Instant>>>>,
}

/// Leave for a call, to be held until it has ended.
#[derive(Debug)]
pub struct Call(Option<OwnedSemaphorePermit>);

/// Leave to speak in a chat, to be held until that was done; the next one gets it a while later.
#[derive(Debug)]
pub struct Leave {
    chat: i64,
    next: OwnedMutexGuard<Instant>,
    wait: Duration,
    _call: Call,
}

impl Default for Pace {
    fn default() -> Self {
        Self { calls: Arc::new(Semaphore::new(CALLS)), chats: Mutex::default() }
    }
}

impl Pace {
    /// Waits until one more call may be made.
    pub async fn call(&self) -> Call {
        // The semaphore is never closed.
        Call(self.calls.clone().acquire_owned().await.ok())
    }

    /// Leave for a call that need not be made, if there is enough of it.
    pub fn spare(&self) -> Option<Call> {
        let enough = self.calls.available_permits() > NEEDED;
        enough.then(|| self.calls.clone().try_acquire_owned().ok()).flatten().map(|permit| Call(Some(permit)))
    }

    /// Waits until something may be said in a chat.
    pub async fn speak(&self, chat: i64) -> Leave {
        let next = self.chat(chat).lock_owned().await;
        tokio::time::sleep_until(*next).await;
        let call = self.call().await;
        Leave { chat, next, wait: Duration::ZERO, _call: call }
    }

    /// Leave to say in a chat what need not be said, if there is leave at once.
    pub fn perhaps(&self, chat: i64) -> Option<Leave> {
        let next = self.chat(chat).try_lock_owned().ok().filter(|next| **next <= Instant::now())?;
        Some(Leave { chat, next, wait: Duration::ZERO, _call: self.spare()? })
    }

    fn chat(&self, chat: i64) -> Arc<tokio::sync::Mutex<Instant>> {
        let mut chats = self.chats.lock().expect("no panic while held");
        if chats.len() >= CHATS {
            let now = Instant::now();
            chats.retain(|_, next| next.try_lock().map_or(true, |next| *next > now));
        }
        chats.entry(chat).or_insert_with(|| Arc::new(tokio::sync::Mutex::new(Instant::now()))).clone()
    }
}

impl Leave {
    /// The server wants to be left alone for this long.
    pub fn refused(&mut self, wait: Duration) {
        self.wait = wait;
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        let usual = if self.chat < 0 { GROUP } else { CHAT };
        *self.next = Instant::now() + usual.max(self.wait);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let permit = self.0.take();
        // Where nothing runs any more, nobody waits either.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(SECOND).await;
                drop(permit);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// How long after this a chat may be spoken in again.
    async fn rests(chat: i64, refused: Option<Duration>) -> Duration {
        let pace = Pace::default();
        let mut leave = pace.speak(chat).await;
        if let Some(wait) = refused {
            leave.refused(wait);
        }
        let now = Instant::now();
        drop(leave);
        let next = *pace.chat(chat).lock().await;
        next - now
    }

    #[tokio::test]
    async fn a_chat_is_spoken_in_as_often_as_telegram_allows() {
        const SECOND: Duration = Duration::from_secs(1);
        assert!(rests(7, None).await >= SECOND, "once a second");
        assert!(20 * rests(-7, None).await >= 60 * SECOND, "twenty times a minute in a group");
        assert!(rests(7, Some(5 * SECOND)).await >= 5 * SECOND, "later where the server says so");
    }

    #[tokio::test]
    async fn all_chats_together_are_spoken_in_as_often_as_telegram_allows() {
        let pace = Pace::default();
        let mut held = Vec::new();
        while let Some(leave) = pace.call().now_or_never() {
            held.push(leave);
        }
        assert!((20..=30).contains(&held.len()), "{} in a second", held.len());
        assert!(pace.spare().is_none(), "nothing is left for what need not be said");
        // What has ended counts for a while more.
        held.clear();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(pace.call().now_or_never().is_none());
    }
}
