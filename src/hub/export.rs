//! A conversation as a file of the workspace.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::file::{self, Unwritten};
use super::{Error, Hub};
use crate::config::paths::OUTPUT;
use crate::session::markdown::markdown;

/// What overwrites a file that is there.
const FORCE: &str = "--force";

/// How a conversation is written down.
#[derive(Clone, Copy)]
enum Form {
    Markdown,
    Lines,
}

impl Hub {
    /// Does what `/export` says, and says which file of the workspace it is, or why there is none. Where it names
    /// none it is a new one, in the folder for what omni puts out.
    pub async fn export(&self, words: &str, session: &str) -> Result<PathBuf, String> {
        if session.is_empty() {
            return Err("there is nothing to export: nothing was said yet".to_owned());
        }
        let (over, name) = match words.split_once(char::is_whitespace).unwrap_or((words, "")) {
            (FORCE, name) => (true, name.trim()),
            (word, _) if word.starts_with("--") => {
                return Err(format!("`{word}` is no option of /export; `{FORCE}` replaces a file"));
            }
            _ => (false, words),
        };
        let path = match name {
            "" => {
                let now = Timestamp::now().to_zoned(TimeZone::system());
                Path::new(OUTPUT).join(now.strftime("conversation-%Y-%m-%d-%H%M%S.md").to_string())
            }
            name => Path::new(name).strip_prefix(self.workspace()).unwrap_or(Path::new(name)).to_owned(),
        };
        let form = match path.extension().and_then(|end| end.to_str()) {
            Some("md") => Form::Markdown,
            Some("jsonl") => Form::Lines,
            _ => {
                return Err(format!(
                    "`{}` ends neither in `.md`, for people, nor in `.jsonl`, for programs",
                    path.display()
                ));
            }
        };
        match self.written(session, path.clone(), form, over).await {
            Ok(Ok(file)) => Ok(file.strip_prefix(self.workspace()).map(Path::to_owned).unwrap_or(file)),
            Ok(Err(Unwritten::There)) => {
                let shown = path.display();
                Err(format!("`{shown}` is there already; /export {FORCE} {shown} replaces it"))
            }
            Ok(Err(Unwritten::Wrong(reason))) => Err(reason),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn written(
        &self,
        session: &str,
        path: PathBuf,
        form: Form,
        over: bool,
    ) -> Result<Result<PathBuf, Unwritten>, Error> {
        let text = match form {
            Form::Lines => self.sessions.export(session).await?,
            Form::Markdown => {
                let (summary, log) =
                    (self.sessions.resolve(session).await?, self.sessions.show(session).await?);
                markdown(&summary, &log, &TimeZone::system())
            }
        };
        let folder = self.workspace().to_owned();
        let written = tokio::task::spawn_blocking(move || file::put(&folder, &path, &text, over)).await;
        Ok(written.unwrap_or_else(|error| Err(Unwritten::Wrong(error.to_string()))))
    }
}
