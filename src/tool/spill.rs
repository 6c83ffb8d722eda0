//! Results that are too long for a model: kept in files, read in pages.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::schema::excerpt;
use super::{Annotations, Call, Error, Output, Spec, Toolset};
use crate::message::Block;

/// The name of the tool that reads what was kept.
pub const READ: &str = "result.read";
/// Bytes of all kept results together; the oldest go first.
const ROOM: u64 = 200 << 20;
/// Bytes of a picture, recording or document in base64 that may go to a model.
const BINARY: usize = 5 << 20;
/// Places that one search shows.
const PLACES: usize = 20;
/// Bytes shown before and after what was found.
const AROUND: usize = 100;
/// Bytes of a file that are searched at a time.
const CHUNK: u64 = 1 << 20;

/// Keeps long results in a folder and brings the tool to read them.
///
/// Every session sees its own results only. Files are readable by their owner alone.
#[derive(Debug, Clone)]
pub struct Spill {
    folder: PathBuf,
    page: usize,
    room: u64,
}

impl Spill {
    /// Keeps results in `folder`, which is made when it is needed, and reads them in pages of
    /// at most `page` bytes.
    pub fn new(folder: impl Into<PathBuf>, page: usize) -> Self {
        Self { folder: folder.into(), page: page.max(1), room: ROOM }
    }

    /// The same with room for this many bytes.
    pub fn with_room(self, room: u64) -> Self {
        Self { room, ..self }
    }

    /// Keeps a text for a session and returns its handle.
    pub fn keep(&self, session: Option<&str>, text: &str) -> io::Result<String> {
        let length = text.len() as u64;
        if length > self.room {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{length} bytes are too many")));
        }
        let folder = self.session(session);
        create_folder(&folder)?;
        self.evict(self.room - length)?;
        // The last digits of a UUID of version 7 are random.
        let id = uuid::Uuid::now_v7().simple().to_string();
        let handle = format!("r{}", &id[20..]);
        create_file(&folder.join(&handle))?.write_all(text.as_bytes())?;
        Ok(handle)
    }

    /// Removes the oldest files until the rest fits into `room`.
    fn evict(&self, room: u64) -> io::Result<()> {
        let mut kept: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for session in fs::read_dir(&self.folder)?.flatten() {
            let Ok(files) = fs::read_dir(session.path()) else { continue };
            for file in files.flatten() {
                // Another process may have removed it meanwhile.
                let Ok(about) = file.metadata() else { continue };
                kept.push((about.modified().unwrap_or(SystemTime::UNIX_EPOCH), about.len(), file.path()));
            }
        }
        let mut total: u64 = kept.iter().map(|(_, length, _)| length).sum();
        kept.sort();
        for (_, length, path) in kept {
            if total <= room {
                break;
            }
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            total -= length;
        }
        Ok(())
    }

    /// Where a session's results are. Its id comes from outside and is no file name.
    fn session(&self, session: Option<&str>) -> PathBuf {
        let name = session.map_or_else(|| "none".to_owned(), digest);
        self.folder.join(name)
    }

    fn open(&self, session: Option<&str>, handle: &str) -> Result<File, Error> {
        let gone = || {
            let handle = excerpt(&handle, 40);
            Error::Failed(format!(
                "there is no result `{handle}` (any more); call the tool again that gave it"
            ))
        };
        let well_formed = handle.len() == 13
            && handle.starts_with('r')
            && handle[1..].bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
        if !well_formed {
            return Err(gone());
        }
        match File::open(self.session(session).join(handle)) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(gone()),
            Err(error) => Err(unreadable(handle, &error)),
        }
    }

    fn read(&self, session: Option<&str>, arguments: &Map<String, Value>) -> Result<Output, Error> {
        let number = |key: &str| arguments.get(key).and_then(Value::as_u64);
        let handle = arguments.get("handle").and_then(Value::as_str).unwrap_or_default();
        let mut file = self.open(session, handle)?;
        let start = number("start").unwrap_or(0);
        let text = match arguments.get("find").and_then(Value::as_str).filter(|text| !text.is_empty()) {
            Some(text) => find(&mut file, start, text),
            None => {
                let length =
                    number("length").map_or(self.page, |length| length.min(self.page as u64) as usize);
                page(&mut file, start, length.max(4))
            }
        };
        text.map(Output::text).map_err(|error| unreadable(handle, &error))
    }
}

