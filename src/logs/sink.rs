//! The sinks: where lines go from the write-ahead log. [`super::lake::Lake`] (Parquet) is always one,
//! [`super::folder::TextFiles`] can be another.

use futures::future::BoxFuture;
use thiserror::Error;

use super::{record::Record, wal::frame::Declared};

/// Why a sink could not take lines.
#[derive(Debug, Error)]
pub enum Error {
    /// The file system said no.
    #[error("can't write {path}: {source}")]
    Write {
        /// The file or folder.
        path: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The object store said no.
    #[error("the object store refused {path}: {source}{}", remedy(source))]
    Objects {
        /// Which object.
        path: String,
        /// Why.
        source: object_store::Error,
    },
    /// The object store said nothing.
    #[error("the object store gave no answer about {path} within {seconds} s")]
    Silent {
        /// Which object.
        path: String,
        /// How long it had.
        seconds: u64,
    },
    /// A file can't be made or read.
    #[error("{path} is no file of lines: {source}")]
    Parquet {
        /// Which.
        path: String,
        /// Why not.
        source: parquet::errors::ParquetError,
    },
    /// Names that would leave the store.
    #[error("{0} is no stream that can be stored: a part of its name is no file name")]
    Name(super::line::StreamId),
}

/// What to do about it, where that can be known.
fn remedy(refused: &object_store::Error) -> &'static str {
    use object_store::Error::{NotFound, PermissionDenied, Unauthenticated};
    match refused {
        PermissionDenied { .. } | Unauthenticated { .. } => {
            "; check the store's credentials, and their right to read, write, list and delete there"
        }
        NotFound { .. } => "; check that the bucket is there",
        _ => "",
    }
}

/// The records of one stream in one segment of the write-ahead log.
#[derive(Clone, Debug)]
pub struct Shipment {
    /// Whose.
    pub declared: Declared,
    /// The log.
    pub epoch: u64,
    /// The segment.
    pub segment: u64,
    /// In order. The same again where it is shipped again.
    pub records: Vec<Record>,
}

/// A place for lines.
pub trait Sink: Send + Sync + 'static {
    /// What to call it.
    fn name(&self) -> &'static str;

    /// Stores a shipment for good. A shipment may come again, whole: it is then stored once.
    fn store<'a>(&'a self, shipment: &'a Shipment) -> BoxFuture<'a, Result<(), Error>>;

    /// A stream has ended, and all of it is stored: tidy up.
    fn ended<'a>(&'a self, shipment: &'a Shipment) -> BoxFuture<'a, Result<(), Error>> {
        let _ = shipment;
        Box::pin(async { Ok(()) })
    }
}
