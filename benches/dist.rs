//! The one file: how large it is, how long it takes to start, what it takes of the memory. `make bench` builds it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::measure::median;
use super::table::{Report, Row};
use super::world::{World, time};

const ROUNDS: usize = 15;
const LONG_ROUNDS: usize = 5;
/// Bytes.
const MEGA: f64 = 1e6;

/// Measures all of it.
pub fn run(world: &World) -> Result<Report> {
    let file = world.root.join("dist/omni");
    ensure!(file.is_file(), "`{}` is not there; `make dist` builds it", file.display());
    let mut report = sizes(world, &file)?;
    report.extend(starts(world, &file)?);
    report.extend(memory(world, &file)?);
    Ok(report)
}

fn omni(file: &Path, home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(file);
    command.args(arguments).env("OMNI_HOME", home).env("OMNI_MODEL__NAME", "offline").stdin(Stdio::null());
    command
}

fn sizes(world: &World, file: &Path) -> Result<Report> {
    let whole = fs::metadata(file)?.len() as f64 / MEGA;
    let packed = Command::new("zstd").args(["-19", "-T2", "-q", "-c"]).arg(file).output().context("zstd")?;
    ensure!(packed.status.success(), "zstd failed");
    let packed = packed.stdout.len() as f64 / MEGA;
    let peer = world.peers()?.join("nanobot");
    let theirs = weight(&peer)? as f64 / MEGA;
    let row = |what: &str, size: f64, limit: f64| {
        Row::new(what, format!("{size:.1} MB")).promise(format!("≤ {limit} MB"), size <= limit)
    };
    let mut report = Report::default();
    let whole_row = row("the one file, with its Python", whole, 150.0);
    report.rows.push(
        whole_row.beside(format!("Nanobot, installed: {theirs:.0} MB"), format!("{:.2}", whole / theirs)),
    );
    report.rows.push(row("the one file, as it is downloaded (zstd -19)", packed, 60.0));
    Ok(report)
}

/// Bytes of the files in a folder.
fn weight(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        sum += match kind.is_dir() {
            true => weight(&entry.path())?,
            false if kind.is_file() => entry.metadata()?.len(),
            false => 0,
        };
    }
    Ok(sum)
}

fn starts(world: &World, file: &Path) -> Result<Report> {
    let milliseconds = |command: &mut Command| Ok::<_, anyhow::Error>(time(command)?.as_secs_f64() * 1000.0);
    let home = world.path("dist");
    time(&mut omni(file, &home, &["tool", "call", "time.now"]))?;
    let mut bare = Command::new(&world.python);
    bare.args(["-c", "pass"]).stdin(Stdio::null());
    let mut commands = [
        omni(file, &home, &["--version"]),
        omni(file, &home, &["tool", "call", "time.now"]),
        omni(file, &home, &["python", "-c", "pass"]),
        bare,
    ];
    let mut times: [Vec<f64>; 4] = Default::default();
    for round in 0..=ROUNDS {
        for (command, times) in commands.iter_mut().zip(&mut times) {
            let took = milliseconds(command)?;
            if round > 0 {
                times.push(took);
            }
        }
    }
    let (mut first, mut called) = (Vec::new(), Vec::new());
    for round in 0..LONG_ROUNDS {
        let home = world.path(&format!("dist-{round}"));
        first.push(milliseconds(&mut omni(file, &home, &["python", "-c", "pass"]))?);
        fs::remove_dir_all(&home)?;
        called.push(milliseconds(&mut omni(file, &home, &["tool", "call", "time.now"]))?);
        fs::remove_dir_all(&home)?;
    }
    let [version, call, python, bare] = times.map(median);
    let beside = format!("`python -c pass`: {bare:.1} ms");
    let row = |what: &str, took: f64| {
        Row::new(what, format!("{took:.1} ms")).beside(beside.clone(), format!("{:.2}", took / bare))
    };
    let mut report = Report::default();
    report.rows.push(row("one file: `omni --version`", version).promise("≤ 15 ms", version <= 15.0));
    report.rows.push(row("one file: `omni tool call time.now`", call).promise("≤ 150 ms", call <= 150.0));
    report.rows.push(row("one file: `omni python -c pass`", python));
    report.rows.push(row("one file: `omni python -c pass`, the first start, which unpacks", median(first)));
    report.rows.push(row("one file: `omni tool call time.now`, the very first", median(called)));
    Ok(report)
}

fn memory(world: &World, file: &Path) -> Result<Report> {
    let home = world.path("dist");
    let mut bare = Command::new(&world.python);
    bare.args(["-c", "pass"]).stdin(Stdio::null());
    let (version, python) = (peak(&mut omni(file, &home, &["--version"]))?, peak(&mut bare)?);
    let mut server = omni(file, &home, &["serve", "--bind", "127.0.0.1:0"]);
    let mut server = server.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let measured = (|| {
        let mut url = String::new();
        BufReader::new(server.stdout.take().context("piped")?).read_line(&mut url)?;
        // Until what is begun at the start is done.
        std::thread::sleep(std::time::Duration::from_secs(3));
        let idle = resident(server.id())?;
        let address = url.trim().trim_start_matches("http://").to_owned();
        let body = r#"{"session_id": "bench", "message": "what time is it?"}"#;
        let mut stream = TcpStream::connect(&address)?;
        write!(
            stream,
            "POST /message HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "the message was not answered: {answer}");
        Ok((idle, resident(server.id())?))
    })();
    server.kill()?;
    server.wait()?;
    let (idle, worked) = measured?;
    let mut report = Report::default();
    let row = |what: &str, size: f64| {
        Row::new(what, format!("{size:.1} MB"))
            .beside(format!("`python -c pass`: {python:.1} MB"), format!("{:.2}", size / python))
    };
    report.rows.push(row("one file: most memory of `omni --version`", version));
    report.rows.push(row("one file: memory of an idle `omni serve`", idle));
    report.rows.push(row("one file: memory of `omni serve` after its first tool", worked));
    Ok(report)
}

/// The most memory that a command had, in MB.
fn peak(command: &mut Command) -> Result<f64> {
    let child = command.stdout(Stdio::null()).spawn()?;
    let id = libc::pid_t::try_from(child.id())?;
    // SAFETY: plain system call on structures of our own; nobody else waits for the child.
    let usage = unsafe {
        let (mut status, mut usage) = (0, std::mem::zeroed::<libc::rusage>());
        ensure!(
            libc::wait4(id, &raw mut status, 0, &raw mut usage) == id && status == 0,
            "{command:?} failed"
        );
        usage
    };
    Ok(usage.ru_maxrss as f64 / 1000.0)
}

/// The memory of a process, in MB.
fn resident(id: u32) -> Result<f64> {
    let status = fs::read_to_string(PathBuf::from(format!("/proc/{id}/status")))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("it is a process")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1000.0)
}
