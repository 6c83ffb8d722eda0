//! Telegram's Bot API on a free port of this machine: it keeps chats, checks every call, and misbehaves.
//!
//! A call has to be one that the Bot API knows: its parameters are read with the types made from the
//! official description, and nothing may be left over. Texts and what stands out in them keep to the
//! documented rules, and so does the number of messages in a second. What breaks a rule is refused as
//! Telegram would, and kept in [`Bot::wrongs`] for the test to look at.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, Uri};
use frankenstein::methods::{
    AnswerCallbackQueryParams, DeleteMessageParams, DeleteWebhookParams, EditMessageReplyMarkupParams,
    EditMessageTextParams, GetFileParams, GetUpdatesParams, SendChatActionParams, SendDocumentParams,
    SendMessageDraftParams, SendMessageParams, SendPhotoParams, SetMyCommandsParams, SetWebhookParams,
};
use frankenstein::types::{AllowedUpdate, ChatId, MessageEntity, MessageEntityType, ReplyParameters};
use frankenstein::updates::Update;
use futures::stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, oneshot};

pub const TOKEN: &str = "424242:AAtest-token_that_is_secret";
pub const NAME: &str = "omni_test_bot";
pub const ID: i64 = 424_242;

/// The server. It stops when dropped.
pub struct Bot {
    address: std::net::SocketAddr,
    desk: Arc<Desk>,
    _stop: oneshot::Sender<()>,
}

#[derive(Default)]
struct Desk {
    world: Mutex<World>,
    news: Notify,
}

#[derive(Default)]
struct World {
    next_update: i64,
    updates: VecDeque<Value>,
    acknowledged: VecDeque<Value>,
    numbers: HashMap<String, i64>,
    chats: BTreeMap<i64, Chat>,
    files: HashMap<String, Vec<u8>>,
    calls: Vec<Call>,
    answered: Vec<(String, String)>,
    faults: Vec<(String, Fault)>,
    wrongs: Vec<String>,
    spoken: VecDeque<Instant>,
    webhook: String,
    wanted: Vec<AllowedUpdate>,
    busiest: usize,
    twice: bool,
    polls: usize,
}

/// A chat as the people in it see it.
#[derive(Default, Clone)]
struct Chat {
    kind: String,
    title: String,
    topics: HashSet<i32>,
    messages: BTreeMap<i64, Message>,
    drafts: Vec<String>,
    typed: usize,
    spoken: VecDeque<Instant>,
    drafted: Option<Instant>,
    gone: Option<i64>,
}

/// A message in a chat.
#[derive(Debug, Clone)]
pub struct Message {
    pub id: i64,
    /// Who: the bot itself, or somebody's name.
    pub from: String,
    pub text: String,
    pub entities: Vec<MessageEntity>,
    /// Text and data of the buttons.
    pub buttons: Vec<(String, String)>,
    markup: Value,
    pub reply: Option<i64>,
    pub thread: Option<i32>,
    pub file: Option<(String, Vec<u8>)>,
    pub edits: usize,
}

/// A call that came in.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: String,
    pub parameters: Value,
}

/// What goes wrong with a call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is taken and never answered.
    Hang,
    /// It is done, and the line breaks before the answer.
    Lost,
    /// The line breaks in the middle of an answer to something that was not done.
    Half,
    /// A page of something in between, though nothing was done.
    Page(u16),
    /// The same, though it was done.
    PageAfter(u16),
    /// A no.
    Refuse(u16, &'static str, Option<u16>),
    /// The answer comes byte by byte, with this pause.
    Drip(Duration),
    /// It is done after a while.
    Late(Duration),
    /// It is done at once, and answered after a while.
    LateAnswer(Duration),
}

