//! Telegram, for people who only talk.
//!
//! What comes in is stored before Telegram hears that it arrived, what goes out until it has arrived:
//! a message is answered once, whatever is killed in between. `inbox` asks for updates, `talk` answers
//! them, `outbox` delivers; `update` and `format` say what is meant and how it is shown, without I/O.
//! One process is at a bot at a time, by a lease; another one takes over when it is gone.

mod access;
mod api;
mod ask;
mod files;
mod form;
pub mod format;
mod inbox;
mod live;
mod outbox;
mod pace;
mod question;
mod report;
mod talk;
mod update;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use frankenstein::methods::{SetMyCommandsParams, SetWebhookParams};
use frankenstein::types::{BotCommand, User};
use frankenstein::updates::WebhookInfo;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{self, paths::OUTPUT};
use crate::hub::run::Run;
use crate::hub::{Hub, Lane, command};
use crate::store::lease::{self, Acquired, Lease, Owner};
use crate::store::mail::Mail;
use crate::store::{self, Store};

use access::{Access, Strangers};
pub use api::{Api, Error};
use outbox::Outbox;
use pace::Pace;
use question::Questions;
use update::Me;

/// How long a bot belongs to a process without a sign of it.
const LEASE: Duration = Duration::from_secs(10);
/// Conversations that go on at once, and whose consents are kept.
const LANES: usize = 512;
/// How often the pile is looked at though nobody has said that something came.
const LOOK: Duration = Duration::from_secs(30);
/// How often what is done is forgotten.
const PRUNE: Duration = Duration::from_secs(3600);
/// How long to wait before Telegram is asked again who we are.
const AGAIN: Duration = Duration::from_secs(5);
/// How long what is written may take to be sent when the program ends.
const PARTING: Duration = Duration::from_secs(5);

/// Why nothing is heard from Telegram, where nothing is.
pub type Trouble = Option<String>;

/// A bot that is talked to.
pub struct Telegram {
    config: config::Telegram,
    workspace: PathBuf,
    hub: Arc<Hub>,
    api: Arc<Api>,
    mail: Mail,
    pace: Arc<Pace>,
    outbox: Arc<Outbox>,
    strangers: Strangers,
    questions: Questions,
    /// What goes on in each lane.
    running: Mutex<HashMap<String, Run>>,
    /// Held so that what was agreed to "always" stays agreed to.
    held: Mutex<Vec<(String, Arc<Lane>)>>,
    /// Lanes that somebody is at.
    busy: Mutex<HashSet<String>>,
    arrived: Notify,
    trouble: watch::Sender<Trouble>,
    me: watch::Sender<Option<Me>>,
}

impl Telegram {
    /// The bot of this token.
    pub async fn new(
        hub: Arc<Hub>,
        store: Store,
        config: config::Telegram,
        token: &str,
        workspace: PathBuf,
    ) -> Result<Arc<Self>, String> {
        let api = Arc::new(Api::new(&config.server, token)?);
        let mail = mail(store, &api);
        let pace = Arc::<Pace>::default();
        let output = workspace.join(OUTPUT);
        let outbox = Outbox::new(api.clone(), mail.clone(), pace.clone(), output).await;
        let outbox = outbox.map_err(|error| error.to_string())?;
        Ok(Arc::new(Self {
            config,
            workspace,
            hub,
            api,
            mail,
            pace,
            outbox,
            strangers: Strangers::default(),
            questions: Questions::default(),
            running: Mutex::default(),
            held: Mutex::default(),
            busy: Mutex::default(),
            arrived: Notify::new(),
            trouble: watch::Sender::default(),
            me: watch::Sender::default(),
        }))
    }

    /// Why nothing is heard from Telegram. Telegram is heard when it answers the question for updates,
    /// and by nothing else.
    pub fn trouble(&self) -> watch::Receiver<Trouble> {
        self.trouble.subscribe()
    }

    /// The path at which Telegram brings news, and the secret it shows; `None` where it is asked.
    pub fn hook(&self) -> Option<(String, String)> {
        let made = |of: &str| self.api.derived(of);
        let wanted = !self.config.webhook.is_empty();
        wanted.then(|| (format!("/telegram/{}", &made("path")[..32]), made("secret")))
    }

    /// Takes what Telegram brings. It is kept when this returns.
    pub async fn bring(self: &Arc<Self>, body: &[u8]) -> Result<(), String> {
        let update: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let me = self.me.borrow().clone();
        let me = me.ok_or_else(|| "Telegram has not said yet who we are".to_owned())?;
        self.brought(&update, &me).await.map_err(|error| error.to_string())
    }

