use proptest::prelude::*;

use super::{
    decode::{Footer, Piece},
    *,
};
use crate::logs::line::{Flags, Output, from_nanos};

fn id() -> StreamId {
    StreamId {
        namespace: "ml".into(),
        job: "bert".into(),
        uid: "u-1".into(),
        attempt: 2,
        rank: 3,
        container: "trainer".into(),
    }
}

fn all(data: Vec<u8>) -> Vec<Line> {
    let mut decoder = Decoder::new(data.into()).unwrap();
    let mut lines = Vec::new();
    loop {
        let batch = decoder.next_lines().unwrap();
        if batch.is_empty() {
            assert_eq!(decoder.lines(), lines.len() as u64);
            return lines;
        }
        lines.extend(batch);
    }
}

proptest! {
    #[test]
    fn every_byte_sequence_comes_back(
        messages in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40), ".{0,20}".prop_map(String::into_bytes),
        ], 0..40),
        time in any::<i64>(), bits in any::<u8>(),
    ) {
        let lines: Vec<Line> = messages.into_iter().zip(1..).map(|(message, seq)| Line {
            seq,
            time: from_nanos(time.wrapping_add(seq.cast_signed())),
            observed: from_nanos(time),
            output: Output::ALL[usize::from(bits % 3)],
            flags: Flags::from_bits((bits ^ u8::try_from(seq).unwrap()) & 7),
            message,
        }).collect();
        let data = encode(&id(), &Origin::default(), &lines, 1).unwrap();
        prop_assert_eq!(all(data), lines);
    }
}

#[test]
fn a_long_file_has_row_groups_and_says_who_wrote_it() {
    let line = |seq: u64| Line {
        seq,
        time: from_nanos(seq.cast_signed() * 1000),
        observed: from_nanos(0),
        output: Output::Unknown,
        flags: Flags::default(),
        message: format!("step {seq} loss 0.{seq} {}", "x".repeat(100)).into(),
    };
    let lines: Vec<Line> = (1..100_000).map(line).collect();
    let origin = Origin {
        node: "gpu-7".into(),
        image: "pytorch".into(),
        ..Origin::default()
    };
    let data = encode(&id(), &origin, &lines, 1).unwrap();
    let raw: usize = lines.iter().map(|l| l.message.len()).sum();
    assert!(data.len() * 10 < raw, "{} of {raw}", data.len());
    let whole = Piece {
        at: 0,
        data: data.clone().into(),
    };
    let footer = Footer::parse(&whole).unwrap();
    assert!(footer.groups() > 2);
    let rows = footer.rows(1, whole, None).unwrap();
    assert_eq!(rows.origin().unwrap(), origin);
    assert_eq!(all(data), lines);
}

/// As the reader does it: groups that the index rules out are not looked at.
fn search(data: Vec<u8>, grep: &grep::Grep) -> (Vec<u64>, usize) {
    let whole = Piece {
        at: 0,
        data: data.into(),
    };
    let footer = Footer::parse(&whole).unwrap();
    let (mut found, mut skipped) = (Vec::new(), 0);
    for group in 0..footer.groups() {
        let index = whole.get(&footer.index(group).unwrap()).unwrap();
        if !grep.query().may_be_in(&index) {
            skipped += 1;
            continue;
        }
        let mut rows = footer.rows(group, whole.clone(), Some(grep)).unwrap();
        loop {
            let lines = rows.next_lines(Some(grep)).unwrap();
            if lines.is_empty() {
                break;
            }
            found.extend(lines.iter().map(|line| line.seq));
        }
    }
    (found, skipped)
}

fn numbered(messages: Vec<Vec<u8>>) -> Vec<Line> {
    let line = |(message, seq)| Line {
        seq,
        time: from_nanos(0),
        observed: from_nanos(0),
        output: Output::Unknown,
        flags: Flags::default(),
        message,
    };
    messages.into_iter().zip(1..).map(line).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_line_is_hidden_by_the_index(
        messages in prop::collection::vec(prop_oneof![
            "[abAB kKsS\u{17f}\u{212a}é]{0,12}".prop_map(String::into_bytes),
            prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(b'k'), any::<u8>()], 0..10),
        ], 1..40),
        pattern in prop_oneof![
            "[abks]{1,5}",
            r"\(\?i\)[abAKsé\u{17f}]{1,5}",
            r"[abk]{0,3}(\.|\.\*|\+|\?|\{2\})?[abks]{0,4}(\|[abk]{1,4})?\$?",
            r"\^?\((ab|ka|aab)\|[abk]{2,4}\)[ab]{0,2}",
        ],
        group in 1..12usize,
    ) {
        let Ok(grep) = grep::Grep::new(&pattern) else { return Ok(()) };
        let plain = regex::bytes::Regex::new(&pattern).unwrap();
        let lines = numbered(messages);
        let expected: Vec<u64> = lines.iter()
            .filter(|l| plain.is_match(&l.message)).map(|l| l.seq).collect();
        let data = encode_groups(&id(), &Origin::default(), &lines, 1, group).unwrap();
        prop_assert_eq!(search(data, &grep).0, expected, "{}", pattern);
    }
}

#[test]
fn groups_without_the_text_are_not_looked_at() {
    let messages = (0..3000).map(|n| format!("step {n} loss 0.{n}").into_bytes());
    let mut messages: Vec<_> = messages.collect();
    messages[1234] = b"CUDA error: device-side assert".to_vec();
    let data = encode_groups(&id(), &Origin::default(), &numbered(messages), 1, 100).unwrap();
    let grep = grep::Grep::new("(?i)cuda ERROR").unwrap();
    assert_eq!(search(data, &grep), (vec![1235], 29));
}