impl Bot {
    /// Starts one.
    pub fn launch() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let desk = Arc::<Desk>::default();
        desk.lock().next_update = 1000;
        let (stop, stopped) = oneshot::channel();
        let state = desk.clone();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
                let router = Router::new()
                    .fallback(serve)
                    .layer(axum::extract::DefaultBodyLimit::max(64 << 20))
                    .with_state(state);
                tokio::select! {
                    _ = axum::serve(listener, router) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, desk, _stop: stop }
    }

    /// What `telegram.server` would be.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The port it listens at.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.desk.lock()
    }

    /// Somebody says something in a private chat; returns the message's number.
    pub fn say(&self, user: (i64, &str), text: &str) -> i64 {
        self.lock().private(user);
        self.tell(user.0, user, json!({ "text": text, "entities": marks(text) }))
    }

    /// Somebody says something in a group.
    pub fn say_in(&self, group: i64, user: (i64, &str), text: &str) -> i64 {
        self.tell(group, user, json!({ "text": text, "entities": marks(text) }))
    }

    /// A message with whatever is in it.
    pub fn tell(&self, chat: i64, user: (i64, &str), content: Value) -> i64 {
        let id = self.lock().hear(chat, user, content);
        self.desk.news.notify_waiters();
        id
    }

    /// A group.
    pub fn group(&self, id: i64, title: &str) {
        let kind = if id <= -1_000_000_000_000 { "supergroup" } else { "group" };
        let chat = Chat { kind: kind.to_owned(), title: title.to_owned(), ..Chat::default() };
        self.lock().chats.insert(id, chat);
    }

    /// A topic in a group.
    pub fn topic(&self, group: i64, thread: i32) {
        self.lock().chats.get_mut(&group).expect("a group").topics.insert(thread);
    }

    /// The group is another one now.
    pub fn migrate(&self, from: i64, to: i64) {
        let mut world = self.lock();
        let mut chat = world.chats[&from].clone();
        chat.kind = "supergroup".to_owned();
        chat.messages.clear();
        world.chats.insert(to, chat);
        world.chats.get_mut(&from).expect("a group").gone = Some(to);
    }

    /// A file that can be got.
    pub fn file(&self, id: &str, bytes: &[u8]) {
        self.lock().files.insert(id.to_owned(), bytes.to_vec());
    }

    /// Somebody presses a button.
    pub fn press(&self, user: (i64, &str), chat: i64, message: i64, data: &str) {
        let mut world = self.lock();
        let at = world.shown(chat, message);
        let id = format!("press{}", world.next_update);
        world.update(json!({ "callback_query": {
            "id": id, "from": person(user), "message": at, "chat_instance": "1", "data": data,
        }}));
        drop(world);
        self.desk.news.notify_waiters();
    }

    /// Somebody presses the button of this name under the last message that has one.
    pub fn press_named(&self, user: (i64, &str), chat: i64, name: &str) {
        let messages = self.messages(chat);
        let found = messages.iter().rev().find_map(|message| {
            let (_, data) = message.buttons.iter().find(|(text, _)| text.contains(name))?;
            Some((message.id, data.clone()))
        });
        let (message, data) = found.unwrap_or_else(|| panic!("no button `{name}` in {messages:#?}"));
        self.press(user, chat, message, &data);
    }

    /// Somebody puts a reaction on a message, which is told to those alone who have asked for it.
    pub fn react(&self, user: (i64, &str), chat: i64, message: i64, emoji: &str) {
        let mut world = self.lock();
        if !world.wanted.contains(&AllowedUpdate::MessageReaction) {
            return;
        }
        let described = world.described(chat);
        world.update(json!({ "message_reaction": {
            "chat": described, "message_id": message, "user": person(user), "date": 1,
            "old_reaction": [], "new_reaction": [{ "type": "emoji", "emoji": emoji }],
        }}));
        drop(world);
        self.desk.news.notify_waiters();
    }

    /// Somebody writes a message of theirs anew.
    pub fn correct(&self, user: (i64, &str), chat: i64, message: i64, text: &str) {
        let mut world = self.lock();
        let mut edited = world.shown(chat, message);
        edited["from"] = person(user);
        edited["edit_date"] = 1_700_000_001.into();
        edited["text"] = text.into();
        edited["entities"] = marks(text);
        let known = world.chats.get_mut(&chat).and_then(|chat| chat.messages.get_mut(&message));
        known.expect("a message").text = text.to_owned();
        world.update(json!({ "edited_message": edited }));
        drop(world);
        self.desk.news.notify_waiters();
    }

    /// A message is gone: somebody who may has deleted it.
    pub fn erase(&self, chat: i64, message: i64) {
        let mut world = self.lock();
        world.chats.get_mut(&chat).expect("a chat").messages.remove(&message).expect("a message");
    }

    /// An update as it stands, even one that no type knows.
    pub fn update(&self, update: Value) {
        self.lock().push(update);
        self.desk.news.notify_waiters();
    }

    /// The next call of a method goes wrong; `*` for any.
    pub fn fault(&self, method: &str, fault: Fault) {
        self.lock().faults.push((method.to_owned(), fault));
    }

    /// Nothing goes wrong any more.
    pub fn forgive(&self) {
        self.lock().faults.clear();
    }

    /// Every update is handed out again after it was acknowledged.
    pub fn repeats(&self) {
        self.lock().twice = true;
    }

    /// A webhook is set.
    pub fn hook(&self, url: &str) {
        self.lock().webhook = url.to_owned();
    }

    /// The messages of a chat.
    pub fn messages(&self, chat: i64) -> Vec<Message> {
        self.lock().chats.get(&chat).map(|chat| chat.messages.values().cloned().collect()).unwrap_or_default()
    }

    /// What the bot has said in a chat.
    pub fn said(&self, chat: i64) -> Vec<Message> {
        self.messages(chat).into_iter().filter(|message| message.from == "omni").collect()
    }

    /// The drafts that were shown in a chat.
    pub fn drafts(&self, chat: i64) -> Vec<String> {
        self.lock().chats.get(&chat).map(|chat| chat.drafts.clone()).unwrap_or_default()
    }

    /// How often a chat was shown that somebody writes.
    pub fn typed(&self, chat: i64) -> usize {
        self.lock().chats.get(&chat).map_or(0, |chat| chat.typed)
    }

    /// What was told to those who pressed buttons.
    pub fn answered(&self) -> Vec<(String, String)> {
        self.lock().answered.clone()
    }

    /// The calls of a method.
    pub fn calls(&self, method: &str) -> Vec<Call> {
        self.lock().calls.iter().filter(|call| call.method == method).cloned().collect()
    }

    /// The most that was said in one second.
    pub fn busiest(&self) -> usize {
        self.lock().busiest
    }

    /// How many calls of a method there were.
    pub fn count(&self, method: &str) -> usize {
        self.lock().calls.iter().filter(|call| call.method == method).count()
    }

    /// How often it was asked for updates.
    pub fn polls(&self) -> usize {
        self.lock().polls
    }

    /// What broke a rule.
    pub fn wrongs(&self) -> Vec<String> {
        self.lock().wrongs.clone()
    }

    /// Waits, with a bound, until there is something.
    #[track_caller]
    pub fn until<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "{what} never came; wrong: {:#?}", self.wrongs());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the bot has said this in a chat.
    #[track_caller]
    pub fn hears(&self, chat: i64, words: &str) -> Message {
        self.until(&format!("`{words}` (in {:#?})", self.transcript(chat)), |bot| {
            bot.said(chat).into_iter().rev().find(|message| message.text.contains(words))
        })
    }

    /// A chat as one reads it.
    pub fn transcript(&self, chat: i64) -> Vec<String> {
        let line = |message: &Message| {
            let reply = message.reply.map(|reply| format!(" (to {})", self.line_of(chat, reply)));
            let file = message.file.as_ref().map(|(name, _)| format!(" [{name}]"));
            let buttons: Vec<_> = message.buttons.iter().map(|(text, _)| format!("[{text}]")).collect();
            let buttons = if buttons.is_empty() { String::new() } else { format!(" {}", buttons.join(" ")) };
            let thread = message.thread.map(|thread| format!(" #{thread}"));
            format!(
                "{}{}{}: {}{}{buttons}",
                message.from,
                thread.unwrap_or_default(),
                reply.unwrap_or_default(),
                message.text.replace('\n', " / "),
                file.unwrap_or_default()
            )
        };
        self.messages(chat).iter().map(line).collect()
    }

    fn line_of(&self, chat: i64, message: i64) -> String {
        let text = self.lock().chats[&chat].messages.get(&message).map(|message| message.text.clone());
        text.map_or("?".to_owned(), |text| text.chars().take(20).collect())
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no panic while held")
    }
}

