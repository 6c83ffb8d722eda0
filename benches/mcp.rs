//! Calls through the protocol: the same function behind our server, behind two of Python's, and
//! behind one in Rust that does nothing else, which is as fast as the protocol goes.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::measure::{Sample, median};
use super::sdk::{Http, Pipes};
use super::table::{Report, Row};
use super::world::{World, time, write};

const ROUNDS: usize = 5;
/// How long one round of calls goes on.
const ROUND: Duration = Duration::from_secs(2);
const CALLERS: [usize; 3] = [1, 20, 100];
/// Tools of the skill, and of the server, that is only listed.
const TOOLS: usize = 500;

/// Who serves.
const SERVERS: [&str; 4] = ["omni", "Python SDK", "FastMCP", "rmcp"];

/// Measures all of it.
pub fn run(world: &World) -> Result<Report> {
    let runtime = tokio::runtime::Runtime::new()?;
    let skills = world.root.join("benches/skills/sums");
    let skills = skills.to_string_lossy().into_owned();
    time(&mut world.omni(&["--skills", &skills, "skill", "trust", "sums"]))?;
    let mut report = Report::default();
    report.extend(runtime.block_on(pipes(world, &skills))?);
    report.extend(runtime.block_on(http(world, &skills))?);
    report.extend(runtime.block_on(listed(world))?);
    report.rows.push(faults(world)?);
    Ok(report)
}

/// The servers, in the order of their names, started with these last arguments.
fn commands(world: &World, skills: &str, last: &[&str]) -> Result<[Command; 4]> {
    let ours: &[&str] = if last[0] == "stdio" { &[] } else { &["--http", &format!("127.0.0.1:{}", last[1])] };
    let omni = world.omni(&[&["--skills", skills, "mcp", "--skill", "sums"], ours].concat());
    let (mut sdk, mut fastmcp) = (world.peer("sdk.py"), world.peer("fastmcp_server.py"));
    let mut rmcp = Command::new(std::env::current_exe()?);
    sdk.args(last);
    fastmcp.args(last);
    rmcp.arg("rmcp").args(last);
    Ok([omni, sdk, fastmcp, rmcp])
}

async fn pipes(world: &World, skills: &str) -> Result<Report> {
    let mut servers = Vec::new();
    for command in commands(world, skills, &["stdio"])? {
        servers.push(Pipes::launch(command).await?);
    }
    let mut report = Report::default();
    for callers in CALLERS {
        let mut samples: [Vec<Sample>; 4] = Default::default();
        for round in 0..=ROUNDS {
            for (server, samples) in servers.iter_mut().zip(&mut samples) {
                let sample = server.drive(callers, ROUND).await?;
                if round > 0 {
                    samples.push(sample);
                }
            }
        }
        report.extend(rows("stdio", callers, 5.0, &samples));
    }
    Ok(report)
}

async fn http(world: &World, skills: &str) -> Result<Report> {
    let mut servers = Vec::new();
    for index in 0..SERVERS.len() {
        // Free a moment ago; what takes it meanwhile makes the handshake fail.
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port().to_string();
        let [omni, sdk, fastmcp, rmcp] = commands(world, skills, &["http", &port])?;
        let command = [omni, sdk, fastmcp, rmcp].into_iter().nth(index).expect("there are four");
        servers.push(Arc::new(Http::launch(command, &port).await?));
    }
    let mut report = Report::default();
    for callers in CALLERS {
        let mut samples: [Vec<Sample>; 4] = Default::default();
        for round in 0..=ROUNDS {
            for (server, samples) in servers.iter().zip(&mut samples) {
                let sample = server.drive(callers, ROUND).await?;
                if round > 0 {
                    samples.push(sample);
                }
            }
        }
        report.extend(rows("HTTP", callers, 10.0, &samples));
    }
    Ok(report)
}

fn rows(way: &str, callers: usize, promised: f64, samples: &[Vec<Sample>; 4]) -> Report {
    let mut report = Report::default();
    let middle = |index: usize, of: fn(&Sample) -> f64| median(samples[index].iter().map(of));
    for (index, name) in SERVERS.iter().enumerate() {
        let figures = [middle(index, |s| s.rate), middle(index, |s| s.p50), middle(index, |s| s.p99)];
        let [rate, p50, p99] = figures.map(|figure| format!("{figure:.0}"));
        let cpu = format!("{:.0}", middle(index, |s| s.cpu));
        report.calls.push([format!("MCP over {way}, {name}"), callers.to_string(), rate, p50, p99, cpu]);
    }
    let over = |index: usize, of: fn(&Sample) -> f64| {
        median(samples[0].iter().zip(&samples[index]).map(|(ours, theirs)| of(ours) / of(theirs)))
    };
    let what = format!("`tools/call` over {way}, {callers} at a time");
    let rate = format!("{:.0}/s", middle(0, |s| s.rate));
    let times = over(2, |s| s.rate);
    let row = Row::new(what.clone(), rate.clone());
    let row = row.beside(format!("FastMCP: {:.0}/s", middle(2, |s| s.rate)), format!("{times:.2}"));
    report.rows.push(row.promise(format!("≥ {promised} ×"), times >= promised));
    let row = Row::new(what.clone(), rate);
    let beside = format!("Python SDK: {:.0}/s", middle(1, |s| s.rate));
    report.rows.push(row.beside(beside, format!("{:.2}", over(1, |s| s.rate))));
    let slower = over(3, |s| s.p50);
    let row = Row::new(format!("{what}, half of them"), format!("{:.0} µs", middle(0, |s| s.p50)));
    let row = row.beside(format!("rmcp alone: {:.0} µs", middle(3, |s| s.p50)), format!("{slower:.2}"));
    report.rows.push(row.promise("≤ 1.5 ×", slower <= 1.5));
    report
}

