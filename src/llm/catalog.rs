//! What is known of model servers before one is asked: addresses, keys, dialects, windows.

use reqwest::Url;

/// How a server wants to be spoken to. The last five are OpenAI's chat completions with
/// habits of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// OpenAI chat completions, and everybody who copies them.
    OpenAi,
    /// OpenAI responses.
    Responses,
    /// Anthropic messages.
    Anthropic,
    /// Gemini `generateContent`.
    Gemini,
    /// Ollama's own `/api/chat`.
    Ollama,
    /// OpenRouter.
    OpenRouter,
    /// DeepSeek.
    DeepSeek,
    /// Groq.
    Groq,
    /// xAI.
    Xai,
    /// Mistral.
    Mistral,
}

const KINDS: &[(&str, Kind)] = &[
    ("openai", Kind::OpenAi),
    ("openai-responses", Kind::Responses),
    ("anthropic", Kind::Anthropic),
    ("gemini", Kind::Gemini),
    ("ollama", Kind::Ollama),
    ("openrouter", Kind::OpenRouter),
    ("deepseek", Kind::DeepSeek),
    ("groq", Kind::Groq),
    ("xai", Kind::Xai),
    ("mistral", Kind::Mistral),
];

impl Kind {
    /// The kind of this name, as `kind` in the configuration has it.
    pub fn named(name: &str) -> Option<Self> {
        KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    /// Every name that [`Kind::named`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KINDS.iter().map(|(name, _)| *name)
    }

    /// Whether it speaks chat completions.
    pub fn is_chat_completions(self) -> bool {
        !matches!(self, Self::Responses | Self::Anthropic | Self::Gemini | Self::Ollama)
    }

    /// Whether plain reasoning text goes back to it with the message it belongs to. Groq
    /// rejects the field; OpenAI never sends it; the others want it or ignore it.
    pub fn takes_reasoning_back(self) -> bool {
        matches!(self, Self::OpenAi | Self::OpenRouter | Self::DeepSeek | Self::Mistral)
    }

    /// Brings a base URL into the one form the client can use: with its version segment,
    /// ending in a slash. Vendors' SDKs disagree about who adds the version, so both are taken.
    pub fn base_url(self, text: &str) -> Result<String, String> {
        let text = text.trim();
        let with_scheme = match text.contains("://") {
            true => text.to_owned(),
            false => format!("http://{text}"),
        };
        let mut url = Url::parse(&with_scheme).map_err(|error| format!("`{text}` is no URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(format!("`{text}` is no http or https URL"));
        }
        if self == Self::Ollama {
            self.ollama_host(&mut url, text);
        }
        let path = url.path().trim_end_matches('/').to_owned();
        let last = path.rsplit('/').next().unwrap_or_default();
        let is_version =
            last.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        let path = match self {
            Self::Ollama => path.trim_end_matches("/v1").trim_end_matches("/api").to_owned(),
            Self::Anthropic if !is_version => format!("{path}/v1"),
            Self::Gemini if !is_version => format!("{path}/v1beta"),
            _ if path.is_empty() => "/v1".to_owned(),
            _ => path,
        };
        url.set_path(&format!("{path}/"));
        Ok(url.to_string())
    }

    // `OLLAMA_HOST` is first of all the server's setting: no port means 11434, and
    // "every interface" is no address to call.
    fn ollama_host(self, url: &mut Url, text: &str) {
        if !text.contains("://") && url.port().is_none() {
            let _ = url.set_port(Some(11434));
        }
        if matches!(url.host_str(), Some("0.0.0.0" | "[::]")) {
            let _ = url.set_host(Some("127.0.0.1"));
        }
    }
}

/// A model server everybody knows.
#[derive(Debug)]
pub struct Known {
    /// Its name before the slash.
    pub name: &'static str,
    /// How it is spoken to.
    pub kind: Kind,
    /// Where it is.
    pub url: &'static str,
    /// The variables that may hold its key, the usual one first; none for local servers.
    pub keys: &'static [&'static str],
    /// The variables that may hold another address.
    pub urls: &'static [&'static str],
    /// The model that is asked when nobody names one; none where it has to be looked up.
    pub model: &'static str,
}

