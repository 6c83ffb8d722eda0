//! `omni skill install` and `omni skill remove`.

use std::path::Path;

use super::error::{Failure, code};
use super::skill::{failure, told};
use super::ui::Screen;
use crate::app::App;
use crate::kernel::environment::{self, Uv};
use crate::skill::fetch::{Fetched, Origin, fetch};
use crate::skill::install::{self, Preview};
use crate::skill::{Catalog, Found, Packages, Where};

#[derive(Debug, clap::Args)]
pub(super) struct Install {
    /// A folder, a `.zip` or `.tar.gz`, the address of a git repository; `#FOLDER` behind it names
    /// one of several skills. Or the name of a skill that is there
    #[arg(value_name = "WHAT")]
    what: String,
    /// Put it in the place of one of the same name
    #[arg(long)]
    replace: bool,
    /// Let packages that have no wheel be built, which runs their code
    #[arg(long)]
    build: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Remove {
    /// The skill
    name: String,
    /// Leave what its tools have stored
    #[arg(long)]
    keep_data: bool,
}

/// What is about to be installed.
enum Offer {
    /// It is in its place; it lacks its packages.
    There(Found),
    New(Origin, Fetched),
}

impl Offer {
    async fn find(what: &str, app: &App) -> Result<Self, Failure> {
        let catalog = app.catalog();
        if let Some(found) = catalog.skills.iter().find(|found| found.name == what) {
            return Ok(Self::There(found.clone()));
        }
        if catalog.untrusted.iter().any(|found| found.name == what) {
            let failure = Failure::new(code::DENIED, format!("nobody has vouched for the skill `{what}`"));
            return Err(failure.hint(format!("look at what it does, then run `omni skill trust {what}`")));
        }
        let origin = Origin::read(what).map_err(failure)?;
        if let Some(found) = origin.folder().and_then(|folder| at(&catalog, &folder)) {
            return Ok(Self::There(found.clone()));
        }
        let fetched = fetch(&origin, &install::own(&app.paths)).await.map_err(failure)?;
        Ok(Self::New(origin, fetched))
    }

    fn folder(&self) -> &Path {
        match self {
            Self::There(found) => &found.folder,
            Self::New(_, fetched) => &fetched.folder,
        }
    }
}

/// The skill in this folder.
fn at<'a>(catalog: &'a Catalog, folder: &Path) -> Option<&'a Found> {
    let folder = folder.canonicalize().ok()?;
    catalog.skills.iter().find(|found| found.folder.canonicalize().is_ok_and(|other| other == folder))
}

pub(super) async fn install(args: Install, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let offer = Offer::find(&args.what, app).await?;
    let environments = app.environments();
    let preview = Preview::read(offer.folder(), &environments.python)
        .map_err(|problem| Failure::new(code::FAILED, told(&problem)))?;
    if let Some(problem) = preview.problems.first() {
        return Err(Failure::new(code::FAILED, told(problem)));
    }
    let name = preview.card.name.as_str();
    let own = install::own(&app.paths);
    let old = Some(own.join(name)).filter(|place| matches!(offer, Offer::New(..)) && place.exists());
    if old.is_some() && !args.replace {
        let failure = Failure::new(code::FAILED, format!("there is a skill `{name}` already"));
        return Err(failure.hint("`--replace` puts this one in its place"));
    }
    if matches!(offer, Offer::There(_)) && preview.packages.is_empty() {
        screen.remark(&format!("`{name}` is there, and declares no packages"));
        return Ok(code::OK);
    }
    let uv = if preview.packages.is_empty() { None } else { Some(Uv::find(args.build)?) };
    let known = environments.lock(&preview.packages);
    let lock = match (&uv, known) {
        (Some(uv), None) => {
            screen.remark("looking for versions that go together");
            uv.lock(&environments, &preview.packages).await?
        }
        (_, known) => known.unwrap_or_default(),
    };
    show(&offer, &preview, &lock, args.build, &own, screen)?;
    consent(app, screen, if old.is_some() { "replace the one that is there?" } else { "install it?" })
        .await?;
    if let Some(uv) = uv {
        screen.remark("installing packages");
        uv.build(&environments, &lock).await?;
        environments.keep(&preview.packages, &lock).map_err(failure)?;
    }
    let before = old.and_then(|old| Preview::read(&old, &environments.python).ok());
    if let Offer::New(_, fetched) = &offer {
        let place = install::put(fetched, &own, args.replace).map_err(failure)?;
        if let Some(before) = before {
            sweep(app, &place, &before.packages, [preview.packages.clone()]).await?;
        }
    }
    outcome(name, app, screen).await
}