fn person((id, name): (i64, &str)) -> Value {
    json!({ "id": id, "is_bot": false, "first_name": name })
}

/// What Telegram marks in a text by itself: commands and names.
fn marks(text: &str) -> Value {
    let mut marks = Vec::new();
    let mut offset = 0;
    for word in text.split_inclusive(char::is_whitespace) {
        let length = word.trim_end().encode_utf16().count();
        let kind = match word.chars().next() {
            Some('/') if length > 1 => Some("bot_command"),
            Some('@') if length > 1 => Some("mention"),
            _ => None,
        };
        if let Some(kind) = kind {
            let length = word.trim_end().trim_end_matches([',', ':', '?']).encode_utf16().count();
            marks.push(json!({ "type": kind, "offset": offset, "length": length }));
        }
        offset += word.encode_utf16().count();
    }
    marks.into()
}

impl World {
    fn private(&mut self, (id, name): (i64, &str)) {
        let chat = || Chat { kind: "private".to_owned(), title: name.to_owned(), ..Chat::default() };
        self.chats.entry(id).or_insert_with(chat);
    }

    fn described(&self, chat: i64) -> Value {
        let Chat { kind, title, topics, .. } = &self.chats[&chat];
        match kind.as_str() {
            "private" => json!({ "id": chat, "type": kind, "first_name": title }),
            _ => json!({ "id": chat, "type": kind, "title": title, "is_forum": !topics.is_empty() }),
        }
    }

    /// The next number of a message: supergroups have their own, all other chats share one.
    fn number(&mut self, chat: i64) -> i64 {
        let place = if chat <= -1_000_000_000_000 { chat.to_string() } else { String::new() };
        let number = self.numbers.entry(place).or_insert(0);
        *number += 1;
        *number
    }

    /// An update as Telegram would send it.
    fn update(&mut self, update: Value) {
        let update = self.push(update);
        serde_json::from_value::<Update>(update.clone())
            .unwrap_or_else(|error| panic!("{error} in {update}"));
    }

    fn push(&mut self, mut update: Value) -> Value {
        update["update_id"] = self.next_update.into();
        self.next_update += 1;
        self.updates.push_back(update.clone());
        update
    }

    fn hear(&mut self, chat: i64, user: (i64, &str), mut content: Value) -> i64 {
        let id = self.number(chat);
        content["message_id"] = id.into();
        content["date"] = 1_700_000_000.into();
        content["from"] = person(user);
        content["chat"] = self.described(chat);
        let text = content["text"].as_str().or(content["caption"].as_str()).unwrap_or("(a file)").to_owned();
        let thread = content["message_thread_id"].as_i64().map(|thread| thread as i32);
        if thread.is_some() {
            content["is_topic_message"] = true.into();
        }
        if let Some(reply) = content["reply_to_message"].as_i64() {
            content["reply_to_message"] = self.shown(chat, reply);
        }
        let message = Message {
            id,
            from: user.1.to_owned(),
            text,
            entities: Vec::new(),
            buttons: Vec::new(),
            markup: Value::Null,
            reply: None,
            thread,
            file: None,
            edits: 0,
        };
        self.chats.get_mut(&chat).expect("a chat").messages.insert(id, message);
        self.update(json!({ "message": content }));
        id
    }

