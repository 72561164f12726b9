//! The store: immutable Parquet files in an object store, which may be a local folder, S3, Google Cloud
//! Storage or Azure. Writing, listing, reading, compaction.
//!
//! Every request has a deadline; retries are the caller's.

use std::{collections::BTreeMap, fmt, future::Future, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::BoxFuture};
use k8s_openapi::jiff::Timestamp;
use object_store::{
    GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, path::Path,
};
use serde::{Deserialize, Serialize};

pub use super::place::OpenError;
use super::{
    columns::{self, Decoder, decode::Piece},
    layout::{self, Kind},
    line::{Line, StreamId},
    place,
    planted::{Bug, planted},
    record::{End, Gap, Record},
    sink::{Error, Shipment, Sink},
};

/// Longest wait for one request, its data included.
const DEADLINE: Duration = Duration::from_secs(60);
/// A larger object is uploaded in parts of this size, so that a slow network has the deadline for each.
const PART: usize = 8 * 1024 * 1024;
/// Bytes of messages in one file of a compaction.
const COMPACTED: usize = 32 * 1024 * 1024;
/// How many objects are deleted at a time.
const DELETIONS: usize = 8;

/// An object store with lines.
#[derive(Clone)]
pub struct Lake {
    objects: Arc<dyn ObjectStore>,
    name: Arc<str>,
}

impl fmt::Debug for Lake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lake").field(&self.name).finish()
    }
}

/// What is stored of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Numbers of the first and last line of each file.
    pub lines: Vec<(u64, u64)>,
    /// The objects with gaps and ends.
    pub notes: Vec<Path>,
    /// When the first object was stored.
    pub since: Option<Timestamp>,
    /// When the newest object was stored.
    pub until: Option<Timestamp>,
    /// Bytes of all objects.
    pub bytes: u64,
}

/// What is noted of a stream in one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Notes {
    /// Which segment, so that they can be put in order.
    pub segment: u64,
    /// Where lines are missing.
    pub gaps: Vec<Gap>,
    /// How the stream ended; None where it went on.
    pub end: Option<End>,
}

fn refused(path: &str) -> impl FnOnce(object_store::Error) -> Error + use<'_> {
    move |source| Error::Objects {
        path: path.to_owned(),
        source,
    }
}

async fn within<T>(
    path: &str,
    request: impl Future<Output = Result<T, object_store::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(DEADLINE, request).await {
        Ok(result) => result.map_err(refused(path)),
        Err(_) => Err(Error::Silent {
            path: path.to_owned(),
            seconds: DEADLINE.as_secs(),
        }),
    }
}

async fn upload_parts(
    path: &Path,
    upload: &mut dyn MultipartUpload,
    mut data: Bytes,
) -> Result<(), Error> {
    while !data.is_empty() {
        let part = data.split_to(data.len().min(PART));
        within(path.as_ref(), upload.put_part(part.into())).await?;
    }
    within(path.as_ref(), upload.complete()).await?;
    Ok(())
}

impl Lake {
    /// In this object store.
    #[must_use]
    pub fn new(objects: Arc<dyn ObjectStore>, name: &str) -> Self {
        Self {
            objects,
            name: name.into(),
        }
    }

    /// At a place: a folder, which must be there, or a URL, with the process's environment.
    ///
    /// # Errors
    /// Where it is neither.
    pub fn open(place: &str) -> Result<Self, OpenError> {
        Ok(Self::new(place::open(place, std::env::vars())?, place))
    }

