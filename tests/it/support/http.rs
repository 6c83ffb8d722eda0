//! Requests as bytes, for what no client would send.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::omni::{Run, Started};

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway that runs.
pub struct Door {
    pub server: Started,
    pub url: String,
}

impl Door {
    /// Starts it and waits for its address.
    pub fn open(run: Run) -> Self {
        let mut server = run.start();
        let url = server.until("http://").trim().to_owned();
        Self { server, url }
    }

    pub fn address(&self) -> String {
        self.url.trim_start_matches("http://").replace("0.0.0.0", "127.0.0.1")
    }

    /// Sends a request and reads all of the answer.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.begin(method, path, headers, body).end()
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[], &body.to_string())
    }

    /// Sends a request; a header that is given takes the place of the usual one.
    pub fn begin(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reader {
        let (address, length) = (self.address(), body.len().to_string());
        let usual = [
            ("Host", address.as_str()),
            ("Content-Type", "application/json"),
            ("Content-Length", length.as_str()),
            ("Connection", "close"),
        ];
        let is_usual = |name: &str| !headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        for (name, value) in usual.iter().filter(|(name, _)| is_usual(name)).chain(headers) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        self.raw(format!("{head}\r\n{body}").as_bytes())
    }

    /// Sends these bytes.
    pub fn raw(&self, bytes: &[u8]) -> Reader {
        let mut stream = TcpStream::connect(self.address()).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        // A server that has heard enough may hang up before all was said.
        let _ = stream.write_all(bytes);
        Reader { stream: BufReader::new(stream) }
    }
}

/// Posts JSON to a place where there may be nobody; `None` where there is no whole answer.
pub fn post(address: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n",
        body.len()
    );
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let header =
        |line: &str| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    let answer = Answer { status, headers: lines.filter_map(header).collect(), body: body.to_owned() };
    let is_whole = answer.header("content-length").is_none_or(|length| length.parse() == Ok(body.len()));
    is_whole.then_some(answer)
}

/// An answer that is still to be read. Dropping it hangs up.
pub struct Reader {
    pub stream: BufReader<TcpStream>,
}

impl Reader {
    /// The next line of it.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("it is answered");
        line
    }

    /// Waits for a line that has this in it.
    pub fn until(&mut self, words: &str) -> String {
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "`{words}` was never said");
            if line.contains(words) {
                return line;
            }
        }
    }

    pub fn end(mut self) -> Answer {
        let status = self.line();
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut headers = Vec::new();
        while let Some((name, value)) = self.line().trim_end().split_once(": ") {
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut body = Vec::new();
        self.stream.read_to_end(&mut body).expect("it is answered");
        let answer = Answer { status: status.expect("an answer of HTTP"), headers, body: String::new() };
        let chunked = answer.header("transfer-encoding") == Some("chunked");
        let body = if chunked { joined(&body) } else { body };
        Answer { body: String::from_utf8(body).expect("text"), ..answer }
    }
}

/// Takes the chunks of a body together.
fn joined(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").expect("a chunk has a length");
        let length = std::str::from_utf8(&rest[..end]).expect("a number");
        let length = usize::from_str_radix(length, 16).expect("a number");
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + length]);
        rest = &rest[end + 2 + length + 2..];
    }
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What the `data` lines of a stream say, as far as they are JSON.
    pub fn events(&self) -> Vec<Value> {
        let data = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        data.filter_map(|data| serde_json::from_str(data).ok()).collect()
    }
}
