//! Which model answers: the one that is named, or the first that is found.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::catalog::{self, KNOWN, Kind, Known};
use super::embed::Embeddings;
use super::retry::Limits;
use super::{Error, Model, Offline, Provider, Resilient, Scripted, Server};
use crate::config;

/// How long an Ollama on this machine may take to say that it is there.
const OLLAMA_PATIENCE: Duration = Duration::from_millis(300);
/// How long a server of one's own may take to list its models.
const LISTING_PATIENCE: Duration = Duration::from_secs(3);

/// Reads the environment.
pub type Env<'a> = dyn Fn(&str) -> Option<String> + Send + Sync + 'a;

/// What was found, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The model's name.
    pub model: String,
    /// Why it and no other.
    pub why: String,
    /// Where it is, if it is anywhere.
    pub address: Option<String>,
    /// Tokens of its window.
    pub window: usize,
}

/// The model that `settings` ask for, wrapped so that it tries again and falls back.
///
/// `settings.name` is `provider/model`, `provider` (its usual model), `offline`, or
/// `scripted:FILE`. Empty, it is the first that is found: a key in the environment in the
/// order of [`KNOWN`] (an address of one's own without a key counts too), then an Ollama that
/// answers at `OLLAMA_HOST` or on this machine, then `offline`. `providers` are the servers of
/// the configuration, by name; they may also give another key or address to a known one.
///
/// Returns [`Error::Setup`] for a name, key or address that cannot work. Asks the network
/// only where nothing is named: Ollama, and servers of one's own for their list of models.
pub async fn choose(
    settings: &config::Model,
    providers: &BTreeMap<String, config::Provider>,
    env: &Env<'_>,
) -> Result<Arc<dyn Model>, Error> {
    let search = Search { settings, providers, env };
    let (first, _) = search.first().await?;
    if matches!(first, Choice::Offline(_) | Choice::Scripted(_)) && settings.fallback.is_empty() {
        return Ok(first.model());
    }
    let mut others = Vec::new();
    for name in &settings.fallback {
        others.push(search.named(name).await?.0.model());
    }
    Ok(Arc::new(Resilient::new(first.model(), others, Limits::new(settings.retries))))
}

/// What [`choose`] finds and why, for `omni doctor`.
pub async fn describe(
    settings: &config::Model,
    providers: &BTreeMap<String, config::Provider>,
    env: &Env<'_>,
) -> Result<Found, Error> {
    let (choice, why) = Search { settings, providers, env }.first().await?;
    Ok(choice.found(why))
}

/// Every model that could be used here, the one that would be chosen first; the last is `offline`.
pub async fn all(
    settings: &config::Model,
    providers: &BTreeMap<String, config::Provider>,
    env: &Env<'_>,
) -> Vec<Found> {
    let search = Search { settings, providers, env };
    let mut found = Vec::new();
    for (known, why) in search.keys() {
        let Ok(server) = search.server(known.name) else { continue };
        let choice = search.provider(server, "").await;
        found.extend(choice.map(|choice| choice.found(why)));
    }
    if let Some((choice, why)) = search.ollama().await {
        found.push(choice.found(why));
    }
    let why = "words are routed to tools".to_owned();
    found.push(Choice::Offline(Offline).found(why));
    found
}

/// Whether the model of this name, `provider/model`, can be told how much to think.
pub fn takes_effort(name: &str, providers: &BTreeMap<String, config::Provider>) -> bool {
    let Some((provider, model)) = name.split_once('/') else { return false };
    let configured = providers.get(provider).and_then(|provider| Kind::named(provider.kind.trim()));
    let kind = configured.or_else(|| catalog::known(provider).map(|known| known.kind));
    catalog::takes_effort(kind.unwrap_or(Kind::OpenAi), model)
}

/// The embedder of this name, `provider/model`, among those that are known or configured.
pub fn embedder(
    name: &str,
    settings: &config::Model,
    providers: &BTreeMap<String, config::Provider>,
    env: &Env<'_>,
) -> Result<Embeddings, Error> {
    let search = Search { settings, providers, env };
    let (provider, model) = name.split_once('/').filter(|(_, model)| !model.is_empty()).ok_or_else(|| {
        Error::Setup(format!("`{name}` is no encoder; use `PROVIDER/MODEL`, as in `ollama/all-minilm`"))
    })?;
    let server = search.server(provider)?;
    search.require_key(&server)?;
    Embeddings::new(server, model)
}

enum Choice {
    Provider(Provider, String),
    Offline(Offline),
    Scripted(Scripted),
}

impl Choice {
    fn found(self, why: String) -> Found {
        let address = match &self {
            Self::Provider(_, address) => Some(catalog::shown(address)),
            _ => None,
        };
        let model = self.model();
        Found { model: model.name().to_owned(), why, address, window: model.window() }
    }

    fn model(self) -> Arc<dyn Model> {
        match self {
            Self::Provider(model, _) => Arc::new(model),
            Self::Offline(model) => Arc::new(model),
            Self::Scripted(model) => Arc::new(model),
        }
    }
}

