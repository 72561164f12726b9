//! A program that is measured: its processor time, its memory, and what it leaves on the disk.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

/// Linux counts processor time in these.
const TICKS_A_SECOND: f64 = 100.0;
/// How long a program may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(60);

/// It runs until it is stopped, or this is dropped.
pub struct Program(Child);

impl Program {
    pub fn start(command: &mut Command) -> Result<Self, String> {
        let started = command.spawn();
        started
            .map(Self)
            .map_err(|error| format!("{:?} does not start: {error}", command.get_program()))
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap_or_default()
    }

    /// Processor time in seconds, of the system for it too.
    pub fn cpu(&self) -> f64 {
        let stat = self.proc("stat");
        let fields = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        let times = fields
            .skip(11)
            .take(2)
            .filter_map(|n| n.parse::<f64>().ok());
        times.sum::<f64>() / TICKS_A_SECOND
    }

    /// The most memory that it has had, in bytes.
    pub fn peak(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    /// Asks it to end, and waits for that.
    pub fn stop(mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let begin = Instant::now();
        while !self.ended() && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a folder or file takes on the disk, as `du` says.
pub fn stored(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return 0;
    };
    let inside = fs::read_dir(path).into_iter().flatten().flatten();
    meta.blocks() * 512 + inside.map(|entry| stored(&entry.path())).sum::<u64>()
}

/// An address on loopback that nobody listens on.
pub fn address() -> Result<String, String> {
    let bound = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
    bound
        .map(|a| a.to_string())
        .map_err(|error| format!("no free port: {error}"))
}
