//! Describing skill files in a process of their own.
//!
//! To know a file's tools it has to be imported, and an import can hang, crash or print. So
//! it happens in a child, the same binary as `omni worker`: one request a line in, one answer
//! a line out, each with a time limit. What dies takes down its own file's tools alone.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures::StreamExt;
use pyo3::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio_util::codec::{FramedRead, LinesCodec};

use super::{Interpreter, bridge, interpreter};
use crate::child::Group;
use crate::skill::index::{Description, Request};
use crate::skill::manifest::{Problem, Spec, ToolEntry};
use crate::skill::{Engines, Where};

/// Time one file has to be imported.
pub const IMPORT: Duration = Duration::from_secs(10);
/// Time the child has to start Python and to import `omni`, on a slow or busy machine.
const START: Duration = Duration::from_secs(60);
/// Time a child that has closed its output has to end.
const END: Duration = Duration::from_secs(1);
/// Bytes one answer may have.
const ANSWER: usize = 16 << 20;

/// Describes these files, in order. A file that cannot be described, or not within `limit`,
/// has a problem instead. `program` makes the command that starts this program once more.
pub async fn describe(
    program: impl Fn() -> Result<std::process::Command, String>,
    requests: Vec<Request>,
    limit: Duration,
) -> Vec<Description> {
    let mut worker: Option<Worker> = None;
    let mut descriptions = Vec::with_capacity(requests.len());
    for request in requests {
        let answer = match worker.take().filter(|worker| worker.environment == request.environment) {
            Some(worker) => Ok(worker),
            None => Worker::start(&program, request.environment.as_deref()).await,
        };
        let answer = match answer {
            Ok(mut ready) => ready.ask(&request, limit).await.inspect(|_| worker = Some(ready)),
            Err(reason) => Err(reason),
        };
        descriptions.push(match answer {
            Ok(told) => told.into(),
            Err(reason) => {
                let problems = vec![Problem::error(request.file, None, reason)];
                Description { problems, ..Description::default() }
            }
        });
    }
    descriptions
}

