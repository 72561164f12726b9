//! How fast stored lines are searched and read: makes a store of generated training logs and prints, for
//! questions of several kinds, the time to the first line and the raw bytes looked through a second of one
//! core's time, which is the same on a busy machine. Prints and asserts nothing.
//!
//!     cargo bench --bench grep -- [MiB of raw text]     by default 1024

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use trainyard::logs::{
    columns::grep::Grep,
    lake::Lake,
    line::{Flags, Line, Origin, Output, StreamId, from_nanos},
    read::{Filter, Job, Reader, Selection},
    record::Record,
    sink::{Shipment, Sink},
    store::Store,
    wal::frame::Declared,
};

const RANKS: u32 = 8;
/// Raw bytes of one file.
const FILE: u64 = 32 * 1024 * 1024;
/// In one line of the store.
const ONCE: &str = "CUDA error: device-side assert triggered";

fn main() {
    let mib = std::env::args().find_map(|arg| arg.parse::<u64>().ok());
    let wanted = mib.unwrap_or(1024) * 1024 * 1024;
    let dir = TempDir::new().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let lake = Lake::open(dir.path().to_str().expect("a name")).expect("a store");
        let began = Instant::now();
        let raw = fill(&lake, wanted).await;
        let stored = stored(&lake).await;
        println!(
            "{} MB of raw text in {} MB of files (1/{:.1}), written in {:.1} s",
            raw / 1_000_000,
            stored / 1_000_000,
            raw as f64 / stored as f64,
            began.elapsed().as_secs_f64()
        );
        println!(
            "{:44} {:>9} {:>12} {:>12} {:>9}",
            "question", "lines", "first line", "all", "GB/s/core"
        );
        for (name, pattern) in [
            ("a text that is there once: the index skips", Some(ONCE)),
            ("the same, whatever the case", Some("(?i)cuda ERROR")),
            (
                "a text that is nowhere: the index skips",
                Some("Traceback (most recent"),
            ),
            (
                "a text of which all pieces are everywhere",
                Some("loss=99999999"),
            ),
            ("a pattern without a text: every line", Some(r"\d{12}|x{9}")),
            ("no pattern: all lines", None),
        ] {
            let selection = Selection {
                filter: Filter {
                    grep: pattern.map(|p| {
                        Grep::new(&p.replace('(', r"\(").replace(r"\(?i)", "(?i)"))
                            .expect("a pattern")
                            .into()
                    }),
                    ..Filter::default()
                },
                ..Selection::default()
            };
            let before = core_seconds();
            let (lines, first, all) = ask(&lake, selection).await;
            let core = (core_seconds() - before).max(0.01);
            println!(
                "{name:44} {lines:>9} {:>9} ms {:>9} ms {:>9.2}",
                first.map_or_else(|| "-".into(), |first| first.as_millis().to_string()),
                all.as_millis(),
                raw as f64 / core / 1e9
            );
        }
    });
}

/// What this process has had of the cores so far, by Linux' count of hundredths.
fn core_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.filter_map(|n| n.parse::<f64>().ok()).sum::<f64>() / 100.0
}

async fn ask(lake: &Lake, selection: Selection) -> (usize, Option<Duration>, Duration) {
    let job = Job {
        namespace: "bench".into(),
        name: "bert".into(),
        uid: "u".into(),
    };
    let began = Instant::now();
    let store = Store::new(lake.clone(), None);
    let mut reader = Reader::<trainyard::logs::disk::Folder>::open(store, job, selection)
        .await
        .expect("lines");
    let (mut lines, mut first) = (0, None);
    while let Some(entries) = reader.next_lines().await.expect("lines") {
        lines += entries.len();
        first.get_or_insert_with(|| began.elapsed());
    }
    (lines, first, began.elapsed())
}

async fn stored(lake: &Lake) -> u64 {
    let listed = lake.list("").await.expect("a list");
    listed.values().map(|files| files.bytes).sum()
}

/// Fills the store; returns the bytes of all messages.
async fn fill(lake: &Lake, wanted: u64) -> u64 {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut raw = 0;
    let mut seqs = [0u64; RANKS as usize];
    let files = wanted.div_ceil(FILE);
    for file in 0..files {
        let rank = u32::try_from(file % u64::from(RANKS)).unwrap_or(0);
        let seq = &mut seqs[rank as usize];
        let mut records = Vec::new();
        let mut bytes = 0;
        while bytes < FILE {
            *seq += 1;
            let last = bytes + 200 >= FILE && file + 1 == files;
            let message = message(&mut random, *seq, rank, last);
            bytes += message.len() as u64 + 1;
            records.push(Record::Line(Line {
                seq: *seq,
                time: from_nanos(seq.cast_signed() * 1_000_000 + i64::from(rank)),
                observed: from_nanos(seq.cast_signed() * 1_000_000 + 5_000_000),
                output: Output::Unknown,
                flags: Flags::default(),
                message,
            }));
        }
        raw += bytes;
        let shipment = Shipment {
            declared: Declared {
                id: StreamId {
                    namespace: "bench".into(),
                    job: "bert".into(),
                    uid: "u".into(),
                    attempt: 1,
                    rank,
                    container: "trainer".into(),
                },
                origin: Origin::default(),
            },
            epoch: 1,
            segment: file,
            records,
        };
        lake.store(&shipment).await.expect("room");
    }
    raw
}

/// A line as trainers write them.
fn message(random: &mut u64, seq: u64, rank: u32, last: bool) -> Vec<u8> {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    let r = *random;
    let mut text = String::with_capacity(160);
    let _ = match r % 16 {
        _ if last => write!(text, "[rank{rank}]: RuntimeError: {ONCE}"),
        0 => write!(
            text,
            "[rank{rank}] INFO checkpoint: saved /ckpt/step-{seq}/shard-{:016x}.pt ({} bytes)",
            r,
            r % 1_000_000_007
        ),
        1 => write!(
            text,
            "WARNING:torch.utils.data: worker {} took {}.{} s for batch {:08x}",
            r % 32,
            r % 7,
            r % 1000,
            r >> 32
        ),
        _ => write!(
            text,
            "epoch={} step={seq} loss={}.{:06} grad_norm={}.{:04} lr=3.0e-04 tokens/s={} mem={}.{}GiB",
            seq / 10_000,
            r % 9,
            r >> 20 & 0xf_ffff,
            r % 3,
            r >> 40 & 0x1fff,
            90_000 + r % 9999,
            60 + r % 9,
            r % 10
        ),
    };
    text.into_bytes()
}
