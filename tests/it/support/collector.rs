//! A collector of OpenTelemetry's traces: OTLP over HTTP, in protobuf, as much of it as spans need.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A collector that listens until the test ends.
pub struct Collector {
    pub url: String,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// A span, as it was sent.
#[derive(Debug, Clone, Default)]
pub struct Span {
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub name: String,
    pub attributes: BTreeMap<String, String>,
}

impl Collector {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let kept = bodies.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = kept.clone();
                std::thread::spawn(move || {
                    while let Some(body) = take(&stream) {
                        kept.lock().expect("no panic").push(body);
                    }
                });
            }
        });
        Self { url, bodies }
    }

    /// The spans that were sent so far.
    pub fn spans(&self) -> Vec<Span> {
        let bodies = self.bodies.lock().expect("no panic");
        // ExportTraceServiceRequest.resource_spans = 1, .scope_spans = 2, .spans = 2
        let all = bodies.iter().flat_map(|body| fields(body, 1));
        all.flat_map(|resource| fields(resource, 2)).flat_map(|scope| fields(scope, 2)).map(span).collect()
    }
}

/// Reads a request for traces and answers it; `None` at the end of the connection.
fn take(mut stream: &TcpStream) -> Option<Vec<u8>> {
    let mut reader = BufReader::new(stream);
    let (mut length, mut line) = (0, String::new());
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    assert!(line.starts_with("POST /v1/traces "), "{line}");
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let header = line.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        if let Some(value) = header.strip_prefix("content-type:") {
            assert_eq!(value.trim(), "application/x-protobuf");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n")
        .ok()?;
    Some(body)
}

/// What a field of a message holds.
enum Held<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message of protobuf with their numbers.
fn read(mut rest: &[u8]) -> Vec<(u64, Held<'_>)> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let tag = varint(&mut rest);
        let held = match tag & 7 {
            0 => Held::Number(varint(&mut rest)),
            1 => Held::Bytes(split(&mut rest, 8)),
            2 => {
                let length = varint(&mut rest) as usize;
                Held::Bytes(split(&mut rest, length))
            }
            5 => Held::Bytes(split(&mut rest, 4)),
            kind => panic!("there is no kind {kind}"),
        };
        found.push((tag >> 3, held));
    }
    found
}

fn varint(rest: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = split(rest, 1)[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    number
}

fn split<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (first, later) = rest.split_at(length);
    *rest = later;
    first
}

/// The messages in a field.
fn fields(message: &[u8], number: u64) -> Vec<&[u8]> {
    let held = read(message).into_iter().filter(|(own, _)| *own == number);
    held.filter_map(|(_, held)| match held {
        Held::Bytes(bytes) => Some(bytes),
        Held::Number(_) => None,
    })
    .collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn span(message: &[u8]) -> Span {
    let mut span = Span::default();
    for (number, held) in read(message) {
        match (number, held) {
            (1, Held::Bytes(bytes)) => span.trace = hex(bytes),
            (2, Held::Bytes(bytes)) => span.id = hex(bytes),
            (4, Held::Bytes(bytes)) => span.parent = hex(bytes),
            (5, Held::Bytes(bytes)) => span.name = text(bytes),
            (9, Held::Bytes(bytes)) => {
                let (key, value) = (fields(bytes, 1), fields(bytes, 2));
                span.attributes
                    .insert(text(key[0]), value.first().map(|value| told(value)).unwrap_or_default());
            }
            _ => {}
        }
    }
    span
}

/// A value of an attribute.
fn told(value: &[u8]) -> String {
    match read(value).into_iter().next() {
        Some((1, Held::Bytes(bytes))) => text(bytes),
        Some((_, Held::Number(number))) => number.to_string(),
        _ => String::new(),
    }
}
