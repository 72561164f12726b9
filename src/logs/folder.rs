//! The local-folder sink: rotating text files in the uniform format, laid out as [`super::store`]
//! says.
//!
//! What survives what: lines are with the kernel when `append` returns, so they outlive the process
//! (`kill -9`); files are synced when they are rotated and when a stream ends, so a node that loses
//! power may cost the last lines of running containers, which the collector reads again when it is
//! back, as long as the pod is there. The write-ahead log closes that gap.

#[cfg(test)]
mod tests;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    line::{self, Formatter, Line, StreamId},
    position::REMEMBERED,
    sink::{End, Error, Sink, Stored, Writer},
    store::{self, Store},
};

/// Files in a folder.
#[derive(Clone, Debug)]
pub struct LocalFolder {
    store: Store,
    max_file: u64,
    /// Held while the process lives, so that no second collector appends to the same files.
    _lock: Arc<File>,
}

impl LocalFolder {
    /// Files in the folder of `store`, each of at most `max_file` bytes (but at least one line).
    ///
    /// # Errors
    /// Where the folder can't be made or written, or another collector has it.
    pub fn open(store: Store, max_file: u64) -> Result<Self, Error> {
        let root = store.root().to_owned();
        let failed = |path: &Path| at(path);
        fs::create_dir_all(&root).map_err(failed(&root))?;
        let path = root.join(".lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(Error::Locked(root)),
            Err(fs::TryLockError::Error(error)) => {
                // Some network file systems know no locks; the chart runs one collector anyway.
                tracing::warn!("can't lock {}: {error}", path.display());
            }
        }
        Ok(Self {
            store,
            max_file,
            _lock: Arc::new(lock),
        })
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Write { path, source }
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // The runtime is shutting down, or the work panicked.
        Err(error) => Err(at(path)(io::Error::other(error))),
    }
}

impl Sink for LocalFolder {
    type Writer = FolderWriter;

    async fn open(&self, id: &StreamId) -> Result<(FolderWriter, Stored), Error> {
        let (this, id) = (self.clone(), id.clone());
        let root = self.store.root().to_owned();
        blocking(&root, move || {
            let folder = this.store.folder(&id).ok_or(Error::Name(id.clone()))?;
            fs::create_dir_all(&folder).map_err(at(&folder))?;
            let mut files = this.store.files(&id).map_err(at(&folder))?;
            let end_path = this.store.end_path(&id).ok_or(Error::Name(id.clone()))?;
            // Whoever opens a stream means to go on with it.
            match fs::remove_file(&end_path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(at(&end_path)(error));
                }
                _ => {}
            }
            let mut stored = Stored::default();
            let mut current = None;
            if let Some(last) = files.pop() {
                let (file, len, lines, mut tail) =
                    reopen(&last.path, &id).map_err(at(&last.path))?;
                stored.seq = last.first + lines - 1;
                // What was stored just before a rotation may come again, too.
                if tail.len() < REMEMBERED
                    && let Some(previous) = files.pop()
                {
                    let (_, mut older) = scan(&previous.path, &id).map_err(at(&previous.path))?;
                    older.append(&mut tail);
                    tail = older.split_off(older.len().saturating_sub(REMEMBERED));
                }
                stored.tail = tail;
                current = Some(Current {
                    file,
                    path: last.path,
                    len,
                });
            }
            let writer = FolderWriter {
                formatter: Formatter::new(&id),
                files: Some(Files {
                    folder,
                    container: id.container.clone(),
                    end_path,
                    max_file: this.max_file,
                    current,
                }),
            };
            Ok((writer, stored))
        })
        .await
    }

    async fn end(&self, id: &StreamId) -> Option<End> {
        let (store, id) = (self.store.clone(), id.clone());
        tokio::task::spawn_blocking(move || store.end(&id))
            .await
            .ok()?
    }
}

/// Opens a file to go on with it, and cuts off a last line that a crash left unfinished: its stream
/// brings it again.
fn reopen(path: &Path, id: &StreamId) -> io::Result<(File, u64, u64, Vec<Line>)> {
    let ((len, lines), tail) = scan(path, id)?;
    let mut file = OpenOptions::new().write(true).open(path)?;
    if file.metadata()?.len() > len {
        tracing::warn!("{}: an unfinished last line is read again", path.display());
        file.set_len(len)?;
    }
    file.seek(io::SeekFrom::End(0))?;
    Ok((file, len, lines, tail))
}

