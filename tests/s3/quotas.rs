//! Quotas and retention, from a container's log to the store.

use futures::{StreamExt, TryStreamExt, io::Cursor};
use k8s_openapi::jiff::Timestamp;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trainyard::logs::{
    follow::{Following, Outcome},
    generated::Kind,
    pods::ContainerState,
    position::Part,
    record::Reason,
    retain::{self, Retention},
    sink::Sink,
    source::{Open, OpenError},
    wal::Limits,
};

use crate::{
    MEMORY, MIB, folder,
    pipeline::{Feed, Pipeline, assert_whole},
    server::Server,
};

/// The log of a container that has exited, as the kubelet shows it.
struct Log(Vec<u8>);

impl Log {
    /// Of what the generator of this stream writes.
    fn of(feed: &mut Feed, pieces: usize) -> Self {
        let mut log = Vec::new();
        for line in feed.text(pieces).split(|b| *b == b'\n') {
            log.extend_from_slice(b"2026-03-01T09:15:00.000000001Z ");
            log.extend_from_slice(line);
            log.push(b'\n');
        }
        // The last line has no newline.
        log.pop();
        Self(log)
    }
}

impl Open for Log {
    type Reader = Cursor<Vec<u8>>;

    async fn open(&self, part: Part, _follow: bool) -> Result<Self::Reader, OpenError> {
        let bytes = match part {
            Part::Whole => &self.0[..],
            Part::Head(bytes) => &self.0[..self.0.len().min(bytes as usize)],
            Part::Tail(lines) => {
                // The last line has no newline.
                let before = lines.saturating_sub(1) as usize;
                let mut ends = (0..self.0.len()).rev().filter(|at| self.0[*at] == b'\n');
                let begin = ends.nth(before).map_or(0, |at| at + 1);
                &self.0[begin..]
            }
        };
        Ok(Cursor::new(bytes.to_vec()))
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Follows a container that has exited, to its end.
async fn follow(pipeline: &Pipeline, feed: &Feed, log: Log) -> Outcome {
    let (_sender, state) = watch::channel(ContainerState::Terminated);
    let following = Following {
        wal: pipeline.wal.clone(),
        declared: feed.declared(),
        lake: None,
        started: None,
        state,
        log,
        metrics: pipeline.metrics.clone(),
        shutdown: CancellationToken::new(),
    };
    following.run().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_writes_more_than_a_job_may_has_a_gap_that_says_so_and_others_go_on() {
    let _memory = MEMORY.read().await;
    let dir = TempDir::new().unwrap();
    let server = Server::start(&folder(&dir, "s3"));
    let limits = Limits {
        segment: MIB,
        quota: 64 * MIB,
        job: 300_000,
    };
    let wal = folder(&dir, "wal");
    let pipeline = Pipeline::with(&wal, server.lake(), limits).await;
    let mut large = Feed::new("large", 0, &[Kind::Plain]);
    let log = Log::of(&mut large, 5000);
    let outcome = follow(&pipeline, &large, log).await;
    assert!(!outcome.complete && outcome.totals.gaps == 1, "{outcome:?}");
    assert!(outcome.totals.bytes <= 300_000, "{outcome:?}");
    assert_eq!(pipeline.metrics.job_full.get(), 1);
    let mut small = Feed::new("small", 0, &[Kind::Plain]);
    let log = Log::of(&mut small, 500);
    assert!(follow(&pipeline, &small, log).await.complete);
    let reports = pipeline.shipped().await;
    assert_whole(&reports[1..], &[small]);
    let report = &reports[0];
    assert_eq!(report.problems, [], "{report}");
    assert_eq!(report.gaps[0].reason, Reason::JobQuota);
    assert!(report.lines > 1000 && report.generated.as_ref().unwrap().in_gaps == 0);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_write_ahead_log_stops_reading_and_goes_on_where_it_was() {
    let _memory = MEMORY.read().await;
    let dir = TempDir::new().unwrap();
    let mut server = Server::start(&folder(&dir, "s3"));
    server.kill();
    let quota = MIB / 2;
    let limits = Limits {
        segment: MIB / 8,
        quota,
        job: 64 * MIB,
    };
    let pipeline = Pipeline::with(&folder(&dir, "wal"), server.lake(), limits).await;
    let mut feed = Feed::new("bert", 0, &[Kind::Burst]);
    let log = Log::of(&mut feed, 60);
    let mut following = Box::pin(follow(&pipeline, &feed, log));
    tokio::select! {
        outcome = &mut following => panic!("it all fitted in: {outcome:?}"),
        () = pipeline.until("the log is full", || pipeline.metrics.full.get() > 1) => {}
    }
    let held = pipeline.metrics.wal_bytes.get().cast_unsigned();
    assert!(held > quota / 2 && held < quota + quota / 4, "{held}");
    server.restart();
    assert!(following.await.complete);
    assert_whole(&pipeline.shipped().await, &[feed]);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_of_more_objects_than_one_page_of_a_list_is_deleted_whole() {
    let _memory = MEMORY.read().await;
    let dir = TempDir::new().unwrap();
    let server = Server::start(&folder(&dir, "s3"));
    let lake = server.lake();
    let stored = (0..1100).map(|rank| {
        let shipment = Feed::new("old", rank, &[Kind::Plain]).shipment();
        let lake = lake.clone();
        async move { lake.store(&shipment).await }
    });
    let stored = futures::stream::iter(stored).buffer_unordered(8);
    stored.try_collect::<()>().await.unwrap();
    let old = lake.list("").await.unwrap();
    assert_eq!(old.len(), 1100);
    // The server's times have whole seconds.
    let newest = old.values().filter_map(|files| files.until).max();
    while Timestamp::now().as_second() <= newest.unwrap().as_second() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let new = Feed::new("new", 0, &[Kind::Plain]).shipment();
    lake.store(&new).await.unwrap();
    let pipeline = Pipeline::start(&folder(&dir, "wal"), lake.clone(), MIB).await;
    let retention = Retention {
        lake: lake.clone(),
        text: None,
        limits: retain::Limits {
            days: None,
            bytes: Some(old.values().map(|files| files.bytes).sum()),
        },
        wal: pipeline.wal.clone(),
        metrics: pipeline.metrics.clone(),
    };
    retention.once(Timestamp::now()).await.unwrap();
    let left = lake.list("").await.unwrap();
    let left: Vec<&str> = left.keys().map(|id| id.job.as_str()).collect();
    assert_eq!(left, ["new"]);
    assert_eq!(pipeline.metrics.deleted_attempts.get(), 1);
    pipeline.stop().await;
}
