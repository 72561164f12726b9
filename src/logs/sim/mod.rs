//! The whole pipeline in a world of its own: one thread, a clock that moves only when all wait, and a
//! seed for everything that could be otherwise. A failing seed fails again.
//!
//!     TRAINYARD_SIM_SEEDS=20000 cargo test --release --lib logs::sim::faults
//!     TRAINYARD_SIM_SEED=17 cargo test --lib logs::sim::faults -- --nocapture

pub(super) mod chance;
pub(super) mod disk;
mod kubelet;
mod objects;
mod oracle;
mod world;

use super::planted::{Bug, plant};
use world::{Seen, live};

fn run(seed: u64, bug: Option<Bug>) -> Result<Seen, String> {
    if variable("TRAINYARD_SIM_SEED").is_some() {
        let _ = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_test_writer()
            .try_init();
    }
    plant(bug);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(live(seed))
    }));
    plant(None);
    result.unwrap_or_else(|_| Err("it panicked".into()))
}

/// On all cores; each world stays on one thread.
fn parallel<T: Sync, R: Send>(items: &[T], each: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let results = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(item) =
                    items.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                {
                    let result = each(item);
                    results.lock().unwrap().push(result);
                }
            });
        }
    });
    results.into_inner().unwrap()
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn faults_lose_nothing_repeat_nothing_and_hide_nothing() {
    let one = variable("TRAINYARD_SIM_SEED");
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..variable("TRAINYARD_SIM_SEEDS").unwrap_or(60),
    };
    let mut total = Seen::default();
    let mut broken = Vec::new();
    let seeds: Vec<u64> = seeds.collect();
    for (seed, seen) in parallel(&seeds, |seed| (*seed, run(*seed, None))) {
        match seen {
            Ok(seen) => {
                total.faults += seen.faults;
                total.lines += seen.lines;
                total.gaps += seen.gaps;
                total.complete += seen.complete;
                total.streams += seen.streams;
            }
            Err(why) => broken.push(format!("seed {seed}: {why}")),
        }
    }
    println!("{total:?}");
    assert!(
        broken.is_empty(),
        "{} broken:\n{}",
        broken.len(),
        broken.join("\n")
    );
    assert!(one.is_some() || total.faults >= 1000, "{total:?}");
}

#[test]
fn a_seed_is_a_world() {
    for seed in [3, 17] {
        let runs = [run(seed, None), run(seed, None)];
        assert_eq!(format!("{:?}", runs[0]), format!("{:?}", runs[1]));
    }
}

#[test]
fn planted_bugs_are_caught() {
    use Bug::*;
    let bugs = [
        AckBeforeSync,
        AckBeforeWrite,
        CutBeforeStored,
        CutWhenOneSinkHasIt,
        SnapshotForgetsFile,
        SnapshotForgetsPosition,
        ReplayIgnoresOrdinals,
        TornFrameTrusted,
        NewSegmentNumberReused,
        DropsOlderStamps,
        NoGapWhenRotatedAway,
        NoGapWhenRotatedLive,
        NoProbeAtEnd,
        EndWithoutProof,
        EndDespiteGap,
        KeepsCutOffHalf,
        SkipsEmptyLines,
        CountsForeignWords,
        GoneIsComplete,
        StoreErrorIgnored,
        ParquetLosesRawBytes,
        CompactionDeletesFirst,
        StoreIsNotRecalled,
    ];
    assert_eq!(missed(&bugs, 120), []);
}

/// The bugs that no world shows.
fn missed(bugs: &[Bug], seeds: u64) -> Vec<Bug> {
    let seeds = variable("TRAINYARD_SIM_SEEDS").unwrap_or(seeds);
    let missed = parallel(bugs, |bug| {
        let caught = (0..seeds).find_map(|seed| Some((seed, run(seed, Some(*bug)).err()?)));
        if let Some((seed, why)) = &caught {
            let why: String = why.chars().take(150).collect();
            println!("{bug:?}: seed {seed}: {why}");
        }
        caught.is_none().then_some(*bug)
    });
    missed.into_iter().flatten().collect()
}
