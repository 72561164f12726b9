use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use futures::io::Cursor;

use super::*;

/// The streams still to come, and how those before were opened.
type State = (VecDeque<Vec<u8>>, Vec<String>);

/// Streams one after another; after the last one the pod is gone.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<State>>);

impl Open for Script {
    type Reader = Cursor<Vec<u8>>;

    async fn open(
        &self,
        since: Option<Timestamp>,
        follow: bool,
    ) -> Result<Self::Reader, OpenError> {
        let mut script = self.0.lock().unwrap();
        let since = since.map(|t| t.to_string()).unwrap_or_default();
        script.1.push(format!(
            "{since} {}",
            if follow { "follow" } else { "read" }
        ));
        script.0.pop_front().map(Cursor::new).ok_or(OpenError::Gone)
    }
}

struct Run {
    opened: Vec<String>,
    lines: Vec<String>,
    complete: bool,
    metrics: Metrics,
}

/// All lines of a source over `streams`, as `seq message`, + where they are partial. The container
/// runs until `running` streams have been opened.
async fn run(running: usize, streams: &[&[u8]]) -> Run {
    let script = Script::default();
    script.0.lock().unwrap().0 = streams.iter().map(|s| s.to_vec()).collect();
    let (state, receiver) = watch::channel(ContainerState::Running);
    let metrics = Metrics::default();
    let mut source = Source::new(
        script.clone(),
        receiver,
        Position::default(),
        metrics.clone(),
    );
    let watch = {
        let script = script.clone();
        tokio::spawn(async move {
            loop {
                if script.0.lock().unwrap().1.len() >= running {
                    state.send_replace(ContainerState::Terminated);
                    state.closed().await;
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    };
    let mut lines = Vec::new();
    let complete = loop {
        match source.next().await {
            Event::Lines(new) => lines.extend(new.into_iter().map(|l| {
                let message = if l.message.len() > 100 {
                    format!("[{}]", l.message.len())
                } else {
                    l.message.escape_ascii().to_string()
                };
                format!("{} {message}{}", l.seq, if l.partial { "+" } else { "" })
            })),
            Event::End { complete } => break complete,
        }
    };
    drop(source);
    watch.abort();
    let opened = script.0.lock().unwrap().1.clone();
    Run {
        opened,
        lines,
        complete,
        metrics,
    }
}

#[tokio::test]
async fn a_stream_that_ends_is_reopened_without_repeating_or_losing() {
    let run = run(
        2,
        &[
            b"2026-03-01T09:00:10.5Z a\n2026-03-01T09:00:10.5Z a\n2026-03-01T09:00:11.5Z half of a li",
            b"2026-03-01T09:00:10.5Z a\n2026-03-01T09:00:10.5Z a\n2026-03-01T09:00:10.5Z a\n2026-03-01T09:00:11.5Z half of a line\n2026-03-01T09:00:12Z \xff\r\n",
            b"the end of a long line\n2026-03-01T09:00:11.5Z half of a line\n2026-03-01T09:00:12Z \xff\r\n2026-03-01T10:00:13+01:00 \n2026-03-01T09:00:14Z no newline",
        ],
    )
    .await;
    assert_eq!(
        run.lines,
        [
            "1 a",
            "2 a",
            "3 a",
            "4 half of a line",
            "5 \\xff\\r",
            "6 ",
            "7 no newline"
        ]
    );
    assert_eq!(
        run.opened,
        [
            " follow",
            "2026-03-01T09:00:09Z follow",
            "2026-03-01T09:00:11Z read"
        ]
    );
    assert!(run.complete);
    assert_eq!(run.metrics.gaps.get(), 0);
}

#[tokio::test]
async fn a_huge_line_is_split_in_the_same_places_each_time() {
    let mut huge = b"2026-03-01T09:00:10Z ".to_vec();
    huge.resize(MAX_PIECE * 2 + 10, b'x');
    huge.push(b'\n');
    let cut = huge[..MAX_PIECE + 7].to_vec();
    let run = run(1, &[&cut, &huge]).await;
    let first = MAX_PIECE - 21;
    assert_eq!(
        run.lines,
        [
            format!("1 [{first}]+"),
            format!("2 [{MAX_PIECE}]+"),
            "3 xxxxxxxxxx".into()
        ]
    );
    assert!(run.complete);
}

#[tokio::test]
async fn what_came_of_a_line_is_kept_when_the_pod_vanishes() {
    let run = run(9, &[b"2026-03-01T09:00:10Z a\n2026-03-01T09:00:11Z hal"]).await;
    assert_eq!(run.lines, ["1 a", "2 hal+"]);
    assert!(!run.complete);
}

#[tokio::test]
async fn the_kubelets_own_words_are_no_lines_and_prove_nothing() {
    let run = run(
        0,
        &[b"unable to retrieve container logs for containerd://abc"],
    )
    .await;
    assert_eq!(run.lines, Vec::<String>::new());
    assert!(!run.complete);
    assert_eq!(run.metrics.foreign.get(), 1);
}

#[tokio::test]
async fn a_gap_is_counted_and_the_end_not_proven() {
    let run = run(
        1,
        &[b"2026-03-01T09:00:10Z a\n", b"2026-03-01T09:00:20Z z\n"],
    )
    .await;
    assert_eq!(run.lines, ["1 a", "2 z"]);
    assert_eq!(run.metrics.gaps.get(), 1);
    assert!(!run.complete);
}

#[tokio::test]
async fn a_container_that_has_not_started_is_not_asked() {
    let script = Script::default();
    let (state, receiver) = watch::channel(ContainerState::Waiting);
    let mut source = Source::new(
        script.clone(),
        receiver,
        Position::default(),
        Metrics::default(),
    );
    let wait = tokio::time::timeout(Duration::from_millis(20), source.next());
    assert!(wait.await.is_err());
    assert_eq!(script.0.lock().unwrap().1, Vec::<String>::new());
    drop(state);
    assert!(matches!(
        source.next().await,
        Event::End { complete: false }
    ));
}