    /// A message as the Bot API describes it.
    fn shown(&self, chat: i64, message: i64) -> Value {
        let of_ours = json!({ "id": ID, "is_bot": true, "first_name": "omni", "username": NAME });
        let Some(known) = self.chats[&chat].messages.get(&message) else { return Value::Null };
        let from = if known.from == "omni" { of_ours } else { person((1, &known.from)) };
        let mut shown = json!({
            "message_id": message, "date": 1_700_000_000, "chat": self.described(chat), "from": from, "text": known.text,
        });
        if let Some(thread) = known.thread {
            shown["message_thread_id"] = thread.into();
            shown["is_topic_message"] = true.into();
        }
        shown
    }
}

/// A no, as the Bot API says it.
struct No(u16, String, Option<u16>, Option<i64>);

fn bad(reason: impl Into<String>) -> No {
    No(400, format!("Bad Request: {}", reason.into()), None, None)
}

async fn serve(State(desk): State<Arc<Desk>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let path = uri.path();
    if let Some(file) = path.strip_prefix(&format!("/file/bot{TOKEN}/")) {
        let bytes = desk.lock().files.get(file.trim_start_matches("files/")).cloned();
        return match bytes {
            Some(bytes) => Response::new(Body::from(bytes)),
            None => page(404, "no such file".to_owned()),
        };
    }
    let Some(method) = path.strip_prefix(&format!("/bot{TOKEN}/")).map(str::to_owned) else {
        return refused(No(401, "Unauthorized".to_owned(), None, None));
    };
    let parameters = parameters(&headers, &body);
    let fault = {
        let mut world = desk.lock();
        if method == "getUpdates" {
            world.polls += 1;
        }
        world.calls.push(Call { method: method.clone(), parameters: parameters.clone() });
        let found = world.faults.iter().position(|(name, _)| *name == method || name == "*");
        found.map(|place| world.faults.remove(place).1)
    };
    match fault {
        None => told(answer(&desk, &method, parameters).await),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Lost) => {
            let _ = answer(&desk, &method, parameters).await;
            broken("")
        }
        Some(Fault::Half) => broken("{\"ok\":true,\"resu"),
        Some(Fault::Page(status)) => {
            page(status, "<html><body><h1>Bad Gateway</h1></body></html>".to_owned())
        }
        Some(Fault::PageAfter(status)) => {
            let _ = answer(&desk, &method, parameters).await;
            page(status, "<html><body><h1>Bad Gateway</h1></body></html>".to_owned())
        }
        Some(Fault::Refuse(code, reason, after)) => refused(No(code, reason.to_owned(), after, None)),
        Some(Fault::Drip(pause)) => {
            let answer = answer(&desk, &method, parameters).await;
            let text = spelled(&answer).1;
            let bytes: Vec<u8> = text.into_bytes();
            let drops = stream::unfold(bytes.into_iter(), move |mut bytes| async move {
                tokio::time::sleep(pause).await;
                bytes.next().map(|byte| (Ok::<_, std::io::Error>(vec![byte]), bytes))
            });
            Response::new(Body::from_stream(drops))
        }
        Some(Fault::LateAnswer(pause)) => {
            let answer = answer(&desk, &method, parameters).await;
            tokio::time::sleep(pause).await;
            told(answer)
        }
        Some(Fault::Late(pause)) => {
            // Whoever has asked may be gone by then.
            let done = tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                answer(&desk, &method, parameters).await
            });
            told(done.await.expect("no panic"))
        }
    }
}

/// An answer that breaks off after this.
fn broken(beginning: &'static str) -> Response<Body> {
    let pieces = [Ok(beginning), Err(std::io::Error::other("the line breaks"))];
    Response::builder()
        .header("content-length", 4096)
        .body(Body::from_stream(stream::iter(pieces)))
        .expect("a response")
}

fn page(status: u16, text: String) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("content-type", "text/html")
        .body(Body::from(text))
        .expect("a response")
}

fn spelled(answer: &Result<Value, No>) -> (u16, String) {
    match answer {
        Ok(result) => (200, json!({ "ok": true, "result": result }).to_string()),
        Err(No(code, reason, after, moved)) => {
            let mut parameters = Map::new();
            parameters.extend(after.map(|after| ("retry_after".to_owned(), after.into())));
            parameters.extend(moved.map(|moved| ("migrate_to_chat_id".to_owned(), moved.into())));
            let mut body = json!({ "ok": false, "error_code": code, "description": reason });
            if !parameters.is_empty() {
                body["parameters"] = parameters.into();
            }
            (*code, body.to_string())
        }
    }
}

