//! The pipeline of the collector from the write-ahead log on, with lines from loggen's generator.

use std::{path::Path, sync::Arc, time::Duration};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::{sync::Notify, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use trainyard::logs::{
    disk::Folder,
    generated::{Generator, Kind},
    lake::Lake,
    line::{Flags, Line, Origin, Output, StreamId, from_nanos},
    metrics::Metrics,
    record::{End, Record},
    ship::Shipper,
    sink::Shipment,
    store::Store,
    verify::{Report, verify},
    wal::{Limits, Wal, frame::Declared},
};

const PATIENCE: Duration = Duration::from_secs(120);
/// Longer lines come in pieces, as the source makes them.
const MAX_PIECE: usize = trainyard::logs::source::MAX_PIECE;

pub struct Pipeline {
    pub wal: Wal,
    pub metrics: Metrics,
    disk: Folder,
    lake: Lake,
    shutdown: CancellationToken,
    shipper: JoinHandle<()>,
}

impl Pipeline {
    /// On a write-ahead log that is new, or that another one has left.
    pub async fn start(wal: &Path, lake: Lake, segment: u64) -> Self {
        let limits = Limits {
            segment,
            quota: 1 << 30,
            job: 1 << 40,
        };
        Self::with(wal, lake, limits).await
    }

    pub async fn with(wal: &Path, lake: Lake, limits: Limits) -> Self {
        let (disk, metrics) = (Folder::new(wal.to_owned()), Metrics::default());
        let shutdown = CancellationToken::new();
        let (for_wal, for_metrics) = (disk.clone(), metrics.clone());
        let wal = Wal::open(for_wal, 1, limits, for_metrics, shutdown.clone());
        let wal = wal.await.unwrap();
        let shipper = Shipper {
            wal: wal.clone(),
            disk: disk.clone(),
            sinks: vec![Arc::new(lake.clone())],
            metrics: metrics.clone(),
            shutdown: shutdown.clone(),
            every: Duration::from_millis(50),
            hurry: Arc::new(Notify::new()),
        };
        Self {
            wal,
            metrics,
            disk,
            lake,
            shutdown,
            shipper: tokio::spawn(shipper.run()),
        }
    }

    pub async fn append(&self, feed: &mut Feed, records: Vec<Record>) {
        let opened = self.wal.stream(feed.declared.clone()).await.unwrap();
        self.wal.append(opened.number, records).await.unwrap();
    }

    /// What the verifier says of the bucket, read as `lake`, and the write-ahead log.
    pub async fn reports(&self, lake: Lake, generated: bool) -> Vec<Report> {
        let store = Store::new(lake, Some(self.disk.clone()));
        verify(&store, "", generated).await.unwrap()
    }

    /// Waits until the store has everything, and nothing is left in the log; then says what the store
    /// alone has.
    pub async fn shipped(&self) -> Vec<Report> {
        self.until("the store has everything", || {
            self.metrics.wal_bytes.get() == 0
        })
        .await;
        let store = Store::<Folder>::new(self.lake.clone(), None);
        verify(&store, "", true).await.unwrap()
    }

    pub async fn until(&self, what: &str, seen: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !seen() {
            assert!(Instant::now() < deadline, "waited until {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends, as a collector does that is told to.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.shipper.await.unwrap();
    }
}

/// One stream.
pub struct Feed {
    declared: Declared,
    generator: Generator,
    random: SmallRng,
    pub lines: u64,
    bytes: u64,
}

impl Feed {
    pub fn new(job: &str, rank: u32, kinds: &[Kind]) -> Self {
        Self {
            declared: Declared {
                id: StreamId {
                    namespace: "ml".into(),
                    job: job.into(),
                    uid: format!("uid-{job}"),
                    attempt: 1,
                    rank,
                    container: "trainer".into(),
                },
                origin: Origin {
                    pod_uid: format!("{job}-{rank}"),
                    container_id: "c".into(),
                    ..Origin::default()
                },
            },
            generator: Generator::new(rank, kinds),
            random: SmallRng::seed_from_u64(rank.into()),
            lines: 0,
            bytes: 0,
        }
    }

    /// Whose lines they are.
    pub fn declared(&self) -> Declared {
        self.declared.clone()
    }

    /// Everything that the generator writes, up to its end.
    pub fn text(&mut self, pieces: usize) -> Vec<u8> {
        let mut text = Vec::new();
        for _ in 0..pieces {
            text.extend(self.generator.piece().bytes);
        }
        for piece in self.generator.end() {
            text.extend(piece.bytes);
        }
        self.lines = text.split(|b| *b == b'\n').count() as u64;
        text
    }

    /// The lines of some of the generator's pieces.
    pub fn lines(&mut self, pieces: usize) -> Vec<Record> {
        let mut records = Vec::new();
        for _ in 0..pieces {
            let bytes = self.generator.piece().bytes;
            let lines = bytes.strip_suffix(b"\n").unwrap();
            for line in lines.split(|b| *b == b'\n') {
                self.line(line, false, &mut records);
            }
        }
        records
    }

    /// A MiB that can't be compressed and is quickly made, in lines that no generator numbered.
    pub fn noise(&mut self) -> Vec<Record> {
        let (mut records, mut text) = (Vec::new(), vec![0; 64 * 1024]);
        for _ in 0..16 {
            self.random.fill_bytes(&mut text);
            self.piece(&text, false, &mut records);
        }
        records
    }

    /// Some lines, as the shipper gives them to a store.
    pub fn shipment(mut self) -> Shipment {
        let records = self.lines(1);
        Shipment {
            declared: self.declared,
            epoch: 1,
            segment: 1,
            records,
        }
    }

    /// The generator's last lines, and the proof that they are the last.
    pub fn end(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        for piece in self.generator.end() {
            let whole = piece.bytes.strip_suffix(b"\n");
            let line = whole.unwrap_or(&piece.bytes);
            self.line(line, whole.is_none(), &mut records);
        }
        records.push(Record::End(End {
            container_id: Some("c".into()),
            complete: true,
            lines: self.lines,
            bytes: self.bytes,
        }));
        records
    }

    fn line(&mut self, mut text: &[u8], partial: bool, to: &mut Vec<Record>) {
        while text.len() > MAX_PIECE {
            let (piece, rest) = text.split_at(MAX_PIECE);
            self.piece(piece, true, to);
            text = rest;
        }
        self.piece(text, partial, to);
    }

    fn piece(&mut self, text: &[u8], partial: bool, to: &mut Vec<Record>) {
        self.lines += 1;
        self.bytes += text.len() as u64;
        let time = from_nanos(1_772_356_500_000_000_000 + self.lines.cast_signed());
        to.push(Record::Line(Line {
            seq: self.lines,
            time,
            observed: time,
            output: Output::Unknown,
            flags: Flags {
                partial,
                ..Flags::default()
            },
            message: text.to_vec(),
        }));
    }
}

/// Asserts that all lines of these streams are there, as they were written, and that this is proven.
pub fn assert_whole(reports: &[Report], feeds: &[Feed]) {
    assert_eq!(reports.len(), feeds.len(), "{reports:#?}");
    for report in reports {
        assert!(report.complete(), "{report}");
    }
    let stored: u64 = reports.iter().map(|report| report.lines).sum();
    assert_eq!(stored, feeds.iter().map(|feed| feed.lines).sum::<u64>());
}
