//! Retention on a store that the real pipeline's parts have filled.

use std::sync::Arc;

use object_store::memory::InMemory;
use tempfile::TempDir;

use super::*;
use crate::logs::{
    disk::Folder,
    line::{Flags, Line, Origin, Output, from_nanos},
    record::Record,
    sink::{Shipment, Sink},
    wal::{Limits as WalLimits, frame::Declared},
};

fn declared(attempt: u32, rank: u32) -> Declared {
    Declared {
        id: StreamId {
            namespace: "ml".into(),
            job: "bert".into(),
            uid: "u".into(),
            attempt,
            rank,
            container: "trainer".into(),
        },
        origin: Origin {
            pod_uid: format!("{attempt}-{rank}"),
            ..Origin::default()
        },
    }
}

fn records() -> Vec<Record> {
    let line = Line {
        seq: 1,
        time: from_nanos(0),
        observed: from_nanos(0),
        output: Output::Unknown,
        flags: Flags::default(),
        message: b"step 1".to_vec(),
    };
    vec![Record::Line(line)]
}

/// Attempts 1 to 3 of two ranks each, the first one the oldest, and all in text files too.
async fn filled(dir: &TempDir, limits: Limits) -> Retention {
    let wal_limits = WalLimits {
        segment: 1 << 20,
        quota: 1 << 30,
        job: 1 << 30,
    };
    let disk = Folder::new(dir.path().join("wal"));
    std::fs::create_dir_all(dir.path().join("wal")).unwrap();
    let token = CancellationToken::new();
    let wal = Wal::open(disk, 1, wal_limits, Metrics::default(), token);
    let retention = Retention {
        lake: Lake::new(Arc::new(InMemory::new()), "memory"),
        text: Some(TextFiles::new(dir.path().join("text"), 1 << 20)),
        limits,
        wal: wal.await.unwrap(),
        metrics: Metrics::default(),
    };
    for attempt in 1..=3 {
        for rank in 0..2 {
            let shipment = Shipment {
                declared: declared(attempt, rank),
                epoch: 1,
                segment: 1,
                records: records(),
            };
            retention.lake.store(&shipment).await.unwrap();
            let text = retention.text.as_ref().unwrap();
            text.store(&shipment).await.unwrap();
        }
        // The store's times say which is older, and have whole milliseconds here.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    retention
}

async fn left(retention: &Retention) -> Vec<u32> {
    let streams = retention.lake.list("").await.unwrap();
    let mut attempts: Vec<u32> = streams.keys().map(|id| id.attempt).collect();
    attempts.dedup();
    attempts
}

fn texts(dir: &TempDir, attempt: u32) -> bool {
    let folder = format!("text/namespace=ml/job=bert/uid=u/attempt={attempt}");
    dir.path().join(folder).exists()
}

fn in_days(days: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(days * DAY)
}

#[tokio::test]
async fn without_limits_nothing_is_deleted_and_the_store_is_counted() {
    let dir = TempDir::new().unwrap();
    let retention = filled(&dir, Limits::default()).await;
    retention.once(in_days(10_000)).await.unwrap();
    assert_eq!(left(&retention).await, [1, 2, 3]);
    assert!(retention.metrics.store_bytes.get() > 0);
    assert_eq!(retention.metrics.deleted_attempts.get(), 0);
}

#[tokio::test]
async fn what_is_too_old_goes_in_both_sinks_and_what_is_not_stays() {
    let dir = TempDir::new().unwrap();
    let days = Limits {
        days: Some(30),
        bytes: None,
    };
    let retention = filled(&dir, days).await;
    retention.once(in_days(29)).await.unwrap();
    assert_eq!(left(&retention).await, [1, 2, 3]);
    retention.once(in_days(31)).await.unwrap();
    assert_eq!(left(&retention).await, [] as [u32; 0]);
    assert!((1..=3).all(|attempt| !texts(&dir, attempt)));
    assert_eq!(retention.metrics.deleted_attempts.get(), 3);
    assert_eq!(retention.metrics.store_bytes.get(), 0);
}

#[tokio::test]
async fn too_large_a_store_loses_whole_attempts_the_oldest_first_and_no_more_than_needed() {
    let dir = TempDir::new().unwrap();
    let mut retention = filled(&dir, Limits::default()).await;
    retention.once(in_days(0)).await.unwrap();
    let attempt = retention.metrics.store_bytes.get().cast_unsigned() / 3;
    retention.limits.bytes = Some(2 * attempt + attempt / 2);
    retention.once(in_days(0)).await.unwrap();
    assert_eq!(left(&retention).await, [2, 3]);
    assert!(!texts(&dir, 1) && texts(&dir, 2));
    retention.limits.bytes = Some(attempt / 2);
    retention.once(in_days(0)).await.unwrap();
    assert_eq!(left(&retention).await, [] as [u32; 0]);
}

#[tokio::test]
async fn an_attempt_of_which_one_rank_is_still_followed_is_kept_and_others_go_in_its_place() {
    let dir = TempDir::new().unwrap();
    let mut retention = filled(&dir, Limits::default()).await;
    retention.once(in_days(0)).await.unwrap();
    let total = retention.metrics.store_bytes.get().cast_unsigned();
    let opened = retention.wal.stream(declared(1, 1)).await.unwrap();
    let appended = retention.wal.append(opened.number, records()).await;
    appended.unwrap();
    retention.limits = Limits {
        days: None,
        bytes: Some(total - 1),
    };
    retention.once(in_days(0)).await.unwrap();
    assert_eq!(left(&retention).await, [1, 3]);
    retention.limits.days = Some(1);
    retention.once(in_days(2)).await.unwrap();
    assert_eq!(left(&retention).await, [1]);
    // Its pod is gone, and all of it is shipped.
    retention.wal.keep(std::collections::HashSet::new()).await;
    for (segment, _) in retention.wal.seal().await.unwrap() {
        let shipped = [(opened.number, 1)].into();
        retention.wal.cut(segment, shipped).await;
    }
    retention.once(in_days(2)).await.unwrap();
    assert_eq!(left(&retention).await, [] as [u32; 0]);
}

#[tokio::test]
async fn what_is_told_of_a_job_goes_with_its_lines_and_not_before() {
    let dir = TempDir::new().unwrap();
    let limits = Limits {
        days: Some(7),
        bytes: Some(0),
    };
    let retention = filled(&dir, limits).await;
    let lake = &retention.lake;
    let rows = [
        layout::job_row("ml", "bert", "u").unwrap(),
        layout::attempt_row("ml", "bert", "u", 1).unwrap(),
    ];
    for row in &rows {
        lake.put_row(row, b"a row".to_vec()).await.unwrap();
    }
    retention.once(in_days(6)).await.unwrap();
    for row in &rows {
        assert!(lake.row(row).await.is_ok(), "{row} says why the job failed");
    }
    retention.once(in_days(8)).await.unwrap();
    for row in &rows {
        assert!(lake.row(row).await.is_err(), "{row}");
    }
}
