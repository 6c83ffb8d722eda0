//! `omni self`: a newer omni in the place of this one.

use serde_json::json;

use super::error::{Failure, code};
use super::signal::Stop;
use super::ui::Screen;
use crate::app::App;
use crate::kernel::Interpreter;
use crate::update::{self, Error, Releases, VERSION};

/// Bring a newer omni, or look whether there is one
#[derive(Debug, clap::Subcommand)]
pub(super) enum Itself {
    /// Look whether there is a newer one
    Check,
    /// Put the newest one in the place of this one
    ///
    /// It is fetched from where releases are, its signature and its hash are checked, and it is started once before it
    /// takes the place. Whatever goes wrong, this one stays. What runs already goes on as it is.
    Update,
}

pub(super) async fn run(itself: Itself, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let program = place(app.interpreter())?;
    let mut stop = Stop::listen()?;
    // What is written half is removed when this is dropped.
    tokio::select! {
        done = exchange(itself, app, program, screen) => done,
        code = stop.told() => Ok(code),
    }
}

/// The program to be replaced, if that is our work.
fn place(interpreter: Interpreter) -> Result<std::path::PathBuf, Failure> {
    let others = |whose: &str, how: &str| {
        Failure::new(code::SETUP, format!("this omni was installed by {whose}, and is kept current by it"))
            .hint(how)
    };
    if interpreter != Interpreter::Embedded {
        return Err(others("pip", "`python -m pip install --upgrade omni`, in the environment it is in"));
    }
    let program = update::program().map_err(|error| {
        Failure::new(code::FAILED, format!("cannot find the file this program was started from: {error}"))
    })?;
    match update::keeper(&program) {
        Some((whose, how)) => Err(others(whose, how)),
        None => Ok(program),
    }
}

async fn exchange(
    itself: Itself,
    app: &App,
    program: std::path::PathBuf,
    screen: &Screen,
) -> Result<u8, Failure> {
    let releases = Releases::find(&app.loaded.config.update)?;
    let release = releases.latest().await?;
    let is_newer = release.is_newer(VERSION);
    if !is_newer && !release.is(VERSION) {
        return Err(Error::Older { theirs: release.version }.into());
    }
    let latest = &release.version;
    let is_installed = is_newer && matches!(itself, Itself::Update);
    if is_installed {
        let told = |file: &update::Download| {
            screen.remark(&format!("fetching {} ({:.1} MB)", file.name, file.size as f64 / 1e6));
        };
        releases.install(&release, &program, told).await?;
    }
    if screen.json {
        screen.value(
            &json!({"version": VERSION, "latest": latest, "program": program, "installed": is_installed}),
        )?;
        return Ok(code::OK);
    }
    screen.line(&match (is_installed, is_newer) {
        (true, _) => format!("`{}` is omni {latest} now, and was {VERSION}", program.display()),
        (false, true) => format!("there is omni {latest}, and this is {VERSION}: `omni self update`"),
        (false, false) => format!("omni {VERSION} is the newest there is"),
    })?;
    Ok(code::OK)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let hint = match &error {
            Error::Place { .. } => "run it as somebody who may write there, or put a copy of omni elsewhere",
            Error::Unsigned { .. } | Error::Altered { .. } => {
                "nothing was changed; somebody may be in between, or the release is being made: try again later"
            }
            Error::Older { .. } | Error::Broken { .. } | Error::Absent { .. } => "nothing was changed",
            Error::Unreachable { .. } | Error::Unreadable { .. } => "nothing was changed; try again later",
            Error::Nowhere | Error::Setting { .. } => {
                return Self::new(code::SETUP, error.to_string())
                    .hint("`omni config show` shows what is set, docs/install.md what belongs there");
            }
        };
        Self::new(code::FAILED, error.to_string()).hint(hint)
    }
}
