//! Requests that get something else than the log: status codes, resets, and the kubelet's words in the
//! place of lines.

use futures::future::join_all;
use trainyard::logs::record::Reason;

use crate::{
    kubelet::{
        Break, Refusal,
        Trouble::{self, Cut, Refused, Reset, Words, WordsBehind},
    },
    pipeline::{Pipeline, Rank, all_whole, until},
};

/// The kubelet's words in the place of lines, as `kubelet_pods.go`, `kuberuntime_container.go` and
/// `logs.go` write them: with status 200, and with no newline.
const WORDS: [&str; 6] = [
    "unable to retrieve container logs for containerd://0123456789abcdef",
    "failed to try resolving symlinks in path \"/var/log/pods/ml_p_u/trainer/0.log\": lstat /var/log/pods/ml_p_u/trainer/0.log: no such file or directory",
    "failed to open log file \"/var/log/pods/ml_p_u/trainer/0.log\": open /var/log/pods/ml_p_u/trainer/0.log: permission denied",
    "rpc error: code = NotFound desc = an error occurred when try to find container \"0123\": not found",
    "container status is nil",
    "failed to get parse function: unsupported log format: \"garbage here\\n\"",
];
/// What it says behind lines that it has read.
const BEHIND: [&str; 3] = [
    "failed to create fsnotify watcher: too many open files",
    "failed to read log file \"/var/log/pods/ml_p_u/trainer/0.log\": read: input/output error",
    "unable to retrieve container logs for containerd://0123456789abcdef",
];

/// Each of them, by name.
fn refusals(pod: &str) -> Vec<(String, Vec<Trouble>)> {
    let refused = |refusal: &Refusal| Refused(refusal.clone());
    let mut all: Vec<(String, Vec<Trouble>)> = [
        ("429", vec![refused(&Refusal::too_many()); 3]),
        ("500-no-node", vec![refused(&Refusal::no_node()); 3]),
        (
            "404-kubelet-restarted",
            vec![refused(&Refusal::unknown_to_kubelet(pod)); 2],
        ),
        (
            "400-waiting",
            vec![refused(&Refusal::waiting(
                pod,
                "trainer",
                "ContainerCreating",
            ))],
        ),
        ("reset", vec![Reset; 3]),
    ]
    .map(|(name, troubles)| (name.to_owned(), troubles))
    .into();
    let words = (0..)
        .zip(WORDS)
        .map(|(n, w)| (format!("words-{n}"), vec![Words(w); 2]));
    all.extend(words);
    let behind = (0..).zip(BEHIND);
    all.extend(behind.map(|(n, w)| (format!("behind-{n}"), vec![WordsBehind(w); 2])));
    all
}

async fn live(pipeline: &Pipeline, name: String, place: usize, troubles: Vec<Trouble>) -> Rank {
    let mut rank = pipeline.follow_from(&name, |rank| {
        if place == 1 {
            rank.pod.trouble([Cut(100, Break::Reset)]);
        }
        if place < 2 {
            rank.pod.trouble(troubles.clone());
        }
    });
    for n in 0..5 {
        rank.write(format!("line {n}").as_bytes());
    }
    pipeline.has(&rank, 5).await;
    rank.write_next(b"no newline", false);
    if place == 2 {
        rank.pod.trouble(troubles);
    }
    rank.exit();
    rank
}

#[tokio::test]
async fn a_refused_request_loses_and_repeats_nothing() {
    let pipeline = Pipeline::plain().await;
    let mut worlds = Vec::new();
    for (at, place) in ["first", "after-a-break", "end"].into_iter().enumerate() {
        for (name, troubles) in refusals(place) {
            worlds.push(live(&pipeline, format!("{name}-{place}"), at, troubles));
        }
    }
    all_whole(&pipeline, join_all(worlds).await).await;
}

#[tokio::test]
async fn a_pod_that_vanished_before_its_end_was_read_is_a_gap() {
    let pipeline = Pipeline::plain().await;
    // As the API server says it, and as the watch does while the kubelet only has words.
    for (name, always) in [
        ("404", Refused(Refusal::no_pod("404"))),
        ("words", Words(WORDS[0])),
        ("resets", Reset),
    ] {
        let by_watch = name != "404";
        let mut rank = pipeline.follow_from(name, |rank| {
            rank.pod.trouble([Cut(150, Break::Reset)]);
        });
        rank.pod.always(Some(always));
        for n in 0..9 {
            rank.write(format!("line {n}").as_bytes());
        }
        until("a second request", || async {
            rank.pod.asked().len() > 2 || !by_watch
        })
        .await;
        if by_watch {
            rank.gone();
        }
        let outcome = rank.ended().await;
        assert!(!outcome.complete, "{name}");
        let stored = pipeline.stored().await.remove(name).unwrap();
        assert_eq!(stored.reasons(), [Reason::PodGone], "{name}");
        let missing = rank.missing(&stored).unwrap();
        let whole = stored
            .lines
            .iter()
            .filter(|line| !line.flags.partial)
            .count();
        assert_eq!(missing.len() + whole, 9, "{name}");
    }
}
