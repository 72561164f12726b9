//! The sink: where lines go. [`super::folder::LocalFolder`] is the one there is; the write-ahead log
//! and Parquet will stand behind the same trait.

use std::{future::Future, path::PathBuf};

use thiserror::Error;

use super::line::{Line, StreamId};

/// Why a sink could not take lines, or not open a stream.
#[derive(Debug, Error)]
pub enum Error {
    /// The file system said no.
    #[error(
        "can't write {path}: {source}; lines wait until it works: check the volume's space and rights"
    )]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Names that would leave the folder.
    #[error("{0} is no stream that can be stored: a part of its name is no file name")]
    Name(StreamId),
    /// A second collector.
    #[error(
        "another collector writes to {0}, and two would mix up its files; stop one, or give each its own --store"
    )]
    Locked(PathBuf),
}

/// What is stored of a stream already.
#[derive(Debug, Default)]
pub struct Stored {
    /// Number of its last line.
    pub seq: u64,
    /// Its newest lines, up to [`super::position::REMEMBERED`].
    pub tail: Vec<Line>,
}

/// How a container's log ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// The run of the container, by the runtime's id.
    pub container_id: Option<String>,
    /// Whether the end of its log was read, so that nothing is known to be missing.
    pub complete: bool,
    /// Number of the last line.
    pub lines: u64,
}

/// A place for lines.
pub trait Sink: Send + Sync + 'static {
    /// Takes the lines of one stream.
    type Writer: Writer;

    /// Opens a stream, new or continued, and says what of it is stored; its end, if it had one, is
    /// forgotten. Each stream is opened once
    /// at a time.
    fn open(
        &self,
        id: &StreamId,
    ) -> impl Future<Output = Result<(Self::Writer, Stored), Error>> + Send;

    /// How a stream ended, where it did.
    fn end(&self, id: &StreamId) -> impl Future<Output = Option<End>> + Send;
}

/// Takes the lines of one stream.
pub trait Writer: Send {
    /// Stores lines. When it returns, readers see them. After an error none of them is stored, and
    /// the call can be repeated.
    fn append(&mut self, lines: &[Line]) -> impl Future<Output = Result<(), Error>> + Send;

    /// Makes what was stored durable, and notes the stream's end where there is one: none where
    /// only the collector stops.
    fn close(self, end: Option<End>) -> impl Future<Output = Result<(), Error>> + Send;
}
