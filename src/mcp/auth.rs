//! Who we are to a server that wants to know: OAuth 2.1, as MCP's authorization pages describe it.
//!
//! A server that refuses a request says where its users sign in. A person does so in a browser,
//! which comes back to an address of ours; what it brings is exchanged for tokens, which are kept
//! in a file of their own. They are renewed when they are about to end, by one process at a time.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use rmcp::transport::AuthClient;
use rmcp::transport::auth::{
    AuthError, AuthorizationCallback, AuthorizationManager, ClientCredentialsConfig, CredentialRefreshGuard,
    CredentialStore, JwtSigningAlgorithm, OAuthClientConfig, OAuthState, StoredCredentials,
    WWWAuthenticateParams,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;

use super::config::{Address, OAuth};
use super::http;
use super::open::{self, short};
use super::revoke::{Given, Revoked, revoke};

/// How often one is asked to sign in before a server that still refuses is given up.
const TRIES: u32 = 3;
/// How long a person may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long another process may take to renew the tokens.
const RENEWAL: Duration = Duration::from_secs(60);

/// Takes a person to a page and returns the address it sent them back to.
pub type Browser = Arc<dyn Fn(Visit) -> BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// A page where a person signs in.
pub struct Visit {
    /// The server it is for.
    pub server: String,
    /// The page.
    pub page: String,
    landing: TcpListener,
}

impl Visit {
    /// Waits until a browser on this machine comes back, and returns the address it came to.
    pub async fn landed(self) -> Result<String, String> {
        let page = reqwest::Url::parse(&self.page).map_err(|error| error.to_string())?;
        let state = page.query_pairs().find(|(name, _)| name == "state").map(|(_, value)| value.into_owned());
        let is_ours = move |url: &str| {
            let sent = |(name, value): (Cow<'_, str>, Cow<'_, str>)| {
                name == "state" && Some(&*value) == state.as_deref()
            };
            reqwest::Url::parse(url).is_ok_and(|url| url.path() == "/callback" && url.query_pairs().any(sent))
        };
        let late = |_| format!("nobody has signed in within {} minutes", PATIENCE.as_secs() / 60);
        tokio::time::timeout(PATIENCE, http::visited(self.landing, is_ours)).await.map_err(late)?
    }
}

/// Who we are to one server.
pub(super) struct Account {
    server: String,
    url: String,
    oauth: OAuth,
    store: Store,
    browser: OnceLock<Browser>,
    client: OnceCell<AuthClient<reqwest::Client>>,
    /// One signs in at a time.
    turn: tokio::sync::Mutex<()>,
    tries: AtomicU32,
}

impl Account {
    /// The account at a server. Its tokens are kept in this folder.
    pub(super) fn new(server: &str, address: &Address, folder: &Path) -> Self {
        Self {
            server: server.to_owned(),
            url: address.url.clone(),
            oauth: address.oauth.clone(),
            store: Store::new(folder, server, &address.url),
            browser: OnceLock::new(),
            client: OnceCell::new(),
            turn: tokio::sync::Mutex::default(),
            tries: AtomicU32::new(0),
        }
    }

    /// Lets a person sign in from now on.
    pub(super) fn browse(&self, browser: Browser) {
        let _ = self.browser.set(browser);
    }

    /// What sends requests in our name, as far as we have one.
    pub(super) async fn client(&self) -> Result<AuthClient<reqwest::Client>, String> {
        let make = || async {
            let mut manager = self.manager().await.map_err(|error| told(&error))?;
            if manager.initialize_from_store().await.map_err(|error| told(&error))? {
                self.recognise(&mut manager)?;
            }
            Ok::<_, String>(AuthClient::new(open::http()?, manager))
        };
        self.client.get_or_try_init(make).await.cloned()
    }

    async fn manager(&self) -> Result<AuthorizationManager, AuthError> {
        let mut manager = AuthorizationManager::new(self.url.as_str()).await?;
        manager.set_credential_store(self.store.clone());
        Ok(manager)
    }

    /// Gives the manager what we are registered as: the tokens alone do not say all of it.
    fn recognise(&self, manager: &mut AuthorizationManager) -> Result<(), String> {
        let Some(Registered { id, secret, redirect, .. }) =
            self.store.read().and_then(|kept| kept.registered)
        else {
            return Ok(());
        };
        let mut config = OAuthClientConfig::new(id, redirect);
        config.client_secret = secret;
        manager.configure_client(config).map_err(|error| told(&error))
    }

    /// The server has taken us for who we are.
    pub(super) fn accepted(&self) {
        self.tries.store(0, SeqCst);
    }

    /// Signs in, as the server's refusal says, and asks for `more` to be allowed.
    pub(super) async fn sign_in(&self, challenge: Option<&str>, more: &[String]) -> Result<(), String> {
        if !self.oauth.program && self.browser.get().is_none() {
            return Err(self.wanted(challenge));
        }
        let client = self.client().await?;
        let _turn = self.turn.lock().await;
        if self.tries.fetch_add(1, SeqCst) >= TRIES {
            return Err(format!("it refuses even who has signed in {TRIES} times"));
        }
        let manager = match self.oauth.program {
            true => self.vouch().await?,
            false => self.visit(challenge, more).await?,
        };
        *client.auth_manager.lock().await = manager;
        Ok(())
    }

    /// Signs in as a program of its own, without a person.
    async fn vouch(&self) -> Result<AuthorizationManager, String> {
        let OAuth { id, secret, key, algorithm, scopes, .. } = &self.oauth;
        let client_id = id.clone().ok_or("`oauth.clientId` is missing: it says as whom to sign in")?;
        let (scopes, resource) = (scopes.clone(), Some(self.url.clone()));
        let config = match (key, secret) {
            (Some(key), _) => ClientCredentialsConfig::PrivateKeyJwt {
                client_id,
                signing_key: key.clone().into_bytes(),
                signing_algorithm: signing(algorithm.as_deref().unwrap_or("RS256"))?,
                token_endpoint_audience: None,
                scopes,
                resource,
            },
            (None, Some(secret)) => ClientCredentialsConfig::ClientSecret {
                client_id,
                client_secret: secret.clone(),
                scopes,
                resource,
            },
            (None, None) => {
                return Err("neither `oauth.clientSecret` nor `oauth.privateKey` is there".to_owned());
            }
        };
        let manager = self.manager().await.map_err(|error| told(&error))?;
        let mut state = OAuthState::Unauthorized(manager);
        // This future of theirs cannot go from thread to thread.
        let runtime = tokio::runtime::Handle::current();
        let work = move || {
            let signed = runtime.block_on(state.authenticate_client_credentials(config));
            signed.map(|()| state)
        };
        let state = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
        let state = state.map_err(|error| told(&error))?;
        state.into_authorization_manager().ok_or_else(|| "it has given no token".to_owned())
    }

    /// Has a person sign in.
    async fn visit(&self, challenge: Option<&str>, more: &[String]) -> Result<AuthorizationManager, String> {
        let browser = self.browser.get().ok_or_else(|| self.wanted(challenge))?;
        let told = |error| told(&error);
        let mut manager = self.manager().await.map_err(told)?;
        let found = manager.resolve_metadata_from_challenge(challenge).await.map_err(told)?;
        if challenge.is_none() && !found.source.is_discovered() {
            return Err("it does not want to know who you are".to_owned());
        }
        let issuer = found.metadata.issuer.clone();
        let takes_pages = found.metadata.additional_fields.get("client_id_metadata_document_supported");
        let takes_pages = takes_pages.is_some_and(|value| value == true);
        manager.set_metadata(found.metadata);
        // What another issuer has given us is of no use to this one, and none of its business.
        let before = self.store.read().filter(|kept| kept.issuer() == issuer.as_deref());

        let landing = TcpListener::bind(("127.0.0.1", self.oauth.port.unwrap_or(0))).await;
        let landing = landing.map_err(|error| format!("there is no address to come back to: {error}"))?;
        let port = landing.local_addr().map_err(|error| error.to_string())?.port();
        let redirect = format!("http://127.0.0.1:{port}/callback");
        let mut scopes = self.scopes(&manager, challenge, before.as_ref()).await;
        scopes.extend(more.iter().cloned());
        let scopes = once(scopes);
        let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();

        let registered = before.and_then(|kept| kept.registered).filter(|known| known.redirect == redirect);
        let client = match (&self.oauth, registered) {
            (OAuth { id: Some(id), secret, .. }, _) => {
                let mut client = OAuthClientConfig::new(id, &redirect);
                client.client_secret = secret.clone();
                client
            }
            (_, Some(known)) => {
                let mut client = OAuthClientConfig::new(known.id, &redirect);
                client.client_secret = known.secret;
                client
            }
            (OAuth { page: Some(page), .. }, None) if takes_pages => OAuthClientConfig::new(page, &redirect),
            _ => manager.register_client("omni", &redirect, &scopes).await.map_err(told)?,
        };
        let (id, secret) = (client.client_id.clone(), client.client_secret.clone());
        manager.configure_client(client).map_err(told)?;
        self.store.register(Registered { id, secret, redirect, issuer });

        let page = manager.get_authorization_url(&scopes).await.map_err(told)?;
        let back = browser(Visit { server: self.server.clone(), page, landing }).await?;
        let AuthorizationCallback { code, csrf_token, issuer, .. } = answered(&back)?;
        let issuer = issuer.as_deref();
        manager.exchange_code_for_token_with_issuer(&code, &csrf_token, issuer).await.map_err(told)?;
        Ok(manager)
    }

    /// What is asked to be allowed: what the user says, or what the server does. Where that was not
    /// enough, what was allowed before is asked for again, and what is missing.
    async fn scopes(
        &self,
        manager: &AuthorizationManager,
        challenge: Option<&str>,
        before: Option<&Kept>,
    ) -> Vec<String> {
        let mut scopes = match self.oauth.scopes.is_empty() {
            true => manager.select_initial_scopes(&[]).await,
            false => self.oauth.scopes.clone(),
        };
        if let Some(missing) = self.missing(challenge) {
            let granted =
                before.and_then(|kept| kept.credentials.as_ref()).map(|known| &known.granted_scopes);
            scopes.extend(granted.into_iter().flatten().cloned());
            scopes.extend(missing.split_whitespace().map(str::to_owned));
        }
        scopes
    }

    /// What is missing, where what is allowed is not enough.
    fn missing(&self, challenge: Option<&str>) -> Option<String> {
        let base = reqwest::Url::parse(&self.url).ok()?;
        let refused = WWWAuthenticateParams::parse(challenge?, &base);
        refused.is_insufficient_scope().then(|| refused.scope.unwrap_or_default())
    }

    /// What has to be done where no person is there to sign in.
    fn wanted(&self, challenge: Option<&str>) -> String {
        let name = &self.server;
        match self.missing(challenge) {
            Some(missing) => {
                format!(
                    "it wants more to be allowed; `omni mcp login {name} --scope '{}'` asks for it",
                    short(&missing)
                )
            }
            None => format!(
                "it wants to know who you are; `omni mcp login {name}` signs in, or give it a token in `headers` or `bearer_token_env_var`"
            ),
        }
    }

    /// Forgets who we are, and has what was given to us taken back. `None` if we were nobody.
    pub(super) async fn forget(&self) -> std::io::Result<Option<Revoked>> {
        if !self.store.file.exists() {
            return Ok(None);
        }
        // Whoever renews the tokens at this moment would bring them back.
        let _renewal = self.store.acquire_refresh_guard().await;
        let given = self.store.read().and_then(|kept| self.given(kept));
        if !self.store.forget()? {
            return Ok(None);
        }
        Ok(Some(match (given, self.manager().await) {
            (None, _) => Revoked::Yes,
            (Some(_), Err(error)) => Revoked::No(told(&error)),
            (Some(given), Ok(manager)) => revoke(&manager, &given).await,
        }))
    }

    /// What is there to be taken back, if there is anything.
    fn given(&self, kept: Kept) -> Option<Given> {
        let Kept { registered, credentials, .. } = kept;
        let StoredCredentials { client_id, token_response, issuer, .. } = credentials?;
        // The trait that would read them is not handed on by those who have it.
        let tokens = serde_json::to_value(token_response?).ok()?;
        let token = |name: &str| tokens[name].as_str().map(str::to_owned);
        let (own, known_by) = registered.map(|known| (known.secret, known.issuer)).unwrap_or_default();
        Some(Given {
            issuer: issuer.or(known_by),
            id: client_id,
            secret: own.or_else(|| self.oauth.secret.clone()),
            renewal: token("refresh_token"),
            access: token("access_token"),
        })
    }
}

/// Each of them once, in their order.
fn once(texts: Vec<String>) -> Vec<String> {
    let mut once = Vec::new();
    for text in texts {
        if !once.contains(&text) {
            once.push(text);
        }
    }
    once
}

/// What a page has answered.
fn answered(back: &str) -> Result<AuthorizationCallback, String> {
    let url =
        reqwest::Url::parse(back.trim()).map_err(|_| format!("{back:?} is not the address of a page"))?;
    let value =
        |wanted: &str| url.query_pairs().find(|(name, _)| name == wanted).map(|(_, value)| short(&value));
    if let Some(error) = value("error") {
        let about = value("error_description").map(|about| format!(": {about}")).unwrap_or_default();
        return Err(format!("you were not signed in: {error}{about}"));
    }
    AuthorizationCallback::from_redirect_url(back.trim()).map_err(|error| told(&error))
}

fn signing(name: &str) -> Result<JwtSigningAlgorithm, String> {
    Ok(match name {
        "RS256" => JwtSigningAlgorithm::RS256,
        "RS384" => JwtSigningAlgorithm::RS384,
        "RS512" => JwtSigningAlgorithm::RS512,
        "ES256" => JwtSigningAlgorithm::ES256,
        "ES384" => JwtSigningAlgorithm::ES384,
        other => {
            return Err(format!(
                "`oauth.algorithm` must be RS256, RS384, RS512, ES256 or ES384, not `{other}`"
            ));
        }
    })
}

/// Why nobody is signed in, without what would let others do so.
fn told(error: &AuthError) -> String {
    short(&error.to_string())
}

/// The file of one account.
#[derive(Clone)]
struct Store {
    file: PathBuf,
    url: String,
    /// What we are registered as, from when it is known until the tokens are there.
    registered: Arc<Mutex<Option<Registered>>>,
}

/// What is in it.
#[derive(Default, Serialize, Deserialize)]
struct Kept {
    /// Whose it is, for people who look at it.
    url: String,
    registered: Option<Registered>,
    credentials: Option<StoredCredentials>,
}

/// What an issuer of tokens knows us as.
#[derive(Clone, Serialize, Deserialize)]
struct Registered {
    id: String,
    secret: Option<String>,
    redirect: String,
    issuer: Option<String>,
}

impl Kept {
    fn issuer(&self) -> Option<&str> {
        self.registered.as_ref()?.issuer.as_deref()
    }
}

impl Store {
    fn new(folder: &Path, server: &str, url: &str) -> Self {
        let digest = Sha256::digest(url);
        let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self {
            file: folder.join(format!("{server}-{digest}.json")),
            url: url.to_owned(),
            registered: Arc::default(),
        }
    }

    /// What is kept; a file that cannot be read is as good as none.
    fn read(&self) -> Option<Kept> {
        serde_json::from_slice(&std::fs::read(&self.file).ok()?).ok()
    }

    fn write(&self, kept: &Kept) -> std::io::Result<()> {
        let folder = self.file.parent().expect("a file in a folder");
        std::fs::create_dir_all(folder)?;
        // For its owner alone from the beginning.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer(&mut file, kept)?;
        file.persist(&self.file)?;
        Ok(())
    }

    fn register(&self, registered: Registered) {
        *self.registered.lock().expect("no panic while held") = Some(registered);
    }

    fn forget(&self) -> std::io::Result<bool> {
        match std::fs::remove_file(&self.file) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn unkept(error: impl std::fmt::Display) -> AuthError {
    AuthError::CredentialStoreError(format!("the tokens cannot be kept: {error}"))
}

#[async_trait]
impl CredentialStore for Store {
    async fn load(&self) -> Result<Option<StoredCredentials>, AuthError> {
        Ok(self.read().and_then(|kept| kept.credentials))
    }

    async fn save(&self, credentials: StoredCredentials) -> Result<(), AuthError> {
        let mut kept = self.read().unwrap_or_default();
        if let Some(registered) = self.registered.lock().expect("no panic while held").clone() {
            kept.registered = Some(registered);
        }
        kept.url = self.url.clone();
        kept.credentials = Some(credentials);
        self.write(&kept).map_err(unkept)
    }

    async fn clear(&self) -> Result<(), AuthError> {
        self.forget().map(drop).map_err(unkept)
    }

    async fn on_refresh_token_rejected(&self, credentials: &StoredCredentials) -> Result<(), AuthError> {
        let Some(mut kept) = self.read() else { return Ok(()) };
        let same = |known: &StoredCredentials| known.token_received_at == credentials.token_received_at;
        if kept.credentials.as_ref().is_some_and(same) {
            kept.credentials = None;
            self.write(&kept).map_err(unkept)?;
        }
        Ok(())
    }

    async fn acquire_refresh_guard(&self) -> Result<Option<CredentialRefreshGuard>, AuthError> {
        let folder = self.file.parent().expect("a file in a folder");
        std::fs::create_dir_all(folder).map_err(unkept)?;
        let lock = std::fs::File::create(self.file.with_extension("lock")).map_err(unkept)?;
        let taken = async {
            while lock.try_lock().is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(RENEWAL, taken)
            .await
            .map_err(|_| unkept("another omni has been renewing them for a minute"))?;
        Ok(Some(CredentialRefreshGuard::new(lock)))
    }
}
