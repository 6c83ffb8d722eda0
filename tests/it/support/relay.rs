//! A line to a port that can be cut.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Passes on what is sent to its port, until it is cut.
pub struct Relay {
    pub port: u16,
    lines: Arc<Mutex<Lines>>,
}

#[derive(Default)]
struct Lines {
    is_cut: bool,
    open: Vec<[TcpStream; 2]>,
}

impl Relay {
    /// A line to this port of the machine. It lives as long as the tests do.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let own = listener.local_addr().unwrap().port();
        let lines = Arc::new(Mutex::new(Lines::default()));
        let shared = lines.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let mut lines = shared.lock().unwrap();
                if lines.is_cut {
                    continue;
                }
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
                lines.open.push([near, far]);
            }
        });
        Self { port: own, lines }
    }

    /// How many have ever been let through since it was last cut.
    pub fn open(&self) -> usize {
        self.lines.lock().unwrap().open.len()
    }

    /// Ends what is open, and lets nobody through.
    pub fn cut(&self) {
        let mut lines = self.lines.lock().unwrap();
        lines.is_cut = true;
        for end in lines.open.drain(..).flatten() {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    /// Ends what is open in one direction: whoever has come hears that nothing comes any more, and what is at the port
    /// does not hear of it.
    pub fn halve(&self) {
        for [near, _] in &self.lines.lock().unwrap().open {
            let _ = near.shutdown(Shutdown::Write);
        }
    }

    /// Lets people through again.
    pub fn mend(&self) {
        self.lines.lock().unwrap().is_cut = false;
    }
}
