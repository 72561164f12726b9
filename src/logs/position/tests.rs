use super::*;

fn line(time: &str, message: &str) -> Line {
    Line {
        seq: 0,
        time: format!("2026-03-01T09:15:{time}Z").parse().unwrap(),
        output: crate::logs::line::Output::Unknown,
        partial: false,
        message: message.into(),
    }
}

/// Messages of the admitted lines, with ! after a possible gap.
fn admit(position: &mut Position, lines: &[(&str, &str)]) -> Vec<String> {
    lines
        .iter()
        .filter_map(
            |(time, message)| match position.admit(line(time, message)) {
                Admitted::Repeated => None,
                Admitted::New { line, gap } => Some(format!(
                    "{} {}{}",
                    line.seq,
                    String::from_utf8(line.message).unwrap(),
                    if gap { "!" } else { "" }
                )),
            },
        )
        .collect()
}

#[test]
fn a_reopened_stream_repeats_nothing_and_loses_nothing() {
    let mut position = Position::default();
    assert_eq!(position.since(), None);
    let first = [("10.5", "a"), ("10.5", "a"), ("10.9", "c"), ("10.8", "b")];
    assert_eq!(
        admit(&mut position, &first),
        ["1 a", "2 a", "3 c", "4 b"],
        "lines without an order of time are kept"
    );
    assert_eq!(
        position.since(),
        Some("2026-03-01T09:15:09Z".parse().unwrap())
    );
    position.reopened();
    let again = [
        ("10.5", "a"),
        ("10.5", "a"),
        ("10.5", "a"),
        ("10.9", "c"),
        ("10.8", "b"),
        ("10.85", "late"),
        ("11.0", "d"),
        ("10.9", "c"),
    ];
    assert_eq!(
        admit(&mut position, &again),
        ["5 a", "6 late", "7 d", "8 c"]
    );
}

#[test]
fn a_stream_that_repeats_nothing_may_have_a_gap() {
    let mut position = Position::resumed(7, &[line("10.5", "a")]);
    position.reopened();
    assert_eq!(
        admit(&mut position, &[("12.0", "x"), ("12.0", "y")]),
        ["8 x!", "9 y"]
    );
}

#[test]
fn what_is_older_than_memory_is_dropped_by_time() {
    let mut position = Position::default();
    for i in 0..REMEMBERED + 2 {
        position.admit(line(&format!("10.{i:06}"), "x"));
    }
    position.reopened();
    let again = [("10.000000", "x"), ("10.000001", "x"), ("10.000002", "x")];
    assert_eq!(admit(&mut position, &again), Vec::<String>::new());
    assert!(position.replaying());
}
