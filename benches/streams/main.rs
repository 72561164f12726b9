//! `cargo bench --bench streams`: what streams cost the collector, against the scripted kubelet over TLS
//! in a process of its own. It prints; it asserts nothing.
//!
//! - 256 containers appear at once: how long until a line of each is stored?
//! - 5,000 containers say nothing: how much memory for each?
//! - the store refuses for ever while 200 containers write: what do memory, log and streams do?

mod collector;
#[path = "../../tests/logs/files.rs"]
#[allow(dead_code, reason = "it is tests/logs's, and not all of it is used")]
mod files;
#[path = "../../tests/logs/kubelet.rs"]
#[allow(dead_code, reason = "it is tests/logs's, and not all of it is used")]
mod kubelet;
mod node;

use std::time::{Duration, Instant};

use collector::{Collector, memory};
use node::Node;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("node") => runtime.block_on(node::run(&args[1..])),
        Some("appear") => runtime.block_on(appear()),
        Some("idle") => runtime.block_on(idle()),
        Some("refused") => runtime.block_on(refused()),
        // Each in a process of its own, so that none has the memory of another.
        _ => ["appear", "idle", "refused"].into_iter().for_each(|part| {
            let program = std::env::current_exe().unwrap();
            std::process::Command::new(program)
                .arg(part)
                .status()
                .unwrap();
        }),
    }
}

/// Many containers at once.
async fn appear() {
    let node = Node::start(256, 0);
    let mut collector = Collector::new(&node, 1 << 30, false).await;
    let begin = Instant::now();
    let ids = collector.follow(256);
    let mut times = Vec::new();
    let mut left = ids;
    while !left.is_empty() && begin.elapsed() < Duration::from_secs(60) {
        let mut waiting = Vec::new();
        for id in left {
            match collector.wal.find(&id).await {
                Some(stream) if stream.totals.lines > 0 => times.push(begin.elapsed()),
                _ => waiting.push(id),
            }
        }
        left = waiting;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!(
        "256 containers appear at once: a line of half of them is stored after {:.2} s, of all after {:.2} s ({} are missing)",
        times
            .get(times.len() / 2)
            .map_or(0.0, Duration::as_secs_f64),
        times.last().map_or(0.0, Duration::as_secs_f64),
        left.len(),
    );
}

/// Many containers that say nothing more.
async fn idle() {
    const STREAMS: usize = 5000;
    let node = Node::start(STREAMS, 0);
    let mut collector = Collector::new(&node, 1 << 30, false).await;
    let before = memory();
    let begin = Instant::now();
    let ids = collector.follow(STREAMS);
    for id in &ids {
        while collector
            .wal
            .find(id)
            .await
            .is_none_or(|s| s.totals.lines == 0)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let all = begin.elapsed();
    // What the beginning needed may go.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = memory();
    println!(
        "{STREAMS} idle streams, all with a line stored after {:.1} s: {} KiB each ({} MiB before, {} MiB with them)",
        all.as_secs_f64(),
        (after - before) / 1024 / STREAMS as u64,
        before >> 20,
        after >> 20,
    );
}

/// A store that refuses for ever.
async fn refused() {
    const STREAMS: usize = 200;
    let quota = 64 << 20;
    let node = Node::start(STREAMS, 8 << 20);
    let mut collector = Collector::new(&node, quota, true).await;
    let begin = Instant::now();
    collector.follow(STREAMS);
    println!(
        "the store refuses; {STREAMS} containers write 8 MiB/s together, files are rotated at 256 KiB; quota of the log {} MiB",
        quota >> 20
    );
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let m = &collector.metrics;
        println!(
            "  {:3.0} s: memory {:4} MiB, log {:3} MiB, lines {:8}, waits for room {:6}, refusals {:4}, opened {:5}",
            begin.elapsed().as_secs_f64(),
            memory() >> 20,
            m.wal_bytes.get() >> 20,
            m.lines.get(),
            m.full.get(),
            m.store_errors.get(),
            m.opened.get(),
        );
    }
    println!("  the store takes lines again, and the containers exit");
    collector.accept();
    let (complete, incomplete) = collector.exit(&node, Duration::from_secs(240)).await;
    println!(
        "  {complete} streams complete, {incomplete} with gaps ({} gaps), {:.0} s after the beginning; memory {} MiB",
        collector.metrics.gaps.get(),
        begin.elapsed().as_secs_f64(),
        memory() >> 20
    );
}