struct Search<'a> {
    settings: &'a config::Model,
    providers: &'a BTreeMap<String, config::Provider>,
    env: &'a Env<'a>,
}

impl Search<'_> {
    async fn first(&self) -> Result<(Choice, String), Error> {
        match self.settings.name.trim() {
            "" => self.found().await,
            name => self.named(name).await,
        }
    }

    async fn named(&self, name: &str) -> Result<(Choice, String), Error> {
        let why = format!("`{name}` is configured");
        if name == "offline" {
            return Ok((Choice::Offline(Offline), why));
        }
        if let Some(file) = name.strip_prefix("scripted:") {
            let mut script = Scripted::load(Path::new(file))?;
            if self.settings.window > 0 {
                script = script.with_window(self.settings.window);
            }
            return Ok((Choice::Scripted(script), why));
        }
        let (provider, model) = name.split_once('/').unwrap_or((name, ""));
        let server = self.server(provider)?;
        self.require_key(&server)?;
        Ok((self.provider(server, model).await?, why))
    }

    async fn found(&self) -> Result<(Choice, String), Error> {
        if let Some((known, why)) = self.keys().next() {
            let server = self.server(known.name)?;
            return Ok((self.provider(server, "").await?, why));
        }
        if let Some(found) = self.ollama().await {
            return Ok(found);
        }
        Ok((Choice::Offline(Offline), "no key is set, and no Ollama answers".to_owned()))
    }

    // Those with a key or an address of their own, and which.
    fn keys(&self) -> impl Iterator<Item = (&'static Known, String)> {
        let usual = KNOWN.iter().filter(|known| !known.keys.is_empty() && known.name != "openai-responses");
        usual.filter_map(|known| {
            let configured = self.providers.get(known.name).is_some_and(|provider| {
                provider.api_key.as_ref().is_some_and(|key| !key.is_empty()) || !provider.base_url.is_empty()
            });
            let why = match (self.key_variable(known), self.url_variable(known)) {
                (Some(key), _) => format!("`{key}` is set"),
                (None, Some(url)) => format!("`{url}` is set"),
                (None, None) if configured => format!("`provider.{}` is configured", known.name),
                (None, None) => return None,
            };
            Some((known, why))
        })
    }

    async fn ollama(&self) -> Option<(Choice, String)> {
        let server = self.server("ollama").ok()?;
        let model = ollama_model(&server.base_url).await?;
        let why = format!("Ollama answers at {}", catalog::shown(&server.base_url));
        Some((self.provider(server, &model).await.ok()?, why))
    }

    // Where and how, after configuration and environment; the key may still be missing.
    fn server(&self, name: &str) -> Result<Server, Error> {
        let known = catalog::known(name);
        let configured = self.providers.get(name);
        if known.is_none() && configured.is_none() {
            return Err(self.unknown(name));
        }
        let word = configured.map(|provider| provider.kind.trim()).filter(|kind| !kind.is_empty());
        let kind = match word {
            Some(word) => Kind::named(word).ok_or_else(|| {
                let kinds = Kind::names().collect::<Vec<_>>().join("`, `");
                Error::Setup(format!("`provider.{name}.kind` is `{word}`; it can be one of `{kinds}`"))
            })?,
            None => known.map_or(Kind::OpenAi, |known| known.kind),
        };
        let url = configured.map(|provider| provider.base_url.clone()).filter(|url| !url.trim().is_empty());
        let url = url
            .or_else(|| self.set(self.url_variable(known?)?))
            .or_else(|| known.map(|known| known.url.to_owned()));
        let url = url.ok_or_else(|| Error::Setup(format!("`provider.{name}` has no `base_url`")))?;
        let base_url = kind
            .base_url(&url)
            .map_err(|problem| Error::Setup(format!("the address of `{name}` cannot be used: {problem}")))?;
        let key =
            match configured.and_then(|provider| provider.api_key.as_ref()).filter(|key| !key.is_empty()) {
                Some(secret) => {
                    let key = secret.reveal();
                    Some(key.map_err(|error| Error::Setup(format!("the key of `{name}`: {error}")))?)
                }
                None => known.and_then(|known| self.set(self.key_variable(known)?)),
            };
        Ok(Server { provider: name.to_owned(), kind, base_url, key })
    }

    // Only a vendor's own address surely wants a key.
    fn require_key(&self, server: &Server) -> Result<(), Error> {
        let Some(known) = catalog::known(&server.provider) else { return Ok(()) };
        let (Some(variable), None) = (known.keys.first(), &server.key) else { return Ok(()) };
        if server.base_url != known.url {
            return Ok(());
        }
        let name = &server.provider;
        Err(Error::Setup(format!(
            "`{name}` needs a key: set `{variable}`, or `provider.{name}.api_key` in the configuration"
        )))
    }

    async fn provider(&self, server: Server, model: &str) -> Result<Choice, Error> {
        let address = server.base_url.clone();
        let (model, window) = match model {
            "" => self.usual(&server).await?,
            model => (model.to_owned(), None),
        };
        let kind = server.kind;
        let mut provider = Provider::new(server, &model, self.settings)?;
        if self.settings.window == 0 {
            let told = (self.env)("OLLAMA_CONTEXT_LENGTH").filter(|_| kind == Kind::Ollama);
            let told = told.and_then(|text| text.trim().parse().ok());
            if let Some(window) = told.or(window).filter(|window| *window > 0) {
                provider = provider.with_window(window);
            }
        }
        Ok(Choice::Provider(provider, address))
    }

    // The model when none is named: the vendor's usual one; of somebody else's server, the
    // same if it has it, else its first. Some tell their window along with it.
    async fn usual(&self, server: &Server) -> Result<(String, Option<usize>), Error> {
        let known = catalog::known(&server.provider);
        let usual = known.map(|known| known.model).unwrap_or_default();
        if server.kind == Kind::Ollama {
            let model = ollama_model(&server.base_url).await;
            return model.map(|model| (model, None)).ok_or_else(|| {
                Error::Setup(format!(
                    "no model at {}; pull one, or name it: `{}/MODEL`",
                    catalog::shown(&server.base_url),
                    server.provider
                ))
            });
        }
        if known.is_some_and(|known| known.url == server.base_url) {
            return Ok((usual.to_owned(), None));
        }
        let listed = listed(server).await;
        let chosen = listed.iter().find(|(name, _)| name == usual).or(listed.first());
        match chosen {
            Some((name, window)) => Ok((name.clone(), *window)),
            None if !usual.is_empty() => Ok((usual.to_owned(), None)),
            None => Err(Error::Setup(format!(
                "{} lists no models; name one: `{}/MODEL`",
                catalog::shown(&server.base_url),
                server.provider
            ))),
        }
    }

    fn unknown(&self, name: &str) -> Error {
        let mut names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
        names.extend(self.providers.keys().map(String::as_str));
        names.extend(["offline", "scripted:FILE"]);
        names.sort_unstable();
        names.dedup();
        let nearest = names.iter().min_by_key(|known| strsim::damerau_levenshtein(name, known));
        let nearest = nearest.filter(|known| strsim::damerau_levenshtein(name, known) <= 2);
        let hint = match (nearest, catalog::family(name)) {
            (Some(known), _) => format!(" Did you mean `{known}`?"),
            (None, Some(family)) => format!(" A model is named with its provider: `{family}/{name}`."),
            (None, None) => String::new(),
        };
        Error::Setup(format!("there is no provider `{name}`.{hint} These are known: {}", names.join(", ")))
    }

    fn set(&self, variable: &str) -> Option<String> {
        (self.env)(variable).filter(|value| !value.trim().is_empty())
    }

    fn key_variable(&self, known: &Known) -> Option<&'static str> {
        known.keys.iter().copied().find(|variable| self.set(variable).is_some())
    }

    fn url_variable(&self, known: &Known) -> Option<&'static str> {
        known.urls.iter().copied().find(|variable| self.set(variable).is_some())
    }
}

