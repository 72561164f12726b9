//! A container, its log files on a node, and the API's log endpoint with everything that goes wrong in
//! between: as the kubelet and the container runtime do it (cri-client's logs.go), entry by entry.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{AsyncBufRead, StreamExt, TryStreamExt};
use k8s_openapi::jiff::Timestamp;
use tokio::sync::{Notify, mpsc};

use super::chance::Chance;
use crate::logs::{
    line::from_nanos,
    position::Part,
    source::{MAX_PIECE, Open, OpenError},
};

/// The runtime splits lines into entries of this size.
const ENTRY: usize = 16 * 1024;
/// 2026-03-01T09:15:00Z.
const EPOCH: i64 = 1_772_356_500_000_000_000;

/// A line that a container wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub time: i64,
    pub message: Vec<u8>,
    pub newline: bool,
    /// In which file of the node it is.
    pub file: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    time: i64,
    content: Vec<u8>,
    full: bool,
}

#[derive(Debug, Default)]
struct Node {
    written: Vec<Written>,
    files: Vec<Vec<Entry>>,
    exited: bool,
    gone: bool,
    /// Added to the clock.
    offset: i64,
    last: i64,
    rotated_at: Option<tokio::time::Instant>,
    /// Entries of each file when it was rotated; those behind came late, and a follower may miss them.
    at_rotation: Vec<usize>,
}

/// How often what goes wrong: one in so many; 0: never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A request is refused (429, 500, no route, reset).
    pub refuse: u64,
    /// An answer is cut off somewhere, with or without an error.
    pub cut: u64,
    /// The kubelet says something else at the end.
    pub words: u64,
    /// A reading is slow.
    pub slow: u64,
}

/// One container's log.
#[derive(Clone)]
pub struct SimLog {
    node: Arc<Mutex<Node>>,
    changed: Arc<Notify>,
    chance: Chance,
    pub faults: Faults,
    begin: tokio::time::Instant,
}

impl SimLog {
    pub fn new(chance: Chance, faults: Faults) -> Self {
        let node = Node {
            files: vec![Vec::new()],
            ..Node::default()
        };
        Self {
            node: Arc::new(Mutex::new(node)),
            changed: Arc::default(),
            chance,
            faults,
            begin: tokio::time::Instant::now(),
        }
    }

    fn clock(&self, node: &Node) -> i64 {
        let now = EPOCH + self.begin.elapsed().as_nanos() as i64 + node.offset;
        now + self.chance.below(1_000_000) as i64
    }

    /// The node's clock, without steps.
    pub fn started(&self) -> Timestamp {
        from_nanos(EPOCH)
    }

    /// The container writes a line; `again`: in the same instant as the one before.
    pub fn write(&self, message: &[u8], newline: bool, again: bool) {
        let mut node = self.node.lock().unwrap();
        // After a rotation the clock has moved on.
        let same_file = node.files.last().is_some_and(|f| !f.is_empty());
        let time = if again && same_file {
            node.last
        } else {
            self.clock(&node)
        };
        node.last = time;
        let file = node.files.len() - 1;
        Self::put(&mut node, file, time, message, newline);
        drop(node);
        self.changed.notify_waiters();
    }

    fn put(node: &mut Node, file: usize, time: i64, message: &[u8], newline: bool) {
        node.written.push(Written {
            time,
            message: message.to_vec(),
            newline,
            file,
        });
        let mut chunks: Vec<&[u8]> = message.chunks(ENTRY).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        let last = chunks.len() - 1;
        for (at, chunk) in chunks.into_iter().enumerate() {
            node.files[file].push(Entry {
                time: time + at as i64,
                content: chunk.to_vec(),
                full: at == last && newline,
            });
        }
    }

    /// The node rotates the log; `late` lines are written to the old file after that.
    pub fn rotate(&self, late: u64) -> bool {
        let mut node = self.node.lock().unwrap();
        let soon = node.rotated_at.unwrap_or(self.begin).elapsed() < Duration::from_millis(3100);
        let file = node.files.len() - 1;
        if soon || node.exited || node.files[file].is_empty() {
            return false;
        }
        node.rotated_at = Some(tokio::time::Instant::now());
        let entries = node.files[file].len();
        node.at_rotation.push(entries);
        node.files.push(Vec::new());
        for n in 0..late {
            let time = self.clock(&node);
            let message = format!("late {n} {time}");
            Self::put(&mut node, file, time, message.as_bytes(), true);
        }
        drop(node);
        self.changed.notify_waiters();
        true
    }

    pub fn step_clock(&self, by: i64) {
        self.node.lock().unwrap().offset += by;
    }

    pub fn exit(&self) {
        self.node.lock().unwrap().exited = true;
        self.changed.notify_waiters();
    }

    pub fn remove(&self) {
        self.node.lock().unwrap().gone = true;
        self.changed.notify_waiters();
    }

    pub fn truth(&self) -> (Vec<Written>, usize) {
        let node = self.node.lock().unwrap();
        (node.written.clone(), node.files.len())
    }

    fn render(entry: &Entry, new_line: &mut bool, to: &mut Vec<u8>) {
        if *new_line {
            to.extend(from_nanos(entry.time).to_string().as_bytes());
            to.push(b' ');
        }
        to.extend(&entry.content);
        if entry.full {
            to.push(b'\n');
        }
        *new_line = entry.full;
    }

