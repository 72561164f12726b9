//! PURE: the log files of one container on a node, and what a kubelet reads of them: entry by entry, as
//! the container runtime writes them and cri-client's `logs.go` reads them.

use trainyard::logs::line::from_nanos;

/// The runtime splits lines into entries of this size.
pub const ENTRY: usize = 16 * 1024;

#[derive(Clone, Debug)]
struct Entry {
    time: i64,
    content: Vec<u8>,
}

/// The files, the one that is written to last.
#[derive(Debug)]
pub struct Files {
    files: Vec<Vec<Entry>>,
    /// Entries that a file had when it was rotated; a follower that is there by then does not see
    /// what came later.
    at_rotation: Vec<usize>,
    /// The container has exited.
    pub exited: bool,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub follow: bool,
    pub tail: Option<usize>,
    pub limit: Option<usize>,
}

/// One reading.
#[derive(Debug)]
pub struct Reading {
    asked: Asked,
    file: usize,
    at: usize,
    new_line: bool,
    entries: usize,
    bytes: usize,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            files: vec![Vec::new()],
            at_rotation: Vec::new(),
            exited: false,
        }
    }
}

impl Files {
    /// The container writes a line at a time in nanoseconds.
    pub fn write(&mut self, time: i64, message: &[u8], newline: bool) {
        let file = self.files.len() - 1;
        self.put(file, time, message, newline);
    }

    /// The same to the file that was rotated away last, where the runtime had it open still.
    pub fn write_late(&mut self, time: i64, message: &[u8]) {
        let file = self.files.len() - 2;
        self.put(file, time, message, true);
    }

    fn put(&mut self, file: usize, time: i64, message: &[u8], newline: bool) {
        let mut chunks: Vec<Vec<u8>> = message.chunks(ENTRY).map(<[u8]>::to_vec).collect();
        if chunks.is_empty() {
            chunks.push(Vec::new());
        }
        if let Some(last) = chunks.last_mut().filter(|_| newline) {
            last.push(b'\n');
        }
        for (at, content) in (0..).zip(chunks) {
            let time = time + at;
            self.files[file].push(Entry { time, content });
        }
    }

    /// The kubelet rotates the log, and keeps five files.
    pub fn rotate(&mut self) {
        let entries = self.files[self.files.len() - 1].len();
        self.at_rotation.push(entries);
        self.files.push(Vec::new());
        if let Some(old) = self.files.len().checked_sub(6) {
            self.files[old] = Vec::new();
        }
    }

    /// Begins a reading of the file that is there now.
    pub fn open(&self, asked: Asked) -> Reading {
        let file = self.files.len() - 1;
        let there = self.files[file].len();
        Reading {
            asked,
            file,
            at: there.saturating_sub(asked.tail.unwrap_or(usize::MAX)),
            new_line: true,
            entries: asked.tail.filter(|_| !asked.follow).unwrap_or(usize::MAX),
            bytes: asked.limit.unwrap_or(usize::MAX),
        }
    }
}

impl Reading {
    /// What there is now, maybe nothing; None at the end of the reading.
    pub fn next(&mut self, files: &Files) -> Option<Vec<u8>> {
        let mut block = Vec::new();
        while block.len() < 64 * 1024 {
            if self.bytes == 0 || self.entries == 0 {
                return (!block.is_empty()).then_some(block);
            }
            let file = &files.files[self.file];
            let rotated = files.at_rotation.get(self.file);
            let end = match rotated {
                Some(end) if self.asked.follow && self.at <= *end => (*end).min(file.len()),
                _ => file.len(),
            };
            if self.at < end {
                self.render(&file[self.at], &mut block);
                self.at += 1;
                self.entries -= 1;
            } else if self.asked.follow && rotated.is_some() {
                (self.file, self.at) = (files.files.len() - 1, 0);
            } else if block.is_empty() && (!self.asked.follow || files.exited) {
                return None;
            } else {
                break;
            }
        }
        Some(block)
    }

    fn render(&mut self, entry: &Entry, to: &mut Vec<u8>) {
        let mut text = Vec::new();
        if self.new_line {
            text.extend(format!("{:.9} ", from_nanos(entry.time)).bytes());
        }
        text.extend(&entry.content);
        text.truncate(self.bytes);
        self.bytes -= text.len();
        to.extend(text);
        self.new_line = entry.content.last().is_none_or(|b| *b == b'\n');
    }
}
