//! Tables of readings: which part is read next, what the kubelet shows, and what comes of it.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures::{StreamExt, TryStreamExt};

use super::*;

/// One answer of the log endpoint: what must be asked for, and what comes.
type Answer = (Part, bool, Result<&'static str, Refused>);

#[derive(Clone, Copy, Debug)]
enum Refused {
    Gone,
    Busy,
}

#[derive(Clone)]
struct Script(Arc<Mutex<VecDeque<Answer>>>);

impl Open for Script {
    type Reader = Pin<Box<dyn AsyncBufRead + Send>>;

    async fn open(&self, part: Part, follow: bool) -> Result<Self::Reader, OpenError> {
        let next = self.0.lock().unwrap().pop_front();
        let (wanted, follows, answer) = next.unwrap_or_else(|| panic!("{part:?} is read, too"));
        assert_eq!((part, follow), (wanted, follows));
        match answer {
            Ok(text) => {
                let open = text.ends_with('…');
                let text = text.trim_end_matches('…').replace('@', TIME).into_bytes();
                let data = futures::stream::iter([Ok::<_, io::Error>(text)]);
                Ok(if open {
                    Box::pin(data.chain(futures::stream::pending()).into_async_read())
                } else {
                    Box::pin(data.into_async_read())
                })
            }
            Err(Refused::Gone) => Err(OpenError::Gone),
            Err(Refused::Busy) => Err(OpenError::Failed("429".into())),
        }
    }

    fn now(&self) -> Timestamp {
        STARTED.parse().unwrap()
    }
}

const STARTED: &str = "2026-03-01T09:15:00Z";
/// What `@` in the tables stands for: what follows are tenths of seconds. `…`: the answer stays open.
const TIME: &str = "2026-03-01T09:15:0";

/// Reads an exited container to its end. Lines are their messages, gaps begin with `!`.
async fn read(answers: &[Answer]) -> (Vec<String>, bool) {
    read_from(Position::default(), ContainerState::Terminated, answers).await
}

async fn read_from(
    mut position: Position,
    state: ContainerState,
    answers: &[Answer],
) -> (Vec<String>, bool) {
    if position.seq() == 0 {
        position.starts(Some(STARTED.parse().unwrap()));
    }
    let script = Script(Arc::new(Mutex::new(answers.iter().copied().collect())));
    let (_sender, state) = watch::channel(state);
    let mut source = Source::new(script.clone(), state, position, Metrics::default());
    let mut all = Vec::new();
    let proven = loop {
        match source.next().await {
            Event::Records(records) => all.extend(records.into_iter().filter_map(|r| match r {
                Record::Line(line) => Some(String::from_utf8(line.message).unwrap()),
                Record::Gap(gap) => Some(format!("! {:?}", gap.reason)),
                Record::File(_) | Record::End(_) => None,
            })),
            Event::End { proven } => break proven,
        }
    };
    let left = script.0.lock().unwrap().len();
    assert_eq!(left, 0, "answers that nobody asked for");
    (all, proven)
}

const HEAD: Part = Part::Head(64);
const WHOLE: Part = Part::Whole;
const LAST: Part = Part::Tail(1);
const BUSY: Result<&str, Refused> = Err(Refused::Busy);

#[tokio::test(start_paused = true)]
async fn an_end_is_proven_by_the_last_line_alone_and_the_files_first_stamp() {
    let ab = "@1.0Z a\n@2.0Z b\n";
    let proof = [(LAST, false, Ok("@2.0Z b\n")), (HEAD, false, Ok("@1.0Z a"))];
    let whole = (WHOLE, false, Ok(ab));
    let tables: [(&str, Vec<Answer>, &[&str]); 8] = [
        ("at once", [vec![whole], proof.into()].concat(), &["a", "b"]),
        (
            "the first reading was cut short",
            [
                vec![
                    (WHOLE, false, Ok("@1.0Z a\n")),
                    (LAST, false, Ok("@2.0Z b\n")),
                    whole,
                ],
                proof.into(),
            ]
            .concat(),
            &["a", "b"],
        ),
        (
            "in the middle of a stamp, which is no line",
            [
                vec![(WHOLE, false, Ok("@1.0Z a\n@2.")), whole],
                proof.into(),
            ]
            .concat(),
            &["a", "b"],
        ),
        (
            "half a line is no line until it is proven",
            vec![
                (WHOLE, false, Ok("@1.0Z a\n@2.0Z hal")),
                (LAST, false, Ok("@2.0Z half")),
                (WHOLE, false, Ok("@1.0Z a\n@2.0Z half")),
                (LAST, false, Ok("@2.0Z half")),
                (HEAD, false, Ok("@1.0Z a\n")),
            ],
            &["a", "half"],
        ),
        (
            "the proof was refused, and empty",
            [
                vec![whole, (LAST, false, BUSY), (LAST, false, Ok("")), whole],
                proof.into(),
            ]
            .concat(),
            &["a", "b"],
        ),
        (
            "the kubelet's words instead of lines, and behind one",
            [
                vec![
                    (WHOLE, false, Ok("failed to open log file \"/x\"")),
                    (
                        WHOLE,
                        false,
                        Ok("@1.0Z afailed to read log file \"/x\": EIO"),
                    ),
                    whole,
                ],
                proof.into(),
            ]
            .concat(),
            &["a", "b"],
        ),
        (
            "the first stamp was cut off",
            [
                vec![whole, proof[0], (HEAD, false, Ok("@1.")), whole],
                proof.into(),
            ]
            .concat(),
            &["a", "b"],
        ),
        (
            "an empty log",
            [(WHOLE, false, Ok("")), (LAST, false, Ok(""))].repeat(3),
            &[],
        ),
    ];
    for (name, answers, lines) in tables {
        let (read, proven) = read(&answers).await;
        assert_eq!(read, lines, "{name}");
        assert!(proven, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_begins_otherwise_is_searched_for_a_stored_line() {
    let begun = (WHOLE, false, Ok("@1.0Z a\n@2.0Z b\n@3.0Z c\n"));
    let last = |text| (LAST, false, Ok(text));
    let tables: [(&str, Vec<Answer>, &[&str]); 2] = [
        (
            "the stream reaches into it",
            vec![
                begun,
                last("@3.0Z c\n"),
                (HEAD, false, Ok("@2.0Z b\n")),
                last("@3.0Z c\n"),
                (WHOLE, false, Ok("@2.0Z b\n@3.0Z c\n")),
                (WHOLE, false, Ok("@2.0Z b\n@3.0Z c\n")),
                last("@3.0Z c\n"),
                (HEAD, false, Ok("@2.0Z b\n")),
            ],
            &["a", "b", "c", "! RotatedWhileFollowed"],
        ),
        (
            "it does not",
            vec![
                begun,
                last("@8.0Z y\n"),
                (WHOLE, false, Ok("@7.0Z x\n@8.0Z y\n")),
                (Part::Tail(200), false, Ok("@8.0Z y\n")),
                (WHOLE, false, Ok("@7.0Z x\n@8.0Z y\n")),
                (WHOLE, false, Ok("@7.0Z x\n@8.0Z y\n")),
                last("@8.0Z y\n"),
                (HEAD, false, Ok("@7.0Z x\n")),
            ],
            &["a", "b", "c", "! RotatedAway", "x", "y"],
        ),
    ];
    for (name, answers, lines) in tables {
        let (read, proven) = read(&answers).await;
        assert_eq!(read, lines, "{name}");
        assert!(proven, "{name}: the end is, what is missing is a gap");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_gone_leaves_a_gap_and_the_beginning_of_its_last_line() {
    let gone = (Part::Whole, true, Err(Refused::Gone));
    let begun = (WHOLE, true, Ok("@1.0Z a\n@2.0Z hal"));
    let running = ContainerState::Running;
    let read = read_from(Position::default(), running, &[begun, gone]).await;
    assert_eq!(
        read,
        (vec!["a".into(), "hal".into(), "! PodGone".into()], false)
    );
    let read = read_from(Position::default(), running, &[gone]).await;
    assert_eq!(read, (vec!["! PodGone".into()], false));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_while_its_container_runs_goes_on_with_its_last_lines() {
    let answers = [
        (WHOLE, true, Ok("@1.0Z a\n@2.0Z b\n@3.0Z c\n@4.0Z d\n")),
        (Part::Tail(3), true, BUSY),
        (Part::Tail(3), true, Ok("@3.0Z c\n@4.0Z d\n@4.5Z e\n")),
        // Nothing in it is known: there are more new lines than were asked for.
        (
            Part::Tail(4),
            true,
            Ok("@6.0Z w\n@6.1Z x\n@6.2Z y\n@6.3Z z\n"),
        ),
        (
            WHOLE,
            true,
            Ok("@1.0Z a\n@2.0Z b\n@3.0Z c\n@4.0Z d\n@4.5Z e\n@5.0Z f\n@6.0Z w\n"),
        ),
        (Part::Tail(6), true, Err(Refused::Gone)),
    ];
    let (read, proven) = read_from(Position::default(), ContainerState::Running, &answers).await;
    assert_eq!(read, ["a", "b", "c", "d", "e", "f", "w", "! PodGone"]);
    assert!(!proven);
}

#[tokio::test(start_paused = true)]
async fn the_log_of_a_deleted_pod_that_the_kubelet_has_thrown_away_holds_the_pod_only_for_seconds()
{
    let begin = Instant::now();
    let words = "unable to retrieve container logs for containerd://1";
    let answers = vec![(WHOLE, false, Ok(words)); 5];
    let (lines, proven) = read_from(Position::default(), ContainerState::Discarded, &answers).await;
    assert_eq!((lines, proven), (vec!["! Unreadable".to_owned()], false));
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_falls_silent_is_looked_at_once_and_keeps_no_memory_for_it() {
    let text = "@1.0Z a line of forty bytes\n".repeat(3000) + "…";
    let answers = [
        (WHOLE, true, Ok(&*text.leak())),
        (HEAD, false, Ok("@1.0Z a line")),
    ];
    let script = Script(Arc::new(Mutex::new(answers.into())));
    let (_sender, state) = watch::channel(ContainerState::Running);
    let mut position = Position::default();
    position.starts(Some(STARTED.parse().unwrap()));
    let mut source = Source::new(script.clone(), state, position, Metrics::default());
    let mut lines = 0;
    // Less than after which it would be opened again.
    let silent = tokio::time::timeout(Duration::from_secs(250), async {
        loop {
            match source.next().await {
                Event::Records(records) => lines += records.len() - usize::from(lines == 0),
                Event::End { .. } => panic!("it ended"),
            }
        }
    });
    silent.await.unwrap_err();
    assert_eq!(lines, 3000);
    assert!(script.0.lock().unwrap().is_empty(), "nobody looked");
}
