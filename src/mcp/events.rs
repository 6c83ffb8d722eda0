//! The transport of 2024: a stream of events to hear, another address to speak to.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use reqwest::header::{HeaderName, HeaderValue};
use rmcp::service::{RoleClient, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use rmcp::transport::streamable_http_client::{StreamableHttpClient, StreamableHttpError};

use super::lines::LONGEST;

type Error = StreamableHttpError<reqwest::Error>;
type Headers = HashMap<HeaderName, HeaderValue>;

/// The transport.
pub(super) struct Events<C> {
    client: C,
    /// Where messages go.
    post: Arc<str>,
    headers: Headers,
    /// Kinds of events, and what they say. It ends with the first one that cannot be read.
    incoming: BoxStream<'static, (Option<String>, String)>,
}

impl<C: StreamableHttpClient<Error = reqwest::Error>> Events<C> {
    /// Connects, and hears where messages go.
    pub(super) async fn open(client: C, url: &str, headers: Headers) -> Result<Self, Error> {
        let opening =
            client.get_stream_with_max_sse_event_size(url.into(), None, None, None, headers.clone(), LONGEST);
        let stream = opening.await?.scan((), |(), event| {
            std::future::ready(event.ok().map(|event| (event.event, event.data.unwrap_or_default())))
        });
        let mut incoming = stream.boxed();
        while let Some((kind, data)) = incoming.next().await {
            if kind.as_deref() == Some("endpoint") {
                let post = address(url, data.trim())?;
                return Ok(Self { client, post, headers, incoming });
            }
        }
        Err(wrong("it does not say where messages go"))
    }
}

impl<C: StreamableHttpClient<Error = reqwest::Error>> Transport<RoleClient> for Events<C> {
    type Error = Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let (client, post, headers) = (self.client.clone(), self.post.clone(), self.headers.clone());
        async move {
            match client.post_message(post, message, None, None, headers).await {
                // The answer comes as an event; some say `OK` here.
                Ok(_) | Err(StreamableHttpError::UnexpectedContentType(_)) => Ok(()),
                Err(error) => Err(error),
            }
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        while let Some((kind, data)) = self.incoming.next().await {
            if kind.is_some_and(|kind| kind != "message") {
                continue;
            }
            match serde_json::from_str(&data) {
                Ok(message) => return Some(message),
                Err(error) => tracing::debug!(target: "mcp", "an event is no message: {error}"),
            }
        }
        None
    }

    async fn close(&mut self) -> Result<(), Error> {
        self.incoming = stream::empty().boxed();
        Ok(())
    }
}

/// Where messages go. What is sent there may be secret, so it is nobody else's.
fn address(url: &str, given: &str) -> Result<Arc<str>, Error> {
    let base = reqwest::Url::parse(url).map_err(|_| wrong("its address is none"))?;
    let post = base.join(given).map_err(|_| wrong("the address it gives for messages is none"))?;
    match post.origin() == base.origin() {
        true => Ok(post.as_str().into()),
        false => Err(wrong("the address it gives for messages is somebody else's")),
    }
}

fn wrong(reason: &'static str) -> Error {
    StreamableHttpError::UnexpectedServerResponse(reason.into())
}
