//! One prompt, from the words to why it ended.

use std::sync::Arc;

use agent_client_protocol::v1::ConnectionTo;
use agent_client_protocol::v1::schema::{
    self, ContentBlock, CreateElicitationRequest, ElicitationAction, ElicitationFormMode, ElicitationSchema,
    ElicitationSessionScope, Notice, NoticeSeverity, PermissionOption, PermissionOptionKind, PromptResponse,
    RequestPermissionOutcome, RequestPermissionRequest, SessionUpdate,
};
use agent_client_protocol::{Client, Error, ErrorCode, RequestCancellation};
use serde_json::{Map, Value};

use super::desk::{Desk, Opened};
use super::show::{self, Show};
use super::{buffers, failed, invalid, prompt, say};
use crate::hub::{Hub, command};
use crate::message::event::{Approval, Consent, Elicitation, EventKind, Finished, StopReason};
use crate::message::{Incoming, Usage};

/// Plays a prompt in a session. `gone` tells that the editor does not wait for it any more.
pub(super) async fn play(
    desk: &Desk,
    session: &Arc<Opened>,
    blocks: Vec<ContentBlock>,
    cx: &ConnectionTo<Client>,
    gone: RequestCancellation,
) -> Result<PromptResponse, Error> {
    let (cancel, _going) = (session.cancellation(), desk.going());
    let message = prompt::message(blocks).map_err(invalid)?;
    let hub = tokio::select! {
        hub = desk.hub(session) => hub?,
        () = cancel.cancelled() => return Ok(PromptResponse::new(schema::StopReason::Cancelled)),
    };
    let lane = session.enter(&hub);
    if let Some((command, words)) = command::named(&message.text()) {
        let said = hub.command(command, words, &session.id, Some(&lane)).await;
        if session.settle(lane.mode()) {
            say(cx, &session.id, session.mode_told());
            say(cx, &session.id, session.options_told());
        }
        let mut show = Show::new(&uuid::Uuid::now_v7().to_string(), &session.place().folder);
        say(cx, &session.id, show.text(said));
        return Ok(PromptResponse::new(schema::StopReason::EndTurn));
    }
    let incoming = Incoming { session: Some(session.id.clone()), message };
    let spent = desk.spent(session).await?;
    let editor = desk.client().and_then(|client| buffers::editor(&client.fs, session, cx));
    let mut running = hub.edit(incoming, editor).await.map_err(failed)?;
    let show = Show::new(&running.turn, &session.place().folder);
    let mut stage = Stage { desk, session, cx, hub: &hub, show, before: spent, spent, spoke: false };
    stage.miss().await;
    let mut told = false;
    loop {
        let event = tokio::select! {
            event = running.events.next() => event,
            () = async { tokio::select! { () = cancel.cancelled() => {}, () = gone.cancelled() => {} } }, if !told => {
                told = true;
                running.cancel.cancel();
                continue;
            }
        };
        let event = event.ok_or_else(|| failed("the turn ended without a result"))?;
        if let EventKind::Finished(finished) = event.kind {
            return stage.end(finished).await;
        }
        stage.event(event.kind);
    }
}

/// A turn that an editor is shown.
struct Stage<'a> {
    desk: &'a Desk,
    session: &'a Arc<Opened>,
    cx: &'a ConnectionTo<Client>,
    hub: &'a Hub,
    show: Show,
    /// What the session had cost before, and has until now.
    before: Usage,
    spent: Usage,
    /// Whether there was a piece of an answer.
    spoke: bool,
}

