//! What a tool asks for, asked of the client whose call it serves: a question to its person, a
//! question to its model. In the older era, where a server may ask.

use std::sync::Arc;

use futures::FutureExt;
#[allow(deprecated, reason = "clients of the older era have it, and there is nothing else for them")]
use rmcp::model::{
    ClientCapabilities, CreateMessageRequestParams, ElicitRequestParams, ElicitationAction,
    ElicitationSchema, ProtocolVersion, SamplingMessage, SamplingMessageContentBlock,
};
use rmcp::service::{Peer, RequestContext, RoleServer};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::message::event::Elicitation;
use crate::tool::nested::{Asker, Sample, Sampler};
use crate::tool::{Error, Scope};

/// Tokens that a client's model may answer with.
const ANSWER: u32 = 4096;

/// Lets the tools of one call ask the client, as far as it can be asked. What is asked for ends
/// with the scope.
pub(super) fn connect(scope: &mut Scope, context: &RequestContext<RoleServer>) {
    let version = context.protocol_version();
    let asks = version.is_some_and(|version| version < ProtocolVersion::V_2026_07_28);
    let can = context.client_capabilities().filter(|_| asks).unwrap_or_default();
    let ClientCapabilities { elicitation, sampling, .. } = can;
    let has_forms = elicitation.is_some_and(|can| can.form.is_some() || can.url.is_none());
    scope.asker = has_forms.then(|| asker(context.peer.clone(), scope.cancel.clone()));
    scope.sampler = sampling.is_some().then(|| sampler(context.peer.clone()));
}

fn asker(peer: Peer<RoleServer>, over: CancellationToken) -> Asker {
    Arc::new(move |question: Elicitation| {
        let (peer, over) = (peer.clone(), over.clone());
        tokio::spawn(async move {
            let answer = question.answer.clone();
            // Dropped without an answer it says that nobody is there.
            if let Some(Some(given)) = over.run_until_cancelled(elicit(&peer, question)).await {
                answer.give(given);
            }
        });
    })
}

/// What the person says; the outer `None` where nobody could be asked.
async fn elicit(peer: &Peer<RoleServer>, question: Elicitation) -> Option<Option<Map<String, Value>>> {
    let Elicitation { message, schema, .. } = question;
    let Value::Object(schema) = schema else { return None };
    let requested_schema = ElicitationSchema::from_json_schema(schema)
        .inspect_err(|error| tracing::warn!(target: "mcp", "a question has no form that MCP knows: {error}"))
        .ok()?;
    let params = ElicitRequestParams::FormElicitationParams { meta: None, message, requested_schema };
    let result = peer
        .create_elicitation(params)
        .await
        .inspect_err(|error| tracing::warn!(target: "mcp", "the client cannot ask its person: {error}"))
        .ok()?;
    Some(match (result.action, result.content) {
        (ElicitationAction::Accept, Some(Value::Object(content))) => Some(content),
        (ElicitationAction::Accept, _) => Some(Map::new()),
        _ => None,
    })
}

#[allow(deprecated, reason = "as above")]
fn sampler(peer: Peer<RoleServer>) -> Sampler {
    Arc::new(move |Sample { system, prompt }| {
        let peer = peer.clone();
        async move {
            let mut params =
                CreateMessageRequestParams::new(vec![SamplingMessage::user_text(prompt)], ANSWER);
            params.system_prompt = system;
            let told = |error| Error::Failed(format!("the client's model did not answer: {error}"));
            let result = peer.create_message(params).await.map_err(told)?;
            let texts = result.message.content.into_vec().into_iter().filter_map(|block| match block {
                SamplingMessageContentBlock::Text(text) => Some(text.text),
                _ => None,
            });
            Ok(texts.collect())
        }
        .boxed()
    })
}