/// The servers that need no configuration, in the order they are looked for.
pub const KNOWN: &[Known] = &[
    Known {
        name: "anthropic",
        kind: Kind::Anthropic,
        url: "https://api.anthropic.com/v1/",
        keys: &["ANTHROPIC_API_KEY"],
        urls: &["ANTHROPIC_BASE_URL"],
        model: "claude-sonnet-5",
    },
    Known {
        name: "openai",
        kind: Kind::OpenAi,
        url: "https://api.openai.com/v1/",
        keys: &["OPENAI_API_KEY"],
        urls: &["OPENAI_BASE_URL", "OPENAI_API_BASE"],
        model: "gpt-5.6",
    },
    Known {
        name: "gemini",
        kind: Kind::Gemini,
        url: "https://generativelanguage.googleapis.com/v1beta/",
        keys: &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
        urls: &["GEMINI_BASE_URL", "GOOGLE_GEMINI_BASE_URL"],
        model: "gemini-3.8-flash",
    },
    Known {
        name: "openrouter",
        kind: Kind::OpenRouter,
        url: "https://openrouter.ai/api/v1/",
        keys: &["OPENROUTER_API_KEY"],
        urls: &["OPENROUTER_BASE_URL"],
        model: "openrouter/auto",
    },
    Known {
        name: "deepseek",
        kind: Kind::DeepSeek,
        url: "https://api.deepseek.com/v1/",
        keys: &["DEEPSEEK_API_KEY"],
        urls: &["DEEPSEEK_BASE_URL"],
        model: "deepseek-v4-flash",
    },
    Known {
        name: "groq",
        kind: Kind::Groq,
        url: "https://api.groq.com/openai/v1/",
        keys: &["GROQ_API_KEY"],
        urls: &["GROQ_BASE_URL"],
        model: "openai/gpt-oss-120b",
    },
    Known {
        name: "xai",
        kind: Kind::Xai,
        url: "https://api.x.ai/v1/",
        keys: &["XAI_API_KEY"],
        urls: &["XAI_BASE_URL"],
        model: "grok-4",
    },
    Known {
        name: "mistral",
        kind: Kind::Mistral,
        url: "https://api.mistral.ai/v1/",
        keys: &["MISTRAL_API_KEY"],
        urls: &["MISTRAL_BASE_URL"],
        model: "mistral-large-latest",
    },
    // Below: only when named, or after every key was looked for.
    Known {
        name: "openai-responses",
        kind: Kind::Responses,
        url: "https://api.openai.com/v1/",
        keys: &["OPENAI_API_KEY"],
        urls: &["OPENAI_BASE_URL", "OPENAI_API_BASE"],
        model: "gpt-5.6",
    },
    Known {
        name: "ollama",
        kind: Kind::Ollama,
        url: "http://127.0.0.1:11434/",
        keys: &[],
        urls: &["OLLAMA_HOST"],
        model: "",
    },
];

/// An address for people: without what may be secret in it, name, password and query.
pub fn shown(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else { return url.to_owned() };
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.to_string()
}

/// Whether an address is on this machine, where no proxy leads.
pub fn is_local(url: &str) -> bool {
    let url = Url::parse(url).ok();
    url.as_ref().and_then(Url::host_str).is_some_and(|host| {
        let host = host.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

/// The provider that a bare model name most likely belongs to.
pub fn family(model: &str) -> Option<&'static str> {
    let families = [
        ("claude", "anthropic"),
        ("gpt", "openai"),
        ("o1", "openai"),
        ("o3", "openai"),
        ("o4", "openai"),
        ("gemini", "gemini"),
        ("deepseek", "deepseek"),
        ("grok", "xai"),
        ("mistral", "mistral"),
        ("qwen", "ollama"),
        ("llama", "ollama"),
        ("gemma", "ollama"),
    ];
    families.iter().find(|(start, _)| model.starts_with(start)).map(|(_, provider)| *provider)
}

/// Whether a model can be told how much to think, as far as its name tells. Those that cannot refuse it.
pub fn takes_effort(kind: Kind, model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    let starts = |names: &[&str]| names.iter().any(|start| name.starts_with(start));
    match kind {
        Kind::Anthropic => starts(&["claude"]) && !starts(&["claude-2", "claude-3", "claude-instant"]),
        Kind::Gemini => starts(&["gemini-2.5", "gemini-3", "gemini-4"]) && !name.contains("image"),
        Kind::OpenAi | Kind::Responses | Kind::OpenRouter | Kind::Groq => {
            starts(&["gpt-5", "gpt-6", "gpt-oss", "o1", "o3", "o4", "codex"]) && !name.contains("-chat")
        }
        _ => false,
    }
}

/// The server of this name.
pub fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

/// Tokens of context a model has, as far as its name tells; low rather than high where it
/// does not. Ollama cuts what does not fit without a word, and its default is small.
pub fn window(kind: Kind, model: &str) -> usize {
    if kind == Kind::Ollama {
        return 8_192;
    }
    let name = model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase();
    let known = WINDOWS.iter().find(|(start, _)| name.starts_with(start));
    known.map_or(128_000, |(_, window)| *window)
}

// The longest match stands before the shorter one that would hide it.
const WINDOWS: &[(&str, usize)] = &[
    ("claude", 200_000),
    ("gpt-4.1", 1_047_576),
    ("gpt-4o", 128_000),
    ("gpt-4-turbo", 128_000),
    ("gpt-4", 8_192),
    ("gpt-3.5", 16_385),
    ("gpt-oss", 131_072),
    ("gpt-5", 400_000),
    ("gpt-6", 400_000),
    ("o1", 200_000),
    ("o3", 200_000),
    ("o4", 200_000),
    ("gemini", 1_048_576),
    ("gemma", 32_768),
    ("grok-4", 256_000),
    ("grok", 131_072),
    ("kimi", 256_000),
    ("codestral", 256_000),
];
