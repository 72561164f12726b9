//! PURE: how the write-ahead log spells what it holds.
//!
//! ```text
//! frame   = length u32, CRC-32 of the payload u32, payload
//! payload = 1, stream u32, JSON of its StreamId and Origin     says whose the number is from here on
//!         | 2, stream u32, ordinal u64, records                ordinal: of the first record in the stream
//! ```
//!
//! Numbers are little-endian; within records they are LEB128. A frame is there as a whole or not at
//! all: one that is short, or whose checksum is wrong, ends its file.

use serde::{Deserialize, Serialize};

use crate::logs::{
    line::{Flags, Line, Origin, Output, StreamId, from_nanos, nanos},
    planted::{Bug, planted},
    record::{FileStart, Record},
};

const HEADER: usize = 8;
/// No frame is longer: a length beyond it is no length.
pub const MAX_FRAME: usize = 16 * 1024 * 1024;

/// Whose lines a number of the log stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// Whose.
    pub id: StreamId,
    /// From where.
    pub origin: Origin,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// What a stream's number stands for.
    Stream(u32, Box<Declared>),
    /// Records of a stream.
    Records {
        /// The stream's number.
        stream: u32,
        /// The place of the first one in the stream.
        ordinal: u64,
        /// In order.
        records: Vec<Record>,
    },
}

/// Appends the frame that declares a stream.
pub fn put_stream(stream: u32, declared: &Declared, to: &mut Vec<u8>) {
    framed(to, |to| {
        to.push(1);
        to.extend(stream.to_le_bytes());
        json(declared, to);
    });
}

/// Appends a frame of records.
pub fn put_records(stream: u32, ordinal: u64, records: &[Record], to: &mut Vec<u8>) {
    framed(to, |to| {
        to.push(2);
        to.extend(stream.to_le_bytes());
        to.extend(ordinal.to_le_bytes());
        for record in records {
            put_record(record, to);
        }
    });
}

fn framed(to: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = to.len();
    to.extend([0; HEADER]);
    payload(to);
    let body = &to[start + HEADER..];
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    let sum = crc32fast::hash(body).to_le_bytes();
    to[start..start + 4].copy_from_slice(&length);
    to[start + 4..start + HEADER].copy_from_slice(&sum);
}

fn put_record(record: &Record, to: &mut Vec<u8>) {
    match record {
        Record::Line(line) => {
            to.push(1);
            put_number(line.seq, to);
            to.extend(nanos(line.time).to_le_bytes());
            to.extend(nanos(line.observed).to_le_bytes());
            let output = Output::ALL.iter().position(|o| *o == line.output);
            to.push(u8::try_from(output.unwrap_or(0)).unwrap_or(0) << 4 | line.flags.bits());
            put_number(line.message.len() as u64, to);
            to.extend_from_slice(&line.message);
        }
        Record::Gap(gap) => {
            to.push(2);
            put_json(gap, to);
        }
        Record::File(file) => {
            to.push(3);
            to.extend(file.time.to_le_bytes());
            to.extend(file.seq.to_le_bytes());
        }
        Record::End(end) => {
            to.push(4);
            put_json(end, to);
        }
    }
}

fn json(value: &impl Serialize, to: &mut Vec<u8>) {
    // Plain data always becomes JSON, and writing to a Vec can't fail.
    let _ = serde_json::to_writer(to, value);
}

fn put_json(value: &impl Serialize, to: &mut Vec<u8>) {
    let mut text = Vec::new();
    json(value, &mut text);
    put_number(text.len() as u64, to);
    to.extend(text);
}

