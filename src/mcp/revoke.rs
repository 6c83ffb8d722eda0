//! Tokens that are not needed any more are taken back by who gave them: RFC 7009.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{StatusCode, Url};
use rmcp::transport::auth::{AuthorizationManager, AuthorizationMetadata};
use serde_json::Value;

use super::open::{self, short};

/// How long it may take to find out who takes them back, and to have that done.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a refusal that are read.
const REFUSAL: usize = 64 * 1024;

/// What became of tokens that were given to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// They are worth nothing any more.
    Yes,
    /// Who gave them takes none back: they are worth something until they end.
    Never,
    /// They may be worth something still, for this reason.
    No(String),
}

/// What was given to us.
pub(super) struct Given {
    /// By whom, if it is known.
    pub(super) issuer: Option<String>,
    /// As whom.
    pub(super) id: String,
    pub(super) secret: Option<String>,
    /// The token that renews, whose end is that of the others, and the one that is shown.
    pub(super) renewal: Option<String>,
    pub(super) access: Option<String>,
}

/// Has all of it taken back.
pub(super) async fn revoke(manager: &AuthorizationManager, given: &Given) -> Revoked {
    match tokio::time::timeout(PATIENCE, revoked(manager, given)).await {
        Ok(Ok(true)) => Revoked::Yes,
        Ok(Ok(false)) => Revoked::Never,
        Ok(Err(reason)) => Revoked::No(reason),
        Err(_) => Revoked::No(format!("no answer in {} s", PATIENCE.as_secs())),
    }
}

async fn revoked(manager: &AuthorizationManager, given: &Given) -> Result<bool, String> {
    let found = manager.resolve_metadata().await.map_err(|error| short(&error.to_string()))?;
    let (metadata, discovered) = (found.metadata, found.source.is_discovered());
    // What one has given is no business of another.
    if given.issuer.is_some() && metadata.issuer != given.issuer {
        return Err("another issuer of tokens is there now".to_owned());
    }
    let endpoint = metadata.additional_fields.get("revocation_endpoint").and_then(Value::as_str);
    let Some(endpoint) = endpoint.filter(|_| discovered) else { return Ok(false) };
    let endpoint = trusted(endpoint, &metadata)?;
    let client = open::http()?;
    let posts = posts_secrets(&metadata);
    for (kind, token) in [("refresh_token", &given.renewal), ("access_token", &given.access)] {
        let Some(token) = token else { continue };
        let mut fields = vec![("token", token.as_str()), ("token_type_hint", kind)];
        let mut request = client.post(endpoint.clone());
        match &given.secret {
            Some(secret) if !posts => {
                let known =
                    format!("{}:{}", form(&[("", &given.id)]), form(&[("", secret)])).replace('=', "");
                request = request.header(AUTHORIZATION, format!("Basic {}", BASE64_STANDARD.encode(known)));
            }
            secret => {
                fields.push(("client_id", &given.id));
                fields.extend(secret.iter().map(|secret| ("client_secret", secret.as_str())));
            }
        }
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form(&fields));
        let answer = request.send().await.map_err(|error| short(&open::cause(&error)))?;
        let status = answer.status();
        if status.is_success() {
            continue;
        }
        let reason = refusal(answer).await;
        // It ends with the one that renews it.
        let is_optional = kind == "access_token" && given.renewal.is_some();
        if !(is_optional && status == StatusCode::BAD_REQUEST && reason == "unsupported_token_type") {
            return Err(match reason.is_empty() {
                true => format!("HTTP {}", status.as_u16()),
                false => format!("HTTP {}: {reason}", status.as_u16()),
            });
        }
    }
    Ok(true)
}

/// Where they are taken back, if that is as safe as where they came from.
fn trusted(endpoint: &str, metadata: &AuthorizationMetadata) -> Result<Url, String> {
    let url = Url::parse(endpoint).map_err(|_| "where tokens are taken back is no address".to_owned())?;
    let giver = Url::parse(&metadata.token_endpoint).ok();
    match url.scheme() == "https" || giver.is_some_and(|giver| giver.origin() == url.origin()) {
        true => Ok(url),
        false => Err(format!("{} is not a place to send tokens to", url.origin().ascii_serialization())),
    }
}

/// Whether who we are goes into the request's text. It goes into a header where nothing is said.
fn posts_secrets(metadata: &AuthorizationMetadata) -> bool {
    let methods = |name: &str| metadata.additional_fields.get(name).and_then(Value::as_array);
    let methods = methods("revocation_endpoint_auth_methods_supported")
        .or_else(|| methods("token_endpoint_auth_methods_supported"));
    let takes = |method: &str| methods.is_some_and(|methods| methods.iter().any(|known| known == method));
    takes("client_secret_post") && !takes("client_secret_basic")
}

/// As a form in the web is sent.
fn form(fields: &[(&str, &str)]) -> String {
    let url = Url::parse_with_params("form:", fields).expect("any texts can be in it");
    url.query().unwrap_or_default().to_owned()
}

/// The word for why it is refused, if there is one.
async fn refusal(mut answer: reqwest::Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > REFUSAL {
            return String::new();
        }
    }
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    short(value["error"].as_str().unwrap_or_default())
}
