use super::*;
use crate::logs::line::{Flags, Output};

fn line(time: &str, message: &str) -> Line {
    let time: Timestamp = format!("2026-03-01T09:15:{time}Z").parse().unwrap();
    Line {
        seq: 0,
        time,
        observed: time,
        output: Output::Unknown,
        flags: Flags::default(),
        message: message.into(),
    }
}

/// What a reading brings, as `seq message`; ? where the reading is of no more use, ! for a gap.
fn read(position: &mut Position, part: Part, lines: &[(&str, &str)]) -> Vec<String> {
    position.begin(part);
    let mut new = Vec::new();
    for (time, message) in lines {
        match position.admit(line(time, message), true) {
            Admitted::Stored => {}
            Admitted::Unknown => {
                new.push("?".into());
                return new;
            }
            Admitted::New(records) => new.extend(records.into_iter().filter_map(|r| match r {
                Record::Line(l) => Some(format!(
                    "{} {}",
                    l.seq,
                    String::from_utf8(l.message).unwrap()
                )),
                Record::Gap(gap) => Some(format!("! {:?}", gap.reason)),
                Record::File(_) | Record::End(_) => None,
            })),
        }
    }
    new
}

fn begun(lines: &[(&str, &str)]) -> Position {
    let mut position = Position::default();
    position.starts(None);
    read(&mut position, Part::Whole, lines);
    position
}

#[test]
fn thousands_of_identical_lines_are_counted() {
    let same = vec![("10.5", "x"); 5000];
    let mut position = begun(&same[..3000]);
    let new = read(&mut position, Part::Whole, &same);
    assert_eq!(new.len(), 2000);
    assert_eq!(position.seq(), 5000);
    // The end of it alone says nothing.
    assert_eq!(
        read(&mut position, Part::Tail(512), &same[..512]),
        Vec::<String>::new()
    );
    assert!(position.undecided());
}

#[test]
fn lines_whose_clock_went_back_are_kept() {
    let mut position = begun(&[("10.5", "a"), ("10.9", "b"), ("10.7", "c")]);
    let again = [("10.9", "b"), ("10.7", "c"), ("01.0", "d"), ("00.5", "e")];
    assert_eq!(read(&mut position, Part::Tail(2), &again), ["4 d", "5 e"]);
}

#[test]
fn the_first_line_of_a_tail_may_be_a_cut_one() {
    let mut position = begun(&[("10.1", "a long line"), ("10.2", "b"), ("10.3", "c")]);
    let again = [
        ("10.15", "line"),
        ("10.2", "b"),
        ("10.3", "c"),
        ("10.4", "d"),
    ];
    assert_eq!(read(&mut position, Part::Tail(3), &again), ["4 d"]);
    assert_eq!(
        read(
            &mut position,
            Part::Tail(3),
            &[("11.0", "y"), ("11.1", "z")]
        ),
        ["?"]
    );
}

#[test]
fn another_file_is_searched_for_where_the_stream_ends() {
    let stored = [("10.1", "a"), ("10.2", "b"), ("10.3", "c"), ("10.4", "d")];
    let search = |position: &Position, file: &[(&str, &str)], until: &str| {
        let until = Some(nanos(line(until, "").time));
        let mut locator = Locator::new(position, until);
        for (time, message) in file {
            if locator.feed(&line(time, message), true) {
                break;
            }
        }
        locator.found()
    };
    // The stream reaches into it: the seam is between b and c.
    let mut position = begun(&stored);
    let file = [("10.3", "c"), ("10.4", "d"), ("10.5", "e")];
    assert_eq!(read(&mut position, Part::Whole, &file), ["?"]);
    let found = search(&position, &file, "10.5").unwrap();
    assert_eq!(found.stream_has, Some(3));
    let records = position.located(&found);
    assert!(matches!(&records[..], [Record::Gap(gap), Record::File(_)]
        if gap.after_seq == 2 && gap.reason == Reason::RotatedWhileFollowed));
    assert_eq!(read(&mut position, Part::Whole, &file), ["5 e"]);

    // It does not: everything is new, behind a gap.
    let file = [("20.3", "x"), ("20.4", "y")];
    assert_eq!(
        search(&position, &file[..1], "20.4"),
        None,
        "it was cut short"
    );
    let found = search(&position, &file, "20.4").unwrap();
    let records = position.located(&found);
    assert!(matches!(&records[..], [Record::Gap(gap)]
        if gap.after_seq == 5 && gap.reason == Reason::RotatedAway));
    assert_eq!(read(&mut position, Part::Whole, &file), ["6 x", "7 y"]);
}

