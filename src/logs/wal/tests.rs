use super::*;
use crate::logs::{
    line::{Flags, Line, Origin, Output, from_nanos},
    record::{End, Gap, Reason},
    sim::{
        chance::Chance,
        disk::{Faults, SimDisk},
    },
};

const LIMITS: Limits = Limits {
    segment: 1 << 20,
    quota: 1 << 30,
    job: 1 << 30,
};

pub(crate) fn disk() -> SimDisk {
    SimDisk::new(Chance::new(1), Faults::default())
}

pub(crate) async fn open(disk: &SimDisk, epoch: u64, limits: Limits) -> Wal {
    let token = CancellationToken::new();
    let wal = Wal::open(disk.clone(), epoch, limits, Metrics::default(), token);
    wal.await.unwrap()
}

pub(crate) fn declared(rank: u32) -> Declared {
    Declared {
        id: StreamId {
            namespace: "ml".into(),
            job: "bert".into(),
            uid: "u".into(),
            attempt: 1,
            rank,
            container: "trainer".into(),
        },
        origin: Origin {
            pod_uid: format!("pod-{rank}"),
            container_id: "containerd://1".into(),
            ..Origin::default()
        },
    }
}

pub(crate) fn lines(seqs: std::ops::RangeInclusive<u64>) -> Vec<Record> {
    let line = |seq: u64| {
        let time = from_nanos(seq.cast_signed() * 1000);
        Record::Line(Line {
            seq,
            time,
            observed: time,
            output: Output::Unknown,
            flags: Flags::default(),
            message: format!("line {seq}").into_bytes(),
        })
    };
    seqs.map(line).collect()
}

fn gap(after_seq: u64) -> Record {
    Record::Gap(Gap {
        after_seq,
        not_before: after_seq,
        from: None,
        to: None,
        reason: Reason::RotatedAway,
        lost: None,
    })
}

pub(crate) fn end(lines: u64) -> Record {
    Record::End(End {
        container_id: Some("containerd://1".into()),
        complete: true,
        lines,
        bytes: 0,
    })
}

/// Numbers of the last lines of some ranks.
async fn ends(wal: &Wal, ranks: u32) -> Vec<u64> {
    let mut ends = Vec::new();
    for rank in 0..ranks {
        let stream = wal.find(&declared(rank).id).await;
        ends.push(stream.map_or(0, |s| s.totals.lines));
    }
    ends
}

