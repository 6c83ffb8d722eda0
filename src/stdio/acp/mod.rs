//! The Agent Client Protocol: omni as the agent of an editor.
//!
//! What the editor asks is answered by tasks of our own, so that nothing it does can stop a turn
//! but its word, and what is said in a session is stored whether or not anybody is there to read it.
//! The first answer needs neither Python nor the network, and so does a new session.

mod buffers;
mod choice;
mod desk;
pub mod http;
mod prompt;
mod show;
mod turn;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_client_protocol::schema::ProtocolVersion;
use agent_client_protocol::v1::schema::{self, SessionNotification, SessionUpdate};
use agent_client_protocol::v1::{ConnectionTo, Responder};
use agent_client_protocol::{
    Agent, Client, ConnectTo, Error, ErrorCode, JsonRpcResponse, Lines, on_receive_notification,
    on_receive_request,
};
use async_trait::async_trait;
use futures::{SinkExt, TryStreamExt};
use serde_json::{Map, Value};
use tokio_util::codec::{FramedRead, FramedWrite, LinesCodec, LinesCodecError};

use crate::hub::Hub;
use crate::session::Sessions;
use crate::tool::Toolbox;
pub use choice::Offered;
use desk::{Desk, Opened};

/// Bytes of one message; a picture may be in it.
const LONGEST: usize = 32 << 20;

/// What sessions are played with: the rest of the program.
#[async_trait]
pub trait House: Send + Sync {
    /// The sessions there are.
    async fn sessions(&self) -> Result<Sessions, String>;
    /// The folder that counts as workspace in this one.
    fn workspace(&self, folder: &Path) -> Result<PathBuf, String>;
    /// Whether there is a model to talk to; the error says how to come to one.
    async fn ready(&self) -> Result<(), String>;
    /// The models one may choose from there; the first is used if none is chosen.
    async fn models(&self, place: &Place) -> Result<Vec<Offered>, String>;
    /// The tools there.
    async fn toolbox(&self, place: &Place) -> Result<Arc<Toolbox>, String>;
    /// What should be there and is not, each in a sentence.
    async fn missing(&self, place: &Place) -> Vec<String>;
    /// The hub that plays the turns there.
    async fn hub(&self, place: &Place) -> Result<Arc<Hub>, String>;
}

/// What a session is played with.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// The folder it works in.
    pub folder: PathBuf,
    /// MCP servers that the editor has handed over, as `mcp.json` would describe them.
    pub servers: Map<String, Value>,
    /// The model that was chosen, if one was.
    pub model: Option<String>,
    /// How much it is to think, if that was chosen: as `model.effort`.
    pub effort: Option<String>,
}

/// Serves an editor until it is gone.
pub async fn serve(house: Arc<dyn House>, input: File, output: File) -> Result<(), String> {
    let desk = Arc::new(Desk::new(house));
    let codec = || LinesCodec::new_with_max_length(LONGEST);
    let input = FramedRead::new(tokio::fs::File::from_std(input), codec()).map_err(unframed);
    let output = FramedWrite::new(tokio::fs::File::from_std(output), codec());
    let output = SinkExt::<String>::sink_map_err(output, unframed);
    let served = connect(&desk, Lines::new(output, input)).await;
    desk.leave();
    served.map_err(|error| error.message)
}

fn unframed(error: LinesCodecError) -> io::Error {
    match error {
        LinesCodecError::Io(error) => error,
        LinesCodecError::MaxLineLengthExceeded => {
            io::Error::new(io::ErrorKind::InvalidData, format!("a message is longer than {LONGEST} bytes"))
        }
    }
}