#[test]
fn a_rotation_is_found_where_it_was() {
    let mut position = begun(&[("10.1", "a"), ("10.2", "b"), ("10.3", "c"), ("10.4", "d")]);
    let time = |t| nanos(line(t, "").time);
    assert_eq!(position.head_seen(time("10.1"), 2, true), Some(vec![]));
    assert_eq!(position.stamps.capacity(), 2, "no memory is kept of them");
    let seen = position.head_seen(time("10.4"), 4, true).unwrap();
    assert!(matches!(&seen[0], Record::Gap(gap) if (gap.not_before, gap.after_seq) == (3, 3)));
    // One whose line has not come yet.
    assert_eq!(position.head_seen(time("10.6"), 4, true), Some(vec![]));
    position.reading = Reading::Counting {
        next: 5,
        first: false,
    };
    let mut records = Vec::new();
    for (time, message) in [("10.5", "e"), ("10.6", "f")] {
        let Admitted::New(new) = position.admit(line(time, message), true) else {
            panic!()
        };
        records.extend(new);
    }
    assert!(
        records
            .iter()
            .any(|r| matches!(r, Record::Gap(gap) if gap.after_seq == 5))
    );
}

#[test]
fn an_end_is_proven_by_its_last_line_alone() {
    let position = begun(&[("10.1", "a"), ("10.2", "b"), ("10.3", "c"), ("10.3", "c")]);
    let holds = |lines: &[(&str, &str)]| {
        let mut proof = position.proof();
        for (time, message) in lines {
            proof.feed(&line(time, message), true);
        }
        proof.holds()
    };
    assert!(holds(&[("10.2", "b"), ("10.3", "c"), ("10.3", "c")]));
    assert!(
        !holds(&[("10.3", "c"), ("10.3", "c")]),
        "there may be three of them"
    );
    assert!(!holds(&[("10.2", "b"), ("10.3", "c")]));
    assert!(!holds(&[
        ("10.2", "b"),
        ("10.3", "c"),
        ("10.3", "c"),
        ("10.4", "d")
    ]));
    assert!(!holds(&[]));
}

#[test]
fn a_log_that_was_opened_late_may_lack_its_beginning() {
    let started = Some(line("00.0", "").time);
    for (opened, first, gap) in [
        ("02.0", "59.0", false),
        ("50.0", "01.5", false),
        ("50.0", "40.0", true),
    ] {
        let mut position = Position::default();
        position.starts(started);
        position.opened(line(opened, "").time);
        let new = read(&mut position, Part::Whole, &[(first, "a")]);
        assert_eq!(new.len(), 1 + usize::from(gap), "{new:?}");
    }
}

#[test]
fn what_is_kept_goes_on_after_a_restart() {
    let lines: Vec<(String, String)> = (0..200)
        .map(|n| (format!("{:06.3}", f64::from(n) / 10.0), format!("line {n}")))
        .collect();
    let lines: Vec<(&str, &str)> = lines
        .iter()
        .map(|(t, m)| (t.as_str(), m.as_str()))
        .collect();
    let position = begun(&lines[..150]);
    let text = serde_json::to_string(&position.kept()).unwrap();
    let mut position: Position = serde_json::from_str(&text).unwrap();
    let Part::Tail(n) = position.resume() else {
        panic!()
    };
    let tail = &lines[180 - n as usize..180];
    assert_eq!(
        read(&mut position.clone(), position.resume(), tail).len(),
        30
    );
    assert_eq!(read(&mut position, Part::Whole, &lines).len(), 50);
}