/// Length and number of the whole lines of a file, and the newest of them.
fn scan(path: &Path, id: &StreamId) -> io::Result<((u64, u64), Vec<Line>)> {
    let mut reader = BufReader::with_capacity(64 * 1024, File::open(path)?);
    let (mut len, mut lines) = (0, 0);
    let mut newest = std::collections::VecDeque::new();
    loop {
        let mut text = Vec::new();
        if reader.read_until(b'\n', &mut text)? == 0 || !text.ends_with(b"\n") {
            break;
        }
        len += text.len() as u64;
        lines += 1;
        if newest.len() == REMEMBERED {
            newest.pop_front();
        }
        newest.push_back(text);
    }
    let tail = newest.iter().filter_map(|text| match line::parse(text) {
        Ok(parsed) => Some(parsed.line),
        Err(error) => {
            tracing::warn!("{} of {id}: {error}", path.display());
            None
        }
    });
    Ok(((len, lines), tail.collect()))
}

#[derive(Debug)]
struct Current {
    file: File,
    path: PathBuf,
    /// What is whole in it; after a failed write the rest is cut off.
    len: u64,
}

/// The files of one stream.
#[derive(Debug)]
struct Files {
    folder: PathBuf,
    container: String,
    end_path: PathBuf,
    max_file: u64,
    current: Option<Current>,
}

impl Files {
    /// Writes the formatted lines of one batch, whose first has number `first`, to one file: so a
    /// batch is stored as a whole or not at all.
    fn write(&mut self, first: u64, text: &[u8]) -> Result<(), Error> {
        if let Some(full) = self
            .current
            .take_if(|c| c.len > 0 && c.len + text.len() as u64 > self.max_file)
        {
            full.file.sync_data().map_err(at(&full.path))?;
        }
        let current = match &mut self.current {
            Some(current) => current,
            none => {
                let path = self.folder.join(store::file_name(&self.container, first));
                let file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .open(&path)
                    .map_err(at(&path))?;
                none.insert(Current { file, path, len: 0 })
            }
        };
        if let Err(error) = current.file.write_all(text) {
            // Half a line must not stay before the next try.
            let undone = current
                .file
                .set_len(current.len)
                .and_then(|()| current.file.seek(io::SeekFrom::End(0)));
            if let Err(error) = undone {
                tracing::error!(
                    "{}: can't undo half a write: {error}",
                    current.path.display()
                );
            }
            return Err(at(&current.path)(error));
        }
        current.len += text.len() as u64;
        Ok(())
    }

    fn close(self, end: Option<&End>) -> Result<(), Error> {
        if let Some(current) = self.current {
            current.file.sync_data().map_err(at(&current.path))?;
        }
        if let Some(end) = end {
            // Renamed into place: a reader sees all of it or nothing.
            let new = self.end_path.with_extension("end.new");
            let text = serde_json::to_vec(end).map_err(|e| at(&new)(e.into()))?;
            fs::write(&new, text).map_err(at(&new))?;
            fs::rename(&new, &self.end_path).map_err(at(&self.end_path))?;
        }
        Ok(())
    }
}

/// Appends the lines of one stream to its files.
#[derive(Debug)]
pub struct FolderWriter {
    formatter: Formatter,
    /// With the thread that writes, while it does.
    files: Option<Files>,
}

impl FolderWriter {
    /// Lends the files to a thread that may block.
    async fn lend<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Files) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let lost = || at(Path::new("the log files"))(io::Error::other("a write was abandoned"));
        let mut files = self.files.take().ok_or_else(lost)?;
        let (files, result) = blocking(&files.folder.clone(), move || {
            let result = work(&mut files);
            Ok((files, result))
        })
        .await?;
        self.files = Some(files);
        result
    }
}

impl Writer for FolderWriter {
    async fn append(&mut self, lines: &[Line]) -> Result<(), Error> {
        let Some(first) = lines.first().map(|l| l.seq) else {
            return Ok(());
        };
        let mut text = Vec::new();
        for line in lines {
            self.formatter.write(line, &mut text);
        }
        self.lend(move |files| files.write(first, &text)).await
    }

    async fn close(mut self, end: Option<End>) -> Result<(), Error> {
        let Some(files) = self.files.take() else {
            return Ok(());
        };
        blocking(&files.folder.clone(), move || files.close(end.as_ref())).await
    }
}
