//! A disk that keeps what was synced, and of the rest what it pleases.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
};

use super::chance::Chance;
use crate::logs::disk::Disk;

#[derive(Clone, Debug, Default)]
struct File {
    data: Vec<u8>,
    /// What a crash leaves. None: not even its name.
    safe: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<String, File>,
    /// Deleted, but a crash may bring them back.
    deleted: BTreeMap<String, Vec<u8>>,
    /// Which process may use it.
    process: u64,
    /// Operations until the process dies in the middle of one.
    dies_in: Option<u64>,
}

/// How often what goes wrong: one in so many; 0: never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub error: u64,
    pub full: u64,
    pub slow: u64,
}

/// The disk, for one process.
#[derive(Clone, Debug)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
    chance: Chance,
    faults: Faults,
    process: u64,
}

impl SimDisk {
    pub fn new(chance: Chance, faults: Faults) -> Self {
        Self {
            inner: Arc::default(),
            chance,
            faults,
            process: 0,
        }
    }

    /// The process ends at this instant; `power`: and the machine with it. The disk for the next one.
    pub fn crash(&self, power: bool) -> Self {
        let mut inner = self.inner.lock().unwrap();
        inner.process += 1;
        inner.dies_in = None;
        if power {
            let files = std::mem::take(&mut inner.files);
            for (name, file) in files {
                let kept = self.after_power_loss(file);
                if let Some(data) = kept {
                    let file = File {
                        safe: Some(data.clone()),
                        data,
                    };
                    inner.files.insert(name, file);
                }
            }
            for (name, data) in std::mem::take(&mut inner.deleted) {
                if self.chance.one_in(3) {
                    let file = File {
                        safe: Some(data.clone()),
                        data,
                    };
                    inner.files.entry(name).or_insert(file);
                }
            }
        }
        Self {
            process: inner.process,
            ..self.clone()
        }
    }

    /// The process ends, and its volume is lost with all that was on it.
    pub fn lose(&self) -> Self {
        let next = self.crash(false);
        let mut inner = self.inner.lock().unwrap();
        inner.files.clear();
        inner.deleted.clear();
        drop(inner);
        next
    }

    fn after_power_loss(&self, file: File) -> Option<Vec<u8>> {
        let Some(mut kept) = file.safe else {
            // Its name may have made it, with any part of its contents.
            if self.chance.one_in(2) {
                return None;
            }
            let n = self.chance.index(file.data.len() + 1);
            return Some(file.data[..n].to_vec());
        };
        // Later writes, in any part; the rest of a block is what was there before, or nothing.
        let before = kept.len();
        let whole = self.chance.one_in(2);
        let end = kept.len()
            + self
                .chance
                .index(file.data.len().saturating_sub(kept.len()) + 1);
        let end = if whole { file.data.len() } else { end };
        for at in kept.len()..end.min(file.data.len()) {
            let byte = if self.chance.one_in(64) {
                0
            } else {
                file.data[at]
            };
            kept.push(byte);
        }
        // Blocks reach the disk in any order: the end may be there, and a part before it not.
        let from = self.chance.index(kept.len() - before + 1) + before;
        if self.chance.one_in(2) {
            let to = (from + 1 + self.chance.index(200)).min(kept.len());
            kept[from.min(to)..to].fill(0);
        }
        Some(kept)
    }

    /// Lets the process die in the middle of an operation soon.
    pub fn die_in(&self, operations: u64) {
        self.inner.lock().unwrap().dies_in = Some(operations);
    }

    fn mine(&self) -> bool {
        let mut inner = self.inner.lock().unwrap();
        if let Some(n) = &mut inner.dies_in {
            *n = n.saturating_sub(1);
        }
        inner.process == self.process && inner.dies_in != Some(0)
    }

    /// Waits for the disk; for ever where the process has died.
    async fn turn(&self) -> io::Result<()> {
        if !self.mine() {
            return std::future::pending().await;
        }
        self.chance.pause(3).await;
        if self.chance.fault(self.faults.slow) {
            self.chance.pause(20_000).await;
        }
        if !self.mine() {
            return std::future::pending().await;
        }
        if self.chance.fault(self.faults.error) {
            return Err(io::Error::other("the disk said no"));
        }
        Ok(())
    }
}

impl Disk for SimDisk {
    async fn list(&self) -> io::Result<Vec<String>> {
        self.turn().await?;
        Ok(self.inner.lock().unwrap().files.keys().cloned().collect())
    }

    async fn read(&self, name: &str, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        if !self.mine() {
            return std::future::pending().await;
        }
        let inner = self.inner.lock().unwrap();
        let file = inner.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        let start = (offset as usize).min(file.data.len());
        let end = start.saturating_add(max).min(file.data.len());
        Ok(file.data[start..end].to_vec())
    }

    async fn write(&self, name: &str, offset: u64, data: Vec<u8>) -> io::Result<()> {
        let failed = self.turn().await;
        let full = self.chance.fault(self.faults.full);
        // A failed write may have done a part of it.
        let done = if full || failed.is_err() {
            self.chance.index(data.len() + 1)
        } else {
            data.len()
        };
        let mut inner = self.inner.lock().unwrap();
        let file = inner.files.entry(name.to_owned()).or_default();
        let offset = offset as usize;
        if file.data.len() < offset + done {
            file.data.resize(offset + done, 0);
        }
        file.data[offset..offset + done].copy_from_slice(&data[..done]);
        if full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        failed
    }

    async fn sync(&self, name: &str) -> io::Result<()> {
        self.turn().await?;
        let mut inner = self.inner.lock().unwrap();
        let file = inner.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        file.safe = Some(file.data.clone());
        Ok(())
    }

    async fn replace(&self, name: &str, data: Vec<u8>) -> io::Result<()> {
        self.turn().await?;
        let mut inner = self.inner.lock().unwrap();
        let file = File {
            safe: Some(data.clone()),
            data,
        };
        inner.files.insert(name.to_owned(), file);
        Ok(())
    }

    async fn delete(&self, name: &str) -> io::Result<()> {
        self.turn().await?;
        let mut inner = self.inner.lock().unwrap();
        if let Some(file) = inner.files.remove(name)
            && let Some(data) = file.safe
        {
            inner.deleted.insert(name.to_owned(), data);
        }
        Ok(())
    }
}