fn told(answer: Result<Value, No>) -> Response<Body> {
    let (status, text) = spelled(&answer);
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Body::from(text)).expect("a response")
}

fn refused(no: No) -> Response<Body> {
    told(Err(no))
}

/// The parameters of a call: JSON, or a form with files, which are told by name and length.
fn parameters(headers: &HeaderMap, body: &[u8]) -> Value {
    let kind = headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let Some(boundary) = kind.strip_prefix("multipart/form-data; boundary=") else {
        return serde_json::from_slice(body).unwrap_or(Value::Null);
    };
    let mark = format!("--{boundary}").into_bytes();
    let starts: Vec<usize> = (0..body.len().saturating_sub(mark.len() - 1))
        .filter(|place| body[*place..].starts_with(&mark))
        .collect();
    let mut fields = Map::new();
    for pair in starts.windows(2) {
        let part = &body[pair[0] + mark.len() + 2..pair[1] - 2];
        let end = part.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
        let (head, content) = (String::from_utf8_lossy(&part[..end]).into_owned(), &part[end + 4..]);
        let quoted = |name: &str| {
            head.split(&format!("{name}=\""))
                .nth(1)
                .and_then(|rest| rest.split('"').next())
                .map(str::to_owned)
        };
        let name = quoted(" name").expect("a field has a name");
        let value = match quoted("filename") {
            Some(file) => json!({ "name": file, "bytes": content }),
            None => String::from_utf8_lossy(content).into_owned().into(),
        };
        fields.insert(name, value);
    }
    fields.into()
}

async fn answer(desk: &Arc<Desk>, method: &str, parameters: Value) -> Result<Value, No> {
    if method == "getUpdates" {
        return updates(desk, parameters).await;
    }
    let mut world = desk.lock();
    let answer = world.done(method, &parameters);
    if let Err(No(code, reason, ..)) = &answer {
        // A search for a lost message meets these by its nature.
        let searched = method == "editMessageReplyMarkup" && *code == 400;
        if !searched && !reason.contains("not modified") && *code != 403 && !reason.contains("upgraded") {
            world.wrongs.push(format!("{method}: {reason} in {parameters}"));
        }
    }
    answer
}

