//! Lines that move from the write-ahead log into files, and files that are compacted, while they are read.

use std::{collections::BTreeMap, future::pending};

use super::*;

/// Lines of 30 KB each, so that a reader holds only some of them at a time.
fn large(seqs: std::ops::RangeInclusive<u64>) -> Vec<Record> {
    seqs.map(|seq| {
        Record::Line(line(
            seq,
            seq.cast_signed(),
            format!("{seq} {}", "x".repeat(30_000)),
        ))
    })
    .collect()
}

async fn numbers(reader: &mut Reader<Folder>) -> Option<Vec<u64>> {
    let entries = reader.next_lines().await.unwrap()?;
    Some(entries.iter().map(|entry| entry.line.seq).collect())
}

#[tokio::test]
async fn a_compaction_in_the_middle_of_a_reading_loses_and_repeats_no_line() {
    let world = World::new();
    let id = stream(1, 0);
    for (segment, first) in [(1, 1), (2, 11), (3, 21), (4, 31)] {
        world.ship(&id, segment, large(first..=first + 9)).await;
    }
    let mut reader = world.reader(Selection::default()).await.unwrap();
    let mut seen = numbers(&mut reader).await.unwrap();
    assert!(seen.len() < 10, "{seen:?}");
    let ended = World::shipment(&id, 4, vec![end(40)]);
    world.store.lake.compact(&ended).await.unwrap();
    while let Some(more) = numbers(&mut reader).await {
        seen.extend(more);
    }
    assert_eq!(seen, (1..=40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_segment_that_is_cut_in_the_middle_of_a_reading_is_read_on_in_files() {
    let (a, b) = (stream(1, 0), stream(1, 1));
    for cut_after in 0..6 {
        let world = World::new();
        let first = [(a.clone(), large(1..=60)), (b.clone(), lines(1, 1..=9))];
        let second = [(a.clone(), large(61..=90)), (b.clone(), lines(1, 10..=12))];
        world.log(1, &first).await;
        world.log(2, &second).await;
        let mut reader = world.reader(Selection::default()).await.unwrap();
        let mut seen = BTreeMap::<u32, Vec<u64>>::new();
        let mut round = 0;
        loop {
            if round == cut_after {
                world.cut(1, &first).await;
                world.cut(2, &second).await;
            }
            round += 1;
            let Some(entries) = reader.next_lines().await.unwrap() else {
                break;
            };
            for entry in entries {
                let rank = reader.stream(entry.at).rank;
                seen.entry(rank).or_default().push(entry.line.seq);
            }
        }
        assert_eq!(
            seen[&0],
            (1..=90).collect::<Vec<_>>(),
            "cut after {cut_after}"
        );
        assert_eq!(
            seen[&1],
            (1..=12).collect::<Vec<_>>(),
            "cut after {cut_after}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn following_sees_new_lines_new_segments_new_attempts_and_the_end() {
    let world = two_ranks().await;
    let selection = Selection {
        follow: true,
        tail: Some(1),
        ..Selection::default()
    };
    let reader = world.reader(selection).await.unwrap();
    let (over, ended) = tokio::sync::oneshot::channel::<()>();
    let ended = async move {
        let _ = ended.await;
    };
    let shape = Shape {
        format: Format::Raw,
        ..Shape::default()
    };
    let mut blocks = Answer::new(reader, shape).start(Some(ended));
    let mut next = async || {
        loop {
            let block = blocks.recv().await.unwrap().unwrap();
            if !block.data.is_empty() || block.last {
                return (texts(&block.data), block.attempt, block.last);
            }
        }
    };
    assert_eq!(next().await, (vec!["r1 n9".into()], 1, false));
    world.log(4, &[(stream(1, 0), lines(0, 10..=10))]).await;
    assert_eq!(next().await, (vec!["r0 n10".into()], 1, false));
    // Rank 1 goes on in a segment that is cut before it could be read.
    world.cut(5, &[(stream(1, 1), lines(1, 10..=11))]).await;
    world.cut(2, &[]).await;
    world.cut(3, &[]).await;
    world.cut(4, &[]).await;
    world
        .log(
            6,
            &[
                (stream(1, 1), lines(1, 12..=12)),
                (stream(2, 0), lines(0, 1..=1)),
            ],
        )
        .await;
    let mut came = Vec::new();
    while came.len() < 4 {
        came.extend(next().await.0);
    }
    came.sort_unstable();
    assert_eq!(came, ["r0 n1", "r1 n10", "r1 n11", "r1 n12"]);
    over.send(()).unwrap();
    assert_eq!(next().await, (Vec::new(), 2, true));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_hears_that_the_connection_is_alive() {
    let world = two_ranks().await;
    let selection = Selection {
        follow: true,
        ..Selection::default()
    };
    let reader = world.reader(selection).await.unwrap();
    let mut blocks = Answer::new(reader, Shape::default()).start(Some(pending()));
    let patience = std::time::Duration::from_secs(30);
    let mut cursors = Vec::new();
    // Two blocks of lines, one from files and one from the log; then only signs.
    for has_lines in [true, true, false, false] {
        let block = tokio::time::timeout(patience, blocks.recv()).await;
        let block = block.expect("a sign of life").unwrap().unwrap();
        assert_eq!(!block.data.is_empty(), has_lines);
        assert!(!block.last);
        cursors.push(block.cursor);
    }
    assert_eq!(cursors[1], cursors[3]);
}
