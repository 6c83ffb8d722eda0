//! One server: what a file says of it, and what that means.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::Variables;

/// Seconds that a program has to start, shake hands and list its tools.
const START: f64 = 60.0;
/// The same for one that may have to be downloaded first.
const START_LAUNCHER: f64 = 180.0;
/// The same for a server that runs already.
const START_REMOTE: f64 = 15.0;
/// Programs that download what they start.
const LAUNCHERS: [&str; 9] = ["npx", "bunx", "pnpx", "uvx", "uv", "pipx", "docker", "podman", "deno"];

/// The fields that mean something, or are known to mean nothing here.
pub(super) const KNOWN: [&str; 52] = [
    "type",
    "transport",
    "command",
    "args",
    "env",
    "environment",
    "envFile",
    "env_vars",
    "cwd",
    "inheritEnv",
    "roots",
    "url",
    "httpUrl",
    "serverUrl",
    "headers",
    "http_headers",
    "env_http_headers",
    "bearer_token_env_var",
    "oauth",
    "auth",
    "enabled",
    "disabled",
    "timeout",
    "startup_timeout_sec",
    "startup_timeout_ms",
    "connectionTimeout",
    "tool_timeout_sec",
    "tool_timeout_ms",
    "requestTimeout",
    "idle_timeout_sec",
    "idle_timeout_ms",
    "includeTools",
    "enabled_tools",
    "tools",
    "excludeTools",
    "disabled_tools",
    "autoApprove",
    "alwaysAllow",
    "trust",
    "protocolEra",
    "protocol_era",
    "description",
    "name",
    "title",
    "icon",
    "version",
    "source",
    "required",
    "gallery",
    "keep_alive",
    "settings",
    "dev",
];

/// A server as a file describes it.
#[derive(Clone, PartialEq)]
pub struct Entry {
    /// Its name: letters, digits, `_` and `-`.
    pub name: String,
    /// Where it is described.
    pub file: PathBuf,
    /// Whether that file came with the project.
    pub project: bool,
    pub(super) fields: Map<String, Value>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its values may be secrets.
        f.debug_struct("Entry").field("name", &self.name).field("file", &self.file).finish_non_exhaustive()
    }
}

/// A server that can be reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// How.
    pub reach: Reach,
    /// How long it may take until its tools are known.
    pub start: Duration,
    /// Seconds a call may take; `None` for the configured default.
    pub timeout: Option<f64>,
    /// Seconds a call may be silent; `None` for the configured default.
    pub idle_timeout: Option<f64>,
    /// The only tools that are wanted; `None` for all.
    pub only: Option<Vec<String>>,
    /// Tools that are not wanted.
    pub without: Vec<String>,
    /// Tools that run without asking; `*` for all.
    pub allowed: Vec<String>,
    /// Which protocol it speaks.
    pub era: Era,
    /// The folder it is told to work in, if it asks.
    pub roots: Option<PathBuf>,
    /// What changes when the entry does.
    pub digest: String,
}

/// Which protocol a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Era {
    /// To be found out.
    #[default]
    Auto,
    /// 2025-11-25 and older.
    Legacy,
    /// 2026-07-28.
    Modern,
}

/// How a server is reached.
#[derive(Debug, Clone, PartialEq)]
pub enum Reach {
    /// It is a program that we start.
    Program(Program),
    /// It runs somewhere.
    Address(Address),
}

/// A program that is a server on its standard streams.
#[derive(Clone, PartialEq)]
pub struct Program {
    /// What to start.
    pub command: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables beside those that every program gets.
    pub environment: BTreeMap<String, String>,
    /// Whether it gets all variables of ours.
    pub inherits: bool,
    /// Where it runs.
    pub folder: PathBuf,
}

/// Where a server is.
#[derive(Clone, PartialEq)]
pub struct Address {
    /// The URL.
    pub url: String,
    /// What is sent along with each request.
    pub headers: BTreeMap<String, String>,
    /// What it speaks.
    pub transport: Transport,
    /// How to sign in, where it wants to know who we are.
    pub oauth: OAuth,
}

/// What is spoken over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// To be found out.
    Either,
    /// Streamable HTTP.
    Http,
    /// The transport of 2024, with events and posts at two addresses.
    Events,
}

/// How to sign in. What is not said is found out.
#[derive(Clone, Default, PartialEq)]
pub struct OAuth {
    /// What the issuer of tokens knows us as, where it was told so beforehand.
    pub id: Option<String>,
    /// What proves it.
    pub secret: Option<String>,
    /// A page on the web that says who we are, for issuers that read it.
    pub page: Option<String>,
    /// What to ask for; empty for what the server says.
    pub scopes: Vec<String>,
    /// The port on this machine that a browser comes back to; `None` for a free one.
    pub port: Option<u16>,
    /// Whether it is the program that signs in, and no person.
    pub program: bool,
    /// A private key in PEM, in the place of a secret.
    pub key: Option<String>,
    /// What the key signs with, as `ES256`.
    pub algorithm: Option<String>,
}

