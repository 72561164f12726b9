//! The store on S3, with a real server: it is killed while lines are uploaded, its disk fills up, it is
//! slow, it refuses. Whatever it does, the write-ahead log keeps the lines until the server has them.
//!
//! Needs Go, which builds versitygw once (dev/cluster's pinned tools). One test needs root, for a small
//! disk, and says so where it can't have one.

mod pipeline;
mod quotas;
mod server;
mod slow;

use std::process::Command;

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tempfile::TempDir;
use tokio::sync::RwLock;
use trainyard::logs::{generated::Kind, lake::Lake, sink::Sink};

use self::{
    pipeline::{Feed, Pipeline, assert_whole},
    server::Server,
};

const MIB: u64 = 1024 * 1024;
/// The test that looks at the memory of this process takes it for writing.
static MEMORY: RwLock<()> = RwLock::const_new(());

fn folder(dir: &TempDir, name: &str) -> std::path::PathBuf {
    let folder = dir.path().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_every_kind_come_back_from_s3_and_large_files_are_uploaded_in_parts() {
    let _memory = MEMORY.read().await;
    let dir = TempDir::new().unwrap();
    let server = Server::start(&folder(&dir, "s3"));
    let pipeline = Pipeline::start(&folder(&dir, "wal"), server.lake(), 32 * MIB).await;
    let mut all = Feed::new("all", 0, &[]);
    let lines = all.lines(200);
    pipeline.append(&mut all, lines).await;
    // Lines that can't be compressed, more of them than one part of an upload holds.
    let mut huge = Feed::new("huge", 1, &[Kind::Huge]);
    for _ in 0..24 {
        let lines = huge.lines(1);
        pipeline.append(&mut huge, lines).await;
    }
    for feed in [&mut all, &mut huge] {
        let end = feed.end();
        pipeline.append(feed, end).await;
    }
    assert_whole(&pipeline.shipped().await, &[all, huge]);
    let files = server.lake().list("namespace=ml/job=huge").await.unwrap();
    let bytes: u64 = files.values().map(|files| files.bytes).sum();
    assert!(bytes > 16 * MIB, "{bytes} bytes are no large file");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_in_the_middle_of_uploads_costs_no_line_and_repeats_none() {
    let _memory = MEMORY.read().await;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let dir = TempDir::new().unwrap();
    let mut server = Server::start(&folder(&dir, "s3"));
    let link = slow::Link::to(server.port()).await;
    let lake = server::lake_at(link.port());
    let pipeline = Pipeline::start(&folder(&dir, "wal"), lake, MIB / 4).await;
    let mut feeds: Vec<Feed> = (0..4)
        .map(|rank| Feed::new("bert", rank, &[Kind::Burst, Kind::Empty, Kind::Long]))
        .collect();
    for _ in 0..8 {
        for feed in &mut feeds {
            let lines = feed.lines(12);
            pipeline.append(feed, lines).await;
        }
        // Wherever in an upload that is.
        let before = link.forwarded();
        let further = random.random_range(0..150_000);
        pipeline
            .until("uploads are under way", || {
                link.forwarded() > before + further
            })
            .await;
        server.kill();
        // Whatever the server had then, it and the log have every line once.
        let on_disk = Lake::open(server.folder().to_str().unwrap()).unwrap();
        let reports = pipeline.reports(on_disk, false).await;
        for (report, feed) in reports.iter().zip(&feeds) {
            assert!(report.problems.is_empty(), "{report}");
            assert_eq!(report.lines, feed.lines, "{report}");
        }
        let before = pipeline.metrics.wal_bytes.get();
        for feed in &mut feeds {
            let lines = feed.lines(1);
            pipeline.append(feed, lines).await;
        }
        assert!(
            pipeline.metrics.wal_bytes.get() > before,
            "the log was cut while there was no server"
        );
        server.restart();
    }
    link.open();
    for feed in &mut feeds {
        let end = feed.end();
        pipeline.append(feed, end).await;
    }
    assert_whole(&pipeline.shipped().await, &feeds);
    assert!(
        pipeline.metrics.store_errors.get() > 0,
        "no upload was under way when the server was killed"
    );
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_disk_is_full_costs_no_line_and_gets_them_when_there_is_space() {
    let _memory = MEMORY.read().await;
    let dir = TempDir::new().unwrap();
    let root = folder(&dir, "s3");
    let Some(disk) = SmallDisk::mount(&root, "8m") else {
        println!("not tested: a small disk can't be mounted here (that takes root)");
        return;
    };
    let server = Server::start(&root);
    let pipeline = Pipeline::start(&folder(&dir, "wal"), server.lake(), MIB).await;
    let mut feed = Feed::new("bert", 0, &[Kind::Huge]);
    for _ in 0..16 {
        let lines = feed.lines(1);
        pipeline.append(&mut feed, lines).await;
    }
    let end = feed.end();
    pipeline.append(&mut feed, end).await;
    pipeline
        .until("the server says that its disk is full", || {
            pipeline.metrics.store_errors.get() > 1
        })
        .await;
    assert!(pipeline.metrics.wal_bytes.get() > 0);
    disk.resize("256m");
    assert_whole(&pipeline.shipped().await, &[feed]);
    pipeline.stop().await;
}

/// A disk in memory, until it is dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &std::path::Path, size: &str) -> Option<Self> {
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(at)
            .output();
        mount
            .is_ok_and(|output| output.status.success())
            .then(|| Self(at.to_owned()))
    }

    fn resize(&self, size: &str) {
        let mount = Command::new("mount")
            .args(["-o", &format!("remount,size={size}")])
            .arg(&self.0)
            .status();
        assert!(mount.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the server is ended after it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_named_and_the_lines_wait_for_the_right_ones() {
    let _memory = MEMORY.read().await;
    let dir = TempDir::new().unwrap();
    let server = Server::start(&folder(&dir, "s3"));
    let wal = folder(&dir, "wal");
    let pipeline = Pipeline::start(&wal, server.forbidden(), MIB).await;
    let mut feed = Feed::new("bert", 0, &[Kind::Plain]);
    let lines = feed.lines(500);
    pipeline.append(&mut feed, lines).await;
    pipeline
        .until("the server refuses", || {
            pipeline.metrics.store_errors.get() > 0
        })
        .await;
    let other = Feed::new("other", 0, &[Kind::Plain]).shipment();
    let refused = server.forbidden().store(&other).await;
    let text = refused.unwrap_err().to_string();
    assert!(
        text.contains("check the store's credentials, and their right to read, write"),
        "{text}"
    );
    pipeline.stop().await;
    // The Secret was put right, and the pod started again.
    let pipeline = Pipeline::start(&wal, server.lake(), MIB).await;
    let end = feed.end();
    pipeline.append(&mut feed, end).await;
    assert_whole(&pipeline.shipped().await, &[feed]);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_is_named() {
    let _memory = MEMORY.read().await;
    let dir = TempDir::new().unwrap();
    let server = Server::start(&folder(&dir, "s3"));
    std::fs::remove_dir(server.folder()).unwrap();
    let shipment = Feed::new("bert", 0, &[Kind::Plain]).shipment();
    let text = (server.lake().store(&shipment).await)
        .unwrap_err()
        .to_string();
    assert!(text.contains("check that the bucket is there"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_server_makes_the_log_grow_and_not_the_memory() {
    let _memory = MEMORY.write().await;
    let dir = TempDir::new().unwrap();
    let server = Server::start(&folder(&dir, "s3"));
    let link = slow::Link::to(server.port()).await;
    let lake = server::lake_at(link.port());
    let pipeline = Pipeline::start(&folder(&dir, "wal"), lake, 4 * MIB).await;
    let mut feed = Feed::new("bert", 0, &[Kind::Huge]);
    let before = resident();
    let mut most = 0;
    for _ in 0..112 {
        let lines = feed.noise();
        pipeline.append(&mut feed, lines).await;
        most = most.max(resident());
    }
    let waiting = pipeline.metrics.wal_bytes.get().cast_unsigned();
    assert!(
        waiting > 80 * MIB,
        "{waiting} bytes wait: the link was not slow"
    );
    let grown = most.saturating_sub(before);
    assert!(
        grown < 48 * MIB,
        "{grown} bytes more for {waiting} that wait"
    );
    link.open();
    let lines = feed.lines;
    pipeline
        .until("the store has everything", || {
            pipeline.metrics.wal_bytes.get() == 0
        })
        .await;
    let reports = pipeline.reports(server.lake(), false).await;
    assert!(reports[0].problems.is_empty(), "{}", reports[0]);
    assert_eq!(reports[0].lines, lines);
    pipeline.stop().await;
}

/// Bytes of memory that this process has.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib: u64 = (line.unwrap().split_whitespace().nth(1).unwrap())
        .parse()
        .unwrap();
    kib * 1024
}
