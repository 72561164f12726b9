//! Rotations of the log file by the node: at every line, while it is followed and while it is not.

use futures::future::join_all;
use trainyard::logs::record::Reason;

use crate::{
    kubelet::{Refusal, Trouble::Refused},
    pipeline::{Pipeline, Rank, until},
};

const LINES: usize = 12;

#[derive(Clone, Copy, Debug)]
struct World {
    at: usize,
    /// All lines before it had been read when it came.
    read: bool,
    /// Nobody was reading.
    alone: bool,
    /// Lines that came to the old file afterwards.
    late: usize,
    /// The node rotates once more, so many lines later.
    again: Option<usize>,
}

async fn rotated(pipeline: &Pipeline, name: String, world: World) -> (World, Rank) {
    let mut rank = pipeline.follow(&name);
    for n in 0..LINES {
        if n == world.at {
            // The first file must have been seen, see `position`.
            let seen = if world.read { n as u64 } else { 1 };
            pipeline.has(&rank, seen).await;
            if world.alone {
                // Its stream breaks, and the next ones are refused until the file is another one.
                rank.pod.always(Some(Refused(Refusal::no_node())));
                rank.pod.reset();
                until("the stream to break", || async { rank.pod.open() == 0 }).await;
            }
            rank.pod.change(crate::files::Files::rotate);
            for late in 0..world.late {
                rank.write_late(format!("late {late}").as_bytes());
            }
        }
        if Some(n) == world.again.map(|after| world.at + after) {
            rank.pod.change(crate::files::Files::rotate);
        }
        rank.write(format!("line {n}").as_bytes());
    }
    rank.pod.always(None);
    rank.exit();
    rank.ended().await;
    (world, rank)
}

/// Each world's lines are stored, once, in order, or lie in a gap; those of the last file are there.
async fn judged(worlds: Vec<World>) -> Vec<(World, Vec<Reason>, usize)> {
    let pipeline = Pipeline::plain().await;
    let lives = (0..)
        .zip(worlds)
        .map(|(n, world)| rotated(&pipeline, format!("w-{n}"), world));
    let lives = join_all(lives).await;
    let stored = pipeline.stored().await;
    lives
        .into_iter()
        .map(|(world, rank)| {
            let stored = &stored[&rank.id.job];
            let missing = rank
                .missing(stored)
                .unwrap_or_else(|e| panic!("{world:?}: {e}"));
            let last_file = world.at + world.again.unwrap_or(0) + world.late;
            assert!(
                missing.iter().all(|at| *at < last_file),
                "{world:?}: {missing:?}"
            );
            (world, stored.reasons(), missing.len())
        })
        .collect()
}

fn worlds(alone: bool) -> Vec<World> {
    let mut worlds = Vec::new();
    for at in 1..LINES {
        for read in [true, false] {
            for (late, again) in [(0, None), (2, None), (0, Some(1)), (1, Some(3))] {
                let again = again.filter(|after| at + after < LINES);
                worlds.push(World {
                    at,
                    read,
                    alone,
                    late,
                    again,
                });
            }
        }
    }
    worlds
}

#[tokio::test]
async fn a_rotation_at_any_line_while_followed_is_said_and_loses_nothing_else() {
    for (world, reasons, missing) in judged(worlds(false)).await {
        // The API can't show that nothing is missing, so it is never called complete.
        assert!(!reasons.is_empty(), "{world:?}");
        if world.late == 0 && world.again.is_none() && world.read {
            assert_eq!(missing, 0, "{world:?}");
            assert_eq!(reasons, [Reason::RotatedWhileFollowed], "{world:?}");
        }
    }
}

#[tokio::test]
async fn a_rotation_while_nobody_reads_is_a_gap_at_its_place() {
    for (world, reasons, missing) in judged(worlds(true)).await {
        assert!(!reasons.is_empty(), "{world:?}");
        if world.late == 0 && world.again.is_none() && world.read {
            assert_eq!(
                (missing, reasons),
                (0, vec![Reason::RotatedAway]),
                "{world:?}"
            );
        }
    }
}
