//! The store is readable by others: DuckDB and pyarrow (from PyPI, in a cached virtual environment) open
//! what the Parquet sink has written, in a folder and through a real S3 server.

#[path = "../s3/server.rs"]
mod server;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use trainyard::{
    api::TrainingJob,
    logs::{
        archive,
        lake::Lake,
        line::{Flags, Line, Origin, Output, StreamId, from_nanos},
        record::{End, Record},
        sink::{Shipment, Sink},
        wal::frame::Declared,
    },
};

/// The pins are in its name, so that another pin makes another one.
const VENV: &str = "venv-duckdb-2.0.0-pyarrow-26.0.1";
const PACKAGES: [&str; 2] = ["duckdb==2.0.0", "pyarrow==26.0.1"];

fn shipment(rank: u32, lines: std::ops::RangeInclusive<u64>, segment: u64) -> Shipment {
    let mut records: Vec<Record> = lines
        .clone()
        .map(|seq| {
            let time = from_nanos(1_772_356_500_000_000_000 + seq.cast_signed() * 1_000_000);
            let message = match seq {
                7 => vec![0xff, 0xfe],
                _ => format!("step {seq} loss 0.{:03}", seq - 1).into_bytes(),
            };
            Record::Line(Line {
                seq,
                time,
                observed: time,
                output: Output::Unknown,
                flags: Flags::default(),
                message,
            })
        })
        .collect();
    if *lines.end() == 1000 {
        records.push(Record::End(End {
            container_id: None,
            complete: true,
            lines: 1000,
            bytes: 0,
        }));
    }
    Shipment {
        declared: Declared {
            id: StreamId {
                namespace: "ml".into(),
                job: "bert".into(),
                uid: "u-1".into(),
                attempt: 1,
                rank,
                container: "trainer".into(),
            },
            origin: Origin {
                node: "gpu-7".into(),
                ..Origin::default()
            },
        },
        epoch: 1,
        segment,
        records,
    }
}

async fn fill(lake: &Lake) {
    for rank in 0..4 {
        lake.store(&shipment(rank, 1..=400, 1)).await.unwrap();
        let last = shipment(rank, 401..=1000, 2);
        lake.store(&last).await.unwrap();
        // Half of them in one file, half in two.
        if rank % 2 == 0 {
            lake.ended(&last).await.unwrap();
        }
    }
    archive::store(lake, "east", &job(), None).await.unwrap();
}

/// It failed once, of memory.
fn job() -> TrainingJob {
    let at = |minute: u8| format!("2026-03-01T09:{minute}:00Z");
    serde_json::from_value(serde_json::json!({
        "apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingJob",
        "metadata": {"name": "bert", "namespace": "ml", "uid": "u-1"},
        "spec": {"runtimeRef": {"name": "pytorch"}, "command": ["python", "train.py"]},
        "status": {"retries": 1, "startTime": at(10), "attempts": [
            {"number": 1, "startTime": at(10), "endTime": at(40), "class": "HostOutOfMemory",
             "rootCause": {"rank": 3, "node": "gpu-7", "exitCode": 137, "reason": "OOMKilled", "message": "8Gi"}},
            {"number": 2, "startTime": at(41)},
        ]},
    }))
    .unwrap()
}

/// A Python with DuckDB and pyarrow.
fn python() -> PathBuf {
    let cache = std::env::var_os("TRAINYARD_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/trainyard"),
        PathBuf::from,
    );
    let python = cache.join(VENV).join("bin/python");
    let whole = cache.join(VENV).join("whole");
    if !whole.exists() {
        std::fs::create_dir_all(&cache).unwrap();
        let made = |c: &mut Command| assert!(c.status().unwrap().success(), "{c:?}");
        made(
            Command::new("python3")
                .args(["-m", "venv"])
                .arg(cache.join(VENV)),
        );
        made(
            Command::new(cache.join(VENV).join("bin/pip"))
                .args(["install", "--quiet"])
                .args(PACKAGES),
        );
        std::fs::write(whole, "").unwrap();
    }
    python
}

fn read(folder: &Path) {
    let read = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lake/read.py");
    let output = Command::new(python())
        .arg(read)
        .arg(folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn duckdb_and_pyarrow_read_the_files() {
    let dir = tempfile::TempDir::new().unwrap();
    let lake = Lake::open(dir.path().to_str().unwrap()).unwrap();
    fill(&lake).await;
    read(dir.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn duckdb_and_pyarrow_read_what_an_s3_server_has() {
    let dir = tempfile::TempDir::new().unwrap();
    let server = server::Server::start(dir.path());
    fill(&server.lake()).await;
    read(&server.folder());
}