async fn updates(desk: &Arc<Desk>, parameters: Value) -> Result<Value, No> {
    let asked: GetUpdatesParams = read(&parameters)?;
    let deadline = Instant::now() + Duration::from_secs(asked.timeout.unwrap_or(0).into());
    let round = {
        let mut world = desk.lock();
        // What it asked for before stays so.
        if let Some(wanted) = asked.allowed_updates {
            world.wanted = wanted;
        }
        if !world.webhook.is_empty() {
            let reason = "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first";
            return Err(No(409, reason.to_owned(), None, None));
        }
        world.polls
    };
    loop {
        let news = desk.news.notified();
        {
            let mut world = desk.lock();
            if world.polls != round {
                let reason = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running";
                return Err(No(409, reason.to_owned(), None, None));
            }
            let offset = asked.offset.unwrap_or(0);
            while world.updates.front().is_some_and(|update| update["update_id"].as_i64() < Some(offset)) {
                let update = world.updates.pop_front().expect("there is one");
                if world.twice {
                    world.acknowledged.push_back(update);
                }
            }
            let mut found: Vec<Value> = world.acknowledged.drain(..).collect();
            let limit = asked.limit.unwrap_or(100) as usize;
            found.extend(world.updates.iter().take(limit).cloned());
            if !found.is_empty() || Instant::now() >= deadline {
                return Ok(found.into());
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let _ = tokio::time::timeout(left.min(Duration::from_millis(200)), news).await;
    }
}

/// Parameters as the types of the Bot API read them; nothing may be left over.
fn read<P: DeserializeOwned + Serialize>(parameters: &Value) -> Result<P, No> {
    let read: P =
        serde_json::from_value(parameters.clone()).map_err(|error| bad(format!("unreadable: {error}")))?;
    let again = serde_json::to_value(&read).expect("parameters are JSON");
    match again == *parameters {
        true => Ok(read),
        false => Err(bad(format!("something is not known: {parameters} was read as {again}"))),
    }
}

fn chat_of(id: &ChatId) -> Result<i64, No> {
    match id {
        ChatId::Integer(id) => Ok(*id),
        ChatId::String(_) => Err(bad("chat not found")),
    }
}

impl World {
    fn done(&mut self, method: &str, parameters: &Value) -> Result<Value, No> {
        match method {
            "getMe" | "getWebhookInfo" if *parameters != json!({}) => Err(bad("this takes no parameters")),
            "getMe" => Ok(json!({ "id": ID, "is_bot": true, "first_name": "omni", "username": NAME })),
            "getWebhookInfo" => Ok(json!({
                "url": self.webhook, "has_custom_certificate": false, "pending_update_count": self.updates.len(),
            })),
            "deleteWebhook" => {
                read::<DeleteWebhookParams>(parameters)?;
                self.webhook.clear();
                Ok(true.into())
            }
            "setWebhook" => {
                let asked: SetWebhookParams = read(parameters)?;
                self.webhook = asked.url;
                self.wanted = asked.allowed_updates.unwrap_or_default();
                Ok(true.into())
            }
            "setMyCommands" => {
                for command in read::<SetMyCommandsParams>(parameters)?.commands {
                    let letter =
                        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
                    let fine =
                        (1..=32).contains(&command.command.len()) && command.command.bytes().all(letter);
                    if !fine || !(1..=256).contains(&command.description.chars().count()) {
                        return Err(bad("BOT_COMMAND_INVALID"));
                    }
                }
                Ok(true.into())
            }
            "sendMessage" => self.send(parameters),
            "editMessageText" => self.edit(parameters),
            "deleteMessage" => self.delete(parameters),
            "editMessageReplyMarkup" => self.mark(parameters),
            "sendMessageDraft" => self.draft(parameters),
            "sendChatAction" => {
                let asked: SendChatActionParams = read(parameters)?;
                let chat = chat_of(&asked.chat_id)?;
                self.here(chat, asked.message_thread_id)?.typed += 1;
                Ok(true.into())
            }
            "answerCallbackQuery" => {
                let asked: AnswerCallbackQueryParams = read(parameters)?;
                let text = asked.text.unwrap_or_default();
                if text.chars().count() > 200 {
                    return Err(bad("MESSAGE_TOO_LONG"));
                }
                self.answered.push((asked.callback_query_id, text));
                Ok(true.into())
            }
            "getFile" => {
                let asked: GetFileParams = read(parameters)?;
                let bytes = self.files.get(&asked.file_id).ok_or_else(|| bad("invalid file_id"))?;
                Ok(json!({
                    "file_id": asked.file_id, "file_unique_id": "u", "file_size": bytes.len(),
                    "file_path": format!("files/{}", asked.file_id),
                }))
            }
            "sendDocument" | "sendPhoto" => self.upload(method, parameters),
            _ => Err(No(404, "Not Found: method not found".to_owned(), None, None)),
        }
    }

    fn here(&mut self, chat: i64, thread: Option<i32>) -> Result<&mut Chat, No> {
        let chat = self.chats.get_mut(&chat).ok_or_else(|| bad("chat not found"))?;
        if let Some(to) = chat.gone {
            let reason = "Bad Request: group chat was upgraded to a supergroup chat";
            return Err(No(400, reason.to_owned(), None, Some(to)));
        }
        match thread {
            Some(thread) if !chat.topics.contains(&thread) => Err(bad("message thread not found")),
            _ => Ok(chat),
        }
    }

    /// Counts something that is said against the limits.
    fn speak(&mut self, chat: i64) -> Result<(), No> {
        let now = Instant::now();
        let within = |spoken: &mut VecDeque<Instant>, span: Duration| {
            while spoken.front().is_some_and(|at| now.duration_since(*at) >= span) {
                spoken.pop_front();
            }
            spoken.len()
        };
        let (most, span) = if chat < 0 { (20, Duration::from_secs(60)) } else { (1, Duration::from_secs(1)) };
        let all = within(&mut self.spoken, Duration::from_secs(1));
        let here = within(&mut self.chats.get_mut(&chat).expect("looked at before").spoken, span);
        if all >= 30 || here >= most {
            return Err(No(429, "Too Many Requests: retry after 1".to_owned(), Some(1), None));
        }
        self.spoken.push_back(now);
        self.busiest = self.busiest.max(self.spoken.len());
        self.chats.get_mut(&chat).expect("looked at before").spoken.push_back(now);
        Ok(())
    }

    /// The message that is answered, if it is still there or need not be.
    fn replied(&self, chat: i64, reply: Option<&ReplyParameters>) -> Result<Option<i64>, No> {
        let answered = reply.and_then(|reply| reply.message_id).map(i64::from);
        let missing = answered.is_some_and(|number| !self.chats[&chat].messages.contains_key(&number));
        match missing && reply.and_then(|reply| reply.allow_sending_without_reply) != Some(true) {
            true => Err(bad("message to be replied not found")),
            false => Ok(answered.filter(|_| !missing)),
        }
    }

    fn send(&mut self, parameters: &Value) -> Result<Value, No> {
        let asked: SendMessageParams = read(parameters)?;
        let chat = chat_of(&asked.chat_id)?;
        self.here(chat, asked.message_thread_id)?;
        let entities = asked.entities.unwrap_or_default();
        check(&asked.text, &entities)?;
        let buttons = buttons(&parameters["reply_markup"])?;
        let reply = self.replied(chat, asked.reply_parameters.as_ref())?;
        self.speak(chat)?;
        let id = self.number(chat);
        let message = Message {
            id,
            from: "omni".to_owned(),
            text: asked.text,
            entities,
            buttons,
            markup: parameters["reply_markup"].clone(),
            reply,
            thread: asked.message_thread_id,
            file: None,
            edits: 0,
        };
        self.chats.get_mut(&chat).expect("looked at before").messages.insert(id, message);
        Ok(self.shown(chat, id))
    }

    fn of_ours(&mut self, chat: i64, message: i64) -> Result<&mut Message, No> {
        let known = self.here(chat, None)?.messages.get_mut(&message);
        match known {
            None => Err(bad("message to edit not found")),
            Some(message) if message.from != "omni" => Err(bad("message can't be edited")),
            Some(message) => Ok(message),
        }
    }

    fn edit(&mut self, parameters: &Value) -> Result<Value, No> {
        let asked: EditMessageTextParams = read(parameters)?;
        let chat = chat_of(&asked.chat_id.ok_or_else(|| bad("message identifier is not specified"))?)?;
        let message = i64::from(asked.message_id.ok_or_else(|| bad("message identifier is not specified"))?);
        let (text, entities) = (asked.text.unwrap_or_default(), asked.entities.unwrap_or_default());
        check(&text, &entities)?;
        let buttons = buttons(&parameters["reply_markup"])?;
        self.of_ours(chat, message)?;
        self.speak(chat)?;
        let known = self.of_ours(chat, message)?;
        if known.text == text && known.entities == entities && known.markup == parameters["reply_markup"] {
            return Err(bad(
                "message is not modified: specified new message content and reply markup are exactly the same",
            ));
        }
        (known.text, known.entities, known.buttons) = (text, entities, buttons);
        known.markup = parameters["reply_markup"].clone();
        known.edits += 1;
        Ok(self.shown(chat, message))
    }

    fn delete(&mut self, parameters: &Value) -> Result<Value, No> {
        let asked: DeleteMessageParams = read(parameters)?;
        let (chat, message) = (chat_of(&asked.chat_id)?, i64::from(asked.message_id));
        let here = self.here(chat, None)?;
        match here.messages.get(&message) {
            None => Err(bad("message to delete not found")),
            // In a private chat it may take away what it hears, too.
            Some(known) if known.from != "omni" && here.kind != "private" => {
                Err(bad("message can't be deleted"))
            }
            Some(_) => {
                here.messages.remove(&message);
                Ok(true.into())
            }
        }
    }

    fn mark(&mut self, parameters: &Value) -> Result<Value, No> {
        let asked: EditMessageReplyMarkupParams = read(parameters)?;
        let chat = chat_of(&asked.chat_id.ok_or_else(|| bad("message identifier is not specified"))?)?;
        let message = i64::from(asked.message_id.ok_or_else(|| bad("message identifier is not specified"))?);
        let buttons = buttons(&parameters["reply_markup"])?;
        let known = self.of_ours(chat, message)?;
        if known.markup == parameters["reply_markup"] {
            return Err(bad(
                "message is not modified: specified new message content and reply markup are exactly the same",
            ));
        }
        known.buttons = buttons;
        known.markup = parameters["reply_markup"].clone();
        Ok(self.shown(chat, message))
    }

    fn draft(&mut self, parameters: &Value) -> Result<Value, No> {
        let asked: SendMessageDraftParams = read(parameters)?;
        let chat = chat_of(&asked.chat_id)?;
        check(&asked.text, &asked.entities.unwrap_or_default())?;
        if asked.draft_id.is_none_or(|draft| draft == 0) {
            return Err(bad("draft_id must be non-zero"));
        }
        let here = self.here(chat, asked.message_thread_id)?;
        if here.kind != "private" {
            return Err(bad("drafts are for private chats"));
        }
        let soon = here.drafted.is_some_and(|at| at.elapsed() < Duration::from_millis(500));
        here.drafted = Some(Instant::now());
        if soon {
            return Err(No(429, "Too Many Requests: retry after 1".to_owned(), Some(1), None));
        }
        here.drafts.push(asked.text);
        Ok(true.into())
    }

    fn upload(&mut self, method: &str, parameters: &Value) -> Result<Value, No> {
        let field = if method == "sendPhoto" { "photo" } else { "document" };
        let (name, bytes) = (parameters[field]["name"].as_str(), parameters[field]["bytes"].as_array());
        let (Some(name), Some(bytes)) = (name, bytes) else {
            return Err(bad("there is no file in the request"));
        };
        let bytes: Vec<u8> = bytes.iter().filter_map(|byte| Some(byte.as_u64()? as u8)).collect();
        if bytes.is_empty() || bytes.len() > 50 << 20 {
            return Err(bad("file must be non-empty, and of 50 MB at most"));
        }
        // A form has texts only; what they mean is JSON.
        let mut meant = parameters.clone();
        for (_, value) in meant.as_object_mut().into_iter().flatten() {
            if let Some(read) = value.as_str().and_then(|text| serde_json::from_str(text).ok()) {
                *value = read;
            }
        }
        meant[field] = name.into();
        let (chat, thread, reply) = if method == "sendPhoto" {
            let asked: SendPhotoParams = read(&meant)?;
            (asked.chat_id, asked.message_thread_id, asked.reply_parameters)
        } else {
            let asked: SendDocumentParams = read(&meant)?;
            (asked.chat_id, asked.message_thread_id, asked.reply_parameters)
        };
        let chat = chat_of(&chat)?;
        self.here(chat, thread)?;
        let reply = self.replied(chat, reply.as_ref())?;
        self.speak(chat)?;
        let id = self.number(chat);
        let message = Message {
            id,
            from: "omni".to_owned(),
            text: String::new(),
            entities: Vec::new(),
            buttons: Vec::new(),
            markup: Value::Null,
            reply,
            thread,
            file: Some((name.to_owned(), bytes)),
            edits: 0,
        };
        self.chats.get_mut(&chat).expect("looked at before").messages.insert(id, message);
        Ok(self.shown(chat, id))
    }
}

fn buttons(markup: &Value) -> Result<Vec<(String, String)>, No> {
    let mut buttons = Vec::new();
    for button in markup["inline_keyboard"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|row| row.as_array().into_iter().flatten())
    {
        let (text, data) = (
            button["text"].as_str().unwrap_or_default(),
            button["callback_data"].as_str().unwrap_or_default(),
        );
        if text.is_empty() || !(1..=64).contains(&data.len()) {
            return Err(bad("BUTTON_DATA_INVALID"));
        }
        buttons.push((text.to_owned(), data.to_owned()));
    }
    Ok(buttons)
}

/// The documented rules for a text and what stands out in it.
pub fn rules(text: &str, entities: &[MessageEntity]) -> Result<(), String> {
    let units: Vec<u16> = text.encode_utf16().collect();
    if text.trim().is_empty() {
        return Err("message text is empty".to_owned());
    }
    if units.len() > 4096 {
        return Err("message is too long".to_owned());
    }
    if text.trim() != text.trim_end() || text.trim_end() != text {
        // Blanks at the beginning and the end are taken off, and places move. In code they stay.
        let led = text.len() - text.trim_start().len();
        let code =
            entities.iter().any(|entity| entity.type_field == MessageEntityType::Pre && entity.offset == 0);
        if text.trim_end() != text || (led > 0 && !code) {
            return Err(format!("blanks around the text {text:?}"));
        }
    }
    let taken = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{2028}'..='\u{202e}' | '\u{030a}' | '\u{0333}' | '\u{033f}')
    };
    if let Some(letter) = text.chars().find(|c| taken(*c)) {
        return Err(format!("{letter:?} is taken out, and places move"));
    }
    if entities.len() > 100 {
        return Err("more than 100 entities".to_owned());
    }
    let span = |entity: &MessageEntity| {
        (usize::from(entity.offset), usize::from(entity.offset) + usize::from(entity.length))
    };
    for entity in entities {
        let (start, end) = span(entity);
        if start >= end || end > units.len() {
            return Err(format!("entity out of the text: {entity:?}"));
        }
        let splits = |place: usize| place < units.len() && (0xdc00..0xe000).contains(&units[place]);
        if splits(start) || splits(end) {
            return Err(format!("entity in the middle of a letter: {entity:?}"));
        }
        let inside = String::from_utf16_lossy(&units[start..end]);
        let is_pre = entity.type_field == MessageEntityType::Pre;
        if inside.trim_end() != inside || (!is_pre && inside.trim_start() != inside) {
            return Err(format!("blanks at the ends of {entity:?}: {inside:?}"));
        }
        if entity.type_field == MessageEntityType::Unknown {
            return Err("unknown entity".to_owned());
        }
        let url = entity.url.as_deref().unwrap_or_default();
        let linked = ["http://", "https://", "tg://", "mailto:"].iter().any(|scheme| url.starts_with(scheme));
        if (entity.type_field == MessageEntityType::TextLink) != linked {
            return Err(format!("a link to {url:?}"));
        }
    }
    for (place, one) in entities.iter().enumerate() {
        for other in &entities[place + 1..] {
            meet(one, other, span(one), span(other))?;
        }
    }
    Ok(())
}

/// Whether two entities may be where they are.
fn meet(
    one: &MessageEntity,
    other: &MessageEntity,
    (start, end): (usize, usize),
    (from, to): (usize, usize),
) -> Result<(), String> {
    use MessageEntityType::{
        Blockquote, Bold, Code, Italic, Pre, Spoiler, Strikethrough, TextLink, Underline,
    };
    if end <= from || to <= start {
        return Ok(());
    }
    let nested = (start <= from && to <= end) || (from <= start && end <= to);
    let is =
        |kinds: &[MessageEntityType]| kinds.contains(&one.type_field) || kinds.contains(&other.type_field);
    let both =
        |kinds: &[MessageEntityType]| kinds.contains(&one.type_field) && kinds.contains(&other.type_field);
    let style = [Bold, Italic, Underline, Strikethrough, Spoiler];
    let wrong = !nested
        || one.type_field == other.type_field
        || (is(&[Code, Pre]) && is(&style))
        || both(&[Code, Pre, TextLink])
        || both(&[Blockquote]);
    if wrong { Err(format!("these cannot be where they are: {one:?} and {other:?}")) } else { Ok(()) }
}

fn check(text: &str, entities: &[MessageEntity]) -> Result<(), No> {
    rules(text, entities).map_err(|reason| bad(format!("can't parse entities: {reason}")))
}
