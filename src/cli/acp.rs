//! `omni acp`: the agent of an editor.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::OnceCell;

use super::error::{Failure, code};
use super::signal::Stop;
use super::ui::Screen;
use crate::app::App;
use crate::config::Paths;
use crate::hub::Hub;
use crate::mcp::Pipes;
use crate::session::Sessions;
use crate::stdio::acp::{self, House, Place};

/// Folders, sets of servers and models that are used at once.
const MOST: usize = 32;

pub(super) async fn run(app: App, screen: &Screen) -> Result<u8, Failure> {
    if std::io::stdin().is_terminal() {
        screen.remark(
            "this speaks the Agent Client Protocol, for editors; Ctrl-D ends it, `omni acp --help` says more",
        );
    }
    let mut stop = Stop::listen()?;
    let Pipes { input, output } = Pipes::take()?;
    let app = Arc::new(app);
    let rooms = Arc::new(Rooms { app: app.clone(), apps: Mutex::default(), hubs: Mutex::default() });
    let result = tokio::select! {
        served = acp::serve(rooms, input, output) => {
            served.map(|()| code::OK).map_err(|reason| Failure::new(code::FAILED, reason))
        }
        told = stop.told() => Ok(told),
    };
    // Turns that go on are cancelled, and what they had is stored.
    app.finish().await;
    result
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
            let app = self.app.elsewhere(&place.folder, place.servers.clone())?;
            let app = Arc::new(app);
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

    async fn models(&self, place: &Place) -> Result<Vec<String>, String> {
        let app = self.app.elsewhere(&place.folder, place.servers.clone());
        app.map_err(|error| error.to_string())?.models().await.map_err(|error| error.to_string())
    }

    async fn hub(&self, place: &Place) -> Result<Arc<Hub>, String> {
        let app = self.app(place).await?;
        let model = place.model.clone().unwrap_or_default();
        let servers = serde_json::Value::Object(place.servers.clone());
        let key = format!("{}\n{servers}\n{model}", place.folder.display());
        let make = || async {
            match &place.model {
                Some(model) => app.hub_of(model).await,
                None => app.hub().await,
            }
        };
        let made = cell(&self.hubs, key)?;
        let made = made.get_or_try_init(make).await;
        made.cloned().map_err(|error| error.to_string())
    }
}
