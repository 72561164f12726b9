//! `make bench-logs`: trainyard's collector beside what people use today, one after the other on the same
//! generated load. It prints; it asserts nothing.
//!
//! - Throughput: 64 containers have written a backlog; how long, and how much processor time, until all
//!   of it can be read, and until all of it is stored as it stays?
//! - Delay: the containers write 2 MB a second; how long from a line's write until a reader sees it?
//!
//! What the lines are: [`text`]. Who writes them: [`node`]. Where the programs come from: dev/bench-logs.

mod api;
mod candidates;
mod node;
mod process;
mod text;
mod view;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use candidates::{ALL, Candidate, Running};
use node::{Node, TICK};
use process::{Program, stored};
use tempfile::TempDir;

/// Containers.
const STREAMS: usize = 64;
/// Lines of each in the backlog, by default; LINES changes it.
const LINES: usize = 32_000;
/// Bytes a second where the delay is looked at, and for how many seconds.
const RATE: u64 = 2_000_000;
const SECONDS: u64 = 20;
/// A candidate that has not taken the lines by then does not.
const PATIENCE: Duration = Duration::from_secs(180);
/// A store that has not changed for so long is as it stays; and it must be so by then.
const SETTLED: (Duration, Duration) = (Duration::from_secs(8), Duration::from_secs(120));

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "node") {
        node::run(&args[1..]).expect("a node");
        return;
    }
    let only = std::env::var("ONLY").unwrap_or_default();
    let lines = std::env::var("LINES").ok().and_then(|n| n.parse().ok());
    let chosen = ALL
        .iter()
        .filter(|c| only.is_empty() || c.name.contains(&only));
    let mut rows = Vec::new();
    for candidate in chosen {
        println!("{}: {} …", candidate.name, candidate.way);
        match throughput(candidate, lines.unwrap_or(LINES))
            .and_then(|row| Ok((row, delay(candidate)?)))
        {
            Ok(row) => rows.push((candidate, row)),
            Err(why) => println!("{} is left out: {why}", candidate.name),
        }
    }
    print(&rows);
}

/// What a backlog costs.
struct Throughput {
    /// Seconds of processor time, and of the clock, until all lines can be read.
    readable: (f64, f64),
    /// Seconds of processor time until all is stored as it stays.
    stored: f64,
    peak: u64,
    lines: u64,
    raw: u64,
    disk: u64,
}

/// What a steady load costs.
struct Delay {
    /// Of a core.
    load: f64,
    peak: u64,
    seen: view::Seen,
    markers: u64,
}

