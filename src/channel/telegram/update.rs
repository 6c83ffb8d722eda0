//! What an update means (pure): who said what, where, and whether it was meant for us.

use frankenstein::types::{
    Chat, ChatType, MaybeInaccessibleMessage, Message, MessageEntity, MessageEntityType, ReactionType, User,
};
use frankenstein::updates::{Update, UpdateContent};

/// Characters of a message that another one answers, which are told with it.
const QUOTE: usize = 500;

/// Who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Me {
    /// Our number.
    pub id: u64,
    /// Our name, without the `@`.
    pub name: String,
}

/// Something that was heard.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// Somebody said something.
    Said(Box<Said>),
    /// A button was pressed.
    Pressed(Pressed),
    /// A message got a thumb: up, or down.
    Judged(Judged),
    /// Somebody has seen enough of an answer that is being written.
    Stopped(Spot),
    /// A group has another number now.
    Moved {
        /// Its old number.
        from: i64,
        /// Its new one.
        to: i64,
    },
}

/// A place where people talk: a chat, or a topic in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spot {
    /// The chat.
    pub chat: i64,
    /// The topic.
    pub thread: Option<i32>,
}

/// A message.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// Where.
    pub spot: Spot,
    /// Whether it is a group.
    pub group: bool,
    /// The name of the group.
    pub title: String,
    /// Who.
    pub user: Person,
    /// Its number in its place.
    pub message: i32,
    /// Its words, without our name in front.
    pub text: String,
    /// Whether it is meant for us.
    pub addressed: bool,
    /// It is for another bot.
    pub foreign: bool,
    /// The command it is, without slash and name of the bot, and what follows.
    pub command: Option<(String, String)>,
    /// The message it answers.
    pub answers: Option<i32>,
    /// What is said there.
    pub quoted: Option<String>,
    /// Its files.
    pub files: Vec<Attached>,
    /// What it was sent together with.
    pub bundle: Option<String>,
}

/// Somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Their number.
    pub id: i64,
    /// What they are called.
    pub name: String,
}

/// A file that came with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// What Telegram calls it.
    pub id: String,
    /// What it is for people: photo, voice, document.
    pub kind: &'static str,
    /// What its sender calls it.
    pub name: Option<String>,
    /// Its media type.
    pub mime: Option<String>,
    /// Its bytes.
    pub size: Option<u64>,
}

/// A button.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pressed {
    /// The number of the press.
    pub id: String,
    /// Who.
    pub user: Person,
    /// What the button is for.
    pub data: String,
    /// The message it is at, if it still is.
    pub at: Option<(Spot, i32)>,
}

/// A thumb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Where.
    pub chat: i64,
    /// Which message.
    pub message: i32,
    /// Whose thumb.
    pub user: i64,
    /// Up?
    pub good: bool,
}

impl Spot {
    /// The conversation of somebody in a group, or of everybody here.
    pub fn lane(self, user: Option<i64>) -> String {
        let thread = self.thread.map(|thread| format!(".{thread}")).unwrap_or_default();
        let user = user.map(|user| format!(".u{user}")).unwrap_or_default();
        format!("{}{thread}{user}", self.chat)
    }

    /// The place of a conversation. What follows a lane, as the time a later session began, is passed over.
    pub fn of_lane(lane: &str) -> Option<Self> {
        let mut parts = lane.split('.');
        let chat = parts.next()?.parse().ok()?;
        Some(Self { chat, thread: parts.next().and_then(|part| part.parse().ok()) })
    }
}

/// The numbering of messages in a chat: supergroups and channels have their own, all else shares one.
pub fn place(chat: i64) -> String {
    if chat <= -1_000_000_000_000 { chat.to_string() } else { String::new() }
}

