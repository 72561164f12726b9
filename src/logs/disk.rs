//! The disk under the write-ahead log: files of one folder, and when they are safe. The seam at which
//! the simulation puts a disk that loses what was not synced.

use std::{
    fs::{self, File, OpenOptions},
    future::Future,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Files of one folder.
pub trait Disk: Clone + Send + Sync + 'static {
    /// Names of all files.
    fn list(&self) -> impl Future<Output = io::Result<Vec<String>>> + Send;
    /// At most `max` bytes from `offset`; fewer, or none, at the end.
    fn read(
        &self,
        name: &str,
        offset: u64,
        max: usize,
    ) -> impl Future<Output = io::Result<Vec<u8>>> + Send;
    /// Writes at `offset`, into a new file where there is none. Safe only after [`Disk::sync`].
    fn write(
        &self,
        name: &str,
        offset: u64,
        data: Vec<u8>,
    ) -> impl Future<Output = io::Result<()>> + Send;
    /// Makes what was written of a file safe, and that it is there.
    fn sync(&self, name: &str) -> impl Future<Output = io::Result<()>> + Send;
    /// Puts a whole file in the place of another: after a crash there is the old one or the new one.
    fn replace(&self, name: &str, data: Vec<u8>) -> impl Future<Output = io::Result<()>> + Send;
    /// Deletes a file; one that is not there is deleted.
    fn delete(&self, name: &str) -> impl Future<Output = io::Result<()>> + Send;
}

/// A folder.
#[derive(Clone, Debug)]
pub struct Folder {
    path: Arc<PathBuf>,
}

impl Folder {
    /// The folder at `path`.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self {
            path: Arc::new(path),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it, and keeps a second process out of it for as long as the file lives.
    ///
    /// # Errors
    /// Where it can't be made; with [`io::ErrorKind::WouldBlock`] where another process has it.
    pub fn lock(&self) -> io::Result<File> {
        fs::create_dir_all(&*self.path)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.path.join(".lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => {
                // Some network file systems know no locks; the chart runs one collector anyway.
                tracing::warn!("can't lock {}: {error}", self.path.display());
            }
        }
        Ok(lock)
    }

    /// Runs file work where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce(&Path, &Path) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (folder, path) = (self.path.clone(), self.path.join(name));
        tokio::task::spawn_blocking(move || work(&folder, &path))
            .await
            .unwrap_or_else(|e| Err(io::Error::other(e)))
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

impl Disk for Folder {
    async fn list(&self) -> io::Result<Vec<String>> {
        self.blocking("", |folder, _| {
            let mut names = Vec::new();
            let entries = match fs::read_dir(folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
                Err(error) => return Err(error),
            };
            for entry in entries {
                names.extend(entry?.file_name().into_string().ok());
            }
            Ok(names)
        })
        .await
    }

    async fn read(&self, name: &str, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        self.blocking(name, move |_, path| {
            let file = File::open(path)?;
            let left = file.metadata()?.len().saturating_sub(offset);
            let mut data = vec![0; usize::try_from(left).unwrap_or(max).min(max)];
            let mut read = 0;
            while read < data.len() {
                match file.read_at(&mut data[read..], offset + read as u64) {
                    Ok(0) => break,
                    Ok(n) => read += n,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            data.truncate(read);
            Ok(data)
        })
        .await
    }

    async fn write(&self, name: &str, offset: u64, data: Vec<u8>) -> io::Result<()> {
        self.blocking(name, move |_, path| {
            OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)?
                .write_all_at(&data, offset)
        })
        .await
    }

    async fn sync(&self, name: &str) -> io::Result<()> {
        self.blocking(name, |folder, path| {
            OpenOptions::new().write(true).open(path)?.sync_data()?;
            sync_folder(folder)
        })
        .await
    }

    async fn replace(&self, name: &str, data: Vec<u8>) -> io::Result<()> {
        self.blocking(name, move |folder, path| {
            let new = path.with_extension("new");
            fs::write(&new, &data)?;
            File::open(&new)?.sync_all()?;
            fs::rename(&new, path)?;
            sync_folder(folder)
        })
        .await
    }

    async fn delete(&self, name: &str) -> io::Result<()> {
        self.blocking(name, |_, path| match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }
}
