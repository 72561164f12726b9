//! What the generator writes is right, and the checker notices whatever happens to it.

use clap::ValueEnum;
use proptest::prelude::*;

use super::*;
use crate::logs::{
    line::{Flags, Line, from_nanos},
    record::{Gap, Reason},
};

/// The lines of a run, in the order in which it wrote them.
fn written(seed: u32, kinds: &[Kind], pieces: usize) -> Vec<Vec<u8>> {
    let mut generator = Generator::new(seed, kinds);
    let mut lines = Vec::new();
    for _ in 0..pieces {
        let piece = generator.piece();
        let whole = piece.bytes.strip_suffix(b"\n").unwrap();
        lines.extend(whole.split(|b| *b == b'\n').map(<[u8]>::to_vec));
    }
    for piece in generator.end() {
        let whole = piece.bytes.strip_suffix(b"\n").unwrap_or(&piece.bytes);
        lines.push(whole.to_vec());
    }
    lines
}

/// Kinds of which a hundred pieces are quickly made.
const SMALL: [Kind; 6] = [
    Kind::Plain,
    Kind::Byte,
    Kind::Empty,
    Kind::Progress,
    Kind::Ansi,
    Kind::Binary,
];

fn stored(seq: u64, message: &[u8], partial: bool) -> Line {
    Line {
        seq,
        time: from_nanos(0),
        observed: from_nanos(0),
        output: Output::Unknown,
        flags: Flags {
            partial,
            ..Flags::default()
        },
        message: message.to_vec(),
    }
}

/// As the collector stores them: long ones in pieces, the last one without a newline.
fn check(lines: &[Vec<u8>], gaps: &[Gap]) -> Checked {
    let mut checker = Checker::default();
    let mut seq = 0;
    let mut store = |message: &[u8], partial| {
        seq += 1;
        checker.line(&stored(seq, message, partial));
    };
    for (at, line) in lines.iter().enumerate() {
        let mut rest = line.as_slice();
        while rest.len() > 256 * 1024 {
            let (piece, further) = rest.split_at(256 * 1024);
            store(piece, true);
            rest = further;
        }
        store(rest, at + 1 == lines.len());
    }
    checker.finish(gaps)
}

fn output_of(line: &[u8]) -> Output {
    plain_output(line).unwrap_or_else(|| Numbered::parse(line).unwrap().output)
}

#[test]
fn every_kind_is_written_and_is_found_whole() {
    for kind in Kind::value_variants() {
        let lines = written(7, &[*kind], 3);
        let checked = check(&lines, &[]);
        assert_eq!(checked.problems, [], "{kind:?}");
        let stored = (checked.numbered + checked.unnumbered) as usize;
        assert_eq!(stored, lines.len(), "{kind:?}");
        assert!(lines.iter().all(|line| !line.ends_with(b"\r")), "{kind:?}");
        let some = |what: &dyn Fn(&[u8]) -> bool| lines.iter().any(|line| what(line));
        assert!(
            match kind {
                Kind::Plain => some(&|line| line.windows(5).any(|w| w == b" loss")),
                Kind::Burst => lines.len() > 150,
                Kind::Byte => lines.iter().filter(|line| line.len() == 1).count() == 3 * 26,
                Kind::Empty => some(&<[u8]>::is_empty),
                Kind::Progress => some(&|line| line.iter().filter(|b| **b == b'\r').count() == 11),
                Kind::Ansi => some(&|line| line.contains(&0x1b)),
                Kind::Binary => some(&|line| std::str::from_utf8(line).is_err()),
                Kind::Long => some(&|line| line.len() > LONG),
                Kind::Huge => some(&|line| line.len() > 1024 * 1024),
                Kind::Same =>
                    lines
                        .iter()
                        .filter(|line| SAME.contains(&&line[..]))
                        .count()
                        > 5000,
            },
            "{kind:?}"
        );
    }
}

#[test]
fn a_short_run_has_all_kinds_on_both_outputs_and_the_same_seed_writes_the_same() {
    let lines = written(1, &[], 60);
    assert_eq!(check(&lines, &[]).problems, []);
    assert_eq!(lines, written(1, &[], 60));
    assert_ne!(lines, written(2, &[], 60));
    for output in [Output::Stdout, Output::Stderr] {
        assert!(
            lines
                .iter()
                .filter(|line| output_of(line) == output)
                .count()
                > 10
        );
    }
    assert!(lines.iter().any(Vec::is_empty));
    assert!(lines.iter().any(|line| line.len() > 1024 * 1024));
}