/// What an update means; `None` for what concerns us not.
pub fn read(update: &Update, me: &Me) -> Option<Heard> {
    match &update.content {
        UpdateContent::Message(message) => match message.migrate_to_chat_id {
            Some(to) => Some(Heard::Moved { from: message.chat.id, to }),
            None => said(message, me).map(|said| Heard::Said(Box::new(said))),
        },
        UpdateContent::CallbackQuery(query) => {
            let at = match &query.message {
                Some(MaybeInaccessibleMessage::Message(message)) => Some((spot(message), message.message_id)),
                Some(MaybeInaccessibleMessage::InaccessibleMessage(message)) => {
                    Some((Spot { chat: message.chat.id, thread: None }, message.message_id))
                }
                None => None,
            };
            let data = query.data.clone()?;
            Some(Heard::Pressed(Pressed { id: query.id.clone(), user: person(&query.from), data, at }))
        }
        UpdateContent::MessageReaction(reaction) => {
            let thumb = reaction.new_reaction.iter().find_map(|reaction| match reaction {
                ReactionType::Emoji(reaction) => match reaction.emoji.as_str() {
                    "👍" | "❤" | "🔥" | "👏" | "🎉" | "💯" => Some(true),
                    "👎" | "💩" | "🤮" => Some(false),
                    _ => None,
                },
                _ => None,
            });
            let user = i64::try_from(reaction.user.as_ref()?.id).ok()?;
            let (chat, message) = (reaction.chat.id, reaction.message_id);
            Some(Heard::Judged(Judged { chat, message, user, good: thumb? }))
        }
        UpdateContent::StoppedMessageGeneration(stopped) => {
            Some(Heard::Stopped(Spot { chat: stopped.chat.id, thread: stopped.message_thread_id }))
        }
        _ => None,
    }
}

fn said(message: &Message, me: &Me) -> Option<Said> {
    let from = message.from.as_deref().filter(|from| !from.is_bot)?;
    let group = matches!(message.chat.type_field, ChatType::Group | ChatType::Supergroup);
    if !group && message.chat.type_field != ChatType::Private {
        return None;
    }
    let text = message.text.as_ref().or(message.caption.as_ref()).cloned().unwrap_or_default();
    let entities = message.entities.as_ref().or(message.caption_entities.as_ref());
    let entities: &[MessageEntity] = entities.map_or(&[], Vec::as_slice);
    let files = files(message);
    let text = if text.is_empty() && files.is_empty() { other(message)? } else { text };

    let (command, addressee) = command(&text, entities);
    let ours = |name: &str| name.eq_ignore_ascii_case(&me.name);
    let foreign = addressee.as_deref().is_some_and(|name| !ours(name));
    let mentioned = entities.iter().any(|entity| match entity.type_field {
        MessageEntityType::Mention => {
            slice(&text, entity).is_some_and(|name| ours(name.trim_start_matches('@')))
        }
        MessageEntityType::TextMention => entity.user.as_ref().is_some_and(|user| user.id == me.id),
        _ => false,
    });
    let reply = message.reply_to_message.as_deref();
    let answers_us =
        reply.and_then(|reply| reply.from.as_deref()).is_some_and(|from| from.id == me.id && from.is_bot);
    let quote = message.quote.as_ref().map(|quote| quote.text.clone());
    // The first message of a topic is what all others of it answer.
    let answered = reply.filter(|reply| reply.forum_topic_created.is_none());
    let quoted = quote.or_else(|| answered.and_then(|reply| reply.text.clone().or(reply.caption.clone())));
    Some(Said {
        spot: spot(message),
        group,
        title: name_of(&message.chat),
        user: person(from),
        message: message.message_id,
        text: without_name(&text, me),
        addressed: !group || (!foreign && (mentioned || answers_us || command.is_some())),
        foreign,
        command,
        answers: answered.map(|answered| answered.message_id),
        quoted: quoted.map(|quoted| quoted.chars().take(QUOTE).collect()),
        files,
        bundle: message.media_group_id.clone(),
    })
}

fn spot(message: &Message) -> Spot {
    // Answers in a group without topics are threads, too.
    let thread = message.message_thread_id.filter(|_| message.is_topic_message == Some(true));
    Spot { chat: message.chat.id, thread }
}

fn person(user: &User) -> Person {
    let last = user.last_name.as_deref().map(|last| format!(" {last}")).unwrap_or_default();
    Person { id: i64::try_from(user.id).unwrap_or(0), name: format!("{}{last}", user.first_name) }
}

