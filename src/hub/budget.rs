//! What may be used of models: by one conversation, and in a day.
//!
//! Each model call is counted as it ends, in the database, so all processes share what is left and a
//! restart gives nothing back. A message is refused while nothing is left; a turn that uses up the
//! rest has one more answer. Where there is no limit nothing is counted.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::FutureExt;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

use super::{Error, Hub};
use crate::agent::Meter;
use crate::config;
use crate::message::Usage;
use crate::session::Sessions;
use crate::store::ledger::{Ledger, Spent};

/// What time it is.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Which day it is.
#[derive(Clone)]
pub struct Calendar {
    /// Where a day begins at midnight.
    pub zone: TimeZone,
    /// What time it is.
    pub now: Now,
}

impl Default for Calendar {
    fn default() -> Self {
        Self { zone: TimeZone::system(), now: Arc::new(Timestamp::now) }
    }
}

impl Calendar {
    fn now(&self) -> Zoned {
        (self.now)().to_zoned(self.zone.clone())
    }
}

/// Why nothing more may be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{told}")]
pub struct Exhausted {
    told: String,
    /// After how long there is more by itself; `None` for never.
    pub wait: Option<Duration>,
}

/// A limit in tokens and one in dollars; 0 is none.
#[derive(Debug, Clone, Copy)]
struct Most {
    tokens: u64,
    dollars: f64,
}

/// The settings that say so.
struct Keys {
    tokens: &'static str,
    dollars: &'static str,
}

const SESSION: Keys = Keys { tokens: "budget.session_tokens", dollars: "budget.session_dollars" };

impl Most {
    fn is_any(&self) -> bool {
        self.tokens > 0 || self.dollars > 0.0
    }

    /// What is used up, and the setting that says how much there is.
    fn reached(&self, spent: Spent, keys: &Keys) -> Option<(String, &'static str)> {
        if self.tokens > 0 && spent.tokens >= self.tokens {
            return Some((format!("{} of {} tokens", spent.tokens, self.tokens), keys.tokens));
        }
        let dollars = spent.cost as f64 / 1e6;
        (self.dollars > 0.0 && dollars >= self.dollars)
            .then(|| (format!("{dollars:.4} of {:.4} dollars{}", self.dollars, unknown(spent)), keys.dollars))
    }

    /// What is used of it, for people.
    fn told(&self, spent: Spent) -> Option<String> {
        let tokens = (self.tokens > 0).then(|| format!("{} of {} tokens", spent.tokens, self.tokens));
        let dollars = (self.dollars > 0.0).then(|| {
            format!("{:.4} of {:.4} dollars{}", spent.cost as f64 / 1e6, self.dollars, unknown(spent))
        });
        let both: Vec<_> = tokens.into_iter().chain(dollars).collect();
        (!both.is_empty()).then(|| both.join(", "))
    }
}

/// What no price was known for is said, and not taken for nothing.
fn unknown(spent: Spent) -> String {
    match spent.unpriced {
        0 => String::new(),
        tokens => format!(", and {tokens} tokens of unknown price"),
    }
}

/// What turns have used together, for people.
fn summed(turns: &[Usage]) -> String {
    let (mut sum, mut spent) = (Usage::default(), Spent::default());
    for usage in turns {
        sum += *usage;
        spent += (*usage).into();
    }
    if sum.total() == 0 {
        return "nothing that was counted".to_owned();
    }
    let (Usage { input, cached, output, .. }, dollars) = (sum, spent.cost as f64 / 1e6);
    let (turns, unknown) = (turns.len(), unknown(spent));
    let turns = if turns == 1 { "1 turn".to_owned() } else { format!("{turns} turns") };
    let cost = match spent.unpriced == spent.tokens {
        true => "at a price that is not known".to_owned(),
        false => format!("for {dollars:.4} dollars{unknown}"),
    };
    format!("{turns}, {} tokens ({input} in, {cached} of them cached, {output} out) {cost}", spent.tokens)
}

/// Who shares what may be used in a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// People and programs that ask.
    Talk,
    /// Work that goes on by itself.
    Jobs,
}

impl Whose {
    fn name(self) -> &'static str {
        match self {
            Self::Talk => "talk",
            Self::Jobs => "jobs",
        }
    }

    fn told(self) -> &'static str {
        match self {
            Self::Talk => "all conversations",
            Self::Jobs => "all jobs",
        }
    }

    fn keys(self) -> Keys {
        match self {
            Self::Talk => Keys { tokens: "budget.day_tokens", dollars: "budget.day_dollars" },
            Self::Jobs => Keys { tokens: "jobs.tokens", dollars: "" },
        }
    }
}

/// What may be used in a day.
pub struct Purse {
    ledger: Ledger,
    whose: Whose,
    most: Most,
    calendar: Calendar,
}

impl fmt::Debug for Purse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Purse").field("whose", &self.whose).field("most", &self.most).finish_non_exhaustive()
    }
}

impl Purse {
    pub(super) fn talk(ledger: Ledger, budget: &config::Budget, calendar: Calendar) -> Arc<Self> {
        let most = Most { tokens: budget.day_tokens, dollars: budget.day_dollars };
        Arc::new(Self { ledger, whose: Whose::Talk, most, calendar })
    }

    /// Counts what was used, if it was anything, and says so where nothing is left.
    async fn spend(&self, more: Spent) -> Result<(), Error> {
        if !self.most.is_any() {
            return Ok(());
        }
        let (now, name) = (self.calendar.now(), self.whose.name());
        let day = now.date().to_string();
        if more.tokens > 0 {
            self.ledger.add(name, &day, more).await?;
        }
        let spent = self.ledger.spent(name, &day).await?;
        match self.most.reached(spent, &self.whose.keys()) {
            None => Ok(()),
            Some((used, key)) => Err(Error::Spent(self.exhausted(&now, &used, key))),
        }
    }

