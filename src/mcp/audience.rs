//! Who is told of changes: clients of the older era, each with what it has asked to hear, and
//! subscriptions of the newer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock};

#[allow(deprecated, reason = "clients of the older era have it")]
use rmcp::model::LoggingLevel;
use rmcp::model::{ErrorData, ResourceUpdatedNotificationParam};
use rmcp::service::{Peer, RoleServer, SubscriptionSink};

/// Documents that one client may be told of.
const DOCUMENTS: usize = 1024;

/// What is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Tools,
    Prompts,
    Resources,
    /// The document of this URI.
    Document(String),
}

impl Change {
    /// What a tool calls it.
    pub(super) fn of(what: String) -> Self {
        match what.as_str() {
            "tools" => Self::Tools,
            "prompts" => Self::Prompts,
            "resources" => Self::Resources,
            _ => Self::Document(what),
        }
    }
}

/// What a client of the older era has asked for. One of the newer has none: it asks in each request.
#[allow(deprecated, reason = "as above")]
pub(super) struct Session {
    peer: OnceLock<Peer<RoleServer>>,
    /// The least grave of what it wants to hear of what tools say.
    level: Mutex<LoggingLevel>,
    documents: Mutex<BTreeSet<String>>,
}

#[allow(deprecated, reason = "as above")]
impl Default for Session {
    fn default() -> Self {
        Self { peer: OnceLock::new(), level: Mutex::new(LoggingLevel::Info), documents: Mutex::default() }
    }
}

impl Session {
    #[allow(deprecated, reason = "as above")]
    pub(super) fn level(&self) -> LoggingLevel {
        *self.level.lock().expect("no panic while held")
    }

    #[allow(deprecated, reason = "as above")]
    pub(super) fn set_level(&self, level: LoggingLevel) {
        *self.level.lock().expect("no panic while held") = level;
    }

    pub(super) fn subscribe(&self, uri: String) -> Result<(), ErrorData> {
        let mut documents = self.documents.lock().expect("no panic while held");
        if documents.len() >= DOCUMENTS && !documents.contains(&uri) {
            let reason = format!("{DOCUMENTS} documents are subscribed to already");
            return Err(ErrorData::invalid_request(reason, None));
        }
        documents.insert(uri);
        Ok(())
    }

    pub(super) fn unsubscribe(&self, uri: &str) {
        self.documents.lock().expect("no panic while held").remove(uri);
    }

    fn has(&self, uri: &str) -> bool {
        self.documents.lock().expect("no panic while held").contains(uri)
    }

    async fn tell(&self, change: &Change) {
        let Some(peer) = self.peer.get() else { return };
        let _ = match change {
            Change::Tools => peer.notify_tool_list_changed().await,
            Change::Prompts => peer.notify_prompt_list_changed().await,
            Change::Resources => peer.notify_resource_list_changed().await,
            Change::Document(uri) if self.has(uri) => {
                peer.notify_resource_updated(ResourceUpdatedNotificationParam::new(uri)).await
            }
            Change::Document(_) => return,
        };
    }

    fn is_gone(&self) -> bool {
        self.peer.get().is_some_and(Peer::is_transport_closed)
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Audience {
    sessions: Mutex<Vec<Arc<Session>>>,
    sinks: Mutex<Vec<SubscriptionSink>>,
}

impl Audience {
    /// A client of the older era has come.
    pub(super) fn greet(&self, session: &Arc<Session>, peer: Peer<RoleServer>) {
        if session.peer.set(peer).is_ok() {
            let mut sessions = self.sessions.lock().expect("no panic while held");
            sessions.retain(|session| !session.is_gone());
            sessions.push(session.clone());
        }
    }

    pub(super) fn add(&self, sink: SubscriptionSink) {
        self.sinks.lock().expect("no panic while held").push(sink);
    }

    pub(super) fn remove(&self, sink: &SubscriptionSink) {
        self.sinks.lock().expect("no panic while held").retain(|other| other.id() != sink.id());
    }

    /// Tells everybody who wants to know.
    pub(super) async fn tell(&self, change: &Change) {
        let sessions = {
            let mut sessions = self.sessions.lock().expect("no panic while held");
            sessions.retain(|session| !session.is_gone());
            sessions.clone()
        };
        for session in sessions {
            session.tell(change).await;
        }
        // A sink leaves out what its client has not asked for.
        let sinks = self.sinks.lock().expect("no panic while held").clone();
        for sink in sinks {
            let _ = match change {
                Change::Tools => sink.notify_tool_list_changed().await,
                Change::Prompts => sink.notify_prompt_list_changed().await,
                Change::Resources => sink.notify_resource_list_changed().await,
                Change::Document(uri) => sink.notify_resource_updated(uri).await,
            };
        }
    }
}
