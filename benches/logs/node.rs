//! The node: containers that write, in a process of its own. What they write is in log files, as a container
//! runtime writes them, and is served as an API server does ([`crate::api`]); the same bytes in both.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use trainyard::logs::line::{from_nanos, nanos};

use crate::{api, text::Text};

/// What a line looks like whose way to the reader is timed: this, its number, and its time.
pub const MARKER: &str = "marker";
/// Between two writes of a container, and two markers of the node.
pub const TICK: Duration = Duration::from_millis(50);

/// One container's log, as the API shows it.
#[derive(Default)]
pub struct Log {
    pub blocks: Vec<Bytes>,
    pub exited: bool,
}

/// The process.
pub struct Node {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    pub folder: PathBuf,
    pub kubeconfig: PathBuf,
    /// Lines and bytes of what the containers have written at the start.
    pub lines: u64,
    pub bytes: u64,
}

impl Node {
    /// With so many containers, each of which has written so many lines.
    pub fn start(folder: &Path, containers: usize, lines: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("a name"))
            .arg("node")
            .arg(folder)
            .args([containers.to_string(), lines.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut node = Self {
            stdin: child.stdin.take().expect("a pipe"),
            stdout: BufReader::new(child.stdout.take().expect("a pipe")),
            child,
            folder: folder.into(),
            kubeconfig: folder.join("kubeconfig"),
            lines: (containers * lines) as u64,
            bytes: 0,
        };
        node.bytes = node.said();
        node
    }

    fn said(&mut self) -> u64 {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("an answer");
        line.trim().parse().expect("a number")
    }

    /// The containers write so many bytes a second together for so long. Returns at once.
    pub fn write(&mut self, rate: u64, seconds: u64) {
        let _ = writeln!(self.stdin, "write {rate} {seconds}");
    }

    /// Waits until they have; the number of markers among it.
    pub fn written(&mut self) -> u64 {
        self.said()
    }

    /// All containers exit.
    pub fn exit(&mut self) {
        let _ = writeln!(self.stdin, "exit");
        self.said();
    }

    /// How many pods the collector has given the condition that all their lines are stored.
    pub fn complete(&mut self) -> u64 {
        let _ = writeln!(self.stdin, "complete");
        self.said()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One container of the process.
struct Container {
    text: Text,
    file: File,
    log: watch::Sender<Log>,
    message: Vec<u8>,
}

impl Container {
    fn new(folder: &Path, rank: usize) -> io::Result<Self> {
        let pod = folder.join(format!(
            "pods/ml_{}_uid-{rank}/{}",
            api::pod(rank),
            api::CONTAINER
        ));
        fs::create_dir_all(&pod)?;
        let path = pod.join("0.log");
        let link = format!(
            "{}_ml_{}-{}.log",
            api::pod(rank),
            api::CONTAINER,
            api::id(rank)
        );
        let file = File::create(&path)?;
        std::os::unix::fs::symlink(path, folder.join("containers").join(link))?;
        Ok(Self {
            text: Text::new(rank),
            file,
            log: watch::Sender::default(),
            message: Vec::new(),
        })
    }

    /// Writes lines at these times, and at the end maybe one with this text. Returns their bytes, without
    /// what the runtime adds.
    fn write(&mut self, times: impl Iterator<Item = i64>, last: Option<&str>) -> io::Result<u64> {
        let (mut file, mut block, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut put = |time: i64, message: &[u8]| {
            let time = format!("{:.9}", from_nanos(time));
            for (to, between) in [(&mut file, " stdout F "), (&mut block, " ")] {
                to.extend_from_slice(time.as_bytes());
                to.extend_from_slice(between.as_bytes());
                to.extend_from_slice(message);
                to.push(b'\n');
            }
            bytes += message.len() as u64 + 1;
        };
        for time in times {
            self.message.clear();
            self.text.write(&mut self.message);
            put(time, &self.message);
        }
        if let Some(last) = last {
            put(nanos(Timestamp::now()), last.as_bytes());
        }
        self.file.write_all(&file)?;
        self.log.send_modify(|log| log.blocks.push(block.into()));
        Ok(bytes)
    }
}

/// Runs it, until its parent ends.
pub fn run(args: &[String]) -> io::Result<()> {
    let folder = PathBuf::from(&args[0]);
    let [count, lines] = [1, 2].map(|at: usize| args[at].parse::<usize>().expect("a number"));
    fs::create_dir_all(folder.join("containers"))?;
    let mut containers = (0..count)
        .map(|rank| Container::new(&folder, rank))
        .collect::<io::Result<Vec<_>>>()?;
    // A line each millisecond, until now.
    let begin = nanos(Timestamp::now()) - lines as i64 * 1_000_000;
    let mut bytes = 0;
    for container in &mut containers {
        for from in (0..lines).step_by(512) {
            let times = (from..lines.min(from + 512)).map(|n| begin + n as i64 * 1_000_000);
            bytes += container.write(times, None)?;
        }
    }
    let (exit, exited) = watch::channel(false);
    let api = Arc::new(api::Api {
        logs: containers.iter().map(|c| c.log.clone()).collect(),
        exited,
        begin: from_nanos(begin - 1_000_000_000),
        complete: std::sync::Mutex::default(),
    });
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(api::serve(api.clone(), &folder))?;
    println!("{bytes}");
    for line in io::stdin().lines() {
        let line = line?;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["write", rate, seconds] => {
                let [rate, seconds] = [rate, seconds].map(|n| n.parse().expect("a number"));
                println!("{}", write(&mut containers, rate, seconds)?);
            }
            ["exit"] => {
                for container in &containers {
                    container.log.send_modify(|log| log.exited = true);
                }
                exit.send_replace(true);
                println!("0");
            }
            _ => println!("{}", api.complete.lock().expect("no panic").len()),
        }
    }
    Ok(())
}

/// The containers write for a while. Returns the number of markers.
fn write(containers: &mut [Container], rate: u64, seconds: u64) -> io::Result<u64> {
    let begin = Instant::now();
    let ticks = u64::try_from(Duration::from_secs(seconds).as_millis() / TICK.as_millis());
    let ticks = ticks.unwrap_or(0);
    let (count, mut bytes) = (containers.len() as u64, 0);
    for tick in 0..ticks {
        let due = rate * seconds * (tick + 1) / ticks;
        for (n, container) in (0..).zip(containers.iter_mut()) {
            let mark = tick % count == n;
            let lines = due.saturating_sub(bytes) / (count - n) / 128;
            let now = nanos(Timestamp::now());
            let text = mark.then(|| format!("{MARKER} {tick} {now}"));
            bytes += container.write((0..lines as i64).map(|n| now - 1000 + n), text.as_deref())?;
        }
        let next = begin + TICK * u32::try_from(tick + 1).unwrap_or(0);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(ticks)
}
