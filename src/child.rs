//! Child processes that end with whoever has started them, together with all that they start.

use std::io;
use std::ops::{Deref, DerefMut};

use tokio::process::{Child, Command};

/// A child in a process group of its own. Dropping it kills the whole group.
#[derive(Debug)]
pub struct Group {
    child: Child,
    id: libc::pid_t,
}

impl Group {
    /// Starts a command. The kernel kills the child as well when the thread that calls this ends:
    /// call it on one that lives as long as the program.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        command.process_group(0).kill_on_drop(true);
        // SAFETY: one async-signal-safe system call between fork and exec.
        unsafe { command.pre_exec(die_with_parent) };
        let child = command.spawn()?;
        let id = child.id().and_then(|id| libc::pid_t::try_from(id).ok()).expect("it was just started");
        Ok(Self { child, id })
    }

    /// Sends a signal to all of it.
    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: plain system call. The group is that of our child; as long as it has members its
        // id belongs to nobody else.
        unsafe { libc::killpg(self.id, signal) };
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Even when the child has ended: what it has started is still in its group.
        self.signal(libc::SIGKILL);
    }
}

impl Deref for Group {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for Group {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}

fn die_with_parent() -> io::Result<()> {
    // SAFETY: plain system call.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_a_child_has_started_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & echo $! > tmp; mv tmp id; wait"]).current_dir(folder.path());
        let group = Group::start(&mut command).unwrap();
        let started = folder.path().join("id");
        while !started.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let id: libc::pid_t = std::fs::read_to_string(started).unwrap().trim().parse().unwrap();
        drop(group);
        // A zombie that nobody has waited for yet has ended as well.
        let lives = || {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
        };
        for _ in 0..2000 {
            if !lives() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it goes on");
    }
}
