use proptest::prelude::*;

use super::*;

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
    let decoder = Decoder::new(data.clone().into()).unwrap();
    assert!(decoder.file.num_row_groups() > 2);
    assert_eq!(decoder.origin().unwrap(), origin);
    assert_eq!(all(data), lines);
}
