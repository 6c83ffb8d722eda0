//! Results over HTTP, signed as <https://www.standardwebhooks.com> says, so that receivers find a
//! library that checks them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use reqwest::Url;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::deliver::Failure;
use crate::store::job::{Job, Run};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bytes of a block of SHA-256.
const BLOCK: usize = 64;

/// How results are sent out.
#[derive(Clone, Default)]
pub struct Setting {
    /// What they are signed with: a text, or `whsec_` and base64. Without it none are sent.
    pub secret: Option<String>,
    /// Hosts that may be of this machine or of a private network.
    pub hosts: Vec<String>,
}

/// Sends what came of a run. The id is that of the run each time, so that a receiver knows it again.
pub(super) async fn post(
    setting: &Setting,
    url: &str,
    job: &Job,
    run: &Run,
    now: Timestamp,
) -> Result<(), Failure> {
    let Some(secret) = &setting.secret else {
        return Err(Failure::Never("a webhook has to be signed; set `jobs.webhook_secret`".to_owned()));
    };
    let url = Url::parse(url).map_err(|error| Failure::Never(format!("`{url}` is no address: {error}")))?;
    let host = url.host_str().unwrap_or_default().to_owned();
    let addresses = addresses(&url, &host, setting).await?;
    let body = json!({
        "type": "job.ended",
        "timestamp": run.ended.unwrap_or(now),
        "data": {
            "job": job.id, "name": job.name, "run": run.id, "due": run.due, "state": run.state, "output": run.output,
            "error": Some(&run.error).filter(|error| !error.is_empty()), "tokens": run.tokens,
        },
    });
    let (body, time) = (body.to_string(), now.as_second());
    let signature = signature(secret, &run.id, time, &body);
    // Pinned to what was looked at: another answer of the resolver could be inside.
    let client = reqwest::Client::builder()
        .resolve_to_addrs(host.trim_matches(['[', ']']), &addresses)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(PATIENCE)
        .build()
        .map_err(|error| Failure::Later(error.to_string()))?;
    let request = client
        .post(url)
        .header("content-type", "application/json")
        .header("user-agent", concat!("omni/", env!("CARGO_PKG_VERSION")))
        .header("webhook-id", &run.id)
        .header("webhook-timestamp", time.to_string())
        .header("webhook-signature", signature)
        .body(body);
    match request.send().await.map(|answer| answer.status()) {
        Ok(status) if status.is_success() => Ok(()),
        Ok(status) if status.as_u16() == 410 => Err(Failure::Never(format!("`{host}` answered {status}"))),
        Ok(status) if status.is_redirection() => {
            Err(Failure::Never(format!("`{host}` answered {status}; give the address it leads to")))
        }
        Ok(status) => Err(Failure::Later(format!("`{host}` answered {status}"))),
        Err(error) => Err(Failure::Later(format!("`{host}` cannot be reached: {}", error.without_url()))),
    }
}

/// Where a host is, if it may be asked.
async fn addresses(url: &Url, host: &str, setting: &Setting) -> Result<Vec<SocketAddr>, Failure> {
    let bare = host.trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or(443);
    let found = tokio::net::lookup_host((bare, port)).await;
    let found: Vec<SocketAddr> =
        found.map_err(|error| Failure::Later(format!("`{host}` cannot be found: {error}")))?.collect();
    let is_known = setting.hosts.iter().any(|known| known.trim_matches(['[', ']']) == bare);
    match found.iter().find(|address| is_inside(address.ip())) {
        Some(address) if !is_known => Err(Failure::Never(format!(
            "`{host}` is {}, on this machine or in a private network; `jobs.webhook_hosts` can allow it",
            address.ip()
        ))),
        _ if found.is_empty() => Err(Failure::Later(format!("`{host}` has no address"))),
        _ => Ok(found),
    }
}

/// Whether an address is not one of the public net.
pub fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_inside_v4(address),
        IpAddr::V6(address) => is_inside_v6(address),
    }
}

/// After the registry of special addresses, RFC 6890 and what was added to it.
fn is_inside_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    a == 0
        || a >= 224
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_documentation()
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b))
}

fn is_inside_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    let inner = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_inside_v4(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        // What stands for an address of version 4: mapped, translated, 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => inner(high, low),
        [0x2002, high, low, ..] => inner(high, low),
        // All that is given out to the public net begins with 001.
        [first, ..] if first & 0xe000 != 0x2000 => true,
        // Teredo, documentation.
        [0x2001, 0, ..] | [0x2001, 0xdb8, ..] => true,
        _ => false,
    }
}

/// `v1,` and the HMAC of id, time and body.
pub fn signature(secret: &str, id: &str, time: i64, body: &str) -> String {
    let key = secret.strip_prefix("whsec_").and_then(|key| STANDARD.decode(key).ok());
    let key = key.unwrap_or_else(|| secret.as_bytes().to_vec());
    let signed = format!("{id}.{time}.{body}");
    format!("v1,{}", STANDARD.encode(hmac(&key, signed.as_bytes())))
}

/// HMAC-SHA256 after RFC 2104.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0; BLOCK];
    match key.len() > BLOCK {
        true => block[..32].copy_from_slice(&Sha256::digest(key)),
        false => block[..key.len()].copy_from_slice(key),
    }
    let pad = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}
