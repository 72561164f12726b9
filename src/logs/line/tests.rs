use proptest::prelude::*;

use super::*;

fn id(container: &str) -> StreamId {
    StreamId {
        namespace: "ml".into(),
        job: "bert".into(),
        uid: "u-1".into(),
        attempt: 2,
        rank: 3,
        container: container.into(),
    }
}

fn line(message: &[u8]) -> Line {
    Line {
        seq: 0,
        time: "2026-03-01T09:15:42.1Z".parse().unwrap(),
        observed: "2026-03-01T09:15:42.1Z".parse().unwrap(),
        output: Output::Unknown,
        flags: Flags::default(),
        message: message.into(),
    }
}

fn text(id: &StreamId, line: &Line) -> String {
    let mut to = Vec::new();
    Formatter::new(id).write(line, &mut to);
    String::from_utf8(to).unwrap()
}

#[test]
fn the_uniform_format() {
    let cases: [(&[u8], &str); 9] = [
        (b"loss 0.41", "loss 0.41"),
        (b"", ""),
        (b"a\tb", "a\tb"),
        ("größe ✓".as_bytes(), "größe ✓"),
        (b"10%\r20%", "10%\\x0d20%"),
        (b"\x1b[31mred", "\\x1b[31mred"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (br"C:\dir\x", r"C:\dir\x"),
        (br"\x41", r"\x5cx41"),
    ];
    for (message, expected) in cases {
        assert_eq!(
            text(&id("trainer"), &line(message)),
            format!("2026-03-01T09:15:42.100000000Z bert/2/3 - {expected}\n")
        );
    }
    let mut long = line(b"x");
    long.flags.partial = true;
    long.output = Output::Stderr;
    assert_eq!(
        text(&id("istio-proxy"), &long),
        "2026-03-01T09:15:42.100000000Z bert/2/3/istio-proxy stderr+ x\n"
    );
}

#[test]
fn what_is_no_line_is_refused() {
    for bad in [
        "",
        "hello",
        "2026-03-01T09:15:42Z",
        "2026-03-01T09:15:42Z bert/1 - x",
        "2026-03-01T09:15:42Z bert/one/0 - x",
        "2026-03-01T09:15:42Z bert/1/0 stdin x",
        "2026-03-01T09:15:42Z bert/1/0 -",
    ] {
        assert!(parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn every_line_comes_back(
        message in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            // Text made of what escapes are made of.
            "[\\\\x0-9a-f\u{80}\u{2028}\n]{0,40}".prop_map(String::into_bytes),
        ],
        nanos in any::<i64>(), partial in any::<bool>(), output in 0usize..3, side in any::<bool>(),
    ) {
        let id = id(if side { "side" } else { "trainer" });
        let line = Line {
            seq: 0,
            time: from_nanos(nanos),
            observed: from_nanos(nanos),
            output: Output::ALL[output],
            flags: Flags { partial, ..Flags::default() },
            message,
        };
        let text = text(&id, &line);
        prop_assert_eq!(text.matches(['\n', '\r']).count(), 1);
        prop_assert_eq!(text.lines().count(), 1);
        let parsed = parse(text.as_bytes()).unwrap();
        prop_assert_eq!(&parsed.line, &line);
        prop_assert_eq!((parsed.job, parsed.attempt, parsed.rank), ("bert", 2, 3));
        prop_assert_eq!(parsed.container, &id.container);
        prop_assert_eq!(time_of(text.as_bytes()), Some(line.time));
    }
}
