//! What the chart makes of its values for the logs' store, as `helm template` prints it. Needs Go, which
//! builds Helm once (dev/cluster's pinned tools), and no cluster.

use std::{path::PathBuf, process::Command, sync::LazyLock};

use clap::{Args as _, FromArgMatches};
use serde_json::Value;
use trainyard::logs::collector::Args;

static HELM: LazyLock<PathBuf> = LazyLock::new(|| {
    let cluster = std::env::var_os("TRAINYARD_CLUSTER_BIN").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/dev/cluster/cluster")),
        PathBuf::from,
    );
    let output = Command::new(cluster).args(["tool", "helm"]).output();
    let output = output.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().into()
});

/// What Helm prints, or why it refuses.
fn helm(command: &[&str], values: &[&str]) -> Result<String, String> {
    let output = Command::new(&*HELM)
        .args(command)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/charts/trainyard"))
        .args(values.iter().flat_map(|value| ["--set-json", value]))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

/// The objects of the chart.
fn objects(values: &[&str]) -> Vec<Value> {
    let text = helm(&["template", "trainyard"], values).unwrap();
    serde_saphyr::from_multiple(&text).unwrap()
}

/// The collector's container.
fn collector(values: &[&str]) -> Value {
    let set = objects(values)
        .into_iter()
        .find(|object| object["kind"] == "StatefulSet");
    set.unwrap()["spec"]["template"]["spec"]["containers"][0].take()
}

/// Its flags, as the program itself takes them.
fn flags(values: &[&str]) -> Args {
    let container = collector(values);
    let arguments = container["args"].as_array().unwrap();
    let own = ["--log-format", "--log="];
    let arguments = arguments
        .iter()
        .map(|argument| argument.as_str().unwrap())
        .filter(|argument| !own.iter().any(|flag| argument.starts_with(flag)));
    let command = Args::augment_args(clap::Command::new("trainyard"));
    let matches = command.try_get_matches_from(arguments).unwrap();
    Args::from_arg_matches(&matches).unwrap()
}

#[test]
fn by_default_lines_and_write_ahead_log_are_on_the_volume_and_nothing_is_ever_deleted() {
    let flags = flags(&[]);
    assert_eq!(flags.store, "/var/lib/trainyard/logs");
    let wal = flags.wal.unwrap();
    assert_eq!(wal.to_str(), Some("/var/lib/trainyard/logs/wal"));
    assert_eq!(flags.text, None);
    assert_eq!((flags.retain_days, flags.retain_bytes), (None, None));
    let container = collector(&[]);
    assert_eq!(
        container["volumeMounts"][0]["mountPath"],
        "/var/lib/trainyard/logs"
    );
    assert!(container.get("envFrom").is_none());
}

#[test]
fn an_object_store_takes_the_lines_and_the_log_stays_on_the_volume() {
    let flags = flags(&[r#"collector.store.url="s3://logs/prod""#]);
    assert_eq!(flags.store, "s3://logs/prod");
    let wal = flags.wal.unwrap();
    assert_eq!(wal.to_str(), Some("/var/lib/trainyard/logs/wal"));
    let refused = helm(
        &["template", "trainyard"],
        &[r#"collector.store.url="logs/prod""#],
    );
    assert!(refused.unwrap_err().contains("/collector/store/url"));
}

#[test]
fn credentials_come_from_a_secret_that_trainyard_itself_has_no_right_to_read() {
    let values = [
        r#"collector.store.url="s3://logs""#,
        r#"collector.store.credentialsSecret="s3-writer""#,
        r#"collector.store.env=[{"name": "AWS_REGION", "value": "eu-central-1"}]"#,
    ];
    let container = collector(&values);
    assert_eq!(container["envFrom"][0]["secretRef"]["name"], "s3-writer");
    let env = container["env"].as_array().unwrap();
    assert!(
        env.iter()
            .any(|v| v["name"] == "AWS_REGION" && v["value"] == "eu-central-1")
    );
    for object in objects(&values) {
        let operator = object["kind"] == "Deployment";
        assert!(!operator || !object.to_string().contains("s3-writer"));
        for rule in object["rules"].as_array().into_iter().flatten() {
            assert!(!rule.to_string().contains("secrets"), "{object}");
        }
    }
}

#[test]
fn quotas_retention_and_text_files_reach_the_collector_in_bytes_and_days() {
    let flags = flags(&[
        r#"collector.quotas={"writeAheadLog": "512Mi", "job": 1000000}"#,
        r#"collector.retention={"days": 30, "bytes": "2Ti"}"#,
        "collector.store.textFiles=true",
    ]);
    assert_eq!(flags.wal_quota, 512 << 20);
    assert_eq!(flags.job_quota, 1_000_000);
    assert_eq!(flags.retain_days, Some(30));
    assert_eq!(flags.retain_bytes, Some(2 << 40));
    let text = flags.text.unwrap();
    assert_eq!(text.to_str(), Some("/var/lib/trainyard/logs/text"));
    let refused = helm(
        &["template", "trainyard"],
        &[r#"collector.quotas.job="64GB""#],
    );
    assert!(refused.unwrap_err().contains("/collector/quotas/job"));
}

#[test]
fn the_notes_say_where_the_lines_go() {
    let notes =
        |values: &[&str]| helm(&["install", "trainyard", "--dry-run=client"], values).unwrap();
    assert!(notes(&[]).contains("Parquet files on the collector's volume:\nthe claim store-"));
    let notes = notes(&[
        r#"collector.store.url="s3://logs/prod""#,
        "collector.store.textFiles=true",
        "collector.retention.days=30",
    ]);
    for part in [
        "Parquet files in s3://logs/prod.",
        "plain text",
        "deleted after 30 days",
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
}
