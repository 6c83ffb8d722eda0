//! A newer omni in the place of this one: what there is, whether it comes from those who make omni, the exchange.
//!
//! A release is a `manifest.json` and its signature. The manifest names the release's version and, for each kind of
//! machine, a file, its size and its hash; the file is the program, compressed. Nothing but the key is trusted: whoever has
//! the server, or the wire, can keep news from us, and that is all.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use minisign_verify::{PublicKey, Signature};
use reqwest::Url;
use reqwest::redirect::Policy;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tempfile::{NamedTempFile, TempPath};
use tokio::io::AsyncReadExt;

use crate::child::Group;
use crate::config;

/// What this program is.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What it runs on, as releases name it.
pub const TARGET: &str = env!("OMNI_TARGET");
/// Where releases of this build are, and what they are signed with.
const BAKED: (Option<&str>, Option<&str>) = (option_env!("OMNI_RELEASES"), option_env!("OMNI_RELEASE_KEY"));

const MANIFEST: &str = "manifest.json";
const SIGNATURE: &str = "manifest.json.minisig";
/// Of the newer program, until it is in its place.
const PREFIX: &str = ".omni-new-";
/// Bytes that a manifest, and its signature, may have.
const SAID: usize = 64 << 10;
/// Bytes that the program may have, compressed or not.
const LARGEST: u64 = 1 << 30;
/// Servers that one answer may lead through.
const REDIRECTS: usize = 5;
/// How long a connection may take, and how long a server may be silent.
const CONNECT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(30);
/// How long the manifest may take, and the program.
const ASKED: Duration = Duration::from_secs(60);
const FETCHED: Duration = Duration::from_secs(30 * 60);
/// How long the newer program may take to say its version.
const TRIED: Duration = Duration::from_secs(30);

/// Why the program stays the one it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody said where to look.
    #[error("this build does not know where its releases are; set `update.url` and `update.key`")]
    Nowhere,
    /// What was set is none.
    #[error("`{key}` is set to `{value}`, which is {wanted}")]
    Setting {
        /// The key.
        key: &'static str,
        /// What it is set to.
        value: String,
        /// What it is not.
        wanted: String,
    },
    /// No answer, or one that ended too early.
    #[error("cannot fetch {url}: {reason}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What came instead.
        reason: String,
    },
    /// It is not from those who have the key.
    #[error("{url} is not signed with the key `{key}`: {reason}")]
    Unsigned {
        /// The manifest.
        url: String,
        /// The public key.
        key: String,
        /// What is wrong with the signature.
        reason: String,
    },
    /// It is signed, and yet no release.
    #[error("{url} describes no release: {reason}")]
    Unreadable {
        /// The manifest.
        url: String,
        /// Why.
        reason: String,
    },
    /// It is not for this machine.
    #[error("omni {version} was not released for {TARGET}")]
    Absent {
        /// The release.
        version: String,
    },
    /// It goes back.
    #[error("the release there is omni {theirs}, which is older than this omni {VERSION}")]
    Older {
        /// The release.
        theirs: String,
    },
    /// It is not what the manifest describes.
    #[error("{url} is not the file that was released: {reason}")]
    Altered {
        /// The file.
        url: String,
        /// In which way.
        reason: String,
    },
    /// It cannot be put there.
    #[error("cannot write in `{}`: {source}", folder.display())]
    Place {
        /// The folder of the program.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not work here.
    #[error("omni {version} does not run on this machine: {reason}")]
    Broken {
        /// The release.
        version: String,
        /// What it did.
        reason: String,
    },
}

/// The place where releases are.
#[derive(Debug)]
pub struct Releases {
    url: Url,
    key: (String, PublicKey),
    client: reqwest::Client,
}

/// What a manifest says.
#[derive(Debug, Deserialize)]
pub struct Release {
    /// Three numbers.
    pub version: String,
    /// By the kind of machine.
    pub files: BTreeMap<String, Download>,
}

/// A file of a release.
#[derive(Debug, Clone, Deserialize)]
pub struct Download {
    /// What it is called, beside the manifest.
    pub name: String,
    /// Of its bytes, in hexadecimal.
    pub sha256: String,
    /// How many those are.
    pub size: u64,
}

