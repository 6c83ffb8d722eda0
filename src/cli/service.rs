//! `omni service`: `omni serve` as a service of the user, kept by systemd.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::error::{Failure, code};
use super::ui::Screen;
use crate::app::App;
use crate::config::Paths;

/// Keep `omni serve` running in this folder, as a systemd service of yours.
///
/// It answers over HTTP and runs the folder's jobs, is started again when it fails, and begins when you log in; with
/// `loginctl enable-linger` it begins with the machine. What it needs from the environment, as the key of a model, is in
/// the file `environment` beside your `config.toml`: a line `NAME=value` each.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Service {
    /// Write the unit, enable it, and start it
    Install {
        /// Listen there; port 0 takes a free one [default: gateway.bind]
        #[arg(long, value_name = "ADDRESS:PORT")]
        bind: Option<std::net::SocketAddr>,
        /// Print the unit, and do nothing
        #[arg(long)]
        print: bool,
    },
    /// Show whether it runs
    Status,
    /// Show what it and systemd have to say
    Logs {
        /// Go on with what comes
        #[arg(short, long)]
        follow: bool,
    },
    /// Stop it, and take the unit away
    Uninstall,
}

pub(super) async fn run(service: Service, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let name = unit_name(&app.paths.workspace);
    match service {
        Service::Install { bind, print } => {
            let program = app.interpreter().program();
            let program = program.map_err(|reason| Failure::new(code::FAILED, reason))?;
            let home = std::env::var_os("OMNI_HOME").map(PathBuf::from);
            let bind = bind.map(|bind| bind.to_string());
            let unit = unit(&program, &app.paths, home.as_deref(), bind.as_deref());
            let unit = unit.map_err(|reason| Failure::new(code::FAILED, reason))?;
            if print {
                screen.print(&unit)?;
                return Ok(code::OK);
            }
            install(&name, &unit, screen).await
        }
        Service::Status => passed(&["systemctl", "--user", "--no-pager", "status", &name]).await,
        Service::Logs { follow } => {
            let follow: &[&str] = if follow { &["--follow"] } else { &[] };
            let command = ["journalctl", "--user", "--no-pager", "--lines", "100", "--unit", &name];
            passed(&[&command, follow].concat()).await
        }
        Service::Uninstall => {
            let file = folder()?.join(&name);
            if !file.is_file() {
                return Err(Failure::new(code::USAGE, format!("there is no unit `{}`", file.display())));
            }
            done(&["systemctl", "--user", "disable", "--now", &name]).await?;
            std::fs::remove_file(&file)?;
            done(&["systemctl", "--user", "daemon-reload"]).await?;
            screen.remark(&format!("stopped, and removed {}", file.display()));
            Ok(code::OK)
        }
    }
}

async fn install(name: &str, unit: &str, screen: &Screen) -> Result<u8, Failure> {
    let (folder, file) = (folder()?, folder()?.join(name));
    std::fs::create_dir_all(&folder)?;
    std::fs::write(&file, unit)?;
    screen.line(&file.display().to_string())?;
    done(&["systemctl", "--user", "daemon-reload"]).await?;
    done(&["systemctl", "--user", "enable", name]).await?;
    // Begun anew, if it was there before.
    done(&["systemctl", "--user", "restart", name]).await?;
    screen.remark("it runs; `omni service status` and `omni service logs` show how it does");
    Ok(code::OK)
}

/// One unit for each folder: its name, and enough of its path to tell it from others of that name.
fn unit_name(workspace: &Path) -> String {
    use sha2::{Digest, Sha256};
    let path = workspace.to_string_lossy();
    let name = workspace.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let letter =
        |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    let name: String = name.chars().map(letter).take(32).collect();
    let hash: String =
        Sha256::digest(path.as_bytes()).iter().take(3).map(|byte| format!("{byte:02x}")).collect();
    format!("omni-{name}-{hash}.service")
}

/// The unit's text.
fn unit(program: &Path, paths: &Paths, home: Option<&Path>, bind: Option<&str>) -> Result<String, String> {
    let workspace = text(&paths.workspace)?;
    let mut start = format!("{} serve", quoted(&text(program)?));
    if let Some(bind) = bind {
        // Writing to a String cannot fail.
        let _ = write!(start, " --bind {}", quoted(bind));
    }
    let environment = text(&paths.config.join("environment"))?;
    let home = match home {
        Some(home) => format!("Environment={}\n", quoted(&format!("OMNI_HOME={}", text(home)?))),
        None => String::new(),
    };
    Ok(format!(
        "# Written by `omni service install`, which writes it anew.\n\
         [Unit]\n\
         Description=omni in {folder}\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         # It goes on trying, however often it fails.\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=exec\n\
         WorkingDirectory={folder}\n\
         ExecStart={start}\n\
         EnvironmentFile=-{environment}\n\
         {home}\
         Restart=always\n\
         RestartSec=5\n\
         # SIGTERM to omni itself, which ends what it has started; what then is left is killed.\n\
         KillMode=mixed\n\
         TimeoutStopSec=40\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n",
        folder = percent(&workspace),
        environment = percent(&environment),
    ))
}

fn text(path: &Path) -> Result<String, String> {
    match path.to_str().filter(|text| !text.chars().any(char::is_control)) {
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("`{}` has letters that a unit of systemd cannot have", path.display())),
    }
}

fn percent(text: &str) -> String {
    text.replace('%', "%%")
}

/// A word of a command, as systemd.syntax(7) and systemd.service(5) want it.
fn quoted(word: &str) -> String {
    let word = percent(word).replace('\\', "\\\\").replace('"', "\\\"").replace('$', "$$");
    format!("\"{word}\"")
}

fn folder() -> Result<PathBuf, Failure> {
    Paths::units().map_err(|reason| Failure::new(code::FAILED, reason))
}

/// Runs a program of systemd's that has to succeed.
async fn done(command: &[&str]) -> Result<(), Failure> {
    match passed(command).await? {
        code::OK => Ok(()),
        other => Err(Failure::new(code::FAILED, format!("`{}` ended with {other}", command.join(" ")))
            .hint("systemd says above why; `systemctl --user status` shows whether it runs for you at all")),
    }
}

/// Runs a program with our own streams, and returns how it ended.
async fn passed(command: &[&str]) -> Result<u8, Failure> {
    let status = Command::new(command[0]).args(&command[1..]).status().await;
    let status = status.map_err(|error| {
        Failure::new(code::FAILED, format!("cannot run `{}`: {error}", command[0])).hint(
            "where there is no systemd, have whatever starts programs there run `omni serve` in this folder",
        )
    })?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(code::FAILED))
}