fn put_number(mut n: u64, to: &mut Vec<u8>) {
    while n >= 0x80 {
        to.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    to.push(n as u8);
}

/// The first frame of `data` and its length. None where there is no whole, sound one (yet).
#[must_use]
pub fn take(data: &[u8]) -> Option<(Frame, usize)> {
    let length = u32::from_le_bytes(data.get(..4)?.try_into().ok()?) as usize;
    let sum = u32::from_le_bytes(data.get(4..HEADER)?.try_into().ok()?);
    if length == 0 || length > MAX_FRAME {
        return None;
    }
    let body = data.get(HEADER..HEADER + length)?;
    if crc32fast::hash(body) != sum && !planted(Bug::TornFrameTrusted) {
        return None;
    }
    Some((parse(body)?, HEADER + length))
}

/// Whether more bytes may still make a frame of `data`: it is not that something is wrong with it.
#[must_use]
pub fn is_short(data: &[u8]) -> bool {
    let Some(length) = data.get(..4).and_then(|b| b.try_into().ok()) else {
        return true;
    };
    let length = u32::from_le_bytes(length) as usize;
    length <= MAX_FRAME && data.len() < HEADER + length
}

fn parse(body: &[u8]) -> Option<Frame> {
    let mut from = Bytes(body);
    let kind = from.u8()?;
    let stream = u32::from_le_bytes(from.array()?);
    match kind {
        1 => Some(Frame::Stream(stream, serde_json::from_slice(from.0).ok()?)),
        2 => {
            let ordinal = u64::from_le_bytes(from.array()?);
            let mut records = Vec::new();
            while !from.0.is_empty() {
                records.push(from.record()?);
            }
            Some(Frame::Records {
                stream,
                ordinal,
                records,
            })
        }
        _ => None,
    }
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u64> {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            n |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(n);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let n = usize::try_from(self.number()?).ok()?;
        self.take(n)
    }

    fn record(&mut self) -> Option<Record> {
        Some(match self.u8()? {
            1 => {
                let seq = self.number()?;
                let time = from_nanos(i64::from_le_bytes(self.array()?));
                let observed = from_nanos(i64::from_le_bytes(self.array()?));
                let bits = self.u8()?;
                Record::Line(Line {
                    seq,
                    time,
                    observed,
                    output: *Output::ALL.get(usize::from(bits >> 4))?,
                    flags: Flags::from_bits(bits & 0xf),
                    message: self.bytes()?.to_vec(),
                })
            }
            2 => Record::Gap(serde_json::from_slice(self.bytes()?).ok()?),
            3 => Record::File(FileStart {
                time: i64::from_le_bytes(self.array()?),
                seq: i64::from_le_bytes(self.array()?),
            }),
            4 => Record::End(serde_json::from_slice(self.bytes()?).ok()?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::logs::record::{End, Gap, Reason};

    fn line(seq: u64, time: i64, bits: u8, message: Vec<u8>) -> Record {
        Record::Line(Line {
            seq,
            time: from_nanos(time),
            observed: from_nanos(time.wrapping_add(5)),
            output: Output::ALL[usize::from(bits % 3)],
            flags: Flags::from_bits(bits & 7),
            message,
        })
    }

    proptest! {
        #[test]
        fn frames_come_back_and_a_damaged_one_is_none(
            message in prop::collection::vec(any::<u8>(), 0..300),
            seq in any::<u64>(), time in any::<i64>(), bits in any::<u8>(),
            flip in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>(),
        ) {
            let records = vec![
                line(seq, time, bits, message),
                Record::File(FileStart { time, seq: -3 }),
                Record::Gap(Gap { after_seq: seq, not_before: 0, from: None, to: Some(from_nanos(time)),
                    reason: Reason::RotatedAway, lost: Some(3) }),
                Record::End(End { container_id: Some("c".into()), complete: true, lines: seq, bytes: 1 }),
            ];
            let mut data = Vec::new();
            put_records(7, seq, &records, &mut data);
            let length = data.len();
            prop_assert_eq!(take(&data), Some((Frame::Records { stream: 7, ordinal: seq, records }, length)));
            prop_assert!(take(&data[..cut.index(length)]).is_none());
            prop_assert!(is_short(&data[..cut.index(length)]));
            let at = flip.index(length);
            data[at] ^= 1;
            prop_assert!(take(&data).is_none());
        }
    }

    #[test]
    fn a_stream_is_declared() {
        let declared = Declared {
            id: StreamId {
                namespace: "ml".into(),
                job: "bert".into(),
                uid: "u".into(),
                attempt: 1,
                rank: 2,
                container: "trainer".into(),
            },
            origin: Origin::default(),
        };
        let mut data = Vec::new();
        put_stream(3, &declared, &mut data);
        assert_eq!(
            take(&data),
            Some((Frame::Stream(3, Box::new(declared)), data.len()))
        );
        assert!(!is_short(&[0xff; 40]));
    }
}