impl Stage<'_> {
    fn say(&self, update: SessionUpdate) {
        say(self.cx, &self.session.id, update);
    }

    fn event(&mut self, event: EventKind) {
        let update = match event {
            EventKind::Text { text } => {
                self.spoke = true;
                self.show.text(text)
            }
            EventKind::Reasoning { text } => self.show.thought(text),
            EventKind::ToolStarted { parent: None, call, tool, arguments } => {
                self.show.began(&call, &tool, &arguments)
            }
            EventKind::ToolProgress { call, progress, total, message } if self.show.knows(&call) => {
                let total = total.map(|total| format!("/{total}")).unwrap_or_default();
                self.show.progress(&call, format!("{progress}{total} {}", message.unwrap_or_default()))
            }
            // What a tool calls is its own affair, unless the editor was asked about it.
            EventKind::ToolFinished { result, .. } if self.show.knows(&result.call) => {
                self.show.ended(&result)
            }
            EventKind::Usage(usage) => {
                self.spent += usage;
                show::used(usage, self.hub.window(), self.spent)
            }
            EventKind::Notice { text } => return self.notice(text),
            EventKind::Approval(approval) => return self.approve(approval),
            EventKind::Elicitation(question) => return self.elicit(question),
            _ => return,
        };
        self.say(update);
    }

    /// Says what is missing here, once.
    async fn miss(&mut self) {
        for what in self.desk.missing(self.session).await {
            self.notice(what);
        }
    }

    /// A remark: for editors that have a place for it, else among the thoughts.
    fn notice(&mut self, text: String) {
        let session = self.desk.client().and_then(|client| client.session.as_ref());
        let update = match session.and_then(|session| session.notices.as_ref()) {
            Some(_) => SessionUpdate::Notice(Notice::new(NoticeSeverity::Info, text)),
            None => self.show.thought(format!("{text}\n")),
        };
        self.say(update);
    }

    /// Asks whether a call may run, for as long as it takes: the turn's own end is the bound.
    fn approve(&mut self, approval: Approval) {
        let Approval { call, tool, arguments, reason, answer, .. } = approval;
        let asked = self.show.asked(&call, &tool, &arguments, &reason);
        let options = vec![
            PermissionOption::new("once", "Allow", PermissionOptionKind::AllowOnce),
            PermissionOption::new(
                "always",
                format!("Always allow {tool} here"),
                PermissionOptionKind::AllowAlways,
            ),
            PermissionOption::new("no", "Reject", PermissionOptionKind::RejectOnce),
            PermissionOption::new(
                "never",
                format!("Always reject {tool} here"),
                PermissionOptionKind::RejectAlways,
            ),
        ];
        let request = RequestPermissionRequest::new(self.session.id.clone(), asked, options);
        let sent = self.cx.send_request(request);
        tokio::spawn(async move {
            let consent = match sent.block_task().await.map(|response| response.outcome) {
                Ok(RequestPermissionOutcome::Selected(chosen)) => match &*chosen.option_id.0 {
                    "once" => Consent::Once,
                    "always" => Consent::Always,
                    "never" => Consent::Never,
                    _ => Consent::No,
                },
                // Cancelled, or nobody is there: dropping the answer refuses.
                _ => return,
            };
            answer.give(consent);
        });
    }

    /// Asks what a tool wants to know, where the editor has a form for it; elsewhere a person reads what was
    /// not asked.
    fn elicit(&mut self, question: Elicitation) {
        let asks = self.desk.client().and_then(|client| client.elicitation.as_ref());
        let (true, Ok(form)) = (
            asks.is_some_and(schema::ElicitationCapabilities::supports_form),
            serde_json::from_value::<ElicitationSchema>(question.schema),
        ) else {
            let Elicitation { tool, message, .. } = question;
            return self
                .notice(format!("`{tool}` would have asked, but there is no form for it here: {message}"));
        };
        let scope = ElicitationSessionScope::new(self.session.id.clone());
        let request = CreateElicitationRequest::new(ElicitationFormMode::new(scope, form), question.message);
        let sent = self.cx.send_request(request);
        tokio::spawn(async move {
            let answer = match sent.block_task().await.map(|response| response.action) {
                Ok(ElicitationAction::Accept(accepted)) => Some(given(accepted)),
                Ok(_) => None,
                Err(_) => return,
            };
            question.answer.give(answer);
        });
    }

    async fn end(&mut self, finished: Finished) -> Result<PromptResponse, Error> {
        let mut spent = self.before;
        spent += finished.usage;
        self.session.spend(spent);
        if !self.spoke && !finished.text.is_empty() {
            let update = self.show.text(finished.text);
            self.say(update);
        }
        self.miss().await;
        if self.session.is_untitled() {
            match self.desk.sessions().await?.resolve(&self.session.id).await {
                Ok(summary) => self.say(show::called(&summary)),
                Err(error) => tracing::warn!("the session has no title: {error}"),
            }
        }
        let error = finished.error.unwrap_or_default();
        let reason = match finished.stop {
            StopReason::Answered => schema::StopReason::EndTurn,
            StopReason::Length => schema::StopReason::MaxTokens,
            StopReason::Limit | StopReason::Loop => {
                if !error.is_empty() {
                    self.notice(error);
                }
                schema::StopReason::MaxTurnRequests
            }
            StopReason::Cancelled => schema::StopReason::Cancelled,
            StopReason::Unauthorized => return Err(Error::new(ErrorCode::AUTH_REQUIRED, error)),
            StopReason::ModelFailed | StopReason::Exhausted | StopReason::Failed => {
                return Err(failed(error));
            }
        };
        Ok(PromptResponse::new(reason))
    }
}

/// What was filled in, as JSON.
fn given(accepted: schema::ElicitationAcceptAction) -> Map<String, Value> {
    let content = serde_json::to_value(accepted.content.unwrap_or_default());
    match content {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}
