use tempfile::TempDir;

use super::*;
use crate::logs::{
    line::{Flags, Origin, Output, from_nanos},
    wal::frame::Declared,
};

fn shipment(seqs: std::ops::RangeInclusive<u64>) -> Shipment {
    let line = |seq: u64| {
        Record::Line(Line {
            seq,
            time: from_nanos(seq.cast_signed()),
            observed: from_nanos(0),
            output: Output::Unknown,
            flags: Flags::default(),
            message: format!("line {seq}").into(),
        })
    };
    let id = StreamId {
        namespace: "ml".into(),
        job: "bert".into(),
        uid: "u-1".into(),
        attempt: 1,
        rank: 0,
        container: "trainer".into(),
    };
    Shipment {
        declared: Declared {
            id,
            origin: Origin::default(),
        },
        epoch: 1,
        segment: 1,
        records: seqs.map(line).collect(),
    }
}

/// Names and the numbers of the lines of all files, in order.
fn files(dir: &TempDir) -> Vec<(String, Vec<u64>)> {
    let folder = dir
        .path()
        .join(layout::folder(&shipment(1..=1).declared.id).unwrap());
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let seqs = text
                .lines()
                .map(|l| l.rsplit(' ').next().unwrap().parse().unwrap());
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, seqs.collect())
        })
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn lines_come_once_and_files_are_rotated_also_after_a_crash() {
    let dir = TempDir::new().unwrap();
    for (lines, restart) in [(1..=2, false), (1..=2, true), (3..=5, false), (4..=9, true)] {
        let sink = TextFiles::new(dir.path().into(), 150);
        sink.store(&shipment(lines.clone())).await.unwrap();
        if restart {
            // Half a line, as a crash leaves it.
            let (name, _) = files(&dir).pop().unwrap();
            let folder = dir
                .path()
                .join(layout::folder(&shipment(1..=1).declared.id).unwrap());
            let path = folder.join(name);
            let text = fs::read(&path).unwrap();
            fs::write(&path, [text.as_slice(), b"2026-03-01T09"].concat()).unwrap();
        } else {
            sink.store(&shipment(lines)).await.unwrap();
        }
    }
    TextFiles::new(dir.path().into(), 150)
        .store(&shipment(9..=10))
        .await
        .unwrap();
    let expected = [
        ("trainer-000000000001.log", vec![1, 2, 3]),
        ("trainer-000000000004.log", vec![4, 5, 6]),
        ("trainer-000000000007.log", vec![7, 8, 9]),
        ("trainer-000000000010.log", vec![10]),
    ];
    assert_eq!(files(&dir), expected.map(|(n, s)| (n.to_owned(), s)));
}
