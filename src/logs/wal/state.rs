//! What the write-ahead log knows of each stream, and the file in which that outlives its segments.

use std::{collections::BTreeMap, io};

use serde::{Deserialize, Serialize};

use super::frame::Declared;
use crate::logs::{
    line::StreamId,
    planted::{Bug, planted},
    position::Position,
    record::{End, Record},
};

/// How much of a stream is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Lines.
    pub lines: u64,
    /// Bytes of their messages.
    pub bytes: u64,
    /// Gaps.
    pub gaps: u64,
}

/// One stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    /// Whose.
    pub declared: Declared,
    /// Place of the next record.
    pub ordinal: u64,
    /// Place of the first record that the sinks may lack.
    pub shipped: u64,
    /// Where it stands; of its lines only [`super::super::position::KEPT`] are kept.
    pub position: Position,
    /// How much of it there is.
    pub totals: Totals,
    /// How it ended.
    pub end: Option<End>,
    /// The newest segment that has something of it.
    pub segment: u64,
    /// Its pod is gone: nobody will go on with it.
    pub forgotten: bool,
    /// It has ended, and the sinks may tidy up: so many tries are left for that.
    #[serde(default)]
    pub untidy: u8,
}

/// How often the sinks are asked to tidy up after a stream, until it stays as it is: half an hour by
/// default.
const TIDYINGS: u8 = 30;

impl Stream {
    /// A stream of which there is nothing.
    #[must_use]
    pub fn new(declared: Declared) -> Self {
        Self {
            declared,
            ordinal: 0,
            shipped: 0,
            position: Position::default(),
            totals: Totals::default(),
            end: None,
            segment: 0,
            forgotten: false,
            untidy: 0,
        }
    }

    /// Takes in records that are safe now.
    pub fn stored(&mut self, records: &[Record], segment: u64) {
        for record in records {
            self.position.stored(record);
            match record {
                Record::Line(line) => {
                    self.totals.lines = line.seq;
                    self.totals.bytes += line.message.len() as u64;
                    self.end = None;
                }
                Record::Gap(gap) => {
                    self.totals.gaps += 1;
                    self.totals.lines = self.totals.lines.max(gap.after_seq);
                }
                Record::End(end) => {
                    self.totals.lines = self.totals.lines.max(end.lines);
                    self.end = Some(end.clone());
                    self.untidy = TIDYINGS;
                }
                Record::File(_) => {}
            }
        }
        self.ordinal += records.len() as u64;
        self.segment = segment;
    }
}

/// Everything that is known at the beginning of a segment, or later.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// Names this log: another one, on a new volume, has another.
    pub epoch: u64,
    /// The first segment whose lines the sinks may lack.
    pub first: u64,
    /// The next stream's number.
    pub next: u32,
    /// The streams.
    pub streams: BTreeMap<u32, Stream>,
}

impl State {
    /// The number of a stream, a new one where it has none.
    pub fn number(&mut self, id: &StreamId) -> Option<u32> {
        self.streams
            .iter()
            .find(|(_, s)| s.declared.id == *id)
            .map(|(n, _)| *n)
    }

    /// Leaves out what nobody needs any more, and writes the rest.
    pub fn save(&mut self) -> Vec<u8> {
        let first = self.first;
        self.streams
            .retain(|_, s| !s.forgotten || s.segment >= first || s.untidy > 0);
        let mut kept = self.clone();
        for stream in kept.streams.values_mut() {
            stream.position = if planted(Bug::SnapshotForgetsPosition) {
                Position::default()
            } else {
                stream.position.kept()
            };
        }
        let mut data = vec![0; 4];
        // Plain data always becomes JSON.
        let _ = serde_json::to_writer(&mut data, &kept);
        let sum = crc32fast::hash(&data[4..]).to_le_bytes();
        data[..4].copy_from_slice(&sum);
        data
    }

    /// Reads what [`State::save`] wrote.
    ///
    /// # Errors
    /// Where it is damaged, which no crash does.
    pub fn load(data: &[u8]) -> io::Result<Self> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is damaged");
        let (sum, text) = data.split_at_checked(4).ok_or_else(damaged)?;
        if crc32fast::hash(text).to_le_bytes() != sum {
            return Err(damaged());
        }
        serde_json::from_slice(text).map_err(|_| damaged())
    }
}
