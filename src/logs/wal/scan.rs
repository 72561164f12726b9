//! Reads one file of the write-ahead log from its beginning, also while it grows.

use std::io;

use super::frame::{self, Frame};
use crate::logs::disk::Disk;

const CHUNK: usize = 1024 * 1024;

/// Name of a file of the log.
#[must_use]
pub fn name(segment: u64) -> String {
    format!("{segment:016x}.wal")
}

/// The number in such a name.
#[must_use]
pub fn number(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_suffix(".wal")?, 16).ok()
}

/// The numbers of all files of the log, in order.
///
/// # Errors
/// Where the folder can't be read.
pub async fn segments(disk: &impl Disk) -> io::Result<Vec<u64>> {
    let mut numbers: Vec<u64> = disk
        .list()
        .await?
        .iter()
        .filter_map(|n| number(n))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// A reader of one file.
#[derive(Debug)]
pub struct Scan<D> {
    disk: D,
    /// Its number.
    pub segment: u64,
    /// Where the next frame begins.
    pub offset: u64,
    buffer: Vec<u8>,
    start: usize,
}

impl<D: Disk> Scan<D> {
    /// From its beginning.
    #[must_use]
    pub fn new(disk: D, segment: u64) -> Self {
        Self {
            disk,
            segment,
            offset: 0,
            buffer: Vec::new(),
            start: 0,
        }
    }

    /// Whether there is a next frame.
    ///
    /// # Errors
    /// As [`Scan::next`].
    pub async fn peek(&mut self) -> io::Result<bool> {
        let rest = &self.buffer[self.start..];
        if frame::take(rest).is_some() {
            return Ok(true);
        }
        let mut ahead = Self::new(self.disk.clone(), self.segment);
        ahead.offset = self.offset;
        Ok(ahead.next().await?.is_some())
    }

    /// The next frame. None where there is no whole one, for now or for ever.
    ///
    /// # Errors
    /// Where the file can't be read; the call can be repeated.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let rest = &self.buffer[self.start..];
            if let Some((frame, length)) = frame::take(rest) {
                self.start += length;
                self.offset += length as u64;
                return Ok(Some(frame));
            }
            if !frame::is_short(rest) {
                return Ok(None);
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            let at = self.offset + self.buffer.len() as u64;
            let more = self.disk.read(&name(self.segment), at, CHUNK).await?;
            if more.is_empty() {
                // What is there of a frame may be written anew.
                self.buffer = Vec::new();
                return Ok(None);
            }
            self.buffer.extend(more);
        }
    }
}
