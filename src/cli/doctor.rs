//! `omni doctor`: every problem with what mends it.

use std::path::Path;

use jiff::Timestamp;

use super::error::{Failure, code};
use super::skill::told;
use super::style::{FINE, WRONG};
use super::ui::Screen;
use crate::app::{App, Choices};
use crate::channel::telegram;
use crate::kernel::Interpreter;
use crate::kernel::worker::Strength;
use crate::llm::detect::Found;
use crate::mcp::config::{Chosen, Left};

/// What an encoder is worth, by the measurements of `docs/memory.md`: all-MiniLM-L6-v2 and words,
/// beside words alone.
const GAIN: &str = "measured: 77 % of what answers is among the first ten, instead of 74 %";

/// People and groups that are named, of those who may talk.
const SHOWN: usize = 10;

/// One line of the report.
struct Finding {
    fine: bool,
    subject: &'static str,
    text: String,
    /// What to do, where something is wrong.
    mend: Option<String>,
}

impl Finding {
    fn fine(subject: &'static str, text: impl Into<String>) -> Self {
        Self { fine: true, subject, text: text.into(), mend: None }
    }

    fn wrong(subject: &'static str, text: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { fine: false, subject, text: text.into(), mend: Some(mend.into()) }
    }
}

pub(super) async fn run(choices: Choices, interpreter: Interpreter, screen: &Screen) -> Result<u8, Failure> {
    let mut findings = vec![Finding::fine("version", env!("CARGO_PKG_VERSION"))];
    match App::load(choices, interpreter) {
        Ok(app) => {
            findings.extend(folders(&app));
            findings.push(python(interpreter));
            findings.push(workers());
            findings.extend(skills(&app).await);
            findings.extend(servers(&app));
            findings.push(model(&app).await);
            findings.push(store(&app).await);
            findings.push(memory(&app).await);
            findings.push(encoder(&app).await);
            findings.push(jobs(&app).await);
            findings.extend(telegram(&app).await);
            findings.extend(programs());
        }
        Err(error) => findings.push(Finding::wrong(
            "settings",
            error.to_string(),
            "correct the setting, then run this again",
        )),
    }
    report(&findings, screen)
}

fn report(findings: &[Finding], screen: &Screen) -> Result<u8, Failure> {
    for finding in findings {
        if screen.json {
            screen.value(&serde_json::json!({
                "ok": finding.fine, "subject": finding.subject, "text": finding.text, "mend": finding.mend,
            }))?;
            continue;
        }
        let sign = if finding.fine { FINE } else { WRONG };
        screen.item(&format!("{sign} {:10} ", finding.subject), &finding.text)?;
        if let Some(mend) = &finding.mend {
            screen.item(&format!("  {:10} → ", ""), mend)?;
        }
    }
    let wrong = findings.iter().filter(|finding| !finding.fine).count();
    Ok(if wrong == 0 { code::OK } else { code::FAILED })
}

/// How well tools are kept from the rest of the machine.
fn workers() -> Finding {
    let told = "without it, skills that others wrote are only as harmless as their authors";
    match Strength::of_this_machine() {
        Strength::Full => Finding::fine("workers", "confined: files, network, processes"),
        Strength::Signals => Finding::wrong(
            "workers",
            "confined, but this kernel cannot keep tools from sending signals to your other processes",
            "use Linux 6.12 or newer",
        ),
        Strength::Files => Finding::wrong(
            "workers",
            format!("this kernel cannot keep tools from your files (no Landlock); {told}"),
            "use Linux 6.12 or newer with Landlock switched on, or only skills you trust",
        ),
    }
}

fn folders(app: &App) -> Vec<Finding> {
    let paths = &app.paths;
    let folders = [("data", &paths.data), ("log", &paths.state), ("cache", &paths.cache)];
    let look = |(subject, folder): (&'static str, &std::path::PathBuf)| match writable(folder) {
        Ok(()) => Finding::fine(subject, folder.display().to_string()),
        Err(error) => Finding::wrong(
            subject,
            format!("`{}` cannot be written: {error}", folder.display()),
            format!(
                "make it writable: `chmod u+rwx {}`; or set OMNI_HOME to a folder that is",
                folder.display()
            ),
        ),
    };
    folders.into_iter().map(look).collect()
}