    /// The kubelet's side of one answer.
    async fn serve(self, part: Part, follow: bool, out: mpsc::Sender<io::Result<Vec<u8>>>) {
        let cut = self.chance.fault(self.faults.cut);
        let mut left = match part {
            Part::Head(n) => n as usize,
            _ => usize::MAX,
        };
        let cut_at = if cut {
            let whole: usize = {
                let node = self.node.lock().unwrap();
                let file = node.files.last().unwrap();
                file.iter().map(|e| e.content.len() + 31).sum()
            };
            match part {
                _ if self.chance.one_in(3) => self.chance.index(300),
                Part::Whole => self.chance.index(whole * 5 / 4 + 80),
                Part::Tail(n) => self.chance.index((n as usize * 45).min(whole) + 60),
                Part::Head(n) => self.chance.index(n as usize),
            }
        } else {
            usize::MAX
        };
        let limit = left.min(cut_at);
        left = limit;
        let (mut file, mut at, stop) = {
            let node = self.node.lock().unwrap();
            let file = node.files.len() - 1;
            let entries = node.files[file].len();
            let at = match part {
                Part::Tail(n) => entries.saturating_sub(n as usize),
                _ => 0,
            };
            (file, at, entries)
        };
        let mut new_line = true;
        let misses_late = self.chance.one_in(2);
        loop {
            let changed = self.changed.notified();
            let mut block = Vec::new();
            let ended = {
                let node = self.node.lock().unwrap();
                if node.gone {
                    true
                } else {
                    loop {
                        let there = node.files[file].len();
                        let end = match node.at_rotation.get(file) {
                            Some(end) if follow && misses_late && at <= *end => *end,
                            _ if follow => there,
                            _ => stop.min(there),
                        };
                        let mut n = 0;
                        while at < end && n < 200 && block.len() < 40_000 {
                            Self::render(&node.files[file][at], &mut new_line, &mut block);
                            at += 1;
                            n += 1;
                        }
                        if !block.is_empty() || at < end {
                            break false;
                        }
                        // At the end of a file: is there another?
                        if follow && file + 1 < node.files.len() {
                            file = node.files.len() - 1;
                            at = 0;
                            continue;
                        }
                        break !follow || node.exited;
                    }
                }
            };
            if !block.is_empty() {
                let n = block.len().min(left);
                block.truncate(n);
                left -= n;
                if out.send(Ok(block)).await.is_err() {
                    return;
                }
                if left == 0 {
                    break;
                }
                if self.chance.fault(self.faults.slow) {
                    self.chance.pause(5_000).await;
                }
                continue;
            }
            if ended {
                if self.chance.fault(self.faults.words) {
                    let mut words =
                        b"unable to retrieve container logs for containerd://abc".to_vec();
                    if new_line && self.chance.one_in(2) {
                        words.push(b'\n');
                    }
                    let _ = out.send(Ok(words)).await;
                }
                break;
            }
            if follow && cut && cut_at < 2000 {
                // An idle connection dies, too.
                let dead = tokio::time::timeout(Duration::from_secs(20), changed).await;
                if dead.is_err() {
                    break;
                }
                continue;
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = out.closed() => return,
                // The 4-hour limit, and a follower that never notices a rotation.
                () = tokio::time::sleep(Duration::from_hours(4)) => break,
            }
            // A proxy closes what is idle, or old.
            if self.chance.fault(self.faults.cut * 10) {
                break;
            }
            // How long the kubelet takes to notice decides what it sees.
            if self.chance.one_in(3) {
                self.chance.pause(50).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
        if left == 0 && cut && self.chance.one_in(2) {
            let _ = out.send(Err(io::ErrorKind::ConnectionReset.into())).await;
        }
    }
}

impl Open for SimLog {
    type Reader = std::pin::Pin<Box<dyn AsyncBufRead + Send>>;

    async fn open(&self, part: Part, follow: bool) -> Result<Self::Reader, OpenError> {
        self.chance.pause(30).await;
        if self.node.lock().unwrap().gone {
            return Err(OpenError::Gone);
        }
        if self.chance.fault(self.faults.refuse) {
            if self.chance.one_in(4) {
                tokio::time::sleep(Duration::from_secs(20)).await;
            }
            return Err(OpenError::Failed("429 too many requests".into()));
        }
        let (out, blocks) = mpsc::channel(2);
        tokio::spawn(self.clone().serve(part, follow, out));
        let blocks = futures::stream::unfold(blocks, |mut blocks| async {
            blocks.recv().await.map(|block| (block, blocks))
        });
        Ok(Box::pin(blocks.boxed().into_async_read()))
    }

    fn now(&self) -> Timestamp {
        let node = self.node.lock().unwrap();
        from_nanos(EPOCH + self.begin.elapsed().as_nanos() as i64 + node.offset)
    }
}

/// What lines the store must have for a line that was written: long ones come in pieces.
pub fn pieces(written: &Written) -> Vec<(i64, Vec<u8>, bool)> {
    let stamp = from_nanos(written.time).to_string().len() + 1;
    let mut pieces = Vec::new();
    let mut rest = written.message.as_slice();
    let mut room = MAX_PIECE - stamp;
    while rest.len() >= room {
        let (piece, after) = rest.split_at(room);
        pieces.push((written.time, piece.to_vec(), true));
        (rest, room) = (after, MAX_PIECE);
        if rest.is_empty() && !written.newline {
            return pieces;
        }
    }
    pieces.push((written.time, rest.to_vec(), !written.newline));
    pieces
}
