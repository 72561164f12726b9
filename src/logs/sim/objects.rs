//! An object store that refuses, hangs, and does without answering.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};

use super::chance::Chance;

/// The store, for one process.
#[derive(Clone, Debug)]
pub struct SimObjects {
    inner: Arc<InMemory>,
    chance: Chance,
    /// One request in so many goes wrong.
    faults: u64,
    running: Arc<AtomicU64>,
    process: u64,
}

impl fmt::Display for SimObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated")
    }
}

impl SimObjects {
    pub fn new(chance: Chance, faults: u64) -> Self {
        Self {
            inner: Arc::default(),
            chance,
            faults,
            running: Arc::default(),
            process: 0,
        }
    }

    /// The process ends at this instant. The store for the next one.
    pub fn crash(&self) -> Self {
        Self {
            process: self.running.fetch_add(1, Ordering::Relaxed) + 1,
            ..self.clone()
        }
    }

    fn refused() -> object_store::Error {
        object_store::Error::Generic {
            store: "simulated",
            source: "503 slow down".into(),
        }
    }

    /// What happens to a request: it may be refused before anything is done.
    async fn turn(&self) -> Result<()> {
        if self.running.load(Ordering::Relaxed) != self.process {
            return std::future::pending().await;
        }
        self.chance.pause(20).await;
        if self.running.load(Ordering::Relaxed) != self.process {
            return std::future::pending().await;
        }
        if self.chance.fault(self.faults) {
            if self.chance.one_in(8) {
                tokio::time::sleep(Duration::from_mins(2)).await;
            }
            return Err(Self::refused());
        }
        Ok(())
    }

    /// It may also be done, and the answer be lost.
    async fn answer(&self) -> Result<()> {
        if self.chance.fault(self.faults) {
            return Err(Self::refused());
        }
        self.chance.pause(5).await;
        if self.running.load(Ordering::Relaxed) != self.process {
            return std::future::pending().await;
        }
        Ok(())
    }
}

#[async_trait]
impl ObjectStore for SimObjects {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.turn().await?;
        let result = self.inner.put_opts(location, payload, opts).await;
        self.answer().await?;
        result
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.turn().await?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let locations = locations
            .then(move |location| {
                let this = this.clone();
                async move {
                    this.turn().await?;
                    location
                }
            })
            .boxed();
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned());
        futures::stream::once(async move {
            match this.turn().await {
                Ok(()) => this.inner.list(prefix.as_ref()),
                Err(error) => futures::stream::iter([Err(error)]).boxed(),
            }
        })
        .flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.turn().await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