    /// Has Telegram bring news, for as long as it takes to be heard.
    async fn set_hook(&self) {
        let Some((path, secret)) = self.hook() else { return };
        let url = format!("{}{path}", self.config.webhook.trim_end_matches('/'));
        let parameters = SetWebhookParams::builder()
            .url(url)
            .secret_token(secret)
            .allowed_updates(inbox::WANTED.to_vec())
            .build();
        while let Err(error) = self.api.call::<Value>("setWebhook", &parameters).await {
            let trouble = inbox::explained(&error);
            self.trouble.send_replace(Some(trouble));
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Talks until it is told to stop: then it takes nothing new, lets turns end, and sends what is
    /// written. What is left is done after the next start.
    pub async fn run(self: Arc<Self>, told: CancellationToken) {
        let Some(Some(lease)) = told.run_until_cancelled(self.claim()).await else { return };
        let lost = CancellationToken::new();
        tokio::select! {
            () = self.keep_lease(&lease, &lost) => {}
            () = self.talk(&told, &lost) => {}
        }
        if let Err(error) = lease::release(self.mail.store(), &lease).await {
            tracing::warn!("the bot belongs to this process until its lease ends: {error}");
        }
    }

    async fn talk(self: &Arc<Self>, told: &CancellationToken, lost: &CancellationToken) {
        let sending = CancellationToken::new();
        // Also when this is dropped because the bot is somebody else's.
        let _stops = sending.clone().drop_guard();
        let outbox = tokio::spawn({
            let (outbox, sending) = (self.outbox.clone(), sending.clone());
            async move { outbox.run(sending).await }
        });
        if let Some(me) = told.run_until_cancelled(self.introduce()).await {
            let stop = told.child_token();
            let conversations = self.conversations(&me, &stop);
            let listening = async {
                match self.config.webhook.is_empty() {
                    true => self.poll(&me).await,
                    false => {
                        self.set_hook().await;
                        std::future::pending().await
                    }
                }
            };
            let listening = told.run_until_cancelled(listening);
            let (pruning, reporting) =
                (told.run_until_cancelled(self.prune()), told.run_until_cancelled(self.report()));
            tokio::join!(conversations, listening, pruning, reporting);
        }
        if !lost.is_cancelled() {
            self.outbox.emptied(PARTING).await;
        }
        sending.cancel();
        let _ = outbox.await;
    }

    /// Waits until the bot is ours.
    async fn claim(&self) -> Option<Lease> {
        let (name, owner) = (self.mail.account().to_owned(), Owner::new());
        let mut waits = false;
        loop {
            match lease::acquire(self.mail.store(), &name, &owner, LEASE, Timestamp::now()).await {
                Ok(Acquired::Mine(lease)) => return Some(lease),
                Ok(Acquired::Held { .. }) => {
                    if !std::mem::replace(&mut waits, true) {
                        self.trouble
                            .send_replace(Some("another omni is at this bot; waiting for it".to_owned()));
                    }
                }
                Err(error) => tracing::warn!("the bot cannot be claimed: {error}"),
            }
            tokio::time::sleep(LEASE / 10).await;
        }
    }

    /// Returns when the bot is somebody else's.
    async fn keep_lease(&self, lease: &Lease, lost: &CancellationToken) {
        loop {
            tokio::time::sleep(LEASE / 3).await;
            if let Ok(None) = lease::renew(self.mail.store(), lease, LEASE, Timestamp::now()).await {
                tracing::error!("another omni took the bot; this one stops talking");
                lost.cancel();
                return;
            }
        }
    }

    /// Asks Telegram who we are, for as long as it takes, and tells it what we can.
    async fn introduce(&self) -> Me {
        loop {
            match self.api.call::<User>("getMe", &json!({})).await {
                Ok(user) => {
                    let me = Me { id: user.id, name: user.username.unwrap_or_default() };
                    tracing::info!("Telegram knows us as @{}", me.name);
                    self.offer_commands().await;
                    self.me.send_replace(Some(me.clone()));
                    return me;
                }
                Err(error) => {
                    let trouble = inbox::explained(&error);
                    tracing::warn!("Telegram does not say who we are: {trouble}");
                    self.trouble.send_replace(Some(trouble));
                    let after = error.refusal().and_then(|refusal| refusal.after);
                    tokio::time::sleep(after.unwrap_or(AGAIN)).await;
                }
            }
        }
    }

    /// What people are shown when they type a slash.
    async fn offer_commands(&self) {
        let own = talk::OWN.iter().filter(|(name, _)| *name != "start").copied();
        let common = command::COMMANDS.iter().map(|command| (command.name, command.about));
        let commands = common
            .chain(own)
            .map(|(name, about)| BotCommand::builder().command(name).description(about).build());
        let parameters = SetMyCommandsParams::builder().commands(commands.collect()).build();
        if let Err(error) = self.api.call::<Value>("setMyCommands", &parameters).await {
            tracing::info!("Telegram is not told our commands: {error}");
        }
    }

    /// Sees to it that somebody is at every conversation in which something waits.
    async fn conversations(self: &Arc<Self>, me: &Me, stop: &CancellationToken) {
        let mut talks = JoinSet::new();
        while !stop.is_cancelled() {
            match self.mail.lanes().await {
                Ok(lanes) => {
                    for lane in lanes {
                        let free = talks.len() < LANES || lane == inbox::AT_ONCE;
                        if free && self.busy.lock().expect("no panic while held").insert(lane.clone()) {
                            let (telegram, me, stop) = (self.clone(), me.clone(), stop.clone());
                            talks.spawn(async move {
                                let at_it = AtIt { telegram: &telegram, lane: &lane };
                                telegram.converse(&lane, &me, &stop).await;
                                drop(at_it);
                            });
                        }
                    }
                }
                Err(error) => tracing::warn!("the inbox cannot be read: {error}"),
            }
            while talks.try_join_next().is_some() {}
            tokio::select! {
                () = self.arrived.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => {}
            }
        }
        // Turns that go on end by themselves: the hub is about to stop, too.
        while talks.join_next().await.is_some() {}
    }

    /// Keeps the lane of a session.
    fn hold(&self, session: &str) -> Arc<Lane> {
        let mut held = self.held.lock().expect("no panic while held");
        // The new one first: the last to let go ends what was agreed to.
        let lane = self.hub.lane(session);
        held.retain(|(known, _)| known != session);
        if held.len() >= LANES {
            held.remove(0);
        }
        held.push((session.to_owned(), lane.clone()));
        lane
    }

    async fn prune(&self) {
        loop {
            if let Err(error) = self.mail.prune(Timestamp::now()).await {
                tracing::warn!("old mail is kept: {error}");
            }
            tokio::time::sleep(PRUNE).await;
        }
    }
}

/// Whoever is at a conversation leaves it.
struct AtIt<'a> {
    telegram: &'a Telegram,
    lane: &'a str,
}

impl Drop for AtIt<'_> {
    fn drop(&mut self) {
        self.telegram.busy.lock().expect("no panic while held").remove(self.lane);
        // Something may have come meanwhile.
        self.telegram.arrived.notify_one();
    }
}

