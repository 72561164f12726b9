//! `make bench-retries`: what the failure policy is worth. Failures drawn from published tables are
//! replayed in simulated time through the real `diagnose` and `plan`, and through simpler policies, on
//! the same luck. docs/retry-benchmark.md says how and with which assumptions.
//!
//! It prints; it asserts only that the replay itself works ([`checks`]).

mod checks;
mod dice;
mod evidence;
mod noise;
mod policies;
mod replay;
mod report;
mod tables;
mod tally;
mod texts;
mod trainyard;
mod world;

use std::time::Instant;

use replay::{Judged, Replay};
use tally::{Row, Sums};
use texts::Library;
use world::{Sweep, World};

/// Chance that a retry helps against a transient fault.
const HELPS: [f64; 3] = [0.3, 0.6, 0.9];
/// Chance that a node's fault sticks to the node.
const STICKS: [f64; 3] = [0.0, 0.5, 0.9];

fn main() {
    let path = tables::path();
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        eprintln!(
            "bench-retries needs the published failure tables and can't read {}: {error}\nset {} to the path of failure_tables.csv",
            path.display(),
            tables::VARIABLE
        );
        std::process::exit(1);
    });
    let seeds = number("BENCH_SEEDS", 1000);
    let begin = Instant::now();
    let sources = tables::read(&text).expect("the table is understood");
    let library = Library::new();
    let worlds: Vec<World> = sources
        .iter()
        .map(|s| World::new(s, &library).expect("every reason has a text"))
        .collect();
    checks::run(&worlds);
    report::head(seeds, &path);
    let mut all = Vec::new();
    for world in &worlds {
        let measured = measure(world, seeds);
        report::source(world, seeds, &measured);
        all.push((world, measured));
    }
    report::blind_test(&library);
    report::summary(&all);
    println!("\nreplayed in {:.0} s", begin.elapsed().as_secs_f64());
}

/// What the replay of a source gave.
pub struct Measured {
    /// For each point of the sweep, its sums.
    pub cells: Vec<(Sweep, Sums)>,
    /// What diagnose said.
    pub judged: Vec<Judged>,
}

fn measure(world: &World, seeds: u64) -> Measured {
    // Philly has 10 such failures of 39,776: there is nothing to sweep.
    let has_nodes = world.source.share(tables::Hint::Node) > 0.001;
    let sticks = STICKS.into_iter().filter(|s| has_nodes || *s == 0.0);
    let sweeps: Vec<Sweep> = HELPS
        .into_iter()
        .flat_map(|helps| sticks.clone().map(move |sticks| Sweep { helps, sticks }))
        .collect();
    let (rows, judged) = on_all_cores(world, seeds, &sweeps);
    let sums = |i: usize| Sums::of(&rows.iter().map(|seed| seed[i]).collect::<Vec<Row>>());
    Measured {
        cells: sweeps
            .iter()
            .enumerate()
            .map(|(i, sweep)| (*sweep, sums(i)))
            .collect(),
        judged,
    }
}

/// Seed by seed, on every core; the result does not depend on how many there are.
fn on_all_cores(world: &World, seeds: u64, sweeps: &[Sweep]) -> (Vec<Vec<Row>>, Vec<Judged>) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let share = seeds.div_ceil(cores);
    let one = |from: u64| {
        let mut replay = Replay::new(world);
        let rows: Vec<Vec<Row>> = (from..seeds.min(from + share))
            .map(|seed| replay.seed(seed, sweeps))
            .collect();
        (rows, replay.judged)
    };
    let parts: Vec<(Vec<Vec<Row>>, Judged)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores)
            .map(|core| scope.spawn(move || one(core * share)))
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().expect("no panic"))
            .collect()
    });
    let (rows, judged): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    (rows.concat(), judged)
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} must be a number, and is {text}"))
    })
}
