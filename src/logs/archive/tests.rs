//! What is stored of jobs, and when.

use std::path::Path;

use object_store::local::LocalFileSystem;
use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::Field,
};
use serde_json::json;

use super::*;

/// A job with so many attempts that have ended; the last one is open unless the job has ended.
fn job(ended: i32, succeeded: &str, logs: &str) -> TrainingJob {
    let time = "2026-11-24T10:00:00Z";
    let attempt = |n: i32| {
        json!({
            "number": n, "startTime": time, "endTime": time, "class": "HostOutOfMemory",
            "rule": "cgroup-oom", "decision": "retry", "logs": {"complete": true, "lines": 7},
            "rootCause": {"rank": 3, "node": "gpu-1", "exitCode": 137, "reason": "OOMKilled", "message": "limit 8Gi"},
        })
    };
    let mut attempts: Vec<_> = (1..=ended).map(attempt).collect();
    if succeeded == "Unknown" {
        attempts.push(json!({"number": ended + 1, "startTime": time}));
    }
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "R", "message": "m", "lastTransitionTime": time});
    let mut conditions = vec![condition("Succeeded", succeeded)];
    if logs != "-" {
        conditions.push(condition("LogsComplete", logs));
    }
    serde_json::from_value(json!({
        "apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingJob",
        "metadata": {"name": "bert", "namespace": "ml", "uid": "u1", "generation": 1,
                     "managedFields": [{"manager": "kubectl"}]},
        "spec": {"runtimeRef": {"name": "pytorch"}, "command": ["python", "train.py"], "numNodes": 2},
        "status": {"startTime": time, "attempts": attempts, "conditions": conditions, "retries": ended,
                   "logs": {"complete": logs == "True", "lines": 14, "bytes": 140}},
    }))
    .unwrap()
}

fn archive(folder: &Path) -> Archive {
    let objects = LocalFileSystem::new_with_prefix(folder).unwrap();
    Archive {
        lake: Lake::new(std::sync::Arc::new(objects), "test"),
        cluster: "east".into(),
        metrics: Metrics::default(),
        known: HashMap::new(),
        earlier: None,
        waiting: BTreeMap::new(),
        retry: Retry::default(),
    }
}

fn apply(job: TrainingJob) -> watcher::Event<Guarded> {
    watcher::Event::Apply(DeserializeGuard(Ok(job)))
}

fn row(folder: &Path, file: &str) -> HashMap<String, Field> {
    let file = std::fs::File::open(folder.join(file)).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let rows: Vec<_> = reader
        .get_row_iter(None)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(rows.len(), 1);
    rows[0].clone().into_columns().into_iter().collect()
}

const JOB: &str = "_jobs/namespace=ml/job=bert/uid=u1.parquet";

fn text(value: &str) -> Field {
    Field::Str(value.into())
}

#[tokio::test]
async fn the_whole_ledger_is_there_when_the_job_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut archive = archive(folder.path());
    // The status keeps the newest ten of these.
    for ended in 1..=12 {
        let mut job = job(ended, "Unknown", "-");
        let status = job.status.as_mut().unwrap();
        let surplus = status.attempts.len().saturating_sub(10);
        status.attempts.drain(..surplus);
        archive.observe(apply(job));
        archive.try_one().await.unwrap();
    }
    let end = job(12, "False", "True");
    archive.observe(watcher::Event::Delete(DeserializeGuard(Ok(end))));
    archive.try_one().await.unwrap();
    for n in 1..=12 {
        let file = format!("_attempts/namespace=ml/job=bert/uid=u1/attempt={n:06}.parquet");
        let row = row(folder.path(), &file);
        assert_eq!(row["attempt"], Field::Long(n));
        assert_eq!(row["class"], text("HostOutOfMemory"));
        assert_eq!(row["rank"], Field::Long(3));
        assert_eq!(row["exit_code"], Field::Long(137));
        assert_eq!(row["container"], Field::Null);
        assert_eq!(row["lines"], Field::Long(7));
    }
    let row = row(folder.path(), JOB);
    assert_eq!(row["succeeded"], Field::Bool(false));
    assert_eq!(row["logs_complete"], Field::Bool(true));
    assert_eq!(row["cluster"], text("east"));
    assert_ne!(row["deleted"], Field::Null);
    let Field::Str(manifest) = &row["manifest"] else {
        panic!("{:?}", row["manifest"])
    };
    let manifest: serde_json::Value = serde_json::from_str(manifest).unwrap();
    assert_eq!(manifest["spec"]["command"], json!(["python", "train.py"]));
    assert_eq!(manifest["metadata"]["managedFields"], json!(null));
    let back = recall(&archive.lake, "ml", "bert").await.unwrap().unwrap();
    assert_eq!(back.spec.command, ["python", "train.py"]);
    let ledger = back.status.unwrap().attempts;
    assert_eq!(
        ledger.iter().map(|a| a.number).collect::<Vec<_>>(),
        (1..=12).collect::<Vec<_>>()
    );
    assert_eq!(ledger[3].rule.as_deref(), Some("cgroup-oom"));
    assert!(recall(&archive.lake, "ml", "gpt").await.unwrap().is_none());
}

#[test]
fn a_row_is_written_anew_only_where_it_says_something_new() {
    let folder = tempfile::tempdir().unwrap();
    let mut archive = archive(folder.path());
    let mut news = |job: TrainingJob| {
        archive.waiting.clear();
        archive.observe(apply(job));
        !archive.waiting.is_empty()
    };
    let mut unstarted = job(0, "Unknown", "-");
    unstarted.status = None;
    assert!(!news(unstarted));
    assert!(news(job(0, "Unknown", "-")));
    let mut ready = job(0, "Unknown", "-");
    ready.status.as_mut().unwrap().nodes.ready = 2;
    assert!(!news(ready), "counts of nodes come and go");
    assert!(news(job(1, "Unknown", "-")), "an attempt has ended");
    assert!(news(job(1, "True", "Unknown")));
    assert!(news(job(1, "True", "True")));
    assert!(!news(job(1, "True", "True")));
}

#[tokio::test]
async fn a_restart_stores_nothing_again_of_jobs_that_have_ended() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = archive(folder.path());
    first.observe(apply(job(1, "True", "True")));
    first.try_one().await.unwrap();
    let written = || {
        std::fs::metadata(folder.path().join(JOB))
            .unwrap()
            .modified()
            .unwrap()
    };
    let before = written();
    let mut second = archive(folder.path());
    second.observe(apply(job(1, "True", "True")));
    second.try_one().await.unwrap();
    assert!(second.waiting.is_empty());
    assert_eq!(written(), before);
    second.observe(apply(job(2, "Unknown", "-")));
    second.try_one().await.unwrap();
    assert_ne!(
        written(),
        before,
        "one that runs may have gone on meanwhile"
    );
}

#[tokio::test]
async fn a_store_that_refuses_is_asked_again_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // A file where a folder is wanted.
    std::fs::write(folder.path().join("_attempts"), "").unwrap();
    let mut archive = archive(folder.path());
    archive.observe(apply(job(1, "True", "True")));
    archive.store_one().await;
    assert_eq!(
        (archive.waiting.len(), archive.metrics.archive_errors.get()),
        (1, 1)
    );
    assert!(archive.retry.at > Instant::now());
    std::fs::remove_file(folder.path().join("_attempts")).unwrap();
    archive.store_one().await;
    assert!(archive.waiting.is_empty());
    assert_eq!(row(folder.path(), JOB)["succeeded"], Field::Bool(true));
}