/// One handler for each method: what is advertised in [`desk::Desk::initialize`] is here.
async fn connect(desk: &Arc<Desk>, editor: impl ConnectTo<Agent> + 'static) -> Result<(), Error> {
    use schema::{
        AuthenticateRequest, CancelNotification, CloseSessionRequest, DeleteSessionRequest,
        InitializeRequest, ListSessionsRequest, LoadSessionRequest, NewSessionRequest, PromptRequest,
        ResumeSessionRequest, SetSessionConfigOptionRequest, SetSessionModeRequest,
    };
    let [initialize, enter, new, load, resume, list, delete, close, mode, option, prompt, cancel] =
        std::array::from_fn(|_| desk.clone());
    Agent
        .v1()
        .name("omni")
        .on_receive_request(
            async move |request: InitializeRequest, responder, _| {
                responder.respond(initialize.initialize(&request))
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: AuthenticateRequest, responder, _| {
                let desk = enter.clone();
                answer(responder, async move { desk.authenticate(request).await })
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: NewSessionRequest, responder, cx| {
                let desk = new.clone();
                begin(responder, cx, async move { desk.create(request).await })
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: LoadSessionRequest, responder, cx: ConnectionTo<Client>| {
                let (desk, to) = (load.clone(), cx.clone());
                begin(responder, cx, async move { desk.load(request, &to).await })
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: ResumeSessionRequest, responder, cx| {
                let desk = resume.clone();
                begin(responder, cx, async move { desk.resume(request).await })
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: ListSessionsRequest, responder, _| {
                let desk = list.clone();
                answer(responder, async move { desk.list(request).await })
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: DeleteSessionRequest, responder, _| {
                let desk = delete.clone();
                answer(responder, async move { desk.delete(&request.session_id.0).await })
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: CloseSessionRequest, responder, _| {
                close.close(&request.session_id.0);
                responder.respond(schema::CloseSessionResponse::new())
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: SetSessionModeRequest, responder, cx| {
                responder.respond_with_result(mode.set_mode(&request, &cx))
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: SetSessionConfigOptionRequest, responder, cx| {
                let desk = option.clone();
                answer(responder, async move { desk.set_option(&request, &cx).await })
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |request: PromptRequest, responder: Responder<schema::PromptResponse>, cx| {
                let (desk, gone) = (prompt.clone(), responder.cancellation());
                // From here on a word to cancel means this prompt too.
                let session = desk.find(&request.session_id.0);
                answer(responder, async move {
                    let session = session?;
                    turn::play(&desk, &session, request.prompt, &cx, gone).await
                })
            },
            on_receive_request!(),
        )
        .on_receive_notification(
            async move |notification: CancelNotification, _| {
                cancel.cancel(&notification.session_id.0);
                Ok(())
            },
            on_receive_notification!(),
        )
        .connect_to(editor)
        .await
}

/// Answers from a task of its own: the next message is read meanwhile.
fn answer<T: JsonRpcResponse + Send + 'static>(
    responder: Responder<T>,
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<(), Error> {
    tokio::spawn(async move {
        if let Err(error) = responder.respond_with_result(work.await) {
            tracing::debug!("an answer was not wanted any more: {}", error.message);
        }
    });
    Ok(())
}

/// The same where a session begins: it is told what may be typed in it.
fn begin<T: JsonRpcResponse + Send + 'static>(
    responder: Responder<T>,
    cx: ConnectionTo<Client>,
    work: impl Future<Output = Result<(T, Arc<Opened>), Error>> + Send + 'static,
) -> Result<(), Error> {
    tokio::spawn(async move {
        match work.await {
            Ok((response, session)) => {
                if responder.respond(response).is_ok() {
                    say(&cx, &session.id, show::commands());
                }
            }
            Err(error) => drop(responder.respond_with_error(error)),
        }
    });
    Ok(())
}

/// Tells the editor something about a session. Where it is gone there is nobody to tell.
fn say(cx: &ConnectionTo<Client>, session: &str, update: SessionUpdate) {
    if let Err(error) = cx.send_notification(SessionNotification::new(session.to_owned(), update)) {
        tracing::debug!("nobody hears of session `{session}`: {}", error.message);
    }
}

/// The version of the protocol that is spoken.
const VERSION: ProtocolVersion = ProtocolVersion::V1;

fn failed(message: impl ToString) -> Error {
    Error::new(ErrorCode::INTERNAL_ERROR, message.to_string())
}

fn invalid(message: impl ToString) -> Error {
    Error::new(ErrorCode::INVALID_PARAMS, message.to_string())
}