// The first model that can call tools, else the first. Older versions do not say who can.
async fn ollama_model(base_url: &str) -> Option<String> {
    let tags = fetch(&format!("{base_url}api/tags"), None, OLLAMA_PATIENCE).await?;
    let models = tags.get("models")?.as_array()?;
    let name = |model: &Value| model.get("name").and_then(Value::as_str).map(str::to_owned);
    let can_call = |model: &&Value| {
        let capabilities = model.get("capabilities").and_then(Value::as_array);
        capabilities.into_iter().flatten().any(|capability| capability == "tools")
    };
    let embeds = |model: &&Value| name(model).is_some_and(|name| name.contains("embed"));
    let first = models.iter().find(can_call).or_else(|| models.iter().find(|model| !embeds(model)));
    first.and_then(name)
}

// Names and windows, as far as a server of the OpenAI kind tells them.
async fn listed(server: &Server) -> Vec<(String, Option<usize>)> {
    let url = reqwest::Url::parse(&server.base_url).and_then(|url| url.join("models"));
    let Ok(url) = url else { return Vec::new() };
    let list = fetch(url.as_str(), server.key.as_deref(), LISTING_PATIENCE).await;
    let models = list.as_ref().and_then(|list| list.get("data")).and_then(Value::as_array);
    let window = |model: &Value| {
        let told = ["max_model_len", "context_length", "context_window"]
            .iter()
            .find_map(|key| model.get(key)?.as_u64());
        told.and_then(|tokens| usize::try_from(tokens).ok())
    };
    let named = models
        .into_iter()
        .flatten()
        .filter_map(|model| Some((model.get("id").and_then(Value::as_str)?.to_owned(), window(model))));
    named.collect()
}

// Silence is an answer here: whatever goes wrong means that nobody is there.
async fn fetch(url: &str, key: Option<&str>, patience: Duration) -> Option<Value> {
    let client = reqwest::Client::builder().timeout(patience).connect_timeout(patience);
    let client = if catalog::is_local(url) { client.no_proxy() } else { client };
    let client = client.redirect(reqwest::redirect::Policy::none()).build().ok()?;
    let mut request = client.get(url);
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    request.send().await.ok()?.error_for_status().ok()?.json().await.ok()
}
