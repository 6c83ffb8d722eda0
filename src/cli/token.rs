//! `omni token`: who may come in to `omni serve`.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::error::{Failure, code};
use super::ui::Screen;
use crate::app::App;
use crate::store::token::{Scope, Scopes, Tokens};

/// Make, list and take back tokens of `omni serve`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Token {
    /// Make a token and print it, this once
    New {
        /// Who will have it
        name: String,
        /// What it is good for: `chat`, `read` (sessions, tools, memories), or `admin` for everything
        #[arg(long, value_name = "SCOPE", default_value = "chat", value_delimiter = ',')]
        scope: Vec<Scope>,
        /// How long, as in 90d, 12h or 30m; for ever without it
        #[arg(long, value_name = "TIME", value_parser = span)]
        expires: Option<Duration>,
    },
    /// List the tokens there are, without what makes them tokens
    List,
    /// Take a token back, at once
    Revoke {
        /// Its id, as the list shows it
        id: String,
    },
}

pub(super) async fn run(token: Token, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let tokens = Tokens::new(app.store().await?.clone());
    let result = match token {
        Token::New { name, scope, expires } => new(&tokens, &name, &scope, expires, screen).await,
        Token::List => list(&tokens, screen).await,
        Token::Revoke { id } => revoke(&tokens, &id, screen).await,
    };
    app.finish().await;
    result
}

async fn new(
    tokens: &Tokens,
    name: &str,
    scopes: &[Scope],
    expires: Option<Duration>,
    screen: &Screen,
) -> Result<u8, Failure> {
    let (scopes, now) = (Scopes::of(scopes), Timestamp::now());
    let expires = expires.map(|span| now.checked_add(span).unwrap_or(Timestamp::MAX));
    let token = tokens.make(name, &scopes, expires, now).await?;
    match screen.json {
        true => screen.value(&json!({"token": token, "name": name, "scopes": scopes, "expires": expires}))?,
        false => screen.line(&token)?,
    }
    screen.remark(
        "it is shown this once; a gateway that runs without tokens asks for them when it is started again",
    );
    Ok(code::OK)
}

async fn list(tokens: &Tokens, screen: &Screen) -> Result<u8, Failure> {
    let found = tokens.list().await?;
    if found.is_empty() {
        screen.remark("there is none; `omni token new NAME` makes one");
    }
    let day = |time: Timestamp| time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string();
    for token in found {
        if screen.json {
            screen.value(&token)?;
            continue;
        }
        let ends = token.expires.map_or_else(|| "for ever".to_owned(), |time| format!("until {}", day(time)));
        screen.line(&format!(
            "{}  {}  {}  since {}, {ends}",
            token.id,
            token.name,
            token.scopes,
            day(token.created)
        ))?;
    }
    Ok(code::OK)
}

async fn revoke(tokens: &Tokens, id: &str, screen: &Screen) -> Result<u8, Failure> {
    match tokens.revoke(id).await? {
        true => {
            screen.remark("it is good for nothing any more");
            Ok(code::OK)
        }
        false => Err(Failure::new(code::USAGE, format!("there is no token `{id}`"))
            .hint("`omni token list` shows those there are")),
    }
}

fn span(text: &str) -> Result<Duration, String> {
    let span: Option<SignedDuration> = match text.strip_suffix('d') {
        Some(days) => {
            days.parse().ok().and_then(|days: i64| SignedDuration::try_from_hours(days.checked_mul(24)?))
        }
        None => text.parse().ok(),
    };
    let span = span.filter(SignedDuration::is_positive).map(|span| span.unsigned_abs());
    span.ok_or_else(|| "a time is needed, as in 90d, 12h or 30m".to_owned())
}
