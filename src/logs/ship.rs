//! From the write-ahead log to the sinks: a sealed segment at a time, and cut when all have it; then the
//! sinks tidy up after the streams that have ended.
//!
//! Memory is bounded by one segment, whatever the sinks do: while one of them does not take its lines
//! nothing further is read, and the log grows on disk, up to its quota.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    disk::Disk,
    metrics::Metrics,
    planted::{Bug, planted},
    sink::{Shipment, Sink},
    wal::{Wal, frame::Frame, scan::Scan},
};

/// Streams that are stored at a time.
const PARALLEL: usize = 8;
/// Waits before what a sink refused is tried again: the first and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Longest time in a round for tidying up: other streams' lines wait to be shipped.
const TIDYING: Duration = Duration::from_secs(60);
/// After a stream has ended: others of its gang end now, too.
const GATHER: Duration = Duration::from_secs(2);

/// Ships segments.
pub struct Shipper<D> {
    /// The log.
    pub wal: Wal,
    /// Its disk.
    pub disk: D,
    /// Who must have a line before it is cut.
    pub sinks: Vec<Arc<dyn Sink>>,
    /// Counters.
    pub metrics: Metrics,
    /// Until then.
    pub shutdown: CancellationToken,
    /// Longest time that lines stay in the log alone.
    pub every: Duration,
    /// Told where a stream has ended, whose lines should not wait for so long.
    pub hurry: Arc<Notify>,
}

impl<D: Disk> Shipper<D> {
    /// Ships until the process ends.
    pub async fn run(self) {
        while self.round().await.is_some() {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return,
                () = tokio::time::sleep(self.every) => {}
                () = self.hurry.notified() => {
                    tokio::select! {
                        biased;
                        () = self.shutdown.cancelled() => return,
                        () = tokio::time::sleep(GATHER) => {}
                    }
                }
            }
        }
    }

    /// Ships everything that is in the log now. None where the process is ending.
    pub async fn round(&self) -> Option<()> {
        for (segment, safe) in self.wal.seal().await? {
            self.ship(segment, safe).await?;
        }
        self.tidy().await
    }

    /// Lets the sinks tidy up after streams that have ended. What fails is tried again in later rounds,
    /// also those after a restart: nothing is lost by it.
    async fn tidy(&self) -> Option<()> {
        let untidy = self.wal.untidy().await?;
        let tidied: Vec<BoxFuture<'_, (u32, bool)>> = (untidy.into_iter())
            .map(|(number, declared)| {
                let shipment = Shipment {
                    declared,
                    epoch: self.wal.epoch(),
                    segment: 0,
                    records: Vec::new(),
                };
                Box::pin(async move { (number, self.tidy_up(&shipment).await) }) as _
            })
            .collect();
        let tidied = futures::stream::iter(tidied).buffer_unordered(PARALLEL);
        let tidied = tokio::select! {
            tidied = tidied.take_until(tokio::time::sleep(TIDYING)).collect() => tidied,
            () = self.shutdown.cancelled() => return None,
        };
        self.wal.tidied(tidied).await;
        Some(())
    }

    async fn tidy_up(&self, shipment: &Shipment) -> bool {
        for sink in &self.sinks {
            if let Err(error) = sink.ended(shipment).await {
                tracing::warn!("can't tidy up {}: {error}", shipment.declared.id);
                return false;
            }
        }
        true
    }

    async fn ship(&self, segment: u64, safe: u64) -> Option<()> {
        let shipped = self.wal.shipped().await?;
        let mut wait = BACKOFF.0;
        let (shipments, ends) = loop {
            match self.read(segment, safe, &shipped).await {
                Ok(read) => break read,
                Err(error) => {
                    self.metrics.store_errors.inc();
                    tracing::warn!("can't read the write-ahead log: {error}");
                }
            }
            self.pause(&mut wait).await?;
        };
        if planted(Bug::CutBeforeStored) {
            self.wal.cut(segment, ends.clone()).await;
        }
        // Boxed, because the compiler can't tell otherwise that the futures may change threads.
        let stores: Vec<BoxFuture<'_, Option<()>>> = (shipments.iter())
            .map(|shipment| Box::pin(self.store(shipment)) as _)
            .collect();
        let mut stored = futures::stream::iter(stores).buffer_unordered(PARALLEL);
        while let Some(stored) = stored.next().await {
            stored?;
        }
        drop(stored);
        self.wal.cut(segment, ends).await;
        Some(())
    }

    async fn read(
        &self,
        segment: u64,
        safe: u64,
        shipped: &HashMap<u32, u64>,
    ) -> io::Result<(Vec<Shipment>, HashMap<u32, u64>)> {
        let mut scan = Scan::new(self.disk.clone(), segment);
        let mut shipments = BTreeMap::<u32, Shipment>::new();
        let mut ends = HashMap::new();
        while scan.offset < safe {
            let Some(frame) = scan.next().await? else {
                // All of it was read once, or written. Cutting it now would lose the rest.
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "segment {segment} is damaged at byte {} of {safe}; nothing is deleted: check the volume",
                        scan.offset
                    ),
                ));
            };
            match frame {
                Frame::Stream(number, declared) => {
                    let shipment = shipments.entry(number).or_insert_with(|| Shipment {
                        declared: (*declared).clone(),
                        epoch: self.wal.epoch(),
                        segment,
                        records: Vec::new(),
                    });
                    shipment.declared = *declared;
                }
                Frame::Records {
                    stream,
                    ordinal,
                    records,
                } => {
                    let Some(shipment) = shipments.get_mut(&stream) else {
                        continue;
                    };
                    let end = ends
                        .entry(stream)
                        .or_insert_with(|| shipped.get(&stream).copied().unwrap_or(0));
                    let known = end.saturating_sub(ordinal);
                    let known = if planted(Bug::ReplayIgnoresOrdinals) {
                        0
                    } else {
                        usize::try_from(known).unwrap_or(usize::MAX)
                    };
                    *end = (*end).max(ordinal + records.len() as u64);
                    shipment.records.extend(records.into_iter().skip(known));
                }
            }
        }
        let shipments = shipments.into_values().filter(|s| !s.records.is_empty());
        Ok((shipments.collect(), ends))
    }

    /// Stores a shipment in every sink, again and again until all have it.
    async fn store(&self, shipment: &Shipment) -> Option<()> {
        for (at, sink) in self.sinks.iter().enumerate() {
            if at > 0 && planted(Bug::CutWhenOneSinkHasIt) {
                let _ = sink.store(shipment).await;
                continue;
            }
            let mut wait = BACKOFF.0;
            while let Err(error) = sink.store(shipment).await {
                self.metrics.store_errors.inc();
                tracing::warn!(
                    "{} does not take the lines of {}: {error}; they are kept and tried again",
                    sink.name(),
                    shipment.declared.id
                );
                if planted(Bug::StoreErrorIgnored) {
                    break;
                }
                self.pause(&mut wait).await?;
            }
        }
        self.metrics.shipped.inc();
        Some(())
    }

    /// None where the process is ending.
    async fn pause(&self, wait: &mut Duration) -> Option<()> {
        let now = *wait;
        *wait = (now * 2).min(BACKOFF.1);
        tokio::time::timeout(now, self.shutdown.cancelled())
            .await
            .err()
            .map(|_| ())
    }
}
