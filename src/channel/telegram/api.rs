//! The Bot API: calls, and what may have happened when one fails.
//!
//! The token is part of every URL, so no URL is ever shown, and what is shown has no token in it.

use std::fmt;
use std::sync::RwLock;
use std::time::Duration;

use reqwest::{Client, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// How long a connection and an ordinary call may take.
const CONNECT: Duration = Duration::from_secs(10);
pub const CALL: Duration = Duration::from_secs(20);
/// How long a file may take to come or go.
const FILE: Duration = Duration::from_secs(300);
/// Bytes of an answer: a hundred updates are far less.
const ANSWER: usize = 16 << 20;

/// A bot.
pub struct Api {
    base: String,
    files: String,
    token: String,
    client: RwLock<Client>,
}

/// Why a call did not do what it should, by what may have happened.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// Telegram refused it: nothing has happened.
    #[error("Telegram refuses: {0}")]
    Refused(Refusal),
    /// Telegram was not reached: nothing has happened.
    #[error("Telegram cannot be reached: {0}")]
    Unreached(String),
    /// There was no answer that says what has happened.
    #[error("Telegram gave no answer: {0}")]
    Unclear(String),
}

/// A no of Telegram.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The code, which is mostly that of HTTP.
    pub code: u64,
    /// Why.
    pub reason: String,
    /// How long to wait before it is asked again.
    pub after: Option<Duration>,
    /// The chat is this one now.
    pub moved: Option<i64>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.code)
    }
}

impl Error {
    /// The refusal, if it is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Whether it was refused with this code and for a reason that has these words.
    pub fn says(&self, code: u64, words: &str) -> bool {
        self.refusal().is_some_and(|refusal| {
            refusal.code == code && refusal.reason.to_lowercase().contains(&words.to_lowercase())
        })
    }
}

/// What every answer has.
#[derive(Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    description: String,
    #[serde(default)]
    error_code: u64,
    parameters: Option<frankenstein::response::ResponseParameters>,
}

impl Api {
    /// A bot with this token at this server.
    pub fn new(server: &str, token: &str) -> Result<Self, String> {
        let server = server.trim_end_matches('/');
        if !is_token(token) {
            return Err(
                "`telegram.token` is no token of a bot; it looks like `123456:ABC…`, and @BotFather \
                        on Telegram makes one"
                    .to_owned(),
            );
        }
        let client = client(server)?;
        Ok(Self {
            base: format!("{server}/bot{token}"),
            files: format!("{server}/file/bot{token}"),
            token: token.to_owned(),
            client: RwLock::new(client),
        })
    }

    /// The number of the bot, which is no secret.
    pub fn bot(&self) -> &str {
        self.token.split(':').next().unwrap_or_default()
    }