    /// Where it is, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    async fn put(&self, path: &Path, data: Vec<u8>) -> Result<(), Error> {
        if data.len() <= PART {
            let payload = PutPayload::from(data);
            within(path.as_ref(), self.objects.put(path, payload)).await?;
            return Ok(());
        }
        let mut upload = within(path.as_ref(), self.objects.put_multipart(path)).await?;
        let stored = upload_parts(path, &mut *upload, Bytes::from(data)).await;
        if stored.is_err() {
            // What was uploaded already would be paid for, and never seen. What a killed collector leaves
            // is the bucket's lifecycle rule to remove.
            let _ = within(path.as_ref(), upload.abort()).await;
        }
        stored
    }

    /// Stores a row of the tables of jobs and attempts, in the place of an earlier one.
    ///
    /// # Errors
    /// Where the store refuses.
    pub async fn put_row(&self, path: &Path, row: Vec<u8>) -> Result<(), Error> {
        self.put(path, row).await
    }

    /// The rows below a folder, and when each was stored.
    ///
    /// # Errors
    /// Where the store can't be listed.
    pub async fn rows(&self, folder: &str) -> Result<Vec<(Path, Timestamp)>, Error> {
        let mut listed = self.objects.list(Some(&Path::from(folder)));
        let mut rows = Vec::new();
        while let Some(object) = within(folder, listed.try_next()).await? {
            let time = Timestamp::from_millisecond(object.last_modified.timestamp_millis());
            rows.extend(time.ok().map(|time| (object.location, time)));
        }
        Ok(rows)
    }

    /// A row's file.
    ///
    /// # Errors
    /// Where it can't be read.
    pub async fn row(&self, path: &Path) -> Result<Bytes, Error> {
        self.get(path).await
    }

    /// Deletes a row.
    ///
    /// # Errors
    /// Where the store refuses. It can be repeated.
    pub async fn forget_row(&self, path: &Path) -> Result<(), Error> {
        self.delete(path).await
    }

    async fn get(&self, path: &Path) -> Result<Bytes, Error> {
        within(path.as_ref(), async {
            self.objects.get(path).await?.bytes().await
        })
        .await
    }

    /// The last `bytes` of an object, or all where it is smaller.
    ///
    /// # Errors
    /// Where it can't be read.
    pub async fn end(&self, path: &Path, bytes: u64) -> Result<Piece, Error> {
        let options = GetOptions {
            range: Some(GetRange::Suffix(bytes)),
            ..GetOptions::default()
        };
        let fetched = within(path.as_ref(), async {
            let answer = self.objects.get_opts(path, options).await?;
            let at = answer.range.start;
            Ok((at, answer.bytes().await?))
        });
        match fetched.await {
            Ok((at, data)) => Ok(Piece { at, data }),
            // Azure has no such ranges.
            Err(Error::Objects {
                source: object_store::Error::NotSupported { .. },
                ..
            }) => {
                let size = within(path.as_ref(), self.objects.head(path)).await?.size;
                self.piece(path, size.saturating_sub(bytes)..size).await
            }
            Err(error) => Err(error),
        }
    }

    /// A part of an object.
    ///
    /// # Errors
    /// Where it can't be read.
    pub async fn piece(&self, path: &Path, range: Range<u64>) -> Result<Piece, Error> {
        let at = range.start;
        let data = within(path.as_ref(), self.objects.get_range(path, range)).await?;
        Ok(Piece { at, data })
    }

    async fn delete(&self, path: &Path) -> Result<(), Error> {
        match within(path.as_ref(), self.objects.delete(path)).await {
            Err(Error::Objects {
                source: object_store::Error::NotFound { .. },
                ..
            }) => Ok(()),
            result => result,
        }
    }

    /// What is stored below a folder, by stream. The empty folder has everything.
    ///
    /// # Errors
    /// Where the store can't be listed.
    pub async fn list(&self, folder: &str) -> Result<BTreeMap<StreamId, Files>, Error> {
        let prefix = (!folder.is_empty()).then(|| Path::from(folder));
        let mut listed = self.objects.list(prefix.as_ref());
        let mut streams = BTreeMap::<StreamId, Files>::new();
        // A page at a time has the deadline, not the whole list.
        while let Some(object) = within(folder, listed.try_next()).await? {
            let Some((id, kind)) = layout::parse(object.location.as_ref()) else {
                continue;
            };
            let files = streams.entry(id).or_default();
            match kind {
                Kind::Lines { first, last } => files.lines.push((first, last)),
                Kind::Notes => files.notes.push(object.location),
            }
            let time = Timestamp::from_millisecond(object.last_modified.timestamp_millis()).ok();
            files.since = [files.since, time].into_iter().flatten().min();
            files.until = files.until.max(time);
            files.bytes += object.size;
        }
        Ok(streams)
    }

    /// What is stored of one stream.
    ///
    /// # Errors
    /// Where the store can't be listed.
    pub async fn files(&self, id: &StreamId) -> Result<Files, Error> {
        let folder = layout::folder(id).ok_or_else(|| Error::Name(id.clone()))?;
        Ok(self.list(&folder).await?.remove(id).unwrap_or_default())
    }

    /// The lines of one file.
    ///
    /// # Errors
    /// Where it can't be read.
    pub async fn lines(&self, id: &StreamId, file: (u64, u64)) -> Result<Decoder, Error> {
        let path = layout::lines(id, file.0, file.1).ok_or_else(|| Error::Name(id.clone()))?;
        let data = self.get(&path).await?;
        Decoder::new(data).map_err(|source| Error::Parquet {
            path: path.to_string(),
            source,
        })
    }

    /// All gaps of a stream and its last end, in the order of its lines.
    ///
    /// # Errors
    /// Where they can't be read.
    pub async fn notes(&self, files: &Files) -> Result<(Vec<Gap>, Option<End>), Error> {
        let mut all = Vec::new();
        for path in &files.notes {
            let data = self.get(path).await?;
            let notes: Notes = serde_json::from_slice(&data).map_err(|e| Error::Objects {
                path: path.to_string(),
                source: object_store::Error::Generic {
                    store: "notes",
                    source: Box::new(e),
                },
            })?;
            all.push((layout::noted_in(path.as_ref()), notes));
        }
        all.sort_by_key(|(noted_in, _)| *noted_in);
        let end = all.last().and_then(|(_, notes)| notes.end.clone());
        let mut gaps: Vec<Gap> = all.into_iter().flat_map(|(_, notes)| notes.gaps).collect();
        gaps.sort_by_key(|gap| gap.after_seq);
        gaps.dedup();
        Ok((gaps, end))
    }

    /// Puts few files in the place of the many of a stream that has ended.
    ///
    /// # Errors
    /// Where the store refuses. It can be repeated, and a crash in between leaves both.
    pub async fn compact(&self, shipment: &Shipment) -> Result<(), Error> {
        let id = &shipment.declared.id;
        let there = self.files(id).await?.lines;
        let read = layout::cover(&there);
        if there.len() < 2 {
            return Ok(());
        }
        if planted(Bug::CompactionDeletesFirst) {
            self.remove(id, there.iter().skip(1)).await?;
        }
        let mut kept = Vec::new();
        let mut lines: Vec<Line> = Vec::new();
        let mut bytes = 0;
        for (at, file) in read.iter().enumerate() {
            let mut decoder = self.lines(id, *file).await?;
            while let Some(batch) = decode(id, &mut decoder)? {
                bytes += batch.iter().map(|l| l.message.len() + 64).sum::<usize>();
                lines.extend(batch);
            }
            if bytes >= COMPACTED || at + 1 == read.len() {
                if let (Some(first), Some(last)) = (lines.first(), lines.last()) {
                    let file = (first.seq, last.seq);
                    if !there.contains(&file) {
                        self.put_lines(shipment, &lines).await?;
                    }
                    kept.push(file);
                }
                lines = Vec::new();
                bytes = 0;
            }
        }
        self.remove(id, there.iter().filter(|file| !kept.contains(file)))
            .await
    }

    async fn remove(
        &self,
        id: &StreamId,
        files: impl Iterator<Item = &(u64, u64)>,
    ) -> Result<(), Error> {
        let paths: Vec<Path> = files
            .filter_map(|(first, last)| layout::lines(id, *first, *last))
            .collect();
        futures::stream::iter(paths)
            .map(|path| async move { self.delete(&path).await })
            .buffer_unordered(DELETIONS)
            .try_collect()
            .await
    }

    async fn put_lines(&self, shipment: &Shipment, lines: &[Line]) -> Result<(), Error> {
        let id = &shipment.declared.id;
        let (Some(first), Some(last)) = (lines.first(), lines.last()) else {
            return Ok(());
        };
        let path = layout::lines(id, first.seq, last.seq).ok_or_else(|| Error::Name(id.clone()))?;
        let data = columns::encode(id, &shipment.declared.origin, lines, shipment.epoch);
        let data = data.map_err(|source| Error::Parquet {
            path: path.to_string(),
            source,
        })?;
        self.put(&path, data).await
    }

    async fn put_shipment(&self, shipment: &Shipment) -> Result<(), Error> {
        let id = &shipment.declared.id;
        let mut notes = Notes {
            segment: shipment.segment,
            ..Notes::default()
        };
        let mut lines = Vec::new();
        let mut noted = false;
        for record in &shipment.records {
            match record {
                Record::Line(line) => {
                    lines.push(line.clone());
                    // A stream that goes on has not ended.
                    notes.end = None;
                }
                Record::Gap(gap) => {
                    notes.gaps.push(gap.clone());
                    noted = true;
                }
                Record::End(end) => {
                    notes.end = Some(end.clone());
                    noted = true;
                }
                Record::File(_) => {}
            }
        }
        self.put_lines(shipment, &lines).await?;
        if noted {
            let path = layout::notes(id, shipment.epoch, shipment.segment)
                .ok_or_else(|| Error::Name(id.clone()))?;
            let text = serde_json::to_vec(&notes).map_err(|e| Error::Write {
                path: path.as_ref().into(),
                source: e.into(),
            })?;
            self.put(&path, text).await?;
        }
        Ok(())
    }

    /// Deletes everything of a stream.
    ///
    /// # Errors
    /// Where the store refuses. It can be repeated.
    pub async fn forget(&self, id: &StreamId, files: &Files) -> Result<(), Error> {
        self.remove(id, files.lines.iter()).await?;
        for path in &files.notes {
            self.delete(path).await?;
        }
        Ok(())
    }
}

/// The next lines of a file of `id`; None at its end.
///
/// # Errors
/// Where the file is damaged.
pub fn decode(id: &StreamId, decoder: &mut Decoder) -> Result<Option<Vec<Line>>, Error> {
    let batch = decoder.next_lines().map_err(|source| Error::Parquet {
        path: format!("a file of {id}"),
        source,
    })?;
    Ok((!batch.is_empty()).then_some(batch))
}

impl Sink for Lake {
    fn name(&self) -> &'static str {
        "parquet"
    }

    fn store<'a>(&'a self, shipment: &'a Shipment) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.put_shipment(shipment))
    }

    fn ended<'a>(&'a self, shipment: &'a Shipment) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.compact(shipment))
    }
}