fn unreadable(handle: &str, error: &io::Error) -> Error {
    Error::Failed(format!("the result `{handle}` cannot be read: {error}"))
}

/// `length` bytes from `start`, both moved to the borders of characters.
fn page(file: &mut File, start: u64, length: usize) -> io::Result<String> {
    let total = file.metadata()?.len();
    if start >= total && total > 0 {
        return Ok(format!("[nothing there: the result has {total} bytes]"));
    }
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::with_capacity(length);
    file.take(length as u64).read_to_end(&mut bytes)?;
    let skipped = bytes.iter().take(3).take_while(|byte| (**byte & 0xC0) == 0x80).count();
    let text = valid(&bytes[skipped..]);
    let from = start + skipped as u64;
    let to = from + text.len() as u64;
    let more = if to < total { format!("; go on with start {to}") } else { String::new() };
    Ok(format!("[bytes {from} to {to} of {total}{more}]\n{text}"))
}

/// Where `needle` is from `start` on, with what is around it.
fn find(file: &mut File, start: u64, needle: &str) -> io::Result<String> {
    let total = file.metadata()?.len();
    let mut base = start.min(total);
    let mut next = base;
    file.seek(SeekFrom::Start(base))?;
    let mut buffer: Vec<u8> = Vec::new();
    let mut found = Vec::new();
    let reader: &File = file;
    while found.len() <= PLACES {
        let read = reader.take(CHUNK).read_to_end(&mut buffer)?;
        let skipped = buffer.iter().take(3).take_while(|byte| (**byte & 0xC0) == 0x80).count();
        buffer.drain(..skipped);
        base += skipped as u64;
        let text = valid(&buffer);
        // What is found at the very end is told with the next chunk, when more of its surroundings is there.
        let whole = if read == 0 { text.len() } else { text.len().saturating_sub(needle.len() + AROUND) };
        for (at, _) in text.match_indices(needle).take_while(|(at, _)| *at <= whole) {
            let offset = base + at as u64;
            if offset < next || found.len() > PLACES {
                continue;
            }
            next = offset + needle.len() as u64;
            let from = text.floor_char_boundary(at.saturating_sub(AROUND));
            let to = text.ceil_char_boundary((at + needle.len() + AROUND).min(text.len()));
            found.push(format!("[byte {offset}] {}", &text[from..to]));
        }
        if read == 0 {
            break;
        }
        let keep = text.floor_char_boundary(text.len().saturating_sub(needle.len() + 2 * AROUND));
        buffer.drain(..keep);
        base += keep as u64;
    }
    if found.is_empty() {
        return Ok(format!("[not found from byte {start} to the end at {total}]"));
    }
    let more = found.len() > PLACES;
    found.truncate(PLACES);
    if more {
        found.push("[there is more; give a later start]".to_owned());
    }
    Ok(found.join("\n\n"))
}

/// The text in these bytes, up to a character that is cut.
fn valid(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}

fn digest(text: &str) -> String {
    Sha256::digest(text)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn create_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path)
}

fn create_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.write(true).create_new(true).open(path)
}

#[async_trait]
impl Toolset for Spill {
    fn specs(&self) -> Vec<Arc<Spec>> {
        // Always offered: a tool that comes and goes would change the start of every prompt.
        vec![Arc::new(Spec {
            name: READ.to_owned(),
            title: None,
            description: "Read on in a result that was cut, or find text in it.".to_owned(),
            input: json!({
                "type": "object",
                "properties": {
                    "handle": {"type": "string"},
                    "start": {"type": "integer", "minimum": 0},
                    "length": {"type": "integer", "minimum": 1},
                    "find": {"type": "string"},
                },
                "required": ["handle"],
            }),
            output: None,
            annotations: Annotations {
                read_only: true,
                destructive: false,
                idempotent: true,
                open_world: false,
            },
            ..Spec::default()
        })]
    }