/// The mail of a bot.
pub fn mail(store: Store, api: &Api) -> Mail {
    Mail::new(store, format!("telegram:{}", api.bot()))
}

/// What is found out about a bot without talking to anybody.
#[derive(Debug)]
pub struct Examined {
    /// Its name, or why there is none.
    pub name: Result<String, String>,
    /// The webhook that is set.
    pub webhook: Option<String>,
    /// Who may talk.
    pub who: Vec<String>,
    /// When Telegram last answered.
    pub heard: Option<Timestamp>,
}

/// The name of a bot.
pub async fn name(api: &Api) -> Result<String, String> {
    let user = api.call::<User>("getMe", &json!({})).await;
    user.map(|user| user.username.unwrap_or_default()).map_err(|error| inbox::explained(&error))
}

/// Looks at a bot.
pub async fn examine(api: &Api, mail: &Mail, config: &config::Telegram) -> Result<Examined, store::Error> {
    let name = name(api).await;
    let webhook = match &name {
        Ok(_) => api.call::<WebhookInfo>("getWebhookInfo", &json!({})).await.ok().map(|info| info.url),
        Err(_) => None,
    };
    Ok(Examined {
        name,
        webhook: webhook.filter(|url| !url.is_empty()),
        who: Access::read(config, mail).await?.everybody(&mail.contacts().await?),
        heard: mail.cursor().await?.heard,
    })
}

/// Takes the webhook of a bot away, so that it can be asked for news again.
pub async fn unhook(api: &Api) -> Result<(), String> {
    let done = api.call::<bool>("deleteWebhook", &json!({"drop_pending_updates": false})).await;
    done.map(drop).map_err(|error| inbox::explained(&error))
}