impl fmt::Debug for OAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rest may be secrets.
        f.debug_struct("OAuth").field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Arguments and variables may be secrets.
        f.debug_struct("Program").field("command", &self.command).finish_non_exhaustive()
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("headers", &self.headers.keys()).finish_non_exhaustive()
    }
}

impl Entry {
    /// A server of the user's own, as it is described in this file.
    pub fn new(name: &str, file: &Path, fields: Map<String, Value>) -> Self {
        Self { name: name.to_owned(), file: file.to_owned(), project: false, fields }
    }

    /// Whether the file says not to use it.
    pub fn is_disabled(&self) -> bool {
        let says = |key: &str, value: bool| self.fields.get(key).and_then(Value::as_bool) == Some(value);
        says("enabled", false) || says("disabled", true)
    }

    /// What names this very description: any change of it is another one.
    pub fn digest(&self) -> String {
        let text = Value::Object(self.fields.clone()).to_string();
        Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What is worth knowing of it, though it works: what was guessed, what is not understood.
    pub fn remarks(&self) -> Vec<String> {
        super::import::remarks(&self.fields)
    }

    /// What it would do, for the one who has to agree: as it is written, but values of variables
    /// and headers are left out.
    pub fn told(&self) -> String {
        let names = |keys: &[&str]| -> String {
            let tables = keys.iter().filter_map(|key| self.fields.get(*key)?.as_object());
            tables.flat_map(Map::keys).map(|name| format!(" {name}=…")).collect()
        };
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let words = |key: &str| match self.fields.get(key) {
            Some(Value::Array(words)) => words.iter().map(text).collect::<Vec<_>>().join(" "),
            Some(word) => text(word),
            None => String::new(),
        };
        match ["url", "httpUrl", "serverUrl"].iter().find(|key| self.fields.contains_key(**key)) {
            Some(key) => format!("{}{}", words(key), names(&["headers", "http_headers"])),
            None => {
                let line = format!("{} {}", words("command"), words("args"));
                format!("{}{}", line.trim(), names(&["env", "environment"]))
            }
        }
    }

    /// What it means. The error names the file, the server, the field and what is wrong there.
    pub fn server(&self, variables: &Variables<'_>) -> Result<Server, String> {
        let fields = Fields { entry: self, variables };
        let reach = fields.reach()?;
        let start = match &reach {
            Reach::Program(program) if launches(&program.command) => START_LAUNCHER,
            Reach::Program(_) => START,
            Reach::Address(_) => START_REMOTE,
        };
        let start = fields
            .seconds(&["startup_timeout_sec", "startup_timeout_ms", "connectionTimeout"])?
            .unwrap_or(start);
        let era = match fields.text(&["protocolEra", "protocol_era"])?.as_deref() {
            None | Some("auto") => Era::Auto,
            Some("legacy") => Era::Legacy,
            Some("modern") => Era::Modern,
            Some(_) => return Err(fields.wrong("protocolEra", "must be `auto`, `legacy` or `modern`")),
        };
        let tells = self.fields.get("roots").is_none_or(|roots| *roots != false);
        let roots = (tells && matches!(reach, Reach::Program(_))).then(|| variables.workspace.to_owned());
        Ok(Server {
            name: self.name.clone(),
            reach,
            start: Duration::from_secs_f64(start),
            timeout: fields.seconds(&["tool_timeout_sec", "tool_timeout_ms", "requestTimeout", "timeout"])?,
            idle_timeout: fields.seconds(&["idle_timeout_sec", "idle_timeout_ms"])?,
            only: fields.texts(&["includeTools", "enabled_tools", "tools"])?.filter(|only| only != &["*"]),
            without: fields.texts(&["excludeTools", "disabled_tools"])?.unwrap_or_default(),
            allowed: fields.allowed()?,
            era,
            roots,
            digest: self.digest(),
        })
    }
}

/// Whether a program downloads what it starts.
fn launches(command: &str) -> bool {
    let name = command.rsplit(['/', '\\']).next().unwrap_or_default();
    LAUNCHERS.contains(&name.trim_end_matches(".cmd").trim_end_matches(".exe"))
}

/// Reads the fields of an entry, by any of their names.
struct Fields<'a> {
    entry: &'a Entry,
    variables: &'a Variables<'a>,
}

