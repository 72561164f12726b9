//! Restarts of the collector: with its volume, and without.

use trainyard::logs::record::Reason::{self, LogLost, RotatedAway};

use crate::{
    files::Files,
    pipeline::{Pipeline, Rank, all_whole, until},
};

fn write(rank: &mut Rank, lines: std::ops::Range<u32>) {
    for n in lines {
        rank.write(format!("line {n}").as_bytes());
    }
}

/// A container whose first lines are in the store, and the next ones only in the log.
async fn begun(pipeline: &Pipeline, name: &str) -> Rank {
    let mut rank = pipeline.follow(name);
    write(&mut rank, 0..10);
    pipeline.has(&rank, 10).await;
    pipeline.ship().await;
    write(&mut rank, 10..15);
    pipeline.has(&rank, 15).await;
    rank
}

async fn restart(pipeline: &mut Pipeline, rank: &mut Rank, volume_lost: bool) {
    pipeline.restart(volume_lost).await;
    let name = "the old stream's end";
    until(name, || async { rank.pod.open() == 0 }).await;
    pipeline.find_again(rank);
}

/// Its end, with everything in the store. What is missing, and the gaps' reasons.
async fn end(pipeline: &Pipeline, rank: &mut Rank) -> (Vec<usize>, Vec<Reason>) {
    rank.exit();
    rank.ended().await;
    pipeline.ship().await;
    let stored = pipeline.stored().await;
    let stored = &stored[&rank.id.job];
    let seqs: Vec<u64> = stored.lines.iter().map(|line| line.seq).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    (rank.missing(stored).unwrap(), stored.reasons())
}

#[tokio::test]
async fn a_collector_that_was_killed_goes_on_behind_its_last_line() {
    let mut pipeline = Pipeline::plain().await;
    let mut rank = begun(&pipeline, "killed").await;
    restart(&mut pipeline, &mut rank, false).await;
    write(&mut rank, 15..20);
    pipeline.has(&rank, 20).await;
    rank.exit();
    all_whole(&pipeline, vec![rank]).await;
}

#[tokio::test]
async fn a_lost_volume_costs_a_gap_and_no_line_that_the_node_still_has() {
    let mut pipeline = Pipeline::plain().await;
    let mut rank = begun(&pipeline, "lost").await;
    restart(&mut pipeline, &mut rank, true).await;
    pipeline.has(&rank, 15).await;
    // Its epoch is the greater one, though the clock says otherwise.
    assert_eq!(pipeline.wal.epoch(), 1);
    pipeline.ship().await;
    restart(&mut pipeline, &mut rank, true).await;
    pipeline.has(&rank, 15).await;
    assert_eq!(pipeline.wal.epoch(), 2);
    write(&mut rank, 15..20);
    pipeline.has(&rank, 20).await;
    let (missing, reasons) = end(&pipeline, &mut rank).await;
    assert!(missing.is_empty());
    assert_eq!(reasons, [LogLost; 2]);
}

#[tokio::test]
async fn a_lost_volume_repeats_no_line_of_a_container_that_says_nothing_more() {
    let mut pipeline = Pipeline::plain().await;
    let mut rank = begun(&pipeline, "idle").await;
    pipeline.ship().await;
    restart(&mut pipeline, &mut rank, true).await;
    pipeline.has(&rank, 15).await;
    // The new log knows nothing but that there are fifteen.
    until("the stream to be open", || async { rank.pod.open() == 1 }).await;
    restart(&mut pipeline, &mut rank, false).await;
    until("the stream to be open", || async { rank.pod.open() == 1 }).await;
    write(&mut rank, 15..16);
    pipeline.has(&rank, 16).await;
    let (missing, reasons) = end(&pipeline, &mut rank).await;
    assert!(missing.is_empty());
    assert_eq!(reasons, [LogLost]);
}

#[tokio::test]
async fn what_was_only_on_a_lost_volume_is_in_a_gap() {
    let mut pipeline = Pipeline::plain().await;
    let mut rank = begun(&pipeline, "rotated").await;
    rank.pod.change(Files::rotate);
    write(&mut rank, 15..20);
    pipeline.has(&rank, 20).await;
    rank.pod.change(Files::rotate);
    write(&mut rank, 20..25);
    restart(&mut pipeline, &mut rank, true).await;
    pipeline.has(&rank, 15).await;
    let (missing, reasons) = end(&pipeline, &mut rank).await;
    assert_eq!(missing, (10..20).collect::<Vec<_>>());
    assert_eq!(reasons, [LogLost, RotatedAway]);
}

#[tokio::test]
async fn a_stream_that_was_complete_stays_so_without_its_volume() {
    let mut pipeline = Pipeline::plain().await;
    let mut rank = begun(&pipeline, "complete").await;
    end(&pipeline, &mut rank).await;
    let asked = rank.pod.asked().len();
    for volume_lost in [true, false] {
        restart(&mut pipeline, &mut rank, volume_lost).await;
        let outcome = rank.ended().await;
        assert!(outcome.complete);
        assert_eq!((outcome.totals.lines, outcome.totals.gaps), (15, 0));
    }
    assert_eq!(rank.pod.asked().len(), asked, "nobody had to read it again");
}

#[tokio::test]
async fn thousands_of_equal_stamps_are_counted_on_without_the_volume() {
    let mut pipeline = Pipeline::plain().await;
    let mut rank = pipeline.follow("equal");
    rank.write(b"first");
    let stamp = rank.last() + 1;
    // In two files of the store.
    for (n, lines) in [(0, 1500), (1500, 1600)] {
        for n in n..n + lines {
            rank.write_at(stamp, format!("line {n}").as_bytes(), true);
        }
        pipeline.has(&rank, n + lines + 1).await;
        pipeline.ship().await;
    }
    restart(&mut pipeline, &mut rank, true).await;
    for n in 3100..3200 {
        rank.write_at(stamp, format!("line {n}").as_bytes(), true);
    }
    pipeline.has(&rank, 3201).await;
    let (missing, reasons) = end(&pipeline, &mut rank).await;
    assert!(missing.is_empty());
    assert_eq!(reasons, [LogLost]);
}