/// What the child says of a file; the twin of what `omni.kernel.describe` returns.
#[derive(Serialize, Deserialize)]
struct Told {
    tools: Vec<ToldTool>,
    problem: Option<ToldProblem>,
    modules: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct ToldTool {
    file: String,
    function: String,
    line: u32,
    is_async: bool,
    isolation: Option<Where>,
    #[serde(flatten)]
    spec: Spec,
}

#[derive(Serialize, Deserialize)]
struct ToldProblem {
    file: String,
    line: Option<u32>,
    message: String,
}

impl From<Told> for Description {
    fn from(told: Told) -> Self {
        let entry = |tool: ToldTool| {
            let ToldTool { file, function, line, is_async, isolation, spec } = tool;
            ToolEntry { file, function, line, is_async, isolation, spec: spec.into() }
        };
        let problem = |problem: ToldProblem| Problem::error(problem.file, problem.line, problem.message);
        Self {
            tools: told.tools.into_iter().map(entry).collect(),
            problems: told.problem.into_iter().map(problem).collect(),
            modules: told.modules,
        }
    }
}

/// A child that waits for requests. Dropping it kills its process group.
struct Worker {
    child: Group,
    input: ChildStdin,
    output: FramedRead<ChildStdout, LinesCodec>,
    /// Where the packages are that it imports.
    environment: Option<PathBuf>,
}

impl Worker {
    async fn start(
        program: impl Fn() -> Result<std::process::Command, String>,
        environment: Option<&Path>,
    ) -> Result<Self, String> {
        let mut command = program()?;
        command.arg("worker");
        if let Some(environment) = environment {
            interpreter::enter(&mut command, environment);
        }
        let mut command = Command::from(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = Group::start(&mut command)
            .map_err(|error| format!("cannot start a worker to import skills: {error}"))?;
        let input = child.stdin.take().expect("piped");
        let output = child.stdout.take().expect("piped");
        let output = FramedRead::new(output, LinesCodec::new_with_max_length(ANSWER));
        let environment = environment.map(Path::to_owned);
        let mut worker = Self { child, input, output, environment };
        match worker.read(START).await? {
            Value::Null => Ok(worker),
            reason => Err(format!("Python did not start: {reason}")),
        }
    }

    async fn ask(&mut self, request: &Request, limit: Duration) -> Result<Told, String> {
        let Request { skill, folder, file, engines, environment: _ } = request;
        let line = format!("{}\n", json!([skill, folder, file, engines]));
        self.input.write_all(line.as_bytes()).await.map_err(|error| format!("the import ended: {error}"))?;
        let answer = self.read(limit).await?;
        serde_json::from_value(answer).map_err(|error| format!("its description is malformed: {error}"))
    }

    async fn read(&mut self, limit: Duration) -> Result<Value, String> {
        match tokio::time::timeout(limit, self.output.next()).await {
            Err(_) => Err(format!("its import took longer than {} s and was stopped", limit.as_secs_f64())),
            Ok(Some(Ok(line))) => serde_json::from_str(&line).map_err(|error| error.to_string()),
            Ok(Some(Err(error))) => Err(format!("its description cannot be read: {error}")),
            Ok(None) => Err(self.obituary().await),
        }
    }

    async fn obituary(&mut self) -> String {
        match tokio::time::timeout(END, self.child.wait()).await {
            Ok(Ok(status)) => format!("its import ended the process: {status}"),
            Ok(Err(error)) => format!("its import ended the process: {error}"),
            Err(_) => "its import closed the connection to the process that asked".to_owned(),
        }
    }
}

/// The child's side: answers requests from standard input until it ends.
///
/// Both have private descriptors: 1 itself becomes standard error and 0 reads as empty, so that
/// nothing an imported file prints is taken for an answer, from Python, C or a child of its own,
/// and nothing it reads is a request.
pub fn serve(interpreter: Interpreter, environment: Option<&Path>) -> Result<(), String> {
    let (requests, mut answers) =
        private_streams().map_err(|error| format!("cannot keep the standard streams: {error}"))?;
    let mut answer = |value: &Value| {
        serde_json::to_writer(&mut answers, value).map_err(std::io::Error::from)?;
        answers.write_all(b"\n")
    };
    let started = interpreter.start_in(environment);
    let greeting = started.as_ref().err().map_or(Value::Null, |reason| Value::from(reason.as_str()));
    answer(&greeting).map_err(|error| error.to_string())?;
    started?;
    for line in BufReader::new(requests).lines() {
        let line = line.map_err(|error| error.to_string())?;
        let request: (String, String, String, Engines) =
            serde_json::from_str(&line).map_err(|error| error.to_string())?;
        let (skill, folder, file, engines) = request;
        let description = Python::attach(|py| {
            let arguments = (&skill, &folder, &file, bridge::engines(py, &engines)?);
            let description = py.import("omni.kernel")?.call_method1("describe", arguments)?;
            bridge::from_python(&description)
        });
        let description = description.unwrap_or_else(|error| {
            let problem = ToldProblem { file, line: None, message: error.to_string() };
            json!(Told { tools: Vec::new(), problem: Some(problem), modules: Vec::new() })
        });
        answer(&description).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn private_streams() -> std::io::Result<(File, File)> {
    let (requests, answers) = (private(0)?, private(1)?);
    let nothing = File::open("/dev/null")?;
    // SAFETY: plain system calls on descriptors that are open.
    if unsafe { libc::dup2(nothing.as_raw_fd(), 0) < 0 || libc::dup2(2, 1) < 0 } {
        return Err(std::io::Error::last_os_error());
    }
    Ok((requests, answers))
}

fn private(descriptor: RawFd) -> std::io::Result<File> {
    // SAFETY: plain system call; the copy is owned by the returned file alone.
    unsafe {
        let copy = libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 3);
        if copy < 0 { Err(std::io::Error::last_os_error()) } else { Ok(File::from_raw_fd(copy)) }
    }
}