impl Fields<'_> {
    fn wrong(&self, field: &str, reason: impl fmt::Display) -> String {
        let Entry { file, name, .. } = self.entry;
        format!("`{}`: server `{name}`: `{field}`: {reason}", file.display())
    }

    fn get<'a>(&self, names: &[&'a str]) -> Option<(&'a str, &Value)> {
        let found = names.iter().find_map(|name| Some((*name, self.entry.fields.get(*name)?)));
        found.filter(|(_, value)| !value.is_null())
    }

    fn expand(&self, field: &str, value: &Value) -> Result<String, String> {
        match value {
            Value::String(text) => self.variables.expand(text).map_err(|reason| self.wrong(field, reason)),
            Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
            _ => Err(self.wrong(field, "must be a text")),
        }
    }

    fn text(&self, names: &[&str]) -> Result<Option<String>, String> {
        self.get(names).map(|(field, value)| self.expand(field, value)).transpose()
    }

    fn texts(&self, names: &[&str]) -> Result<Option<Vec<String>>, String> {
        let Some((field, value)) = self.get(names) else { return Ok(None) };
        let Value::Array(items) = value else { return Err(self.wrong(field, "must be a list of texts")) };
        items.iter().map(|item| self.expand(field, item)).collect::<Result<_, _>>().map(Some)
    }

    fn table(&self, names: &[&str]) -> Result<BTreeMap<String, String>, String> {
        let Some((field, value)) = self.get(names) else { return Ok(BTreeMap::new()) };
        let Value::Object(map) = value else { return Err(self.wrong(field, "must be an object of texts")) };
        let pair = |(key, value): (&String, &Value)| {
            Ok((key.clone(), self.expand(&format!("{field}.{key}"), value)?))
        };
        map.iter().map(pair).collect()
    }

    fn flag(&self, names: &[&str]) -> Result<bool, String> {
        match self.get(names) {
            None => Ok(false),
            Some((_, Value::Bool(flag))) => Ok(*flag),
            Some((field, _)) => Err(self.wrong(field, "must be true or false")),
        }
    }

    /// A time. Where the name does not say, programs disagree on the unit: from 1000 on it is taken
    /// for milliseconds.
    fn seconds(&self, names: &[&str]) -> Result<Option<f64>, String> {
        let Some((field, value)) = self.get(names) else { return Ok(None) };
        let number = value.as_f64().filter(|number| (0.0..=1e9).contains(number));
        let number = number.ok_or_else(|| self.wrong(field, "must be a number, not below 0"))?;
        let is_milliseconds = !field.ends_with("_sec") && (field.ends_with("_ms") || number >= 1000.0);
        Ok(Some(if is_milliseconds { number / 1000.0 } else { number }))
    }

    fn reach(&self) -> Result<Reach, String> {
        let written = self.text(&["type", "transport"])?.map(|kind| kind.to_ascii_lowercase());
        match written.as_deref() {
            Some("stdio" | "local" | "custom") => self.program(),
            Some("http" | "streamable-http" | "streamablehttp" | "streamable_http" | "remote") => {
                self.address(Transport::Http)
            }
            Some("sse") => self.address(Transport::Events),
            Some(other) => {
                Err(self.wrong("type", format!("must be `stdio`, `http` or `sse`, not `{other}`")))
            }
            None if self.entry.fields.contains_key("command") => self.program(),
            None => self.address(Transport::Either),
        }
    }

    fn program(&self) -> Result<Reach, String> {
        // Some write the whole line into `command`, some an object.
        let (command, mut arguments) = match self.get(&["command"]) {
            Some((_, Value::Array(_))) => {
                let mut words = self.texts(&["command"])?.unwrap_or_default().into_iter();
                (words.next().unwrap_or_default(), words.collect())
            }
            Some((_, Value::Object(parts))) => {
                let inner = Entry { fields: parts.clone(), ..self.entry.clone() };
                let inner = Fields { entry: &inner, variables: self.variables };
                (inner.text(&["path"])?.unwrap_or_default(), inner.texts(&["args"])?.unwrap_or_default())
            }
            _ => (self.text(&["command"])?.unwrap_or_default(), Vec::new()),
        };
        if command.trim().is_empty() {
            return Err(self.wrong("command", "is missing: it names the program that is the server"));
        }
        arguments.extend(self.texts(&["args"])?.unwrap_or_default());
        let mut environment = self.env_file()?;
        environment.extend(self.table(&["env", "environment"])?);
        for name in self.texts(&["env_vars"])?.unwrap_or_default() {
            environment.extend((self.variables.environment)(&name).map(|value| (name, value)));
        }
        let folder = self.text(&["cwd"])?.map(|folder| self.variables.path(&folder));
        let folder = folder.unwrap_or_else(|| self.variables.workspace.to_owned());
        let inherits = self.flag(&["inheritEnv"])?;
        Ok(Reach::Program(Program { command, arguments, environment, inherits, folder }))
    }

    fn env_file(&self) -> Result<BTreeMap<String, String>, String> {
        let Some(path) = self.text(&["envFile"])? else { return Ok(BTreeMap::new()) };
        let text = std::fs::read_to_string(self.variables.path(&path));
        let text =
            text.map_err(|error| self.wrong("envFile", format!("`{path}` cannot be read: {error}")))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let pair = |line: &str| {
            let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
            let value = value.trim();
            let bare = ['"', '\''].iter().find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q));
            Some((name.trim().to_owned(), bare.unwrap_or(value).to_owned()))
        };
        Ok(lines.filter_map(pair).collect())
    }

    fn address(&self, transport: Transport) -> Result<Reach, String> {
        let names = ["httpUrl", "serverUrl", "url"];
        let url = self.text(&names)?.unwrap_or_default();
        if url.is_empty() {
            return Err(
                self.wrong("command", "is missing, and so is `url`: one of them says how it is reached")
            );
        }
        if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(self.wrong("url", "must begin with `https://` or `http://`"));
        }
        let mut headers = self.table(&["headers", "http_headers"])?;
        let from_environment = |field: &str, name: &str| {
            let value = (self.variables.environment)(name).filter(|value| !value.is_empty());
            value.ok_or_else(|| self.wrong(field, format!("the environment variable `{name}` is not set")))
        };
        for (header, name) in self.table(&["env_http_headers"])? {
            let value = from_environment("env_http_headers", &name)?;
            headers.insert(header, value);
        }
        if let Some(name) = self.text(&["bearer_token_env_var"])? {
            let token = from_environment("bearer_token_env_var", &name)?;
            headers.insert("Authorization".to_owned(), format!("Bearer {token}"));
        }
        let oauth = match self.get(&["oauth", "auth"]) {
            None | Some((_, Value::Bool(_))) => OAuth::default(),
            Some((field, Value::Object(fields))) => self.oauth(field, fields)?,
            // Some write a token here.
            Some((field, value)) => {
                let text = self.expand(field, value)?;
                if text != "oauth" {
                    headers.insert("Authorization".to_owned(), format!("Bearer {text}"));
                }
                OAuth::default()
            }
        };
        Ok(Reach::Address(Address { url, headers, transport, oauth }))
    }

    fn oauth(&self, field: &str, fields: &Map<String, Value>) -> Result<OAuth, String> {
        let inner = Entry { fields: fields.clone(), ..self.entry.clone() };
        let inner = Fields { entry: &inner, variables: self.variables };
        let place = format!("server `{}`: `", self.entry.name);
        let within = |reason: String| reason.replacen(&place, &format!("{place}{field}."), 1);
        let text = |names: &[&str]| inner.text(names).map_err(within);
        let scopes = match fields.get("scopes").or_else(|| fields.get("scope")) {
            Some(Value::Array(_)) => inner.texts(&["scopes", "scope"]).map_err(within)?.unwrap_or_default(),
            _ => {
                let line = text(&["scopes", "scope"])?.unwrap_or_default();
                line.split_whitespace().map(str::to_owned).collect()
            }
        };
        let port = match inner.get(&["callbackPort", "callback_port", "redirectPort"]) {
            None => None,
            Some((name, value)) => {
                let port = value.as_u64().and_then(|port| u16::try_from(port).ok());
                Some(port.ok_or_else(|| self.wrong(&format!("{field}.{name}"), "must be a port"))?)
            }
        };
        let program = match text(&["grantType", "grant_type"])?.as_deref() {
            None | Some("authorization_code") => false,
            Some("client_credentials") => true,
            Some(_) => {
                let either = "must be `authorization_code` or `client_credentials`";
                return Err(self.wrong(&format!("{field}.grantType"), either));
            }
        };
        Ok(OAuth {
            id: text(&["clientId", "client_id", "CLIENT_ID"])?,
            secret: text(&["clientSecret", "client_secret", "CLIENT_SECRET"])?,
            page: text(&["clientMetadataUrl", "client_metadata_url"])?,
            scopes,
            port,
            program,
            key: text(&["privateKey", "private_key"])?,
            algorithm: text(&["algorithm", "signingAlgorithm"])?,
        })
    }

    /// What runs without asking. A project's file may not say so.
    fn allowed(&self) -> Result<Vec<String>, String> {
        if self.entry.project {
            return Ok(Vec::new());
        }
        match self.get(&["autoApprove", "alwaysAllow", "trust"]) {
            Some((_, Value::Bool(true))) => Ok(vec!["*".to_owned()]),
            Some((_, Value::Bool(false))) => Ok(Vec::new()),
            _ => Ok(self.texts(&["autoApprove", "alwaysAllow", "trust"])?.unwrap_or_default()),
        }
    }
}
