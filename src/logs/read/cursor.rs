//! Where a reader is, over all streams of a job, as a text that means nothing to others. A question that
//! is asked again with it goes on exactly after the last line that was handed on.
//!
//! It also holds what the question meant when it was first asked: which job had the name, which attempt
//! was the newest, and which times durations stood for.

use std::{collections::BTreeMap, fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::logs::line::StreamId;

/// Longer texts are refused: this is a few ten thousand streams.
const MAX: usize = 1024 * 1024;

/// Numbers of the last lines, by attempt, container and rank.
type Read = BTreeMap<u32, BTreeMap<String, BTreeMap<u32, u64>>>;

/// A place in the merged lines of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The job.
    #[serde(rename = "u")]
    pub uid: String,
    /// The first attempt, where the newest was asked for.
    #[serde(rename = "f")]
    pub first: u32,
    /// In nanoseconds, where it was asked for.
    #[serde(rename = "s", skip_serializing_if = "Option::is_none", default)]
    pub since: Option<i64>,
    /// In nanoseconds, where it was asked for.
    #[serde(rename = "t", skip_serializing_if = "Option::is_none", default)]
    pub until: Option<i64>,
    #[serde(rename = "r")]
    pub(super) read: Read,
}

impl Cursor {
    /// Number of the last line of a stream that is behind; 0 where there is none.
    #[must_use]
    pub fn read(&self, id: &StreamId) -> u64 {
        let container = self
            .read
            .get(&id.attempt)
            .and_then(|c| c.get(&id.container));
        let read = container.and_then(|ranks| ranks.get(&id.rank));
        read.copied().unwrap_or(0)
    }

    /// Sets it.
    pub fn set(&mut self, id: &StreamId, read: u64) {
        let containers = self.read.entry(id.attempt).or_default();
        let ranks = match containers.get_mut(&id.container) {
            Some(ranks) => ranks,
            None => containers.entry(id.container.clone()).or_default(),
        };
        ranks.insert(id.rank, read);
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_vec(self).map_err(|_| fmt::Error)?;
        f.write_str(&URL_SAFE_NO_PAD.encode(text))
    }
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "cursor: this is none; give one that an answer had, as it was".to_owned();
        if text.len() > MAX {
            return Err(wrong());
        }
        let text = URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())?;
        serde_json::from_slice(&text).map_err(|_| wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_a_url() {
        let id = StreamId {
            namespace: "ml".into(),
            job: "bert".into(),
            uid: "u-1".into(),
            attempt: 2,
            rank: 255,
            container: "trainer".into(),
        };
        let mut cursor = Cursor {
            uid: "u-1".into(),
            first: 2,
            since: Some(-5),
            ..Cursor::default()
        };
        cursor.set(&id, 1 << 40);
        let text = cursor.to_string();
        let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        assert!(text.bytes().all(safe), "{text}");
        let back: Cursor = text.parse().unwrap();
        assert_eq!(back, cursor);
        assert_eq!(back.read(&id), 1 << 40);
        assert_eq!(back.read(&StreamId { rank: 1, ..id }), 0);
        for wrong in ["", "abc", "????", "e30"] {
            wrong.parse::<Cursor>().unwrap_err();
        }
    }
}