/// A plain question beside a server that is wrong in one way, and without one.
fn faults(world: &World) -> Result<Row> {
    const FAULTS: [&[&str]; 12] = [
        &["slow", "12"],
        &["silent"],
        &["unlisted"],
        &["exits"],
        &["banner"],
        &["floods"],
        &["endless"],
        &["names"],
        &["many"],
        &["deaf"],
        &["stubborn", "/dev/null"],
        &["storms"],
    ];
    let script = world.path("says.json");
    write(&script, r#"[{"text": "said"}]"#)?;
    let ask = |home: &str| {
        let mut ask = world.omni(&["ask", "hello"]);
        ask.env("OMNI_HOME", world.path(home))
            .env("OMNI_MODEL__NAME", format!("scripted:{}", script.display()));
        Ok::<f64, anyhow::Error>(time(&mut ask)?.as_secs_f64() * 1000.0)
    };
    let server = world.root.join("tests/fixtures/servers/odd.py");
    for fault in FAULTS {
        let words: Vec<_> =
            [server.to_str().expect("a path of letters")].iter().chain(fault).copied().collect();
        let described = serde_json::json!({"mcpServers": {"odd": {"command": world.python, "args": words}}});
        write(&world.path(&format!("fault-{}/config/mcp.json", fault[0])), &described.to_string())?;
    }
    let (mut alone, mut worst, mut name) = (Vec::new(), 0.0_f64, "");
    ask("fault-none")?;
    for fault in FAULTS {
        let home = format!("fault-{}", fault[0]);
        ask(&home)?;
        alone.push(ask("fault-none")?);
        let times = (0..ROUNDS).map(|_| ask(&home)).collect::<Result<Vec<_>>>()?;
        let beside = median(times);
        if beside > worst {
            (worst, name) = (beside, fault[0]);
        }
    }
    let alone = median(alone);
    let what = format!(
        "`omni ask` of a plain question beside the worst of {} broken servers ({name})",
        FAULTS.len()
    );
    let row = Row::new(what, format!("{worst:.0} ms"));
    let row = row.beside(format!("with no server: {alone:.0} ms"), format!("{:.2}", worst / alone));
    Ok(row.promise("≤ 1 s more", worst <= alone + 1000.0))
}

/// From the start of a process to the whole list of many tools.
async fn listed(world: &World) -> Result<Report> {
    let folder = world.path("many");
    let mut script = "from omni import tool\n".to_owned();
    for number in 0..TOOLS {
        script.push_str(&format!(
            "\n\n@tool(read_only=True)\ndef tool_{number}(a: int, b: str = \"\") -> dict[str, int]:\n    \
             \"\"\"Do the thing of number {number}.\"\"\"\n    return {{\"sum\": a}}\n"
        ));
    }
    write(&folder.join("scripts/many.py"), &script)?;
    write(&folder.join("SKILL.md"), "---\nname: many\ndescription: Many tools.\n---\n")?;
    let skills = folder.to_string_lossy().into_owned();
    time(&mut world.omni(&["--skills", &skills, "sync"]))?;
    let mut times: [Vec<f64>; 2] = Default::default();
    for round in 0..=ROUNDS {
        let omni = world.omni(&["--skills", &skills, "mcp", "--skill", "many"]);
        let mut fastmcp = world.peer("fastmcp_server.py");
        fastmcp.args(["many", &TOOLS.to_string()]);
        for (command, times) in [omni, fastmcp].into_iter().zip(&mut times) {
            let began = Instant::now();
            let mut server = Pipes::launch(command).await?;
            ensure!(server.tools().await? == TOOLS, "not all tools are listed");
            if round > 0 {
                times.push(began.elapsed().as_secs_f64() * 1000.0);
            }
        }
    }
    let ratio = median(times[0].iter().zip(&times[1]).map(|(ours, theirs)| ours / theirs));
    let [ours, theirs] = times.map(median);
    let mut report = Report::default();
    let row =
        Row::new(format!("from the start to a list of {TOOLS} tools, over stdio"), format!("{ours:.1} ms"));
    let row = row.beside(format!("FastMCP: {theirs:.0} ms"), format!("{ratio:.3}"));
    report.rows.push(row.promise("≤ 60 ms", ours <= 60.0));
    Ok(report)
}
