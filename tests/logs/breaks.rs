//! Answers that break: at any byte, in each way, in each of the collector's readings.

use futures::future::join_all;

use crate::{
    kubelet::{
        Break::{self, Ends, Reset, Silence},
        Trouble::Cut,
    },
    pipeline::{Pipeline, Rank, all_whole},
};

const LINES: [&[u8]; 6] = [b"step 1", b"", b"loss 0.41", b"\xff\r", b"x", b"step 2"];
/// A stamp with the space behind it.
const STAMP: usize = 31;

fn bytes() -> usize {
    LINES.iter().map(|line| STAMP + line.len() + 1).sum()
}

/// A running container, whose answers break after so many bytes, one after the other.
async fn broken(pipeline: &Pipeline, name: String, cuts: [usize; 2], how: Break) -> Rank {
    let mut rank = pipeline.follow_from(&name, |rank| {
        rank.pod.trouble(cuts.map(|bytes| Cut(bytes, how)));
    });
    for line in LINES {
        rank.write(line);
    }
    pipeline.has(&rank, LINES.len() as u64).await;
    rank.write(b"the last one");
    pipeline.has(&rank, LINES.len() as u64 + 1).await;
    rank.exit();
    rank
}

#[tokio::test]
async fn an_answer_that_breaks_at_any_byte_loses_and_repeats_nothing() {
    let pipeline = Pipeline::plain().await;
    let worlds = (0..=bytes()).flat_map(|at| [(at, Ends), (at, Reset)]);
    let worlds = worlds.map(|(at, how)| {
        let name = format!("{how:?}-{at}").to_lowercase();
        broken(&pipeline, name, [at, bytes() - at], how)
    });
    all_whole(&pipeline, join_all(worlds).await).await;
}

#[tokio::test]
async fn the_end_of_an_answer_is_not_taken_for_the_end_of_the_log() {
    let pipeline = Pipeline::plain().await;
    let mut ranks = Vec::new();
    for at in 0..bytes() {
        for how in [Ends, Reset] {
            let name = format!("{how:?}-{at}").to_lowercase();
            // It has exited when it is first read; the proof of the end breaks, too.
            let rank = pipeline.follow_from(&name, |rank| {
                rank.pod.trouble([Cut(at, how), Cut(at % 40, how)]);
                for line in LINES {
                    rank.write(line);
                }
                rank.exit();
            });
            ranks.push(rank);
        }
    }
    all_whole(&pipeline, ranks).await;
}

#[tokio::test]
async fn a_connection_that_falls_silent_is_given_up_once_the_container_has_exited() {
    let pipeline = Pipeline::plain().await;
    let mut ranks = Vec::new();
    for at in (0..bytes()).step_by(9) {
        let name = format!("silent-{at}");
        let mut rank = pipeline.follow_from(&name, |rank| {
            rank.pod.trouble([Cut(at, Silence)]);
        });
        for line in LINES {
            rank.write(line);
        }
        rank.exit();
        ranks.push(rank);
    }
    all_whole(&pipeline, ranks).await;
}

#[tokio::test]
async fn lines_of_one_second_and_of_a_clock_that_went_back_are_kept_through_breaks() {
    let pipeline = Pipeline::plain().await;
    let mut rank = pipeline.follow_from("clock", |rank| {
        let cuts = [(400, Reset), (700, Ends), (1000, Reset), (1500, Ends)];
        rank.pod.trouble(cuts.map(|(at, how)| Cut(at, how)));
        rank.write(b"first");
    });
    let begin = rank.last();
    for n in 0..60_i64 {
        // Within one second, then an hour before, and forwards again.
        let back = if (20..40).contains(&n) {
            3_600_000_000_000
        } else {
            0
        };
        rank.write_at(begin + 1 + n - back, format!("line {n}").as_bytes(), true);
    }
    pipeline.has(&rank, 61).await;
    rank.exit();
    all_whole(&pipeline, vec![rank]).await;
}

#[tokio::test]
async fn thousands_of_equal_lines_with_equal_stamps_are_counted_through_breaks() {
    let pipeline = Pipeline::plain().await;
    let mut rank = pipeline.follow_from("equal", |rank| {
        let cuts = [(9_000, Reset), (50_000, Ends), (120_000, Reset), (33, Ends)];
        rank.pod.trouble(cuts.map(|(at, how)| Cut(at, how)));
        rank.write(b"first");
    });
    let stamp = rank.last() + 1;
    for _ in 0..5000 {
        rank.write_at(stamp, b"same", true);
    }
    pipeline.has(&rank, 5001).await;
    rank.pod.trouble([Cut(5000, Ends)]);
    rank.exit();
    all_whole(&pipeline, vec![rank]).await;
}
