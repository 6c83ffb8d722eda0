//! Files: those that come in are put where tools find them, those that go out are from one folder.

use std::path::{Component, Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::api::{Api, Error};
use super::update::{Attached, Said};
use crate::config::paths::OUTPUT;
use crate::message::Part;

/// Where what comes in is put, in the workspace.
const INBOX: &str = "inbox";
/// Bytes that Telegram hands out and takes, and bytes of a picture that a model is shown.
const INCOMING: u64 = 20 << 20;
const OUTGOING: u64 = 50 << 20;
const PHOTO: u64 = 10 << 20;
const SHOWN: usize = 5 << 20;
/// Files of one answer.
const FILES: usize = 10;
/// Tries to get a file.
const TRIES: u32 = 3;

/// A file that may be sent.
pub struct Outgoing {
    /// What it is called.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
    /// Whether Telegram shows it as a picture.
    pub photo: bool,
}

/// Gets the files of a message: a line for each, and the pictures themselves.
pub async fn incoming(api: &Api, workspace: &Path, said: &Said) -> (Vec<String>, Vec<Part>) {
    let (mut lines, mut parts) = (Vec::new(), Vec::new());
    for (number, file) in said.files.iter().enumerate() {
        match save(api, workspace, said, number, file).await {
            Ok((path, bytes)) => {
                let mime = file.mime.as_deref().unwrap_or("application/octet-stream");
                lines.push(format!("[{}: `{}`, {mime}, {} bytes]", file.kind, path.display(), bytes.len()));
                if ["image/jpeg", "image/png", "image/webp", "image/gif"].contains(&mime)
                    && bytes.len() <= SHOWN
                {
                    parts.push(Part::Image { mime: mime.to_owned(), data: STANDARD.encode(&bytes) });
                }
            }
            Err(reason) => lines.push(format!("[{}: it could not be had: {reason}]", file.kind)),
        }
    }
    (lines, parts)
}

async fn save(
    api: &Api,
    workspace: &Path,
    said: &Said,
    number: usize,
    file: &Attached,
) -> Result<(PathBuf, Vec<u8>), String> {
    if file.size.is_some_and(|size| size > INCOMING) {
        return Err("Telegram hands out no files of more than 20 MB".to_owned());
    }
    let mut tries = 0;
    let bytes = loop {
        tries += 1;
        match fetch(api, &file.id).await {
            Ok(bytes) => break bytes,
            Err(Error::Refused(refusal)) if refusal.after.is_none() => return Err(refusal.reason),
            Err(error) if tries == TRIES => return Err(error.to_string()),
            Err(error) => {
                let after = error.refusal().and_then(|refusal| refusal.after);
                tokio::time::sleep(after.unwrap_or(std::time::Duration::from_secs(1))).await;
            }
        }
    };
    let name = file_name(file, number);
    let path = Path::new(INBOX)
        .join(format!("telegram-{}", said.spot.chat))
        .join(format!("{}-{name}", said.message));
    let whole = workspace.join(&path);
    let write = || {
        std::fs::create_dir_all(whole.parent().unwrap_or(workspace))?;
        std::fs::write(&whole, &bytes)
    };
    write().map_err(|error| format!("`{}` cannot be written: {error}", path.display()))?;
    Ok((path, bytes))
}

async fn fetch(api: &Api, id: &str) -> Result<Vec<u8>, Error> {
    let parameters = frankenstein::methods::GetFileParams::builder().file_id(id).build();
    let file: frankenstein::types::File = api.call("getFile", &parameters).await?;
    let path = file.file_path.ok_or_else(|| Error::Unclear("the file has no place".to_owned()))?;
    api.download(&path, INCOMING as usize).await
}

/// A name that is safe as one: what its sender calls it, or what it is.
fn file_name(file: &Attached, number: usize) -> String {
    let given = file.name.as_deref().unwrap_or_default();
    let safe: String = given
        .chars()
        .map(|c| if c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ') { c } else { '_' })
        .collect();
    let safe = safe.trim().trim_start_matches('.');
    let start = safe.char_indices().rev().nth(79).map_or(0, |(place, _)| place);
    match &safe[start..] {
        "" => format!("{}{}.{}", file.kind, number + 1, ending(file)),
        safe => safe.to_owned(),
    }
}

fn ending(file: &Attached) -> &'static str {
    match file.mime.as_deref() {
        Some("image/jpeg") => "jpg",
        Some("image/png") => "png",
        Some("audio/ogg") => "ogg",
        Some("audio/mpeg") => "mp3",
        Some("video/mp4") => "mp4",
        _ => "bin",
    }
}

/// The files of the output folder that an answer links to, by their place in it.
pub fn linked(markdown: &str, workspace: &Path) -> Vec<PathBuf> {
    use pulldown_cmark::{Event, Parser, Tag};
    let output = workspace.join(OUTPUT);
    let mut found = Vec::new();
    for event in Parser::new(markdown) {
        let Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) = event else { continue };
        let url = dest_url.strip_prefix("file://").unwrap_or(&dest_url);
        let path = Path::new(url.trim_start_matches("./"));
        let inside = path.strip_prefix(&output).or_else(|_| path.strip_prefix(OUTPUT));
        let Ok(inside) = inside else { continue };
        let inside = inside.to_owned();
        if !found.contains(&inside) && outgoing_path(&output, &inside).is_ok() {
            found.push(inside);
        }
    }
    found.truncate(FILES);
    found
}

/// Reads a file of the output folder.
pub fn outgoing(output: &Path, inside: &Path) -> Result<Outgoing, String> {
    let path = outgoing_path(output, inside)?;
    let bytes =
        std::fs::read(&path).map_err(|error| format!("`{}` cannot be read: {error}", inside.display()))?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let picture = [".png", ".jpg", ".jpeg", ".webp"].iter().any(|end| name.to_lowercase().ends_with(end));
    Ok(Outgoing { name, photo: picture && bytes.len() as u64 <= PHOTO, bytes })
}

/// Where it is, links followed; an error for what is not a file in that folder.
fn outgoing_path(output: &Path, inside: &Path) -> Result<PathBuf, String> {
    let told = inside.display();
    let plain = inside.components().all(|part| matches!(part, Component::Normal(_)));
    let refused = || format!("`{told}` is not in the folder `{OUTPUT}` of the workspace, so it is not sent");
    if !plain {
        return Err(refused());
    }
    let real = output.join(inside).canonicalize().map_err(|error| format!("`{told}`: {error}"))?;
    let folder = output.canonicalize().map_err(|error| format!("`{told}`: {error}"))?;
    // The folder itself could be a link to anywhere.
    let honest = output.parent().and_then(|workspace| workspace.canonicalize().ok());
    if !real.starts_with(&folder) || honest.is_none_or(|workspace| folder != workspace.join(OUTPUT)) {
        return Err(refused());
    }
    let data = std::fs::metadata(&real).map_err(|error| format!("`{told}`: {error}"))?;
    match data.is_file() {
        true if data.len() == 0 => Err(format!("`{told}` is empty")),
        true if data.len() > OUTGOING => Err(format!("`{told}` has more than the 50 MB that Telegram takes")),
        true => Ok(real),
        false => Err(format!("`{told}` is no file")),
    }
}