    async fn call(&self, call: Call) -> Result<Output, Error> {
        let spill = self.clone();
        let reading =
            tokio::task::spawn_blocking(move || spill.read(call.context.session.as_deref(), &call.arguments));
        reading.await.unwrap_or(Err(Error::Cancelled))
    }
}

/// Makes an output fit into `limit` bytes of text. What is longer is kept in `spill`, and the
/// model gets its head, its tail and a handle.
pub(super) async fn fit(
    output: Output,
    limit: usize,
    session: Option<&str>,
    spill: Option<&Arc<Spill>>,
) -> Output {
    let Output { mut content, structured, verbatim, changes } = output;
    let lightened = content.iter_mut().filter_map(lighten).count();
    let length: usize = content.iter().filter_map(text_of).map(str::len).sum();
    if length <= limit {
        let was_structured = structured.is_some();
        let structured = structured.filter(|value| fits(value, limit));
        let is_whole = lightened == 0 && structured.is_some() == was_structured;
        return Output { content, structured, verbatim: verbatim.filter(|_| is_whole), changes };
    }
    let (texts, mut rest): (Vec<_>, Vec<_>) = content.into_iter().partition(|block| text_of(block).is_some());
    let text: Arc<str> = match texts.as_slice() {
        [one] => text_of(one).unwrap_or_default().into(),
        many => many.iter().filter_map(text_of).collect::<Vec<_>>().join("\n").into(),
    };
    let handle = keep(spill, session, Arc::clone(&text)).await;
    rest.insert(0, Block::text(preview(&text, limit, handle.as_deref())));
    Output { changes, ..Output::new(rest, None) }
}

async fn keep(spill: Option<&Arc<Spill>>, session: Option<&str>, text: Arc<str>) -> Option<String> {
    let spill = Arc::clone(spill?);
    let session = session.map(str::to_owned);
    let keeping = tokio::task::spawn_blocking(move || spill.keep(session.as_deref(), &text));
    match keeping.await {
        Ok(Ok(handle)) => Some(handle),
        Ok(Err(error)) => {
            tracing::warn!(%error, "a long result could not be kept");
            None
        }
        Err(_) => None,
    }
}

fn text_of(block: &Block) -> Option<&str> {
    match block {
        Block::Text { text } | Block::Resource { text: Some(text), .. } => Some(text),
        _ => None,
    }
}

/// Puts a note in the place of bytes that are too many, if they are.
fn lighten(block: &mut Block) -> Option<()> {
    let (what, length) = match &*block {
        Block::Image { mime, data } => (format!("image {mime}"), data.len()),
        Block::Audio { mime, data } => (format!("audio {mime}"), data.len()),
        Block::Resource { uri, blob: Some(blob), .. } => (format!("resource {uri}"), blob.len()),
        _ => return None,
    };
    (length > BINARY)
        .then(|| *block = Block::text(format!("[{what} left out: {length} bytes of base64 are too many]")))
}

/// Whether a value takes at most `limit` bytes as JSON; stops counting there.
fn fits(value: &Value, limit: usize) -> bool {
    struct Room(usize);
    impl Write for Room {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    serde_json::to_writer(Room(limit), value).is_ok()
}

fn preview(text: &str, limit: usize, handle: Option<&str>) -> String {
    let head = &text[..text.floor_char_boundary(limit / 4 * 3)];
    let tail = &text[text.ceil_char_boundary(text.len() - limit / 4)..];
    let (left, total) = (text.len() - head.len() - tail.len(), text.len());
    let rest = match handle {
        Some(handle) => format!("`result__read` with the handle `{handle}` reads them or finds text in them"),
        None => "they are lost: ask the tool for less".to_owned(),
    };
    format!("{head}\n\n[{left} of {total} bytes are left out here; {rest}]\n\n{tail}")
}