fn name_of(chat: &Chat) -> String {
    chat.title.clone().or_else(|| chat.first_name.clone()).unwrap_or_default()
}

/// The command that a message begins with, what follows it, and the bot it names.
fn command(text: &str, entities: &[MessageEntity]) -> (Option<(String, String)>, Option<String>) {
    let first = entities.iter().find(|entity| entity.offset == 0);
    let is_command = first.is_some_and(|entity| entity.type_field == MessageEntityType::BotCommand);
    if !is_command {
        return (None, None);
    }
    let word = text.split_whitespace().next().unwrap_or_default();
    let rest = text[word.len()..].trim().to_owned();
    let word = word.trim_start_matches('/');
    let (name, bot) = word.split_once('@').map_or((word, None), |(name, bot)| (name, Some(bot.to_owned())));
    (Some((name.to_lowercase(), rest)), bot)
}

/// The text of an entity.
fn slice(text: &str, entity: &MessageEntity) -> Option<String> {
    let units: Vec<u16> = text.encode_utf16().collect();
    let start = usize::from(entity.offset);
    String::from_utf16(units.get(start..start + usize::from(entity.length))?).ok()
}

/// A text without our name at its beginning or end.
fn without_name(text: &str, me: &Me) -> String {
    let name = format!("@{}", me.name);
    let text = text.trim();
    let is_name = |part: Option<&str>| part.is_some_and(|part| part.eq_ignore_ascii_case(&name));
    if is_name(text.get(..name.len()))
        && !text[name.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
    {
        return text[name.len()..].trim_start_matches([' ', ',', ':', '\n']).to_owned();
    }
    if is_name(text.len().checked_sub(name.len()).and_then(|start| text.get(start..))) {
        return text[..text.len() - name.len()].trim_end().to_owned();
    }
    text.to_owned()
}

fn files(message: &Message) -> Vec<Attached> {
    let mut files = Vec::new();
    let mut add = |id: &str, kind, name: Option<&String>, mime: Option<&String>, size| {
        files.push(Attached { id: id.to_owned(), kind, name: name.cloned(), mime: mime.cloned(), size });
    };
    if let Some(photo) = message.photo.as_ref().and_then(|sizes| sizes.iter().max_by_key(|size| size.width)) {
        add(&photo.file_id, "photo", None, Some(&"image/jpeg".to_owned()), photo.file_size);
    }
    // An animation is told as a document as well.
    if let Some(file) = &message.animation {
        add(&file.file_id, "animation", file.file_name.as_ref(), file.mime_type.as_ref(), file.file_size);
    } else if let Some(file) = &message.document {
        add(&file.file_id, "document", file.file_name.as_ref(), file.mime_type.as_ref(), file.file_size);
    }
    if let Some(file) = &message.voice {
        let mime = file.mime_type.clone().unwrap_or_else(|| "audio/ogg".to_owned());
        add(&file.file_id, "voice", None, Some(&mime), file.file_size);
    }
    if let Some(file) = &message.audio {
        add(&file.file_id, "audio", file.file_name.as_ref(), file.mime_type.as_ref(), file.file_size);
    }
    if let Some(file) = &message.video {
        add(&file.file_id, "video", file.file_name.as_ref(), file.mime_type.as_ref(), file.file_size);
    }
    if let Some(file) = &message.video_note {
        add(&file.file_id, "video", None, Some(&"video/mp4".to_owned()), file.file_size);
    }
    files
}

/// What has no words, in words; `None` for what nobody said, as somebody's coming and going.
fn other(message: &Message) -> Option<String> {
    if let Some(sticker) = &message.sticker {
        return Some(sticker.emoji.clone().unwrap_or_else(|| "(a sticker)".to_owned()));
    }
    if let Some(venue) = &message.venue {
        return Some(format!("(a place: {}, {})", venue.title, venue.address));
    }
    if let Some(at) = &message.location {
        return Some(format!("(a place: {}, {})", at.latitude, at.longitude));
    }
    if let Some(contact) = &message.contact {
        return Some(format!("(a contact: {} {})", contact.first_name, contact.phone_number));
    }
    None
}