fn writable(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    tempfile::tempfile_in(folder).map(drop)
}

fn python(interpreter: Interpreter) -> Finding {
    match interpreter.start().and_then(|()| crate::kernel::interpreter::version()) {
        Ok(version) => Finding::fine("python", version),
        Err(reason) => Finding::wrong(
            "python",
            reason,
            "build omni again: its Python packages are missing or have moved",
        ),
    }
}

async fn skills(app: &App) -> Vec<Finding> {
    let manifest = app.manifest_again().await;
    let tools: usize = manifest.skills.iter().map(|skill| skill.tools.len()).sum();
    let mut findings = vec![Finding::fine("skills", format!("{} with {tools} tools", manifest.skills.len()))];
    for problem in manifest.problems() {
        findings.push(match problem.is_error() {
            true => Finding::wrong("skills", told(problem), "`omni skill check` shows all of it"),
            false => Finding::fine("skills", told(problem)),
        });
    }
    if let Ok(toolbox) = app.toolbox().await {
        let left = toolbox.problems().into_iter();
        findings.extend(left.map(|text| {
            Finding::wrong("tools", text, "correct the skill, or disable it in `skills.disabled`")
        }));
    }
    findings
}

/// Whether the servers that are described can be understood; `omni mcp test` starts them.
fn servers(app: &App) -> Vec<Finding> {
    let (described, problems) = app.described_servers();
    let wrong = |reason: String| {
        Finding::wrong("servers", reason, "correct the file; `omni mcp list` shows what is in it")
    };
    let mut findings: Vec<_> = problems.into_iter().map(wrong).collect();
    for Chosen { entry, server } in described {
        let name = &entry.name;
        findings.push(match server {
            Ok(_) => Finding::fine("servers", format!("`{name}`; `omni mcp test {name}` starts it")),
            Err(Left::Disabled) => Finding::fine("servers", format!("`{name}` is disabled")),
            Err(Left::Unknown | Left::Changed) => {
                let why = format!(
                    "`{name}` is of this project; it is used once you agree with `omni mcp trust {name}`"
                );
                Finding::fine("servers", why)
            }
            Err(Left::Wrong(reason)) => wrong(reason),
        });
    }
    findings
}

async fn model(app: &App) -> Finding {
    match app.model_found().await {
        Ok(found) if found.model == "offline" => Finding::fine(
            "model",
            format!(
                "offline ({}): words are routed to tools; set ANTHROPIC_API_KEY, OPENAI_API_KEY or another \
                 key to talk to a model",
                found.why
            ),
        ),
        Ok(found) => {
            let address = found.address.map(|address| format!(" at {address}")).unwrap_or_default();
            let Found { model, why, window, .. } = found;
            Finding::fine("model", format!("{model}{address}, {window} tokens of context ({why})"))
        }
        Err(error) => {
            Finding::wrong("model", error.to_string(), "set the key, or choose another: `omni setup`")
        }
    }
}

async fn store(app: &App) -> Finding {
    match app.store().await {
        Ok(store) => Finding::fine("sessions", store.place().to_owned()),
        Err(error) => Finding::wrong("sessions", error.to_string(), "mend what it says, or set `store.url`"),
    }
}

/// What is remembered, and how it is found.
async fn memory(app: &App) -> Finding {
    if !app.loaded.config.memory.enabled {
        return Finding::fine("memory", "off");
    }
    let count = async { Ok::<_, Failure>(app.memory().await?.list().await?.len()) };
    match count.await {
        Ok(count) => Finding::fine("memory", format!("{count} kept")),
        Err(failure) => {
            Finding::wrong("memory", failure.message, "mend it, or set `memory.enabled` to false")
        }
    }
}

