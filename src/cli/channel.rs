//! `omni channel`: Telegram, and who may talk there.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::error::{Failure, code};
use super::serve::{self, Serve};
use super::ui::Screen;
use crate::app::App;
use crate::channel::telegram::{self, Api};
use crate::store::mail::Mail;

/// How long a code is good.
const CODE: Duration = Duration::from_secs(600);

/// Talk on Telegram, and say who may
///
/// Without a command it is `omni serve`. @BotFather on Telegram makes a bot and shows its token, which
/// `telegram.token` names. Only those get an answer who were let in here or are in `telegram.users`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Channel {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a code that lets in who sends it to the bot, once, within ten minutes
    ///
    /// Sent in a group, as `/pair CODE`, it lets the group in, and everybody in it.
    Pair {
        /// Whoever sends it may also agree to what others have asked for
        #[arg(long)]
        admin: bool,
    },
    /// Let somebody in, by their number
    Allow {
        /// Their number on Telegram, which the bot tells to strangers; that of a group is negative
        #[arg(allow_negative_numbers = true)]
        id: i64,
        /// What they are called
        #[arg(default_value = "")]
        name: String,
        /// They may also agree to what others have asked for
        #[arg(long)]
        admin: bool,
    },
    /// Let somebody in no more
    Remove {
        /// Their number
        #[arg(allow_negative_numbers = true)]
        id: i64,
    },
    /// List who may talk
    List,
    /// Take away the webhook that keeps the bot from being asked for news
    Unhook,
}

pub(super) async fn run(channel: Channel, app: App, screen: &Screen) -> Result<u8, Failure> {
    let bot = app.bot().await?;
    let (api, mail) = bot.ok_or_else(|| {
        Failure::new(code::SETUP, "there is no token for Telegram")
            .hint("@BotFather on Telegram makes a bot; set `telegram.token` to \"env:NAME\" or \"file:PATH\"")
    })?;
    let Some(command) = channel.command else { return serve::run(channel.serve, app, screen).await };
    let result = match command {
        Command::Pair { admin } => pair(&api, &mail, admin, screen).await,
        Command::Allow { id, name, admin } => {
            mail.allow(id, &name, admin, Timestamp::now()).await?;
            screen.remark("they are let in");
            Ok(code::OK)
        }
        Command::Remove { id } => remove(&mail, id).await,
        Command::List => list(&app, &mail, screen).await,
        Command::Unhook => unhook(&api, screen).await,
    };
    app.finish().await;
    result
}

async fn pair(api: &Api, mail: &Mail, admin: bool, screen: &Screen) -> Result<u8, Failure> {
    let code = mail.code(admin, CODE, Timestamp::now()).await?;
    let link = telegram::name(api).await.ok().map(|name| format!("https://t.me/{name}?start={code}"));
    if screen.json {
        screen.value(&json!({ "code": code, "link": link }))?;
        return Ok(code::OK);
    }
    screen.line(&code)?;
    let open = link.map(|link| format!(", or open {link}")).unwrap_or_default();
    screen.remark(&format!("send it to the bot within ten minutes{open}"));
    Ok(code::OK)
}

async fn remove(mail: &Mail, id: i64) -> Result<u8, Failure> {
    match mail.forbid(id).await? {
        true => Ok(code::OK),
        false => Err(Failure::new(code::USAGE, format!("{id} was not let in here"))
            .hint("`omni channel list` shows who was; the settings may have others")),
    }
}

async fn list(app: &App, mail: &Mail, screen: &Screen) -> Result<u8, Failure> {
    let config = &app.loaded.config.telegram;
    let configured = [("users", &config.users), ("admins", &config.admins), ("groups", &config.groups)];
    let contacts = mail.contacts().await?;
    if screen.json {
        for contact in &contacts {
            screen.value(contact)?;
        }
        for (key, ids) in configured {
            for id in ids {
                screen.value(
                    &json!({ "id": id, "admin": key == "admins", "setting": format!("telegram.{key}") }),
                )?;
            }
        }
        return Ok(code::OK);
    }
    for contact in &contacts {
        let admin = if contact.admin { ", admin" } else { "" };
        let day = contact.created.strftime("%Y-%m-%d");
        screen.line(&format!("{}  {}  since {day}{admin}", contact.id, contact.name))?;
    }
    for (key, ids) in configured {
        for id in ids {
            screen.line(&format!("{id}  in `telegram.{key}`"))?;
        }
    }
    if contacts.is_empty() && configured.iter().all(|(_, ids)| ids.is_empty()) {
        screen.remark("nobody may talk yet; `omni channel pair` makes a code");
    }
    Ok(code::OK)
}

async fn unhook(api: &Api, screen: &Screen) -> Result<u8, Failure> {
    telegram::unhook(api).await.map_err(|reason| Failure::new(code::FAILED, reason))?;
    screen.remark("the bot can be asked for news again");
    Ok(code::OK)
}