/// Says what the skill is, what will be done, and what it may do then.
fn show(
    offer: &Offer,
    preview: &Preview,
    lock: &str,
    builds: bool,
    own: &Path,
    screen: &Screen,
) -> Result<(), Failure> {
    let Preview { card, isolation, packages, tools, .. } = preview;
    let line = |name: &str, text: &str| match screen.json {
        true => Ok(()),
        false => screen.line(&format!("  {name:9} {}", plain(text))),
    };
    if !screen.json {
        let about = card.description.lines().next().unwrap_or_default();
        screen.line(&format!("{}: {}", card.name, plain(about)))?;
    }
    match offer {
        Offer::New(origin, _) => {
            line("from", &origin.to_string())?;
            line("into", &own.join(&card.name).display().to_string())?;
        }
        Offer::There(found) => line("in", &found.folder.display().to_string())?,
    }
    let tools: Vec<String> = tools.iter().map(|(_, tool)| format!("{}.{tool}", card.name)).collect();
    line("tools", &if tools.is_empty() { "none".to_owned() } else { tools.join(", ") })?;
    let place = match isolation.level {
        Where::Thread if !packages.is_empty() => "in processes of their own",
        Where::Thread => "in processes of their own, and inside the program once you vouch for it",
        Where::Worker => "in processes of their own",
        Where::Oneshot => "in a process of its own for each call",
    };
    line("run", place)?;
    let mut may = vec!["read and write the workspace".to_owned()];
    if isolation.network {
        may.push("open connections".to_owned());
    }
    if isolation.processes {
        may.push("start programs".to_owned());
    }
    if !isolation.environment.is_empty() {
        may.push(format!("see the variables {}", isolation.environment.join(", ")));
    }
    may.push(format!("use {} MiB of memory", isolation.memory >> 20));
    line("may", &may.join("; "))?;
    if !packages.is_empty() {
        line("declares", &packages.requirements.join(", "))?;
        let locked: Vec<&str> = lock.lines().filter(|line| !line.starts_with(' ')).collect();
        let locked =
            locked.iter().map(|line| line.trim_end_matches(['\\', ' '])).collect::<Vec<_>>().join(", ");
        line("packages", &locked)?;
        if builds {
            line("builds", "packages that have no wheel, which runs their code now")?;
        }
    }
    Ok(())
}

/// Text that somebody else wrote, where it could move the cursor and hide what is above it.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Asks, unless that was answered beforehand.
async fn consent(app: &App, screen: &Screen, question: &str) -> Result<(), Failure> {
    if app.agrees() {
        return Ok(());
    }
    match screen.agree(question).await {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::new(code::DENIED, "nothing was changed")),
        None => Err(Failure::new(code::DENIED, "nobody is there to agree, so nothing was changed")
            .hint("`--yes` agrees beforehand")),
    }
}

/// Reads the skills anew and says what has become of this one.
async fn outcome(name: &str, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let manifest = app.manifest_again().await;
    let Some(skill) = manifest.skill(name) else {
        return Err(Failure::new(
            code::FAILED,
            format!("`{name}` is installed, but is not among the skills"),
        )
        .hint("`omni skill check` may say why"));
    };
    if screen.json {
        screen.value(skill)?;
    }
    for problem in &skill.problems {
        screen.remark(&told(problem));
    }
    let names: Vec<&str> = skill.tools.iter().map(|tool| tool.name()).collect();
    match skill.problems.iter().find(|problem| problem.is_error()) {
        Some(problem) => {
            Err(Failure::new(code::FAILED, format!("`{name}` is installed, but not all of it works"))
                .hint(told(problem)))
        }
        None => {
            screen.remark(&format!("`{name}` is ready: {}", names.join(", ")));
            Ok(code::OK)
        }
    }
}

pub(super) async fn remove(args: Remove, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let name = args.name.as_str();
    let catalog = app.catalog();
    let folder = install::place(&catalog, name, &app.paths).map_err(failure)?;
    let environments = app.environments();
    // A skill whose front matter is broken can be removed as well.
    let packages = Preview::read(&folder, &environments.python).map(|preview| preview.packages);
    let packages = packages.unwrap_or_default();
    let data = app.paths.data.join("skills").join(name);
    if !screen.json {
        screen.line(&format!("{name}\n  folder    {}", folder.display()))?;
        if !packages.is_empty() {
            screen.line(&format!(
                "  packages  {}, unless another skill uses them",
                packages.requirements.join(", ")
            ))?;
        }
    }
    consent(app, screen, "remove it?").await?;
    install::remove(&folder, &app.paths).map_err(failure)?;
    sweep(app, &folder, &packages, []).await?;
    let wanted = !args.keep_data && data.is_dir();
    if wanted && (app.agrees() || forgets(&data, screen).await) {
        std::fs::remove_dir_all(&data)?;
    }
    app.manifest_again().await;
    screen.remark(&format!("`{name}` is removed"));
    Ok(code::OK)
}

async fn forgets(data: &Path, screen: &Screen) -> bool {
    screen.agree(&format!("remove what its tools have stored in `{}` too?", data.display())).await
        == Some(true)
}

/// Removes packages that nobody needs any more: no skill but the one in `folder`, and none `more`.
async fn sweep<const N: usize>(
    app: &App,
    folder: &Path,
    packages: &Packages,
    more: [Packages; N],
) -> Result<(), Failure> {
    // Has everything that can be found in the index.
    app.manifest().await?;
    let mut others = app.index().packages(folder);
    others.extend(more);
    app.environments().sweep(packages, others.iter()).map_err(failure)
}

impl From<environment::Error> for Failure {
    fn from(error: environment::Error) -> Self {
        let message = error.to_string();
        match error {
            environment::Error::Missing(_) => Self::new(code::SETUP, message)
                .hint("install it as https://docs.astral.sh/uv says, or with `pipx install uv`"),
            environment::Error::Python(_) => Self::new(code::SETUP, message),
            environment::Error::Refused { said, .. } => {
                let failure = Self::new(code::FAILED, message);
                // What it says of flags is about its own.
                match said {
                    said if said.contains("no usable wheels") => {
                        failure.hint("`--build` lets packages without wheels be built, which runs their code")
                    }
                    said if said.contains("pydantic") => failure.hint(
                        "omni itself needs pydantic 2.7 or newer in every environment: a skill that wants an older one cannot run",
                    ),
                    said if said.contains("network was disabled") || said.contains("dns error") => {
                        failure.hint("installing packages needs the network, once")
                    }
                    _ => failure,
                }
            }
            environment::Error::Elapsed { .. } | environment::Error::File { .. } => {
                Self::new(code::FAILED, message)
            }
        }
    }
}
