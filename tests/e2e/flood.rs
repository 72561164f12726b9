//! A flood of lines: 20 pods write 5 MB/s together while their nodes rotate the logs away at 1 MiB × 3
//! files, the collector is killed with -9 every 10 seconds, and the API server twice. `make flood` does
//! it for two minutes, and prints what came of it; the end-to-end tests have a short one.

use std::{
    collections::BTreeMap,
    process::Command,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::site::{Site, eventually, reason, run};

const RANKS: u64 = 20;
/// Bytes a second, of all together.
const RATE: u64 = 5_000_000;
const BETWEEN_KILLS: Duration = Duration::from_secs(10);

#[tokio::test]
async fn every_line_of_a_flood_is_stored_once_or_in_a_recorded_gap_whatever_is_killed() {
    let site = Site::alone("flood").await;
    if std::env::var("TRAINYARD_LOCAL").as_deref() != Ok("true") {
        eprintln!("not run: the nodes and the API server of this cluster are not ours to disturb");
        return;
    }
    let seconds = std::env::var("TRAINYARD_FLOOD_SECONDS").map_or(30, |s| s.parse().unwrap());
    let _rotation = Rotation::tight();
    let operator = site.operator();
    let flags = ["--ship-seconds=3"];
    let (mut collector, store) = site.collector_with(&flags);
    let image = "localhost/trainyard/loggen:dev";
    site.runtime("loggen", image, "plain").await;
    let rate = format!("--rate={}", RATE / RANKS);
    let spec = json!({
        "runtimeRef": {"kind": "TrainingRuntime", "name": "loggen"},
        "command": ["/loggen", rate, format!("--duration={seconds}")],
        "numNodes": RANKS,
    });
    let begin = Instant::now();
    site.submit("flood", spec).await;

    let third = Duration::from_secs(seconds) / 3;
    let mut restarts = vec![2 * third, third];
    let (mut kills, mut memory) = (0, 0);
    loop {
        tokio::time::sleep(BETWEEN_KILLS).await;
        memory = memory.max(collector.peak_memory());
        collector.kill();
        kills += 1;
        (collector, _) = site.collector_with(&flags);
        if restarts.last().is_some_and(|at| begin.elapsed() >= *at) {
            restarts.pop();
            restart_api_server();
        }
        if site.pod_list().await.iter().all(is_over) {
            break;
        }
    }
    let flooded = begin.elapsed();
    assert!(restarts.is_empty(), "the flood was over too early");
    // It may have ended, because it could not renew its Lease: a Deployment starts it again.
    drop(operator);
    let _operator = site.operator();
    eventually("all pods to say how their logs ended", || async {
        let pods = site.pod_list().await;
        let silent = pods.iter().filter(|pod| !says_so(pod)).count();
        if silent == 0 {
            Ok(())
        } else {
            Err(format!("{silent} of {} pods say nothing", pods.len()))
        }
    })
    .await;
    assert_eq!(reason(&site.ended("flood").await), "Completed");
    memory = memory.max(collector.peak_memory());
    collector.terminate();

    let report = run(Command::new(env!("CARGO_BIN_EXE_trainyard"))
        .args(["logs", "verify", "--generated", "--output=json", "--store"])
        .arg(&store));
    let streams: Vec<Value> = report
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(streams.len() as u64, RANKS, "{report}");
    let stored = summary(&streams);
    println!("{stored}");
    println!(
        "{} s until all pods had ended; collector killed {kills} times, its memory at most {} MB; the store has {} MB",
        flooded.as_secs(),
        memory / 1_000_000,
        size(&store.join(format!("namespace={}", site.namespace))) / 1_000_000,
    );
}

/// What the verifier says of all streams together. It has found nothing wrong, or would have failed.
fn summary(streams: &[Value]) -> String {
    let sum = |pointer: &str| -> u64 {
        (streams.iter())
            .filter_map(|s| s.pointer(pointer)?.as_u64())
            .sum()
    };
    let complete = (streams.iter())
        .filter(|s| s["complete"] == json!(true))
        .count();
    let mut reasons = BTreeMap::<&str, u32>::new();
    for gap in (streams.iter()).flat_map(|s| s["gaps"].as_array().into_iter().flatten()) {
        *reasons
            .entry(gap["reason"].as_str().unwrap_or_default())
            .or_default() += 1;
    }
    format!(
        "{} streams, {complete} of them complete: {} lines, {} MB; {} lines with a number and {} without are as they were written, {} with a number lie in gaps: {reasons:?}",
        streams.len(),
        sum("/lines"),
        sum("/bytes") / 1_000_000,
        sum("/generated/numbered"),
        sum("/generated/unnumbered"),
        sum("/generated/inGaps"),
    )
}

fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn says_so(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    (conditions.filter(|c| c.type_ == "trainyard.dev/LogsComplete")).any(|c| c.status != "Unknown")
}

/// Bytes of the files below a folder.
fn size(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                size(&entry.path())
            } else {
                metadata.len()
            }
        })
        .sum()
}

/// The kubelets rotate early, until this is dropped.
struct Rotation;

impl Rotation {
    fn tight() -> Self {
        Self::set("1Mi", "3");
        Self
    }

    fn set(size: &str, files: &str) {
        let (size, files) = (
            format!("--container-log-max-size={size}"),
            format!("--container-log-max-files={files}"),
        );
        cluster(&["up", &size, &files]);
    }
}

impl Drop for Rotation {
    fn drop(&mut self) {
        Self::set("10Mi", "5");
    }
}

/// kill -9, and a new one. Where the old one still has its port for a moment, `up` starts it.
fn restart_api_server() {
    let restarted = cluster_command()
        .args(["restart", "kube-apiserver"])
        .status();
    if !restarted.is_ok_and(|status| status.success()) {
        cluster(&["up"]);
    }
}

fn cluster(args: &[&str]) {
    run(cluster_command().args(args));
}

fn cluster_command() -> Command {
    let cluster = concat!(env!("CARGO_MANIFEST_DIR"), "/dev/cluster/cluster");
    let mut command = Command::new(cluster);
    command.env_remove("KUBECONFIG");
    command
}
