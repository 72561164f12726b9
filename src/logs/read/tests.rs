//! Reading from files and the write-ahead log, while lines move from one to the other.

mod moving;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::logs::{
    columns::grep::Grep,
    disk::{Disk, Folder},
    lake::Lake,
    line::{Flags, Line, Origin, Output, from_nanos},
    record::{End, Gap, Reason, Record},
    sink::{Shipment, Sink},
    store::Store,
    wal::{
        frame::{Declared, put_records, put_stream},
        scan,
    },
};

fn stream(attempt: u32, rank: u32) -> StreamId {
    StreamId {
        namespace: "ml".into(),
        job: "bert".into(),
        uid: "u-1".into(),
        attempt,
        rank,
        container: "trainer".into(),
    }
}

fn line(seq: u64, milliseconds: i64, message: impl Into<Vec<u8>>) -> Line {
    Line {
        seq,
        time: from_nanos(milliseconds * 1_000_000),
        observed: from_nanos(milliseconds * 1_000_000 + 7),
        output: Output::Unknown,
        flags: Flags::default(),
        message: message.into(),
    }
}

/// Lines `seqs` of a rank: one a second, so that the lines of the ranks alternate.
fn lines(rank: u32, seqs: std::ops::RangeInclusive<u64>) -> Vec<Record> {
    let at = |seq: u64| seq.cast_signed() * 1000 + i64::from(rank) * 100;
    seqs.map(|seq| Record::Line(line(seq, at(seq), format!("r{rank} n{seq}"))))
        .collect()
}

fn end(lines: u64) -> Record {
    Record::End(End {
        container_id: None,
        complete: true,
        lines,
        bytes: lines * 5,
    })
}

struct World {
    _dir: TempDir,
    disk: Folder,
    store: Store,
}

impl World {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let lake = Lake::open(dir.path().to_str().unwrap()).unwrap();
        let disk = Folder::new(dir.path().join("wal"));
        std::fs::create_dir(disk.path()).unwrap();
        Self {
            store: Store::new(lake, Some(disk.clone())),
            disk,
            _dir: dir,
        }
    }

    fn shipment(id: &StreamId, segment: u64, records: Vec<Record>) -> Shipment {
        Shipment {
            declared: declared(id),
            epoch: 1,
            segment,
            records,
        }
    }

    /// Puts records into files.
    async fn ship(&self, id: &StreamId, segment: u64, records: Vec<Record>) {
        let shipment = Self::shipment(id, segment, records);
        self.store.lake.store(&shipment).await.unwrap();
    }

    /// Writes a whole segment of the write-ahead log.
    async fn log(&self, segment: u64, parts: &[(StreamId, Vec<Record>)]) {
        let mut data = Vec::new();
        for ((id, records), number) in parts.iter().zip(1..) {
            put_stream(number, &declared(id), &mut data);
            for some in records.chunks(3) {
                put_records(number, 0, some, &mut data);
            }
        }
        self.disk
            .write(&scan::name(segment), 0, data)
            .await
            .unwrap();
    }

    /// A segment's records are in files, and it is cut.
    async fn cut(&self, segment: u64, parts: &[(StreamId, Vec<Record>)]) {
        for (id, records) in parts {
            self.ship(id, segment, records.clone()).await;
        }
        self.disk.delete(&scan::name(segment)).await.unwrap();
    }

    async fn reader(&self, selection: Selection) -> Result<Reader<Folder>, Error> {
        let job = Job {
            namespace: "ml".into(),
            name: "bert".into(),
            uid: "u-1".into(),
        };
        Reader::open(self.store.clone(), job, selection).await
    }

    async fn answer(
        &self,
        selection: Selection,
        format: Format,
        limit: Option<usize>,
    ) -> (Vec<u8>, Cursor) {
        let reader = self.reader(selection).await.unwrap();
        let mut answer = Answer::new(reader, Shape { format, limit });
        let mut data = Vec::new();
        let mut cursor = answer.last_block().cursor;
        while let Some(block) = answer.next_block().await.unwrap() {
            data.extend(block.data);
            cursor = block.cursor;
        }
        (data, cursor)
    }

    async fn read(&self, selection: Selection) -> Vec<String> {
        let (data, _) = self.answer(selection, Format::Raw, None).await;
        texts(&data)
    }
}

fn declared(id: &StreamId) -> Declared {
    Declared {
        id: id.clone(),
        origin: Origin {
            pod: format!("bert-{}-{}", id.attempt, id.rank),
            node: "gpu-7".into(),
            ..Origin::default()
        },
    }
}