impl Releases {
    /// Where the settings say, or where this build knows them to be.
    pub fn find(settings: &config::Update) -> Result<Self, Error> {
        let chosen = |set: &str, baked: Option<&str>| {
            let known = Some(set.trim()).filter(|set| !set.is_empty()).or(baked);
            known.filter(|text| !text.is_empty()).map(str::to_owned).ok_or(Error::Nowhere)
        };
        let (url, key) = (chosen(&settings.url, BAKED.0)?, chosen(&settings.key, BAKED.1)?);
        let wrong = |key: &'static str, value: &str, wanted: &str| Error::Setting {
            key,
            value: value.to_owned(),
            wanted: wanted.to_owned(),
        };
        let address = Url::parse(&format!("{}/", url.trim_end_matches('/'))).ok();
        let address = address.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let address = address.ok_or_else(|| wrong("update.url", &url, "no address of a web server"))?;
        let public = PublicKey::from_base64(&key);
        let public = public.map_err(|_| wrong("update.key", &key, "no public key of minisign"))?;
        let client = client(&address).map_err(|error| Error::Unreachable {
            url: address.to_string(),
            reason: format!("there is no HTTP client: {error}"),
        })?;
        Ok(Self { url: address, key: (key, public), client })
    }

    /// What is released, once it is known that it is.
    pub async fn latest(&self) -> Result<Release, Error> {
        let manifest = self.get(MANIFEST, SAID, ASKED).await?;
        let signature = self.get(SIGNATURE, SAID, ASKED).await?;
        let url = self.address(MANIFEST);
        let (key, public) = &self.key;
        let signature = std::str::from_utf8(&signature).ok().and_then(|text| Signature::decode(text).ok());
        let verified = match signature {
            Some(signature) => public.verify(&manifest, &signature, false).map_err(|error| error.to_string()),
            None => Err(format!("`{SIGNATURE}` beside it is no signature")),
        };
        verified.map_err(|reason| Error::Unsigned { url: url.clone(), key: key.clone(), reason })?;
        let release: Release = serde_json::from_slice(&manifest)
            .map_err(|error| Error::Unreadable { url: url.clone(), reason: error.to_string() })?;
        match is_plain(&release) {
            true => Ok(release),
            false => Err(Error::Unreadable {
                url,
                reason: "its version is not three numbers, or a file of it is in another folder".to_owned(),
            }),
        }
    }

    /// Puts a release in the place of `program`, which stays as it is unless all goes well. `told` hears what is fetched.
    pub async fn install(
        &self,
        release: &Release,
        program: &Path,
        told: impl FnOnce(&Download),
    ) -> Result<(), Error> {
        let folder = program.parent().unwrap_or(Path::new("/"));
        let place = |source| Error::Place { folder: folder.to_owned(), source };
        if !release.is_newer(VERSION) {
            return Err(Error::Older { theirs: release.version.clone() });
        }
        let download = release.files.get(TARGET);
        let download = download.ok_or_else(|| Error::Absent { version: release.version.clone() })?;
        // Before anything is fetched for nothing.
        let mode = fs::metadata(program).map_err(place)?.mode() & 0o777;
        let file = tempfile::Builder::new().prefix(PREFIX).tempfile_in(folder).map_err(place)?;
        told(download);
        let packed = self.fetch(download).await?;
        let altered = |reason: String| Error::Altered { url: self.address(&download.name), reason };
        let unpacked = zstd::Decoder::new(&*packed).map_err(|error| altered(error.to_string()))?;
        let new = write(unpacked, file, mode).map_err(|error| match error {
            Fault::Read(error) => altered(error.to_string()),
            Fault::Write(error) => place(error),
        })?;
        let tried = tokio::time::timeout(TRIED, run(&new, &release.version)).await;
        let tried = tried.unwrap_or_else(|_| Err(format!("it said nothing for {} s", TRIED.as_secs())));
        tried.map_err(|reason| Error::Broken { version: release.version.clone(), reason })?;
        new.persist(program).map_err(|error| place(error.error))
    }

    /// The bytes of a file, if they are those that were released.
    async fn fetch(&self, download: &Download) -> Result<Vec<u8>, Error> {
        let altered = |reason: String| Error::Altered { url: self.address(&download.name), reason };
        let size = usize::try_from(download.size).ok().filter(|_| download.size <= LARGEST);
        let size = size.ok_or_else(|| altered(format!("it has {} bytes", download.size)))?;
        let bytes = self.get(&download.name, size, FETCHED).await?;
        if bytes.len() != size {
            return Err(altered(format!("it has {} bytes instead of {size}", bytes.len())));
        }
        let hash = hex(&Sha256::digest(&bytes));
        if !hash.eq_ignore_ascii_case(&download.sha256) {
            return Err(altered(format!("its SHA-256 is {hash} instead of {}", download.sha256)));
        }
        Ok(bytes)
    }

    /// A file beside the manifest, of at most so many bytes.
    async fn get(&self, name: &str, most: usize, patience: Duration) -> Result<Vec<u8>, Error> {
        let url = self.address(name);
        let failed = |reason: String| Error::Unreachable { url: url.clone(), reason };
        let lost = |error: reqwest::Error| failed(cause(&error.without_url()));
        let request = self.client.get(&url).timeout(patience);
        let mut response = request.send().await.map_err(lost)?;
        if !response.status().is_success() {
            return Err(failed(format!("the server answered {}", response.status())));
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(lost)? {
            if body.len() + piece.len() > most {
                return Err(failed(format!("there are more than {most} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    fn address(&self, name: &str) -> String {
        format!("{}latest/download/{name}", self.url)
    }
}

impl Release {
    /// Whether it is newer than a version; an unreadable one is older than all.
    pub fn is_newer(&self, than: &str) -> bool {
        numbers(&self.version) > numbers(than)
    }

    /// Whether it is that version.
    pub fn is(&self, version: &str) -> bool {
        numbers(&self.version) == numbers(version)
    }
}

/// The file that this program was started from, where links have led to.
pub fn program() -> io::Result<PathBuf> {
    // Whoever was replaced while they run have no path to lead to.
    std::env::current_exe()?.canonicalize()
}

/// Who keeps the program at this path current, where that is somebody else's work, and how that goes.
pub fn keeper(program: &Path) -> Option<(&'static str, &'static str)> {
    if program.components().any(|part| part.as_os_str() == "Cellar") {
        return Some(("Homebrew", "`brew upgrade omni`"));
    }
    let is_packaged =
        ["/usr/bin", "/usr/sbin", "/bin", "/nix/store"].iter().any(|folder| program.starts_with(folder));
    is_packaged.then_some(("the packages of this machine", "upgrade it with them"))
}

/// A client that goes where it is sent, but never from a wire that is closed to one that is open.
fn client(url: &Url) -> reqwest::Result<reqwest::Client> {
    let policy = Policy::custom(|attempt| {
        let from = attempt.previous().last().map_or("", Url::scheme);
        match (from, attempt.url().scheme()) {
            ("https", "https") | ("http", "http" | "https") if attempt.previous().len() <= REDIRECTS => {
                attempt.follow()
            }
            _ => attempt.error("it leads elsewhere too often, or to where everybody can listen"),
        }
    });
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    let client = reqwest::Client::builder().user_agent(concat!("omni/", env!("CARGO_PKG_VERSION")));
    let client = client.connect_timeout(CONNECT).read_timeout(SILENCE).redirect(policy);
    if is_here { client.no_proxy().build() } else { client.build() }
}

/// What is at the bottom of an error: the rest says that there is one.
fn cause(error: &dyn std::error::Error) -> String {
    let mut bottom = error;
    while let Some(source) = bottom.source() {
        bottom = source;
    }
    bottom.to_string()
}

/// Whether names and numbers are what they have to be.
fn is_plain(release: &Release) -> bool {
    let is_name = |name: &str| {
        let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        !name.is_empty() && !name.starts_with('.') && name.chars().all(is_letter)
    };
    numbers(&release.version).is_some_and(|(.., is_final)| is_final)
        && release.files.values().all(|file| is_name(&file.name))
}

/// The three numbers of a version, and whether nothing comes behind them: what comes before a release is older than it.
fn numbers(version: &str) -> Option<(u64, u64, u64, bool)> {
    let (numbers, is_final) = match version.split_once('-') {
        Some((numbers, _)) => (numbers, false),
        None => (version, true),
    };
    let mut parts = numbers.split('.').map(|part| part.parse().ok());
    match (parts.next()??, parts.next()??, parts.next()??, parts.next()) {
        (major, minor, patch, None) => Some((major, minor, patch, is_final)),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// At which end a copy went wrong.
enum Fault {
    Read(io::Error),
    Write(io::Error),
}

/// Writes the program, all of it, and closes the file: what is open for writing cannot be started.
fn write(mut from: impl Read, mut file: NamedTempFile, mode: u32) -> Result<TempPath, Fault> {
    let (mut piece, mut written) = (vec![0; 1 << 16], 0_u64);
    loop {
        let length = from.read(&mut piece).map_err(Fault::Read)?;
        written += length as u64;
        if length == 0 {
            break;
        }
        if written > LARGEST {
            return Err(Fault::Read(io::Error::other(format!("it has more than {} MiB", LARGEST >> 20))));
        }
        file.write_all(&piece[..length]).map_err(Fault::Write)?;
    }
    file.as_file().set_permissions(Permissions::from_mode(mode | 0o500)).map_err(Fault::Write)?;
    file.as_file().sync_all().map_err(Fault::Write)?;
    Ok(file.into_temp_path())
}

/// Starts the newer program, and hears whether it is the one it should be.
async fn run(program: &Path, version: &str) -> Result<(), String> {
    let mut command = tokio::process::Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = Group::start(&mut command).map_err(|error| error.to_string())?;
    let mut said = String::new();
    let out = child.stdout.take().expect("piped");
    out.take(SAID as u64).read_to_string(&mut said).await.map_err(|error| error.to_string())?;
    let status = child.wait().await.map_err(|error| error.to_string())?;
    match status.success() && said.trim() == format!("omni {version}") {
        true => Ok(()),
        false if status.success() => Err(format!("asked for its version it said `{}`", said.trim())),
        false => Err(format!("asked for its version it ended with {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_go_up() {
        let release = |version: &str| Release { version: version.to_owned(), files: BTreeMap::new() };
        for (newer, older) in
            [("0.1.10", "0.1.9"), ("0.2.0", "0.1.99"), ("1.0.0", "0.9.9"), ("1.0.0", "1.0.0-rc.1")]
        {
            assert!(release(newer).is_newer(older), "{newer} {older}");
            assert!(!release(older).is_newer(newer), "{older} {newer}");
            assert!(!release(newer).is_newer(newer) && release(newer).is(newer));
        }
    }

    #[test]
    fn what_is_no_release_is_none() {
        let is_plain = |version: &str, name: &str| {
            let file = Download { name: name.to_owned(), sha256: String::new(), size: 0 };
            super::is_plain(&Release {
                version: version.to_owned(),
                files: BTreeMap::from([("x".to_owned(), file)]),
            })
        };
        assert!(is_plain("1.2.3", "omni-1.2.3-x86_64-unknown-linux-gnu.zst"));
        for (version, name) in [
            ("1.2", "a"),
            ("1.2.3.4", "a"),
            ("1.2.x", "a"),
            ("1.2.3-rc.1", "a"),
            ("", "a"),
            ("1.2.3", ""),
            ("1.2.3", "../a"),
            ("1.2.3", "/a"),
            ("1.2.3", ".a"),
            ("1.2.3", "a?b"),
        ] {
            assert!(!is_plain(version, name), "{version} {name}");
        }
    }

    #[test]
    fn what_others_keep_is_theirs() {
        assert_eq!(keeper(Path::new("/opt/homebrew/Cellar/omni/1.0.0/bin/omni")).unwrap().0, "Homebrew");
        assert!(keeper(Path::new("/usr/bin/omni")).is_some());
        assert!(keeper(Path::new("/usr/local/bin/omni")).is_none());
        assert!(keeper(Path::new("/home/somebody/.local/bin/omni")).is_none());
    }
}
