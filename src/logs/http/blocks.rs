//! Blocks on their way: a line of JSON that says what follows, and then so many bytes. The collector writes
//! them and `kubectl trainyard` reads them.

use futures::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};
use serde::{Deserialize, Serialize};
use std::io;

use crate::logs::read::Block;

/// Longest line of JSON.
const MAX_HEAD: u64 = 2 * 1024 * 1024;
/// Longest block: one line may be as long as a frame of the write-ahead log, and is escaped.
const MAX_BLOCK: u64 = 1024 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
struct Head {
    bytes: u64,
    cursor: String,
    attempt: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    last: bool,
}

/// A block that arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// Whole lines.
    pub data: Vec<u8>,
    /// What goes on after them.
    pub cursor: String,
    /// The newest attempt that lines came of so far; 0 where none did.
    pub attempt: u32,
    /// Nothing comes after it.
    pub last: bool,
}

impl From<Block> for Arrived {
    fn from(block: Block) -> Self {
        Self {
            cursor: block.cursor.to_string(),
            data: block.data,
            attempt: block.attempt,
            last: block.last,
        }
    }
}

/// A block as it is sent.
#[must_use]
pub fn encode(block: Block) -> Vec<u8> {
    let block = Arrived::from(block);
    let head = Head {
        bytes: block.data.len() as u64,
        cursor: block.cursor,
        attempt: block.attempt,
        last: block.last,
    };
    // Plain data always becomes JSON.
    let mut bytes = serde_json::to_vec(&head).unwrap_or_default();
    bytes.push(b'\n');
    bytes.extend_from_slice(&block.data);
    bytes
}

/// Reads a block. An end before its end is an error.
///
/// # Errors
/// Where the connection breaks, or something else comes.
pub async fn read(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Arrived> {
    let mut line = Vec::new();
    from.take(MAX_HEAD).read_until(b'\n', &mut line).await?;
    if !line.ends_with(b"\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let head: Head = serde_json::from_slice(&line)?;
    let mut data = Vec::new();
    let bytes = head.bytes.min(MAX_BLOCK);
    from.take(bytes).read_to_end(&mut data).await?;
    if data.len() as u64 != head.bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Arrived {
        data,
        cursor: head.cursor,
        attempt: head.attempt,
        last: head.last,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn blocks_of_any_bytes_arrive_and_half_a_one_is_an_error() {
        let block = |data: &[u8], last| Block {
            data: data.to_vec(),
            attempt: 3,
            last,
            ..Block::default()
        };
        let mut sent = encode(block(b"a\n\xff{\"bytes\":1}\n", false));
        let half = sent.len() - 1;
        sent.extend(encode(block(b"", true)));
        let mut from = futures::io::Cursor::new(sent.clone());
        let first = read(&mut from).await.unwrap();
        assert_eq!(first.data, b"a\n\xff{\"bytes\":1}\n");
        assert_eq!((first.attempt, first.last), (3, false));
        assert!(read(&mut from).await.unwrap().last);
        read(&mut from).await.unwrap_err();
        for cut in 0..half {
            let error = read(&mut futures::io::Cursor::new(&sent[..cut])).await;
            assert_eq!(error.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
