//! The second sink: plain text files in the uniform format, rotated by size, for people with `grep` and
//! for programs that read nothing else. The layout is the store's, with `.log` files:
//!
//! ```text
//! namespace=ml/job=bert/uid=6f…/attempt=1/rank=0/trainer-000000000001.log
//!                                                        └ number of the file's first line
//! ```
//!
//! A crash may leave an unfinished last line; it is cut off, and the log brings it again.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Seek, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use futures::future::BoxFuture;

use super::{
    layout,
    line::{Formatter, Line, StreamId},
    record::Record,
    sink::{Error, Shipment, Sink},
};

/// Files in a folder.
#[derive(Clone, Debug)]
pub struct TextFiles {
    root: Arc<PathBuf>,
    max_file: u64,
    /// Where the streams stand that are being written.
    open: Arc<Mutex<HashMap<StreamId, Current>>>,
}

#[derive(Clone, Debug)]
struct Current {
    path: PathBuf,
    /// What is whole in it; the rest is cut off.
    len: u64,
    /// Number of its last line.
    seq: u64,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Write { path, source }
}

impl TextFiles {
    /// Files below `root`, each of at most `max_file` bytes (but at least one line).
    #[must_use]
    pub fn new(root: PathBuf, max_file: u64) -> Self {
        Self {
            root: Arc::new(root),
            max_file,
            open: Arc::default(),
        }
    }

    /// Deletes everything of a stream.
    ///
    /// # Errors
    /// Where the file system refuses. It can be repeated.
    pub async fn forget(&self, id: &StreamId) -> Result<(), Error> {
        self.blocking(id.clone(), |this, id| remove(&this.root, &id))
            .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        with: T,
        work: impl FnOnce(&Self, T) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || work(&this, with))
            .await
            .unwrap_or_else(|e| Err(at(&self.root)(io::Error::other(e))))
    }

    fn append(&self, shipment: &Shipment) -> Result<(), Error> {
        let id = &shipment.declared.id;
        let folder = layout::folder(id).ok_or_else(|| Error::Name(id.clone()))?;
        let folder = self.root.join(folder);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out, so that after an error the disk is asked what is there.
        let mut current = match open.remove(id) {
            Some(current) => Some(current),
            None => newest(&folder, &id.container).map_err(at(&folder))?,
        };
        let formatter = Formatter::new(id);
        let lines = shipment.records.iter().filter_map(|record| match record {
            Record::Line(line) => Some(line),
            _ => None,
        });
        let stored = current.as_ref().map_or(0, |c| c.seq);
        let new: Vec<&Line> = lines.filter(|line| line.seq > stored).collect();
        let mut text = Vec::new();
        let mut rest = new.as_slice();
        while let Some(first) = rest.first() {
            text.clear();
            if current.as_ref().is_none_or(|c| c.len >= self.max_file) {
                fs::create_dir_all(&folder).map_err(at(&folder))?;
                let name = format!("{}-{:012}.log", id.container, first.seq);
                current = Some(Current {
                    path: folder.join(name),
                    len: 0,
                    seq: first.seq - 1,
                });
            }
            let Some(current) = &mut current else { break };
            while let Some((line, after)) = rest.split_first() {
                let before = text.len();
                formatter.write(line, &mut text);
                if current.len + before as u64 > 0
                    && current.len + text.len() as u64 > self.max_file
                {
                    text.truncate(before);
                    break;
                }
                current.seq = line.seq;
                rest = after;
            }
            write(current, &text).map_err(at(&current.path))?;
            if !rest.is_empty() {
                current.len = current.len.max(self.max_file);
            }
        }
        let ended = matches!(shipment.records.last(), Some(Record::End(_)));
        if let Some(current) = current.filter(|_| !ended) {
            open.insert(id.clone(), current);
        }
        Ok(())
    }
}

/// Removes a container's files, and the folders that are empty then.
fn remove(root: &Path, id: &StreamId) -> Result<(), Error> {
    let folder = layout::folder(id).ok_or_else(|| Error::Name(id.clone()))?;
    let mut folder = root.join(folder);
    for (_, path) in files(&folder, &id.container).map_err(at(&folder))? {
        fs::remove_file(&path).map_err(at(&path))?;
    }
    // One that others still use is not empty.
    while folder != root && fs::remove_dir(&folder).is_ok() {
        folder.pop();
    }
    Ok(())
}

fn write(current: &mut Current, text: &[u8]) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&current.path)?;
    file.set_len(current.len)?;
    file.seek(io::SeekFrom::Start(current.len))?;
    file.write_all(text)?;
    file.sync_data()?;
    if current.len == 0
        && let Some(folder) = current.path.parent()
    {
        File::open(folder)?.sync_all()?;
    }
    current.len += text.len() as u64;
    Ok(())
}

/// A container's files: the number of each one's first line, and where it is.
fn files(folder: &Path, container: &str) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let first = name.to_str().and_then(|name| {
            let (of, first) = name.strip_suffix(".log")?.rsplit_once('-')?;
            first.parse().ok().filter(|_| of == container)
        });
        files.extend(first.map(|first| (first, entry.path())));
    }
    Ok(files)
}

/// The newest file of a container, and how far it goes.
fn newest(folder: &Path, container: &str) -> io::Result<Option<Current>> {
    let newest = files(folder, container)?.into_iter().max();
    let Some((first, path)) = newest else {
        return Ok(None);
    };
    let mut reader = BufReader::with_capacity(64 * 1024, File::open(&path)?);
    let (mut len, mut lines, mut text) = (0, 0, Vec::new());
    loop {
        text.clear();
        if reader.read_until(b'\n', &mut text)? == 0 || !text.ends_with(b"\n") {
            break;
        }
        len += text.len() as u64;
        lines += 1;
    }
    OpenOptions::new().write(true).open(&path)?.set_len(len)?;
    Ok(Some(Current {
        path,
        len,
        seq: first + lines - 1,
    }))
}

impl Sink for TextFiles {
    fn name(&self) -> &'static str {
        "text"
    }

    fn store<'a>(&'a self, shipment: &'a Shipment) -> BoxFuture<'a, Result<(), Error>> {
        let shipment = shipment.clone();
        Box::pin(self.blocking(shipment, |this, shipment| this.append(&shipment)))
    }
}
