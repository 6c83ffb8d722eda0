//! The files an editor has open: read and written there, so that what is not saved counts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_client_protocol::v1::ConnectionTo;
use agent_client_protocol::v1::schema::{FileSystemCapabilities, ReadTextFileRequest, WriteTextFileRequest};
use agent_client_protocol::{Client, ErrorCode};
use serde_json::Value;

use super::desk::Opened;
use super::failed;
use crate::tool::Error;
use crate::tool::nested::{Buffer, Editor};

/// How long an editor may take over a file. It may ask a person first.
const PATIENCE: Duration = Duration::from_secs(600);

/// The editor as tools see it, as far as it reads and writes; `None` if it does neither.
///
/// It is asked about files in the folder of the session only: those beside it are no files of its project.
pub(super) fn editor(
    can: &FileSystemCapabilities,
    session: &Opened,
    cx: &ConnectionTo<Client>,
) -> Option<Editor> {
    let (reads, writes) = (can.read_text_file, can.write_text_file);
    let (id, folder, cx) = (session.id.clone(), Folder::new(&session.folder), cx.clone());
    let work = move |buffer: Buffer| {
        let (id, folder, cx) = (id.clone(), folder.clone(), cx.clone());
        async move {
            match buffer {
                Buffer::Read { path, line, limit } if reads => {
                    let Some(path) = folder.theirs(&path) else { return Ok(Value::Null) };
                    let request = ReadTextFileRequest::new(id, path.clone()).line(line).limit(limit);
                    match patient(cx.send_request(request).block_task()).await {
                        Ok(response) => Ok(response.content.into()),
                        // The disk may have it.
                        Err(error) if error.code == ErrorCode::RESOURCE_NOT_FOUND => Ok(Value::Null),
                        Err(error) => Err(refused("does not give", &path, &error.message)),
                    }
                }
                Buffer::Write { path, text } if writes => {
                    let Some(path) = folder.theirs(&path) else { return Ok(false.into()) };
                    let request = WriteTextFileRequest::new(id, path.clone(), text);
                    match patient(cx.send_request(request).block_task()).await {
                        Ok(_) => Ok(true.into()),
                        Err(error) => Err(refused("does not write", &path, &error.message)),
                    }
                }
                Buffer::Read { .. } | Buffer::Write { .. } => Ok(Value::Null),
            }
        }
    };
    (reads || writes).then(|| Editor::new(work))
}

async fn patient<T>(
    asked: impl Future<Output = Result<T, agent_client_protocol::Error>>,
) -> Result<T, agent_client_protocol::Error> {
    let late = |_| failed(format!("it said nothing for {} minutes", PATIENCE.as_secs() / 60));
    tokio::time::timeout(PATIENCE, asked).await.map_err(late)?
}

fn refused(what: &str, path: &Path, message: &str) -> Error {
    Error::Failed(format!("the editor {what} `{}`: {message}", path.display()))
}

/// A folder as the editor calls it, and as it is with links followed.
#[derive(Clone)]
struct Folder {
    theirs: PathBuf,
    real: PathBuf,
}

impl Folder {
    fn new(theirs: &Path) -> Self {
        let real = theirs.canonicalize().unwrap_or_else(|_| theirs.to_owned());
        Self { theirs: theirs.to_owned(), real }
    }

    /// What the editor calls a file in it.
    fn theirs(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(&self.real).ok().map(|rest| self.theirs.join(rest))
    }
}
