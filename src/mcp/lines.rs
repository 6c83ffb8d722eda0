//! Messages as lines: JSON-RPC over two byte streams, which is MCP's stdio transport.
//!
//! What is said here goes out in the order in which it was said. A line that is too long, or no
//! message, harms the one request it belongs to, if that: it is answered, or answers its own
//! request, with an error.

use std::collections::HashSet;
use std::io;

use rmcp::model::{CancelledNotification, ErrorCode, ErrorData, JsonRpcMessage, RequestId};
use rmcp::service::{RxJsonRpcMessage, ServiceRole, TxJsonRpcMessage};
use rmcp::transport::Transport;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Bytes of one message.
pub const LONGEST: usize = 16 << 20;
/// Requests of the other side that are worked on at once; more are refused.
const MOST: usize = 1024;
/// Messages that were read and not yet taken.
const AHEAD: usize = 64;
/// Bytes that are read in one go.
const BUFFER: usize = 64 << 10;
/// Lines that are written in one go.
const TOGETHER: usize = 64;
/// Bytes of both ends of a line that is too long, in which its id is looked for.
const ENDS: usize = 256;
/// A buffer that has grown beyond this is not kept.
const KEPT: usize = 1 << 20;

/// The transport.
pub(super) struct Lines<Role: ServiceRole> {
    incoming: mpsc::Receiver<Read<Role>>,
    /// `None` once it is closed. What waits in it is bounded by those who wait for it: answers to
    /// at most [`MOST`] requests, and notifications, whose senders wait until they are written.
    outgoing: Option<mpsc::UnboundedSender<Line>>,
    /// The other side reads no more.
    deaf: CancellationToken,
    /// Requests of the other side that have no answer yet.
    open: HashSet<RequestId>,
    /// Whether the other side has begun.
    begun: bool,
    tasks: JoinSet<()>,
}

/// What was read.
enum Read<Role: ServiceRole> {
    Message(Box<RxJsonRpcMessage<Role>>),
    /// A line that is longer than [`LONGEST`], and whose it is.
    TooLong(Option<RequestId>),
    /// A line of JSON that is no message, and whose it is.
    Odd(Option<RequestId>, String),
    /// A line of something else.
    Noise(String),
}

/// A line to be written.
struct Line {
    bytes: Vec<u8>,
    written: oneshot::Sender<io::Result<()>>,
}

