//! How a user of each candidate sees its lines: how many there are, and when a marker is among them.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use trainyard::logs::line::nanos;

use crate::node::MARKER;

/// Between two looks at a file.
const LOOK: Duration = Duration::from_millis(20);
/// Between two questions to `VictoriaLogs`: as often as trainyard's collector looks for a reader that follows.
const ASK: Duration = Duration::from_millis(200);
/// Bytes of a file that are read at once.
const BLOCK: u64 = 1 << 20;
/// No answer takes as long.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where to look.
pub enum View {
    /// A file that lines are appended to.
    File(Tail),
    /// The collector: its counter of stored lines, and its API.
    Trainyard { metrics: String, logs: String },
    /// `VictoriaLogs`' API.
    Victoria(String),
}

/// A file that grows.
pub struct Tail {
    path: PathBuf,
    file: Option<File>,
    lines: u64,
    /// Read, and not looked at: half a line, mostly.
    new: Vec<u8>,
}

/// When markers were seen: the delay of each by its number.
#[derive(Default)]
pub struct Seen(BTreeMap<u64, Duration>);

impl Seen {
    fn look(&mut self, line: &[u8]) {
        let found = memchr::memmem::find(line, format!("{MARKER} ").as_bytes());
        let Some(text) = found.and_then(|at| std::str::from_utf8(&line[at..]).ok()) else {
            return;
        };
        let mut words = text.split(|c: char| !c.is_ascii_alphanumeric()).skip(1);
        let mut number = || words.next()?.parse::<u64>().ok();
        if let (Some(number), Some(written)) = (number(), number()) {
            let now = nanos(Timestamp::now()).cast_unsigned();
            let delay = Duration::from_nanos(now.saturating_sub(written));
            self.0.entry(number).or_insert(delay);
        }
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The delay that this share of the markers did not exceed.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let mut delays: Vec<Duration> = self.0.values().copied().collect();
        delays.sort_unstable();
        let at = (delays.len() as f64 * share).ceil() as usize;
        delays.get(at.saturating_sub(1)).copied()
    }
}

impl View {
    pub fn file(path: PathBuf) -> Self {
        Self::File(Tail {
            path,
            file: None,
            lines: 0,
            new: Vec::new(),
        })
    }

    /// How many lines can be read now.
    pub fn lines(&mut self) -> u64 {
        match self {
            Self::File(tail) => {
                tail.read(&mut Seen::default());
                tail.lines
            }
            Self::Trainyard { metrics, .. } => {
                let text = body(metrics, "/metrics");
                let mut lines = text.lines();
                let line = lines.find_map(|line| line.strip_prefix("trainyard_logs_lines_total "));
                line.and_then(|n| n.parse().ok()).unwrap_or(0)
            }
            Self::Victoria(address) => {
                let text = body(address, "/select/logsql/query?query=*+%7C+stats+count()+n");
                let found: Option<serde_json::Value> = serde_json::from_str(text.trim()).ok();
                let n = found.and_then(|row| row["n"].as_str()?.parse().ok());
                n.unwrap_or(0)
            }
        }
    }

    /// Looks for markers until so many were seen, or until the deadline.
    pub fn watch(&mut self, markers: usize, deadline: Instant) -> Seen {
        let mut seen = Seen::default();
        if let Self::Trainyard { logs, .. } = self {
            // As `kubectl trainyard logs --follow --grep` does.
            let path = format!("/v1/namespaces/ml/jobs/bert/logs?follow=true&grep={MARKER}");
            let mut lines = get(logs, &path, deadline - Instant::now());
            let mut line = Vec::new();
            while seen.count() < markers && Instant::now() < deadline {
                line.clear();
                match lines
                    .as_mut()
                    .map(|lines| lines.read_until(b'\n', &mut line))
                {
                    Some(Ok(read)) if read > 0 => seen.look(&line),
                    _ => break,
                }
            }
            return seen;
        }
        while seen.count() < markers && Instant::now() < deadline {
            let wait = match self {
                Self::File(tail) => {
                    tail.read(&mut seen);
                    LOOK
                }
                Self::Trainyard { .. } => ASK,
                Self::Victoria(address) => {
                    let query =
                        format!("/select/logsql/query?query=_time:1m+{MARKER}+%7C+fields+_msg");
                    body(address, &query)
                        .lines()
                        .for_each(|line| seen.look(line.as_bytes()));
                    ASK
                }
            };
            std::thread::sleep(wait);
        }
        seen
    }
}

impl Tail {
    /// Reads what is new, whole lines only.
    fn read(&mut self, seen: &mut Seen) {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &self.file else { return };
        loop {
            let read = Read::take(file, BLOCK).read_to_end(&mut self.new);
            let end = memchr::memrchr(b'\n', &self.new).map_or(0, |at| at + 1);
            let whole = &self.new[..end];
            self.lines += memchr::memchr_iter(b'\n', whole).count() as u64;
            if memchr::memmem::find(whole, MARKER.as_bytes()).is_some() {
                whole
                    .split(|b| *b == b'\n')
                    .for_each(|line| seen.look(line));
            }
            self.new.drain(..end);
            if !matches!(read, Ok(read) if read > 0) {
                return;
            }
        }
    }
}

/// Asks over HTTP 1.0, so that the answer comes as it is and ends with its connection.
fn get(address: &str, path: &str, patience: Duration) -> Option<BufReader<TcpStream>> {
    let mut connection = TcpStream::connect(address).ok()?;
    connection.set_read_timeout(Some(patience)).ok()?;
    write!(
        connection,
        "GET {path} HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer bench\r\n\r\n"
    )
    .ok()?;
    let mut answer = BufReader::new(connection);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        answer.read_line(&mut line).ok().filter(|read| *read > 0)?;
    }
    Some(answer)
}

fn body(address: &str, path: &str) -> String {
    let mut text = Vec::new();
    if let Some(mut answer) = get(address, path, TIMEOUT) {
        let _ = answer.read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}
