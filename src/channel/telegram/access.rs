//! Who may talk. Whoever is not known is told how to become so, now and then, and nothing else.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::update::{Person, Said, Spot};
use crate::config;
use crate::store;
use crate::store::mail::{Contact, Mail, contact};

/// How often a stranger is told that they are one.
const HINT: Duration = Duration::from_secs(3600);
/// Strangers that are remembered, and codes they may try together in that time.
const STRANGERS: usize = 200;
const TRIES: usize = 30;

/// Who may talk, at the moment.
#[derive(Debug, Default)]
pub struct Access {
    users: HashSet<i64>,
    groups: HashSet<i64>,
    admins: HashSet<i64>,
}

impl Access {
    /// Those in the settings, and those who were let in.
    pub async fn read(config: &config::Telegram, mail: &Mail) -> Result<Self, store::Error> {
        let set = |ids: &[i64]| ids.iter().copied().collect::<HashSet<i64>>();
        let (users, groups, admins) = (set(&config.users), set(&config.groups), set(&config.admins));
        let mut access = Self { users, groups, admins };
        for contact in mail.contacts().await? {
            match contact.id {
                id if id < 0 => access.groups.insert(id),
                id if contact.admin => access.admins.insert(id),
                id => access.users.insert(id),
            };
        }
        Ok(access)
    }

    /// Whether this person is known.
    pub fn knows(&self, user: i64) -> bool {
        self.users.contains(&user) || self.is_admin(user)
    }

    /// Whether this person may do what changes things for others.
    pub fn is_admin(&self, user: i64) -> bool {
        self.admins.contains(&user)
    }

    /// Whether somebody may talk here: known people alone, everybody in a group that is known.
    pub fn admits(&self, spot: Spot, user: i64) -> bool {
        if spot.chat < 0 { self.groups.contains(&spot.chat) } else { self.knows(user) }
    }

    /// Everybody by number, and by name where that is known: people first, then groups.
    pub fn everybody(&self, contacts: &[Contact]) -> Vec<String> {
        let called = |id: i64, what: &str, role: &str| {
            let contact = contacts.iter().find(|contact| contact.id == id && !contact.name.is_empty());
            match contact {
                Some(contact) => format!("{what}{} ({id}{role})", contact.name),
                None => format!("{what}{id}{role}"),
            }
        };
        let people: BTreeSet<i64> = self.users.union(&self.admins).copied().collect();
        let groups: BTreeSet<i64> = self.groups.iter().copied().collect();
        let role = |id| if self.is_admin(id) { ", admin" } else { "" };
        let people = people.into_iter().map(|id| called(id, "", role(id)));
        people.chain(groups.into_iter().map(|id| called(id, "the group ", ""))).collect()
    }
}

/// Those who came and are not known.
#[derive(Debug, Default)]
pub struct Strangers(Mutex<Door>);

#[derive(Debug, Default)]
struct Door {
    told: HashMap<i64, Instant>,
    tries: Vec<Instant>,
}

impl Strangers {
    /// What a stranger is told, if anything: a code lets them in, everything else gets a hint.
    pub async fn meet(&self, said: &Said, mail: &Mail, now: Instant) -> Result<Option<String>, store::Error> {
        if let Some(code) = code(said)
            && self.may_try(now)
        {
            let (id, name) = match said.group {
                true => (said.spot.chat, said.title.clone()),
                false => (said.user.id, said.user.name.clone()),
            };
            if mail.redeem(&code, id, &name, jiff::Timestamp::now()).await? {
                tracing::info!("a code let in {name:?} ({id})");
                return Ok(Some(welcome(&said.user, said.group)));
            }
            tracing::warn!("somebody who is not known ({id}) said a code that is none");
        }
        // In a group that is not ours nobody has asked us anything.
        Ok((!said.group && self.may_hear(said.user.id, now)).then(|| hint(said.user.id)))
    }

    fn may_try(&self, now: Instant) -> bool {
        let mut door = self.0.lock().expect("no panic while held");
        door.tries.retain(|at| now.duration_since(*at) < HINT);
        let may = door.tries.len() < TRIES;
        if may {
            door.tries.push(now);
        }
        may
    }

    fn may_hear(&self, user: i64, now: Instant) -> bool {
        let mut door = self.0.lock().expect("no panic while held");
        door.told.retain(|_, at| now.duration_since(*at) < HINT);
        if door.told.len() >= STRANGERS || door.told.contains_key(&user) {
            return false;
        }
        door.told.insert(user, now);
        true
    }
}

/// The code in a message: `/start CODE`, as a link has it, `/pair CODE`, or the code alone.
fn code(said: &Said) -> Option<String> {
    let word = match &said.command {
        Some((name, rest)) if name == "start" || name == "pair" => rest.as_str(),
        Some(_) => return None,
        None => said.text.trim(),
    };
    let word = word.trim().to_ascii_uppercase();
    (word.len() == contact::CODE && word.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(word)
}

fn welcome(user: &Person, group: bool) -> String {
    match group {
        true => "Hello everybody. Mention me or answer me, and I am there; /help shows what else there is."
            .to_owned(),
        false => format!("Hello {}. Ask me anything; /help shows what else there is.", user.name),
    }
}

fn hint(user: i64) -> String {
    format!(
        "I do not know you (your number is {user}). Whoever runs me can let you in with `omni channel allow {user}`, \
         or give you a code from `omni channel pair` to send me."
    )
}
