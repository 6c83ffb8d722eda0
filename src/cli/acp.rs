//! `omni acp`: the agent of an editor.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::OnceCell;

use super::error::{Failure, code};
use super::setup;
use super::signal::Stop;
use super::ui::Screen;
use crate::app::App;
use crate::clock::Reach;
use crate::config::Paths;
use crate::hub::Hub;
use crate::mcp::Pipes;
use crate::session::Sessions;
use crate::stdio::acp::{self, House, Offered, Place};
use crate::tool::Toolbox;

/// Folders, sets of servers and models that are used at once.
const MOST: usize = 32;

/// Be the agent of an editor
///
/// It speaks the Agent Client Protocol on standard input and output, for Zed, JetBrains, Neovim, Emacs and others,
/// which start it themselves: the command is `omni`, its argument `acp`. Sessions are those of `omni session`.
#[derive(Debug, clap::Args)]
pub(super) struct Acp {
    /// Choose a model first, as `omni setup` does, and leave; editors run this in a terminal
    #[arg(long)]
    setup: bool,
}

pub(super) async fn run(acp: Acp, app: App, screen: &Screen) -> Result<u8, Failure> {
    if acp.setup {
        return setup::run(setup::Setup::default(), &app, screen).await;
    }
    if std::io::stdin().is_terminal() {
        screen.remark(
            "this speaks the Agent Client Protocol, for editors; Ctrl-D ends it, `omni acp --help` says more",
        );
    }
    let mut stop = Stop::listen()?;
    let Pipes { input, output } = Pipes::take()?;
    let app = Arc::new(app);
    let result = tokio::select! {
        served = acp::serve(house(app.clone()), input, output) => {
            served.map(|()| code::OK).map_err(|reason| Failure::new(code::FAILED, reason))
        }
        told = stop.told() => Ok(told),
    };
    // Turns that go on are cancelled, and what they had is stored.
    app.finish().await;
    result
}

/// What the sessions of editors are played with.
pub(super) fn house(app: Arc<App>) -> Arc<dyn House> {
    Arc::new(Rooms { app, apps: Mutex::default(), hubs: Mutex::default() })
}

/// The parts of the program for each folder that an editor has sessions in.
struct Rooms {
    app: Arc<App>,
    apps: Mutex<HashMap<String, Arc<OnceCell<Arc<App>>>>>,
    hubs: Mutex<HashMap<String, Arc<OnceCell<Arc<Hub>>>>>,
}

/// The cell of this key; there are not more of them than [`MOST`].
fn cell<T>(
    cells: &Mutex<HashMap<String, Arc<OnceCell<T>>>>,
    key: String,
) -> Result<Arc<OnceCell<T>>, String> {
    let mut cells = cells.lock().expect("no panic while held");
    match cells.contains_key(&key) || cells.len() < MOST {
        true => Ok(cells.entry(key).or_default().clone()),
        false => {
            Err("too many folders, servers and models are used at once; start the agent again".to_owned())
        }
    }
}

impl Rooms {
    async fn app(&self, place: &Place) -> Result<Arc<App>, String> {
        let key = format!("{}\n{}", place.folder.display(), serde_json::Value::Object(place.servers.clone()));
        let make = || async {
            let app = Arc::new(self.app.elsewhere(&place.folder, place.servers.clone())?.with_plans());
            app.watch().await?;
            Ok(app)
        };
        let made = cell(&self.apps, key)?;
        let made = made.get_or_try_init(make).await;
        made.cloned().map_err(|error: crate::app::Error| error.to_string())
    }
}

#[async_trait]
impl House for Rooms {
    async fn sessions(&self) -> Result<Sessions, String> {
        self.app.sessions().await.map_err(|error| error.to_string())
    }

    fn workspace(&self, folder: &Path) -> Result<PathBuf, String> {
        Paths::find(folder).map(|paths| paths.workspace)
    }

    async fn ready(&self) -> Result<(), String> {
        let found = self.app.model_found().await.map_err(|error| error.to_string())?;
        match found.model.as_str() {
            "offline" => Err(format!("there is no model: {}; `omni setup` in a terminal helps", found.why)),
            _ => Ok(()),
        }
    }

    async fn models(&self, place: &Place) -> Result<Vec<Offered>, String> {
        let app =
            self.app.elsewhere(&place.folder, place.servers.clone()).map_err(|error| error.to_string())?;
        let models = app.models().await.map_err(|error| error.to_string())?;
        let offered = |name: String| Offered { thinks: app.takes_effort(&name), name };
        Ok(models.into_iter().map(offered).collect())
    }

    async fn toolbox(&self, place: &Place) -> Result<Arc<Toolbox>, String> {
        let toolbox = self.app(place).await?.toolbox().await.map_err(|error| error.to_string())?;
        // Servers may have joined since it was made.
        Ok(toolbox.renewed())
    }

    async fn missing(&self, place: &Place) -> Vec<String> {
        match self.app(place).await {
            Ok(app) => app.missing_servers().await,
            // The turn that needs it says what is wrong.
            Err(_) => Vec::new(),
        }
    }

    async fn hub(&self, place: &Place) -> Result<Arc<Hub>, String> {
        let app = self.app(place).await?;
        let (model, effort) = (place.model.as_deref(), place.effort.as_deref());
        let servers = serde_json::Value::Object(place.servers.clone());
        let key = format!("{}\n{servers}\n{model:?}\n{effort:?}", place.folder.display());
        let make = || async {
            let hub = app.hub_of(model, effort).await?;
            app.attend(&hub, Reach::Own)?;
            Ok(hub)
        };
        let made = cell(&self.hubs, key)?;
        let made = made.get_or_try_init(make).await;
        made.cloned().map_err(|error: crate::app::Error| error.to_string())
    }
}