impl<Role: ServiceRole> Lines<Role>
where
    RxJsonRpcMessage<Role>: DeserializeOwned,
{
    /// Talks over these streams. Dropping it closes both.
    pub(super) fn new(
        from: impl AsyncRead + Send + Unpin + 'static,
        to: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        let (sender, incoming) = mpsc::channel(AHEAD);
        let (outgoing, receiver) = mpsc::unbounded_channel();
        let deaf = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(read(BufReader::with_capacity(BUFFER, from), sender));
        tasks.spawn(write(to, receiver, deaf.clone()));
        Self { incoming, outgoing: Some(outgoing), deaf, open: HashSet::new(), begun: false, tasks }
    }

    /// Puts a message at the end of what is to be written.
    fn post(&mut self, message: &TxJsonRpcMessage<Role>) -> io::Result<oneshot::Receiver<io::Result<()>>> {
        let mut bytes = serde_json::to_vec(message)?;
        if let JsonRpcMessage::Response(response) = message {
            self.open.remove(&response.id);
            if bytes.len() >= LONGEST {
                let reason = format!("the result has {} bytes, a message may have {LONGEST}", bytes.len());
                let error = ErrorData::new(ErrorCode::INTERNAL_ERROR, reason, None);
                let message: TxJsonRpcMessage<Role> = JsonRpcMessage::error(error, Some(response.id.clone()));
                bytes = serde_json::to_vec(&message)?;
            }
        }
        if let JsonRpcMessage::Error(error) = message
            && let Some(id) = &error.id
        {
            self.open.remove(id);
        }
        bytes.push(b'\n');
        let (written, done) = oneshot::channel();
        let outgoing = self.outgoing.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        outgoing.send(Line { bytes, written }).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(done)
    }

    /// Answers with an error. That nobody hears it is seen elsewhere.
    fn refuse(&mut self, id: Option<RequestId>, code: ErrorCode, reason: String) {
        let _ = self.post(&JsonRpcMessage::error(ErrorData::new(code, reason, None), id));
    }

    /// What is to be done about what was read.
    fn admit(&mut self, read: Read<Role>) -> Option<RxJsonRpcMessage<Role>> {
        let too_long = || format!("the message is longer than {LONGEST} bytes");
        match read {
            Read::Message(message) => self.message(*message),
            // An answer: its request fails.
            Read::TooLong(id @ Some(_)) if Role::IS_CLIENT => {
                Some(JsonRpcMessage::error(ErrorData::new(ErrorCode::INTERNAL_ERROR, too_long(), None), id))
            }
            Read::Odd(id @ Some(_), reason) if Role::IS_CLIENT => {
                Some(JsonRpcMessage::error(ErrorData::new(ErrorCode::INTERNAL_ERROR, reason, None), id))
            }
            Read::TooLong(_) | Read::Odd(..) | Read::Noise(_) if Role::IS_CLIENT => {
                tracing::debug!("a server has said something that is no message");
                None
            }
            Read::TooLong(id) => {
                self.refuse(id, ErrorCode::INVALID_REQUEST, too_long());
                None
            }
            Read::Odd(id, reason) => {
                self.refuse(id, ErrorCode::INVALID_REQUEST, reason);
                None
            }
            Read::Noise(reason) => {
                self.refuse(None, ErrorCode::PARSE_ERROR, format!("the line is no JSON: {reason}"));
                None
            }
        }
    }

    fn message(&mut self, message: RxJsonRpcMessage<Role>) -> Option<RxJsonRpcMessage<Role>> {
        match &message {
            JsonRpcMessage::Request(request) => {
                self.begun = true;
                if self.open.len() >= MOST {
                    let reason = format!("{MOST} requests are being worked on already; try again later");
                    self.refuse(Some(request.id.clone()), ErrorCode::INTERNAL_ERROR, reason);
                    return None;
                }
                self.open.insert(request.id.clone());
                Some(message)
            }
            // Nothing was asked yet that this could be about.
            _ if !Role::IS_CLIENT && !self.begun => None,
            JsonRpcMessage::Notification(notification) => {
                let cancelled: Result<CancelledNotification, _> =
                    notification.notification.clone().try_into();
                if let Ok(CancelledNotification { params, .. }) = cancelled
                    && let Some(id) = params.request_id
                {
                    self.open.remove(&id);
                }
                Some(message)
            }
            _ => Some(message),
        }
    }
}

impl<Role: ServiceRole> Transport<Role> for Lines<Role>
where
    RxJsonRpcMessage<Role>: DeserializeOwned,
{
    type Error = io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<Role>,
    ) -> impl Future<Output = Result<(), io::Error>> + Send + 'static {
        let posted = self.post(&item);
        async move { posted?.await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))? }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<Role>> {
        loop {
            let read = tokio::select! {
                biased;
                () = self.deaf.cancelled() => return None,
                read = self.incoming.recv() => read?,
            };
            if let Some(message) = self.admit(read) {
                return Some(message);
            }
        }
    }

    async fn close(&mut self) -> Result<(), io::Error> {
        self.incoming.close();
        // The writer ends when it has written what there is.
        if self.outgoing.take().is_some() {
            self.tasks.join_next().await;
        }
        self.tasks.abort_all();
        Ok(())
    }
}