fn texts(data: &[u8]) -> Vec<String> {
    let text = String::from_utf8(data.to_vec()).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// `r0 n1`, `r1 n1`, `r0 n2` …
fn alternating(ranks: u32, seqs: std::ops::RangeInclusive<u64>) -> Vec<String> {
    seqs.flat_map(|seq| (0..ranks).map(move |rank| format!("r{rank} n{seq}")))
        .collect()
}

/// Two ranks: lines 1-5 in files, some of them in the log too, 6-9 in the log alone.
async fn two_ranks() -> World {
    let world = World::new();
    let (a, b) = (stream(1, 0), stream(1, 1));
    for (id, rank) in [(&a, 0), (&b, 1)] {
        world.ship(id, 1, lines(rank, 1..=3)).await;
        world.ship(id, 2, lines(rank, 4..=5)).await;
    }
    let again = [(a.clone(), lines(0, 4..=5)), (b.clone(), lines(1, 4..=5))];
    world.log(2, &again).await;
    world
        .log(3, &[(a, lines(0, 6..=9)), (b, lines(1, 6..=9))])
        .await;
    world
}

#[tokio::test]
async fn the_lines_of_all_ranks_come_in_the_order_of_their_times_each_once() {
    let world = two_ranks().await;
    assert_eq!(
        world.read(Selection::default()).await,
        alternating(2, 1..=9)
    );
    let one = Selection {
        rank: Some(1),
        ..Selection::default()
    };
    let expected: Vec<_> = (1..=9).map(|n| format!("r1 n{n}")).collect();
    assert_eq!(world.read(one).await, expected);
}

#[tokio::test]
async fn a_clock_that_went_back_does_not_change_the_order_of_a_container() {
    let world = World::new();
    let records = [(1, 5000), (2, 1000), (3, 6000)];
    let records = records.map(|(seq, at)| Record::Line(line(seq, at, format!("r0 n{seq}"))));
    world.ship(&stream(1, 0), 1, records.into()).await;
    world.ship(&stream(1, 1), 1, lines(1, 4..=6)).await;
    let expected = ["r1 n4", "r0 n1", "r0 n2", "r1 n5", "r0 n3", "r1 n6"];
    assert_eq!(world.read(Selection::default()).await, expected);
}

#[tokio::test]
async fn an_answer_that_broke_off_goes_on_after_its_last_line_wherever_that_was() {
    let world = two_ranks().await;
    let grep = |pattern| Filter {
        grep: Some(Grep::new(pattern).unwrap().into()),
        ..Filter::default()
    };
    for filter in [Filter::default(), grep("[13579]$"), grep("n9")] {
        let selection = Selection {
            filter,
            ..Selection::default()
        };
        let all = world.read(selection.clone()).await;
        for first in 1..=all.len() {
            let (head, cursor) = world
                .answer(selection.clone(), Format::Raw, Some(first))
                .await;
            assert_eq!(texts(&head), all[..first]);
            // As text, and a part at a time.
            let mut cursor = cursor.to_string();
            let mut rest = Vec::new();
            loop {
                let on = Selection {
                    cursor: Some(cursor.parse().unwrap()),
                    ..selection.clone()
                };
                let (part, next) = world.answer(on, Format::Raw, Some(3)).await;
                if part.is_empty() {
                    break;
                }
                rest.extend(texts(&part));
                cursor = next.to_string();
            }
            assert_eq!(rest, all[first..], "after {first}");
        }
    }
}

#[tokio::test]
async fn an_answer_goes_on_with_the_same_job_and_attempt_when_there_are_newer_ones() {
    let world = two_ranks().await;
    let (_, cursor) = world
        .answer(Selection::default(), Format::Raw, Some(17))
        .await;
    world.ship(&stream(2, 0), 4, lines(0, 1..=2)).await;
    let on = Selection {
        cursor: Some(cursor),
        ..Selection::default()
    };
    assert_eq!(world.read(on).await, ["r1 n9"]);
    assert_eq!(world.read(Selection::default()).await, ["r0 n1", "r0 n2"]);
}

#[tokio::test]
async fn the_last_lines_are_the_last_ones_of_all_ranks_together() {
    let world = two_ranks().await;
    let all = world.read(Selection::default()).await;
    for n in 1..=20 {
        for pattern in [None, Some("n[1-8]$")] {
            let selection = Selection {
                tail: Some(n),
                filter: Filter {
                    grep: pattern.map(|p| Grep::new(p).unwrap().into()),
                    ..Filter::default()
                },
                ..Selection::default()
            };
            let mut expected = all.clone();
            expected.retain(|line| pattern.is_none() || !line.ends_with('9'));
            let expected = &expected[expected.len().saturating_sub(n)..];
            assert_eq!(world.read(selection).await, expected, "{n} {pattern:?}");
        }
    }
}

#[tokio::test]
async fn a_time_range_has_just_the_lines_stamped_in_it() {
    let world = two_ranks().await;
    for (since, until) in [
        (0, 20_000),
        (3000, 7100),
        (3001, 3099),
        (5100, 5101),
        (9000, 9000),
    ] {
        let selection = Selection {
            filter: Filter {
                since: Some(from_nanos(since * 1_000_000)),
                until: Some(from_nanos(until * 1_000_000)),
                grep: None,
            },
            ..Selection::default()
        };
        let mut expected = Vec::new();
        for seq in 1..=9 {
            for rank in 0..2 {
                if (since..until).contains(&(seq * 1000 + rank * 100)) {
                    expected.push(format!("r{rank} n{seq}"));
                }
            }
        }
        assert_eq!(world.read(selection).await, expected, "{since}..{until}");
    }
}

#[tokio::test]
async fn one_container_of_several_can_be_read_alone() {
    let world = World::new();
    let sidecar = StreamId {
        container: "istio-proxy".into(),
        ..stream(1, 0)
    };
    world.ship(&stream(1, 0), 1, lines(0, 1..=2)).await;
    world.ship(&sidecar, 1, lines(5, 1..=1)).await;
    let of = |container: &str| Selection {
        container: Some(container.into()),
        ..Selection::default()
    };
    assert_eq!(world.read(of("istio-proxy")).await, ["r5 n1"]);
    assert_eq!(world.read(of("trainer")).await, ["r0 n1", "r0 n2"]);
    let refused = world.reader(of("nginx")).await.err().unwrap().to_string();
    assert!(
        refused.contains("there are lines of istio-proxy, trainer"),
        "{refused}"
    );
}

#[tokio::test]
async fn what_is_not_there_is_refused_with_what_is() {
    let world = two_ranks().await;
    world.ship(&stream(3, 0), 4, lines(0, 1..=1)).await;
    let refusal = |selection: Selection| {
        let world = &world;
        async move { world.reader(selection).await.err().unwrap().to_string() }
    };
    let attempt = Selection {
        attempts: Attempts::One(2),
        ..Selection::default()
    };
    assert!(
        refusal(attempt)
            .await
            .contains("there are lines of attempts 1, 3")
    );
    let rank = Selection {
        attempts: Attempts::One(1),
        rank: Some(7),
        ..Selection::default()
    };
    assert!(refusal(rank).await.contains("there are lines of ranks 0-1"));
}

#[tokio::test]
async fn completeness_says_what_is_missing_and_why() {
    let world = World::new();
    let gap = Gap {
        after_seq: 2,
        not_before: 2,
        from: None,
        to: None,
        reason: Reason::RotatedAway,
        lost: Some(4),
    };
    let mut with_gap = lines(1, 1..=5);
    with_gap.extend([
        Record::Gap(gap.clone()),
        Record::End(End {
            container_id: None,
            complete: false,
            lines: 5,
            bytes: 25,
        }),
    ]);
    let mut whole = lines(0, 1..=3);
    whole.push(end(3));
    world.ship(&stream(1, 0), 1, whole).await;
    world.ship(&stream(1, 1), 1, with_gap).await;
    world.ship(&stream(1, 2), 1, lines(2, 1..=2)).await;
    world.log(2, &[(stream(1, 2), lines(2, 2..=4))]).await;
    world.ship(&stream(1, 3), 3, lines(3, 3..=4)).await;
    let job = Job {
        namespace: "ml".into(),
        name: "bert".into(),
        uid: "u-1".into(),
    };
    let found = completeness::completeness(&world.store, &job, Attempts::All)
        .await
        .unwrap();
    assert!(!found.complete);
    assert_eq!(
        found.summary,
        "1 of 4 streams are complete, 2 have not ended; 14 lines, 1 gaps"
    );
    let streams = &found.streams;
    assert!(streams[0].complete && streams[0].why.is_none());
    assert_eq!((streams[0].lines, streams[0].bytes), (3, Some(15)));
    assert_eq!(streams[1].gaps, [gap]);
    assert_eq!(streams[2].lines, 4);
    assert!(!streams[2].ended);
    assert!(
        streams[3]
            .why
            .as_ref()
            .unwrap()
            .starts_with("2 lines that were stored")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn every_byte_comes_back_in_json_and_raw(
        messages in prop::collection::vec((prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40), ".{0,20}".prop_map(String::into_bytes),
        ], any::<bool>()), 1..20),
        in_log in 0..20usize,
    ) {
        let records: Vec<Record> = messages.iter().zip(1..).map(|((message, partial), seq)| {
            let mut line = line(seq, 5, message.clone());
            line.flags.partial = *partial;
            Record::Line(line)
        }).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (json, raw) = runtime.block_on(async {
            let world = World::new();
            let shipped = records.len().saturating_sub(in_log);
            world.ship(&stream(1, 0), 1, records[..shipped].to_vec()).await;
            world.log(2, &[(stream(1, 0), records[shipped..].to_vec())]).await;
            let (json, _) = world.answer(Selection::default(), Format::Json, None).await;
            (json, world.answer(Selection::default(), Format::Raw, None).await.0)
        });
        let mut written = Vec::new();
        for (message, partial) in &messages {
            written.extend(message);
            if !partial {
                written.push(b'\n');
            }
        }
        prop_assert_eq!(raw, written);
        let text = String::from_utf8(json).unwrap();
        let objects: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        prop_assert_eq!(objects.len(), messages.len());
        for ((object, (message, partial)), seq) in objects.iter().zip(&messages).zip(1..) {
            use base64::Engine;
            let back = object["line"].as_str().map_or_else(
                || base64::engine::general_purpose::STANDARD.decode(object["raw"].as_str().unwrap()).unwrap(),
                |text| text.as_bytes().to_vec(),
            );
            prop_assert_eq!(&back, message);
            prop_assert_eq!(&object["partial"], partial);
            prop_assert_eq!(&object["seq"], seq);
            prop_assert_eq!(&object["pod"], "bert-1-0");
        }
    }
}
