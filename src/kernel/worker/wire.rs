//! What crosses between this process, the zygote and the workers: JSON, each message in a frame
//! of its own, four bytes of its length (little-endian) in front.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::kernel::bridge::Fault;
use crate::message::Change;
use crate::skill::{Engines, Sources};
use crate::tool::{Output, Progress, Request};

/// Bytes that one message may have.
pub(super) const LARGEST: usize = 64 << 20;

/// What the zygote is told. A `Fork` carries the worker's end of its connection.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Command {
    Fork {
        id: u64,
        cage: Cage,
    },
    /// Ends a worker, with everything it has started.
    Kill {
        id: u64,
    },
}

/// What the zygote tells.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// Python runs; workers can be had.
    Ready,
    /// It does not, or a worker cannot be had.
    Failed { id: Option<u64>, reason: String },
    /// A worker has ended, with this wait status.
    Ended { id: u64, status: i32 },
}

/// What a worker may do.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Cage {
    /// Files and folders it may read, and run programs from.
    pub(super) read: Vec<PathBuf>,
    /// Folders in which it may do everything.
    pub(super) write: Vec<PathBuf>,
    /// Whether it may open sockets.
    pub(super) network: bool,
    /// Whether it may start processes.
    pub(super) processes: bool,
    /// Bytes of memory.
    pub(super) memory: u64,
    /// Variables of its environment, beside those of everybody.
    pub(super) environment: BTreeMap<String, String>,
}

/// What a worker is told first: whose it is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Home {
    pub(super) skill: String,
    pub(super) folder: String,
    pub(super) version: u32,
    /// The skill's files, unless it is to read what the disk has.
    pub(super) sources: Option<Arc<Sources>>,
    /// What is behind the names of the skill's extensions.
    pub(super) engines: Arc<Engines>,
    pub(super) workspace: PathBuf,
    pub(super) data: PathBuf,
    pub(super) settings: Arc<Map<String, Value>>,
}

/// What a worker is told then.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Told<O = Order> {
    /// Run this call. Comes when the one before is done.
    Call(O),
    /// The reply to a question of this number.
    Reply(u64, Result<Value, Fault>),
}

/// A call.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) file: String,
    pub(super) function: String,
    pub(super) is_async: bool,
    pub(super) arguments: Map<String, Value>,
    pub(super) call: String,
    pub(super) session: Option<String>,
}

/// What a worker tells of the call it is at.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::kernel) enum Word {
    Progress(Progress),
    Changed(Change),
    Log {
        level: String,
        call: Option<String>,
        text: String,
        /// Whether whoever called is to hear it as well.
        told: bool,
    },
    /// Its tool asks for something, under a number of its own.
    Ask(u64, Request),
    /// It does without the reply to that question.
    Drop(u64),
    Done(Result<Output, Fault>),
}

/// Writes one message, blocking.
pub(super) fn write(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    if length > LARGEST {
        let told = format!("{length} bytes are too many, at most {LARGEST} cross");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, told));
    }
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    stream.write_all(&frame)
}

/// Reads one message, blocking; `None` at the end of the stream.
pub(super) fn read<T: for<'de> Deserialize<'de>>(stream: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > LARGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message that is too long"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}