async fn append(wal: &Wal, rank: u32, records: Vec<Record>) -> Result<Totals, Refused> {
    let opened = wal.stream(declared(rank)).await.unwrap();
    wal.append(opened.number, records).await
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_before_a_damaged_or_missing_byte_is_there_after_a_restart() {
    let first = disk();
    let wal = open(&first, 1, LIMITS).await;
    // The end of the file after each append, and what is stored then.
    let mut steps = vec![(0, vec![0, 0])];
    for (rank, seqs) in [(0, 1..=2), (1, 1..=1), (0, 3..=3), (1, 2..=4)] {
        append(&wal, rank, lines(seqs)).await.unwrap();
        let whole = first.read(&scan::name(1), 0, usize::MAX).await.unwrap();
        steps.push((whole.len(), ends(&wal, 2).await));
    }
    let whole = first.read(&scan::name(1), 0, usize::MAX).await.unwrap();
    for at in 0..=whole.len() {
        let mut damaged = whole.clone();
        if let Some(byte) = damaged.get_mut(at) {
            *byte ^= 0x10;
        }
        for data in [whole[..at].to_vec(), damaged] {
            let disk = disk();
            let kept = steps.iter().rev().find(|(end, _)| *end <= at).unwrap();
            disk.write(&scan::name(1), 0, data).await.unwrap();
            let wal = open(&disk, 1, LIMITS).await;
            assert_eq!(ends(&wal, 2).await, kept.1, "byte {at} of {}", whole.len());
            // Nothing is written behind the torn end, where nobody would find it.
            let next = kept.1[0] + 1;
            append(&wal, 0, lines(next..=next)).await.unwrap();
            let again = open(&disk.crash(true), 1, LIMITS).await;
            assert_eq!(ends(&again, 1).await, [next]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_in_several_segments_and_a_saved_state_goes_on_where_it_stopped() {
    let disk = disk();
    let limits = Limits {
        segment: 300,
        ..LIMITS
    };
    let wal = open(&disk, 1, limits).await;
    for n in 0..10 {
        append(&wal, 0, lines(n * 5 + 1..=n * 5 + 5)).await.unwrap();
    }
    append(&wal, 0, vec![gap(50)]).await.unwrap();
    let sealed = wal.seal().await.unwrap();
    assert!(sealed.len() > 3, "{sealed:?}");
    // The sinks have the first ones.
    let shipped = std::collections::HashMap::from([(0, 10)]);
    wal.cut(sealed[1].0, shipped).await;
    let known = wal.find(&declared(0).id).await.unwrap();

    let wal = open(&disk.crash(true), 1, limits).await;
    let opened = wal.stream(declared(0)).await.unwrap();
    assert!(opened.known && opened.continued);
    assert_eq!(opened.stream.totals, known.totals);
    assert_eq!((known.totals.lines, known.totals.gaps), (50, 1));
    assert_eq!(opened.stream.ordinal, 51);
    assert_eq!(opened.stream.position.seq(), 50);
    assert_eq!(
        opened.stream.position.last_time(),
        known.position.last_time()
    );
    let kept = wal.seal().await.unwrap();
    assert_eq!(kept, sealed[2..], "what the sinks may lack is there");
    // Another run of the container is no continuation.
    let mut again = declared(0);
    again.origin.container_id = "containerd://2".into();
    let opened = wal.stream(again).await.unwrap();
    assert!(opened.known && !opened.continued);
}

#[tokio::test(start_paused = true)]
async fn a_full_log_takes_gaps_but_no_lines_until_something_is_cut_even_after_a_restart() {
    let disk = disk();
    let limits = Limits {
        quota: 1000,
        ..LIMITS
    };
    let mut wal = open(&disk, 1, limits).await;
    let mut last = 0;
    while append(&wal, 0, lines(last + 1..=last + 1)).await.is_ok() {
        last += 1;
    }
    assert!(last > 2, "{last}");
    for _ in 0..2 {
        let refused = append(&wal, 0, lines(last + 1..=last + 1)).await;
        assert_eq!(refused, Err(Refused::Full));
        append(&wal, 0, vec![gap(last)]).await.unwrap();
        wal = open(&disk.crash(false), 1, limits).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_stores_no_more_than_its_quota_and_others_go_on() {
    let limits = Limits { job: 500, ..LIMITS };
    let wal = open(&disk(), 1, limits).await;
    let mut last = 0;
    while append(&wal, 0, lines(last + 1..=last + 1)).await.is_ok() {
        last += 1;
    }
    let refused = append(&wal, 1, lines(1..=6)).await;
    assert_eq!(refused, Err(Refused::Job), "all ranks of a job together");
    let mut other = declared(0);
    other.id.uid = "another".into();
    let opened = wal.stream(other).await.unwrap();
    wal.append(opened.number, lines(1..=1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_newer_log_has_a_greater_epoch_though_its_clock_went_back() {
    let first = disk();
    assert_eq!(open(&first, 100, LIMITS).await.epoch(), 100);
    // The same log keeps its name.
    assert_eq!(open(&first, 200, LIMITS).await.epoch(), 100);
    // Others, begun in the same second, and a year before.
    for born in [100, 3] {
        let other = disk();
        let wal = open(&other, born, LIMITS).await;
        wal.after(100).await.unwrap();
        assert_eq!(wal.epoch(), 101);
        wal.after(7).await.unwrap();
        let again = open(&other.crash(true), 1, LIMITS).await;
        assert_eq!(again.epoch(), 101);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_forgotten_only_when_its_pod_is_gone_and_the_sinks_are_done_with_it() {
    let disk = disk();
    let wal = open(&disk, 1, LIMITS).await;
    append(&wal, 0, lines(1..=3)).await.unwrap();
    append(&wal, 0, vec![end(3)]).await.unwrap();
    let there = async |wal: &Wal| wal.find(&declared(0).id).await.is_some();
    let cut = async |wal: &Wal, ordinal| {
        // Something of another stream, so that there is a segment.
        append(wal, 1, vec![gap(0)]).await.unwrap();
        let sealed = wal.seal().await.unwrap();
        let last = sealed.last().unwrap().0;
        wal.cut(last, std::collections::HashMap::from([(0, ordinal)]))
            .await;
    };
    wal.keep(HashSet::new()).await;
    assert_eq!(wal.untidy().await.unwrap(), []);
    cut(&wal, 4).await;
    cut(&wal, 4).await;
    assert!(there(&wal).await, "nobody has tidied up");
    let wal = open(&disk.crash(true), 1, LIMITS).await;
    wal.keep(HashSet::new()).await;
    assert_eq!(wal.untidy().await.unwrap(), [(0, declared(0))]);
    wal.tidied(vec![(0, true)]).await;
    cut(&wal, 4).await;
    assert!(!there(&wal).await);
}