#[test]
fn only_a_gap_in_the_right_place_explains_what_is_missing() {
    let mut lines = written(1, &SMALL, 120);
    let whole = lines.len();
    // In the middle, without the numbers at both of its ends being missing.
    lines.drain(100..140);
    let gap = |not_before, after_seq| Gap {
        after_seq,
        not_before,
        from: None,
        to: None,
        reason: Reason::RotatedAway,
        lost: None,
    };
    assert_ne!(check(&lines, &[]).problems, []);
    let explained = check(&lines, &[gap(100, 100)]);
    assert_eq!(explained.problems, []);
    assert!(explained.in_gaps > 0 && explained.in_gaps <= 40);
    assert_eq!(check(&lines, &[gap(60, 100)]).problems, []);
    for wrong in [gap(0, 10), gap(140, 140)] {
        assert_ne!(check(&lines, &[wrong]).problems, []);
    }
    // A missing end is one like any other, and a repeated line is explained by nothing.
    let mut lines = written(1, &SMALL, 120);
    lines.truncate(whole - 20);
    let end = lines.len() as u64;
    assert_ne!(check(&lines, &[gap(10, 10)]).problems, []);
    assert_eq!(check(&lines, &[gap(end, end)]).problems, []);
    let mut lines = written(1, &SMALL, 60);
    let numbered = lines
        .iter()
        .position(|line| line.starts_with(MAGIC))
        .unwrap();
    let again = lines[numbered].clone();
    lines.insert(numbered, again);
    assert_ne!(check(&lines, &[gap(0, 1000)]).problems, []);
}

#[test]
fn a_line_of_another_container_is_noticed() {
    let mut lines = written(1, &SMALL, 20);
    let foreign = written(2, &[Kind::Plain], 1).remove(0);
    lines.insert(12, foreign);
    let problems = check(&lines, &[]).problems;
    assert!(
        matches!(problems[..], [Problem::Foreign(13)]),
        "{problems:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_lost_line_is_noticed_wherever_it_was(seed in 0..20u32, at: prop::sample::Index) {
        let mut lines = written(seed, &SMALL, 40);
        lines.remove(at.index(lines.len()));
        prop_assert_ne!(check(&lines, &[]).problems, []);
    }

    #[test]
    fn a_repeated_line_is_noticed_wherever_it_comes(seed in 0..20u32, at: prop::sample::Index, later: prop::sample::Index) {
        let mut lines = written(seed, &SMALL, 40);
        let at = at.index(lines.len());
        let line = lines[at].clone();
        let later = at + 1 + later.index(lines.len() - at);
        lines.insert(later, line);
        prop_assert_ne!(check(&lines, &[]).problems, []);
    }

    #[test]
    fn swapped_lines_are_noticed(seed in 0..20u32, at: prop::sample::Index) {
        let mut lines = written(seed, &SMALL, 40);
        let at = at.index(lines.len());
        // The next one of the same output: the order between the two outputs is nobody's.
        let output = output_of(&lines[at]);
        let next = (at + 1..lines.len()).find(|next| output_of(&lines[*next]) == output);
        prop_assume!(next.is_some_and(|next| lines[next] != lines[at]));
        lines.swap(at, next.unwrap());
        prop_assert_ne!(check(&lines, &[]).problems, []);
    }

    #[test]
    fn a_damaged_byte_is_noticed(seed in 0..20u32, at: prop::sample::Index, byte: prop::sample::Index, to: u8) {
        let mut lines = written(seed, &SMALL, 40);
        let at = at.index(lines.len());
        prop_assume!(!lines[at].is_empty());
        let byte = byte.index(lines[at].len());
        prop_assume!(lines[at][byte] != to);
        lines[at][byte] = to;
        prop_assert_ne!(check(&lines, &[]).problems, []);
    }

    #[test]
    fn a_cut_off_line_is_noticed(seed in 0..20u32, at: prop::sample::Index, cut: prop::sample::Index) {
        let mut lines = written(seed, &SMALL, 40);
        let at = at.index(lines.len());
        prop_assume!(!lines[at].is_empty());
        let cut = cut.index(lines[at].len());
        lines[at].truncate(cut);
        prop_assert_ne!(check(&lines, &[]).problems, []);
    }
}