/// Whether meanings help to find it, and how much that is worth.
async fn encoder(app: &App) -> Finding {
    let name = app.loaded.config.memory.encoder.trim();
    let missing = "`omni memory encoder install` brings one";
    let embedder = match app.embedder() {
        Ok(Some(embedder)) => embedder,
        Ok(None) => {
            return Finding::fine(
                "encoder",
                format!("none: memories are found by their words; {missing} ({GAIN})"),
            );
        }
        Err(error) => return Finding::wrong("encoder", error.to_string(), missing),
    };
    if name.contains('/') {
        return Finding::fine("encoder", format!("`{name}`: what is remembered is sent to it ({GAIN})"));
    }
    match embedder.embed(&["a sentence".to_owned()]).await {
        Ok(_) => Finding::fine("encoder", format!("`{}`, on this machine ({GAIN})", embedder.identity())),
        Err(error) => Finding::wrong("encoder", error.to_string(), format!("{missing} anew")),
    }
}

/// Whether the jobs of this folder are run.
async fn jobs(app: &App) -> Finding {
    let folder = &app.paths.workspace;
    let look = async {
        let jobs = app.jobs().await?;
        let waiting = jobs.list(Some(folder)).await?.iter().filter(|job| job.next.is_some()).count();
        Ok::<_, Failure>((waiting, jobs.is_attended(folder, Timestamp::now()).await?))
    };
    match look.await {
        Ok((0, _)) => Finding::fine("jobs", "none that wait for their time in this folder"),
        Ok((waiting, true)) => {
            Finding::fine("jobs", format!("{waiting} in this folder, and `omni serve` runs them"))
        }
        Ok((waiting, false)) => Finding::wrong(
            "jobs",
            format!("{waiting} in this folder, and nothing runs them"),
            "start `omni serve` in this folder, or `omni service install`",
        ),
        Err(failure) => Finding::wrong("jobs", failure.message, "mend what it says"),
    }
}

/// Whether the bot can be talked to, by whom, and whether anything keeps it from hearing.
async fn telegram(app: &App) -> Vec<Finding> {
    let subject = "telegram";
    let (api, mail) = match app.bot().await {
        Ok(Some(bot)) => bot,
        Ok(None) => return Vec::new(),
        Err(error) => return vec![Finding::wrong(subject, error.to_string(), "correct `telegram.token`")],
    };
    let config = &app.loaded.config.telegram;
    let examined = match telegram::examine(&api, &mail, config).await {
        Ok(examined) => examined,
        Err(error) => return vec![Finding::wrong(subject, error.to_string(), "mend what it says")],
    };
    let mut findings = Vec::new();
    match examined.name {
        Ok(name) => {
            let heard = examined.heard.map_or_else(
                || "it was never listened to".to_owned(),
                |heard| format!("last heard {}", heard.strftime("%Y-%m-%d %H:%M:%S UTC")),
            );
            findings.push(Finding::fine(subject, format!("the token is that of @{name}; {heard}")));
        }
        Err(reason) => findings.push(Finding::wrong(subject, reason, "see to it, then run this again")),
    }
    if let (Some(url), true) = (examined.webhook, config.webhook.is_empty()) {
        let text = format!("the webhook {url} gets its news, so omni hears none");
        findings.push(Finding::wrong(subject, text, "`omni channel unhook` takes it away"));
    }
    findings.push(match &examined.who[..] {
        [] => Finding::wrong(subject, "nobody may talk to it", "`omni channel pair` makes a code to send it"),
        who => {
            let more = match who.len().saturating_sub(SHOWN) {
                0 => String::new(),
                more => format!(" and {more} more, whom `omni channel list` shows"),
            };
            let shown = who.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
            Finding::fine(subject, format!("may talk to it: {shown}{more}"))
        }
    });
    findings
}

/// Programs that built-in skills run.
fn programs() -> Vec<Finding> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("git")).find(|file| file.is_file());
    vec![match found {
        Some(file) => Finding::fine("git", file.display().to_string()),
        None => Finding::wrong(
            "git",
            "there is no `git` on PATH; the git tools will fail",
            "`apt-get install git`",
        ),
    }]
}