async fn write(
    mut to: impl AsyncWrite + Unpin,
    mut lines: mpsc::UnboundedReceiver<Line>,
    deaf: CancellationToken,
) {
    let _deaf = deaf.drop_guard();
    let (mut batch, mut bytes) = (Vec::new(), Vec::new());
    while lines.recv_many(&mut batch, TOGETHER).await > 0 {
        bytes.clear();
        bytes.shrink_to(KEPT);
        batch.iter().for_each(|line| bytes.extend_from_slice(&line.bytes));
        let written = async {
            to.write_all(&bytes).await?;
            to.flush().await
        };
        let written = written.await;
        let again = |error: &io::Error| io::Error::new(error.kind(), error.to_string());
        for line in batch.drain(..) {
            let _ = line.written.send(written.as_ref().copied().map_err(again));
        }
        if written.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

async fn read<Role: ServiceRole>(mut from: BufReader<impl AsyncRead + Unpin>, to: mpsc::Sender<Read<Role>>)
where
    RxJsonRpcMessage<Role>: DeserializeOwned,
{
    let mut line = Vec::new();
    loop {
        line.clear();
        line.shrink_to(KEPT);
        let mut tail = Vec::new();
        let length = match next_line(&mut from, &mut line, &mut tail).await {
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        let read = match length > LONGEST {
            true => vec![Read::TooLong(id_at_ends(&line[..ENDS], &tail))],
            false => parse(line.trim_ascii()),
        };
        for read in read {
            if to.send(read).await.is_err() {
                return;
            }
        }
    }
}

/// Reads one line and returns its length, 0 at the end of all. Of a line that is longer than
/// [`LONGEST`] not all is kept, but the last of it is in `tail`.
async fn next_line(
    from: &mut BufReader<impl AsyncRead + Unpin>,
    line: &mut Vec<u8>,
    tail: &mut Vec<u8>,
) -> io::Result<usize> {
    let mut length = 0;
    loop {
        let available = from.fill_buf().await?;
        if available.is_empty() {
            return Ok(length);
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(available.len(), |end| end + 1);
        let piece = &available[..taken];
        length += taken;
        if length <= LONGEST {
            line.extend_from_slice(piece);
        } else {
            tail.extend_from_slice(piece);
            tail.drain(..tail.len().saturating_sub(ENDS));
        }
        from.consume(taken);
        if end.is_some() {
            return Ok(length);
        }
    }
}

fn parse<Role: ServiceRole>(line: &[u8]) -> Vec<Read<Role>>
where
    RxJsonRpcMessage<Role>: DeserializeOwned,
{
    let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
    match line.first() {
        None => Vec::new(),
        // Several at once, which 2025-03-26 had.
        Some(b'[') if !Role::IS_CLIENT => match serde_json::from_slice::<Vec<Value>>(line) {
            Ok(values) => values.into_iter().map(message).collect(),
            Err(error) => vec![Read::Noise(error.to_string())],
        },
        Some(_) => vec![match serde_json::from_slice(line) {
            Ok(message) => Read::Message(Box::new(message)),
            Err(_) => match serde_json::from_slice(line) {
                Ok(value) => message(value),
                Err(error) => Read::Noise(error.to_string()),
            },
        }],
    }
}

fn message<Role: ServiceRole>(value: Value) -> Read<Role>
where
    RxJsonRpcMessage<Role>: DeserializeOwned,
{
    let id = value.get("id").and_then(|id| serde_json::from_value(id.clone()).ok());
    match serde_json::from_value(value) {
        Ok(message) => Read::Message(Box::new(message)),
        Err(error) => Read::Odd(id, format!("this is no JSON-RPC message: {error}")),
    }
}

/// The id of a message of which only both ends are known. It is a member of the whole message if
/// it stands at one of them, where writers put it.
fn id_at_ends(head: &[u8], tail: &[u8]) -> Option<RequestId> {
    let plain = |bytes: &[u8]| -> String {
        String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_whitespace()).collect()
    };
    let (head, tail) = (plain(head), plain(tail));
    let version = "\"jsonrpc\":\"2.0\"";
    let first = head.strip_prefix('{').unwrap_or_default();
    let first = first.strip_prefix(version).and_then(|rest| rest.strip_prefix(',')).unwrap_or(first);
    let last = tail.strip_suffix('}').unwrap_or_default();
    let last = last.strip_suffix(version).and_then(|rest| rest.strip_suffix(',')).unwrap_or(last);
    let first = first.strip_prefix("\"id\":").and_then(|rest| rest.split(',').next());
    let last = last.rsplit_once(",\"id\":").map(|(_, id)| id);
    first.into_iter().chain(last).find_map(|id| serde_json::from_str(id).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_long_message_is_at_one_of_its_ends() {
        let number = |id| Some(RequestId::Number(id));
        assert_eq!(id_at_ends(br#"{"jsonrpc": "2.0", "id": 7, "result": {"id": 3"#, b""), number(7));
        assert_eq!(id_at_ends(br#"{"id":7,"jsonrpc":"2.0","result":"#, b""), number(7));
        assert_eq!(id_at_ends(br#"{"result":{"id":3,"#, br#""x"]},"jsonrpc":"2.0","id":8}"#), number(8));
        assert_eq!(id_at_ends(br#"{"result":{"#, br#""x"]},"id":9,"jsonrpc":"2.0"}"#), number(9));
        let text = Some(RequestId::String("a".into()));
        assert_eq!(id_at_ends(br#"{"id":"a","#, b""), text);
        // One of something inside is nobody's.
        assert_eq!(id_at_ends(br#"{"result":{"id":3,"#, br#"[{"x":1,"id":4}]}"#), None);
        assert_eq!(id_at_ends(br#"{"result":{"x"#, br#"{"x":1,"id":4}}"#), None);
    }
}