    /// A secret that is made of the token, for this use alone.
    pub fn derived(&self, of: &str) -> String {
        let digest = Sha256::digest(format!("omni {of} {}", self.token));
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Begins with new connections: the old ones may be dead without saying so.
    pub fn renew(&self) {
        if let Ok(client) = client(&self.base) {
            *self.client.write().expect("no panic while held") = client;
        }
    }

    fn client(&self) -> Client {
        self.client.read().expect("no panic while held").clone()
    }

    /// Calls a method.
    pub async fn call<R: DeserializeOwned>(
        &self,
        method: &str,
        parameters: &(impl Serialize + Sync),
    ) -> Result<R, Error> {
        self.patiently(method, parameters, CALL).await
    }

    /// Calls a method that takes its time.
    pub async fn patiently<R: DeserializeOwned>(
        &self,
        method: &str,
        parameters: &(impl Serialize + Sync),
        patience: Duration,
    ) -> Result<R, Error> {
        let request = self.client().post(format!("{}/{method}", self.base)).timeout(patience);
        let response = request.json(parameters).send().await.map_err(|error| self.failed(error))?;
        self.read(response).await
    }

    /// Calls a method with a file: `fields` as they are, and the bytes as `field`.
    pub async fn upload<R: DeserializeOwned>(
        &self,
        method: &str,
        fields: &[(&str, String)],
        file: (&str, &str, Vec<u8>),
    ) -> Result<R, Error> {
        let boundary = format!("omni{}", uuid::Uuid::new_v4().simple());
        let body = multipart(&boundary, fields, file);
        let kind = format!("multipart/form-data; boundary={boundary}");
        let request = self.client().post(format!("{}/{method}", self.base)).timeout(FILE);
        let request = request.header("content-type", kind).body(body);
        let response = request.send().await.map_err(|error| self.failed(error))?;
        self.read(response).await
    }

    /// The bytes of a file, as `getFile` names it, if there are no more than `most`.
    pub async fn download(&self, path: &str, most: usize) -> Result<Vec<u8>, Error> {
        let request = self.client().get(format!("{}/{path}", self.files)).timeout(FILE);
        let response = request.send().await.map_err(|error| self.failed(error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(Error::Unclear(format!("the file cannot be had: {status}")));
        }
        self.bytes(response, most).await
    }

    async fn read<R: DeserializeOwned>(&self, response: Response) -> Result<R, Error> {
        let status = response.status();
        let after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let bytes = self.bytes(response, ANSWER).await?;
        let refused = |code, reason: String, after: Option<u64>, moved| {
            let after = after.map(Duration::from_secs);
            Err(Error::Refused(Refusal { code, reason: self.hidden(&reason), after, moved }))
        };
        let Ok(answer) = serde_json::from_slice::<Answer>(&bytes) else {
            // A page of something in between.
            return match status.as_u16() {
                429 => refused(429, "too many requests".to_owned(), after.or(Some(5)), None),
                code @ 400..500 => refused(code.into(), format!("{status}, and no JSON"), after, None),
                _ => Err(Error::Unclear(format!("{status}, and no JSON"))),
            };
        };
        if answer.ok {
            return serde_json::from_value(answer.result).map_err(|error| {
                Error::Unclear(self.hidden(&format!("what it says is not understood: {error}")))
            });
        }
        let code = if answer.error_code == 0 { status.as_u16().into() } else { answer.error_code };
        if code >= 500 {
            return Err(Error::Unclear(self.hidden(&format!("{} ({code})", answer.description))));
        }
        let told = answer.parameters.and_then(|parameters| parameters.retry_after).map(u64::from);
        let moved = answer.parameters.and_then(|parameters| parameters.migrate_to_chat_id);
        refused(code, answer.description, told.or(after), moved)
    }

    async fn bytes(&self, mut response: Response, most: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(error))? {
            if bytes.len() + chunk.len() > most {
                return Err(Error::Unclear(format!("it is longer than {most} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn failed(&self, error: reqwest::Error) -> Error {
        let (unreached, elapsed) = (error.is_connect(), error.is_timeout());
        let error = error.without_url();
        // The innermost cause says it best.
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let reason = match elapsed {
            true => "it took too long".to_owned(),
            false => self.hidden(&cause.to_string()),
        };
        if unreached { Error::Unreached(reason) } else { Error::Unclear(reason) }
    }

    /// The same without the token.
    fn hidden(&self, text: &str) -> String {
        text.replace(&self.token, "****")
    }
}

/// Whether it looks like a token: a number, a colon, letters. What is sent in a URL has to be one.
pub fn is_token(text: &str) -> bool {
    let Some((bot, secret)) = text.split_once(':') else { return false };
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    !bot.is_empty()
        && bot.bytes().all(|byte| byte.is_ascii_digit())
        && secret.len() >= 8
        && secret.bytes().all(letter)
}

fn client(server: &str) -> Result<Client, String> {
    let mut client = Client::builder();
    let host = reqwest::Url::parse(server).ok().and_then(|url| url.host_str().map(str::to_owned));
    let Some(host) = host else {
        return Err(
            "`telegram.server` is no URL; it is `https://api.telegram.org` unless you run your own".into()
        );
    };
    if host == "localhost" || host.parse().is_ok_and(|host: std::net::IpAddr| host.is_loopback()) {
        client = client.no_proxy();
    }
    let client = client.connect_timeout(CONNECT).redirect(reqwest::redirect::Policy::none());
    let client = client.user_agent(concat!("omni/", env!("CARGO_PKG_VERSION"))).build();
    client.map_err(|error| error.without_url().to_string())
}

fn multipart(boundary: &str, fields: &[(&str, String)], file: (&str, &str, Vec<u8>)) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        let part =
            format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    let (field, name, bytes) = file;
    let name: String =
        name.chars().map(|c| if c.is_control() || matches!(c, '"' | '\\') { '_' } else { c }).collect();
    let head = format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"{field}\"; filename=\"{name}\"\r\n\
         content-type: application/octet-stream\r\n\r\n"
    );
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(&bytes);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    body
}