    fn exhausted(&self, now: &Zoned, used: &str, key: &str) -> Exhausted {
        let midnight = now.tomorrow().and_then(|tomorrow| tomorrow.start_of_day());
        let midnight = midnight.or_else(|_| now.checked_add(1.day())).unwrap_or_else(|_| now.clone());
        let again = midnight.strftime("%Y-%m-%d %H:%M %Z");
        let whose = self.whose.told();
        let told = format!(
            "what {whose} may use in a day is used up ({used}); there is more from {again} on, or at once with a greater `{key}` in the settings"
        );
        let wait = Duration::try_from(now.duration_until(&midnight)).unwrap_or_default();
        Exhausted { told, wait: Some(wait) }
    }
}

/// What one turn uses, and of what.
pub(super) struct Tab {
    sessions: Sessions,
    /// Empty where there is none.
    session: String,
    most: Most,
    purse: Arc<Purse>,
    /// What the turn has used so far; the log of its session says so only at the end.
    own: Mutex<Spent>,
}

impl Tab {
    /// Counts what a model call has used, and says so where nothing is left. For nothing, it says only that.
    pub(super) async fn spend(&self, usage: Usage) -> Result<(), Error> {
        let more = Spent::from(usage);
        let own = {
            let mut own = self.own.lock().expect("no panic while held");
            *own += more;
            *own
        };
        self.purse.spend(more).await?;
        if !self.most.is_any() {
            return Ok(());
        }
        let mut spent = own;
        for usage in self.sessions.usages(&self.session).await? {
            spent += usage.into();
        }
        let Some((used, key)) = self.most.reached(spent, &SESSION) else { return Ok(()) };
        let told = format!(
            "what a conversation may use is used up ({used}); begin another one, or set a greater `{key}` in the settings"
        );
        Err(Error::Spent(Exhausted { told, wait: None }))
    }

    /// The same for the agent.
    pub(super) fn meter(self) -> Option<Meter> {
        if !self.most.is_any() && !self.purse.most.is_any() {
            return None;
        }
        let tab = Arc::new(self);
        Some(Arc::new(move |usage| {
            let tab = tab.clone();
            async move {
                match tab.spend(usage).await {
                    Ok(()) => None,
                    Err(Error::Spent(exhausted)) => Some(exhausted.to_string()),
                    Err(error) => {
                        tracing::error!("what a model call has used is not counted: {error}");
                        None
                    }
                }
            }
            .boxed()
        }))
    }
}

impl Hub {
    /// What a turn of this session may use, if there is one; of the purse of people and programs unless
    /// another one is named.
    pub(super) fn tab(&self, session: &str, purse: Option<Arc<Purse>>) -> Tab {
        let purse = purse.unwrap_or_else(|| self.purse.clone());
        let config::Budget { session_tokens, session_dollars, .. } = self.bounds.budget;
        let most = match purse.whose {
            Whose::Talk if !session.is_empty() => Most { tokens: session_tokens, dollars: session_dollars },
            _ => Most { tokens: 0, dollars: 0.0 },
        };
        Tab {
            sessions: self.sessions.clone(),
            session: session.to_owned(),
            most,
            purse,
            own: Mutex::default(),
        }
    }

    /// Says no where nothing may be used any more today.
    pub async fn afford(&self) -> Result<(), Error> {
        self.tab("", None).spend(Usage::default()).await
    }

    /// The purse of the jobs, of which so many tokens may be used in a day.
    pub fn jobs_purse(&self, tokens: u64, calendar: Calendar) -> Arc<Purse> {
        let (ledger, most) = (Ledger::new(self.store.clone()), Most { tokens, dollars: 0.0 });
        Arc::new(Purse { ledger, whose: Whose::Jobs, most, calendar })
    }

    /// What was used of models, for people: by a conversation, in the day, and of the budgets there are.
    pub(super) async fn used(&self, session: &str) -> Result<String, Error> {
        let own = self.usages(session).await?;
        let now = self.bounds.calendar.now();
        let midnight = now.start_of_day().unwrap_or(now).timestamp();
        let day = self.sessions.usages_since(midnight).await?;
        let mut lines = vec![
            format!("this conversation: {}", summed(&own)),
            format!("all conversations today: {}", summed(&day)),
        ];
        match self.budgets(session).await?.as_slice() {
            [] => lines.push("there is no budget; `budget` in the settings sets one".to_owned()),
            budgets => lines.extend(budgets.iter().map(|used| format!("budget of {used}"))),
        }
        Ok(lines.join("\n"))
    }

    /// What the turns of a session have used, which may not have begun.
    async fn usages(&self, session: &str) -> Result<Vec<Usage>, Error> {
        match session {
            "" => Ok(Vec::new()),
            session => Ok(self.sessions.usages(session).await?),
        }
    }

    /// What is used of the budgets there are, for people.
    pub(super) async fn budgets(&self, session: &str) -> Result<Vec<String>, Error> {
        let config::Budget { session_tokens, session_dollars, .. } = self.bounds.budget;
        let (mut lines, own) = (Vec::new(), Most { tokens: session_tokens, dollars: session_dollars });
        if own.is_any() {
            let mut spent = Spent::default();
            for usage in self.usages(session).await? {
                spent += usage.into();
            }
            lines.extend(own.told(spent).map(|used| format!("this conversation: {used}")));
        }
        let Purse { ledger, whose, most, calendar } = &*self.purse;
        if most.is_any() {
            let spent = ledger.spent(whose.name(), &calendar.now().date().to_string()).await?;
            lines.extend(most.told(spent).map(|used| format!("the day: {used}")));
        }
        Ok(lines)
    }
}