/// Starts a candidate, and waits until it has so many lines.
fn start(candidate: &Candidate, node: &Node, dir: &Path) -> Result<Running, String> {
    let mut running = (candidate.start)(node, dir)?;
    let begin = Instant::now();
    loop {
        let lines = running.view.lines();
        if lines >= node.lines {
            return Ok(running);
        }
        let ended = running.programs.iter_mut().any(Program::ended);
        if ended || begin.elapsed() > PATIENCE {
            // What it said is worth more than the folder.
            let why = if ended {
                "a program of it ended"
            } else {
                "it takes no more"
            };
            return Err(format!(
                "{why} after {lines} of {} lines: {}",
                node.lines,
                said(dir)
            ));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The last words of a candidate's programs.
fn said(dir: &Path) -> String {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let logs = files.filter(|file| file.path().extension().is_some_and(|e| e == "log"));
    let last = logs.filter_map(|file| {
        let text = std::fs::read_to_string(file.path()).ok()?;
        Some(format!(
            "{}: {}",
            file.file_name().display(),
            text.lines().last()?
        ))
    });
    last.collect::<Vec<_>>().join("; ")
}

fn cpu(programs: &[Program]) -> f64 {
    programs.iter().map(Program::cpu).sum()
}

fn peak(programs: &[Program]) -> u64 {
    programs.iter().map(Program::peak).sum()
}

fn throughput(candidate: &Candidate, lines: usize) -> Result<Throughput, String> {
    let dir = TempDir::new().map_err(|e| e.to_string())?;
    let mut node = Node::start(&dir.path().join("node"), STREAMS, lines);
    let begin = Instant::now();
    let mut running = start(candidate, &node, dir.path())?;
    let readable = (cpu(&running.programs), begin.elapsed().as_secs_f64());
    node.exit();
    let (begin, mut last) = (Instant::now(), (0, Instant::now()));
    while last.1.elapsed() < SETTLED.0 && begin.elapsed() < SETTLED.1 {
        let now = stored(&running.store);
        if now != last.0 {
            last = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let row = Throughput {
        readable,
        stored: cpu(&running.programs),
        peak: peak(&running.programs),
        lines: node.lines,
        raw: node.bytes,
        disk: 0,
    };
    let (complete, counted) = (node.complete(), running.view.lines());
    running.programs.into_iter().for_each(Program::stop);
    if complete > 0 {
        println!("  {counted} lines; the ends of {complete} of {STREAMS} logs are proven");
    }
    Ok(Throughput {
        disk: stored(&running.store),
        ..row
    })
}

fn delay(candidate: &Candidate) -> Result<Delay, String> {
    let dir = TempDir::new().map_err(|e| e.to_string())?;
    let mut node = Node::start(&dir.path().join("node"), STREAMS, 10);
    let mut running = start(candidate, &node, dir.path())?;
    let before = cpu(&running.programs);
    let expected = Duration::from_secs(SECONDS).as_millis() / TICK.as_millis();
    let expected = usize::try_from(expected).unwrap_or(0);
    node.write(RATE, SECONDS);
    let begin = Instant::now();
    let deadline = begin + Duration::from_secs(SECONDS + 10);
    let seen = running.view.watch(expected, deadline);
    let markers = node.written();
    Ok(Delay {
        load: (cpu(&running.programs) - before) / begin.elapsed().as_secs_f64(),
        peak: peak(&running.programs),
        seen,
        markers,
    })
}

fn print(rows: &[(&Candidate, (Throughput, Delay))]) {
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let rate = |lines: u64, seconds: f64| format!("{:.0}", lines as f64 / seconds);
    println!("\n{STREAMS} containers; a backlog, as fast as each can:");
    println!(
        "{:24} {:>10} {:>16} {:>16} {:>10} {:>10} {:>12}",
        "", "lines/s", "lines/s/core", "… once stored", "peak RSS", "on disk", "stored/raw"
    );
    for (candidate, (t, _)) in rows {
        println!(
            "{:24} {:>10} {:>16} {:>16} {:>10} {:>10} {:>12}",
            candidate.name,
            rate(t.lines, t.readable.1),
            rate(t.lines, t.readable.0),
            rate(t.lines, t.stored),
            mib(t.peak),
            mib(t.disk),
            format!("1/{:.2}", t.raw as f64 / t.disk as f64)
        );
    }
    if let Some((_, (t, _))) = rows.first() {
        println!(
            "({} lines, {} of text without times and names)",
            t.lines,
            mib(t.raw)
        );
    }
    println!(
        "\n{STREAMS} containers; {} MB/s for {SECONDS} s:",
        RATE / 1_000_000
    );
    println!(
        "{:24} {:>12} {:>10} {:>16} {:>16} {:>14}",
        "", "of a core", "peak RSS", "delay p50", "delay p99", "markers seen"
    );
    for (candidate, (_, d)) in rows {
        let delay = |share| {
            let delay = d.seen.quantile(share);
            delay.map_or_else(|| "-".into(), |delay| format!("{} ms", delay.as_millis()))
        };
        println!(
            "{:24} {:>12} {:>10} {:>16} {:>16} {:>14}",
            candidate.name,
            format!("{:.0} %", d.load * 100.0),
            mib(d.peak),
            delay(0.5),
            delay(0.99),
            format!("{} of {}", d.seen.count(), d.markers)
        );
    }
    println!(
        "\nto reach: ≥ 200000 lines/s/core over TLS; stored ≤ 1/5 of raw; write → queryable p99 ≤ 1000 ms"
    );
}
