//! The tables that are printed.

use std::{collections::BTreeMap, path::Path, process::Command};

use trainyard::api::FailureClass;

use crate::{
    Measured, checks,
    policies::Policy,
    tables::Hint,
    tally::{Estimate, RESAMPLES, Row, Sums, Tally},
    texts::Library,
    world::{AMBIGUOUS, World},
};

/// The claim under test: so many failed jobs fewer.
const CLAIM: f64 = 0.40;

/// What is compared.
type Statistic = fn(&Tally) -> f64;

/// Machine, commit, method.
pub fn head(seeds: u64, path: &Path) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|l| {
        l.strip_prefix("model name")?
            .split_once(": ")
            .map(|(_, m)| m)
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "What the failure policy is worth: published failures replayed through trainyard's plan and diagnose"
    );
    println!("machine: {cores} cores, {}", model.unwrap_or("unknown"));
    println!(
        "commit: {}{}",
        git(&["rev-parse", "--short", "HEAD"]),
        if git(&["status", "--porcelain", "-uno"]).is_empty() {
            ""
        } else {
            " with changes"
        }
    );
    println!("tables: {}", path.display());
    println!("seeds: 0..{seeds}, the same jobs and luck under every policy");
    println!(
        "intervals: 95 %, percentile bootstrap over seeds, {RESAMPLES} resamples, paired between policies"
    );
    println!(
        "a retry never helps against a deterministic failure: no policy can fix those. Against an ambiguous one it helps with {AMBIGUOUS};"
    );
    println!(
        "against a transient one with p, and a node's fault sticks to its node with s (swept)"
    );
}

fn git(arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    output.map_or_else(
        |_| String::new(),
        |o| String::from_utf8_lossy(&o.stdout).trim().to_owned(),
    )
}

/// All of a source.
pub fn source(world: &World, seeds: u64, measured: &Measured) {
    let source = world.source;
    println!("\n=== {} ===", source.short());
    println!("assumed: {}", source.assumed.why);
    let Some((_, sums)) = measured.cells.first() else {
        return;
    };
    let none = sums.all()[0];
    println!(
        "{seeds} seeds x {} = {} jobs; {} fail at first ({:.1} %); {} of these of something deterministic ({:.1} %; {:.1} % by the table), so {} jobs are without user errors",
        source.assumed.jobs,
        none.jobs,
        none.failed,
        100.0 * none.failed / none.jobs,
        none.failed - none.fixable_failed,
        100.0 * (none.failed - none.fixable_failed) / none.failed,
        100.0 * source.share(Hint::Deterministic),
        none.fixable,
    );
    println!(
        "most that any policy can save here: {:.1} % of the failed jobs",
        100.0 * none.fixable_failed / none.failed
    );
    outcomes(measured);
    claim(measured);
    confusion(world, measured);
}

/// Each policy at each point of the sweep.
fn outcomes(measured: &Measured) {
    println!(
        "\n  p   s   {:<12} {:>21} {:>21} {:>15} {:>14} {:>16} {:>10}",
        "policy",
        "failed, % of all jobs",
        "% w/o user errors",
        "useless/restarts",
        "per 100 jobs",
        "GPU-h lost/job",
        "verdict h"
    );
    for (sweep, sums) in &measured.cells {
        for (i, policy) in Policy::ALL.into_iter().enumerate() {
            let t = sums.all()[i];
            let failed = sums.estimate(|r| 100.0 * r[i].failed / r[i].jobs);
            let fixable = sums.estimate(|r| 100.0 * r[i].fixable_failed / r[i].fixable);
            println!(
                "  {:.1} {:.1} {:<12} {:>21} {:>21} {:>15} {:>14} {:>16} {:>10}",
                sweep.helps,
                sweep.sticks,
                policy.name(),
                shown(failed, 2),
                shown(fixable, 2),
                format!("{}/{}", t.useless, t.restarts),
                format!("{:.2}", 100.0 * t.useless / t.jobs),
                format!("{:.2} ({:.2})", t.lost / t.jobs, t.useless_lost / t.jobs),
                format!("{:.3}", t.verdict / t.failed.max(1.0)),
            );
        }
    }
    println!(
        "  (GPU-h lost/job: of failed attempts, past the last checkpoint; in brackets: of useless restarts. verdict h: from a job's first failure to its end, mean over jobs that end failed)"
    );
}

/// Where the claim holds.
fn claim(measured: &Measured) {
    println!(
        "\n  Is it {:.0} % fewer? yes: the whole interval is above; no: it is below; ~: neither",
        CLAIM * 100.0
    );
    println!("  (by GPU-h: failed jobs weighted with their GPU-hours up to the first failure)");
    println!(
        "  p   s   {:<12} {:^74} | {:^96}",
        "", "fewer failed jobs than with none, %", "fewer than with blind x3, %"
    );
    let count: [(&str, Statistic); 3] = [
        ("all jobs", |t| t.failed),
        ("w/o user errors", |t| t.fixable_failed),
        ("all jobs by GPU-h", |t| t.failed_weight),
    ];
    let against_blind: [(&str, Statistic); 4] = [
        ("failed, all jobs", |t| t.failed),
        ("failed, w/o user errors", |t| t.fixable_failed),
        ("useless restarts", |t| t.useless),
        ("GPU-h lost", |t| t.lost),
    ];
    let heads = |of: &[(&str, Statistic)]| -> String {
        of.iter().map(|(head, _)| format!(" {head:>24}")).collect()
    };
    println!("  {:<20}{} |{}", "", heads(&count), heads(&against_blind));
    for (sweep, sums) in &measured.cells {
        for i in 1..Policy::ALL.len() {
            let cells = |of: &[(&str, Statistic)], other: usize| -> String {
                of.iter()
                    .map(|(_, f)| {
                        if i == other {
                            "-".into()
                        } else {
                            verdict(sums, i, other, *f)
                        }
                    })
                    .map(|cell| format!(" {cell:>24}"))
                    .collect()
            };
            println!(
                "  {:.1} {:.1} {:<12}{} |{}",
                sweep.helps,
                sweep.sticks,
                Policy::ALL[i].name(),
                cells(&count, 0),
                cells(&against_blind, 1),
            );
        }
    }
}

/// Where the claim holds for trainyard with avoidance, in one line for each source and question.
pub fn summary(measured: &[(&World, Measured)]) {
    println!(
        "\n=== {:.0} % fewer failed jobs, trainyard with avoidance: points of the sweep where the interval is above, below, neither; least and most, % ===",
        CLAIM * 100.0
    );
    let questions: [(&str, usize, Statistic); 5] = [
        ("than with none, all jobs", 0, |t| t.failed),
        ("than with none, jobs w/o user errors", 0, |t| {
            t.fixable_failed
        }),
        ("than with none, all jobs by GPU-h", 0, |t| t.failed_weight),
        ("than with blind x3, all jobs", 1, |t| t.failed),
        ("than with blind x3, w/o user errors", 1, |t| {
            t.fixable_failed
        }),
    ];
    let ours = Policy::ALL.len() - 1;
    for (world, measured) in measured {
        for (question, other, f) in questions {
            let all = measured
                .cells
                .iter()
                .map(|(_, sums)| fewer(sums, ours, other, f));
            let all: Vec<Estimate> = all.collect();
            let count = |word: &str| all.iter().filter(|e| answer(e) == word).count();
            let values = || all.iter().map(|e| e.value);
            println!(
                "  {:<14} {question:<38} yes {:>2}  no {:>2}  ~ {:>2}   {:>6.1} .. {:.1}",
                world.source.short(),
                count("yes"),
                count("no"),
                count("~"),
                values().fold(f64::INFINITY, f64::min),
                values().fold(f64::NEG_INFINITY, f64::max),
            );
        }
    }
}

/// "41.2 (39.0..43.1) ~"
fn verdict(sums: &Sums, ours: usize, other: usize, f: Statistic) -> String {
    let fewer = fewer(sums, ours, other, f);
    if !fewer.value.is_finite() {
        return "-".into();
    }
    format!("{} {:<3}", shown(fewer, 1), answer(&fewer))
}

/// How much less of it there is, %.
fn fewer(sums: &Sums, ours: usize, other: usize, f: Statistic) -> Estimate {
    sums.estimate(|r: &Row| 100.0 * (1.0 - f(&r[ours]) / f(&r[other])))
}

fn answer(fewer: &Estimate) -> &'static str {
    let claim = CLAIM * 100.0;
    if fewer.low >= claim {
        "yes"
    } else if fewer.high < claim {
        "no"
    } else {
        "~"
    }
}

fn shown(e: Estimate, digits: usize) -> String {
    format!(
        "{:.digits$} ({:.digits$}..{:.digits$})",
        e.value, e.low, e.high
    )
}

/// Which class diagnose gave to which published reason.
fn confusion(world: &World, measured: &Measured) {
    println!(
        "\n  what diagnose made of each reason ({}), over the failed attempts of all stories that differ, under trainyard with avoidance",
        world.source.short()
    );
    let mut by_cause: BTreeMap<usize, BTreeMap<FailureClass, u64>> = BTreeMap::new();
    let (mut gangs, mut right_rank, mut wrong, mut total) = (0, 0, 0, 0);
    let (mut hopeless, mut mendable) = ([0, 0], [0, 0]);
    for judged in &measured.judged {
        for ((cause, text, class), n) in &judged.classes {
            *by_cause
                .entry(*cause)
                .or_default()
                .entry(*class)
                .or_default() += n;
            total += n;
            if !world.library.texts[*text].right.contains(class) {
                wrong += n;
            }
        }
        for i in 0..2 {
            hopeless[i] += judged.hopeless[i];
            mendable[i] += judged.mendable[i];
        }
        gangs += judged.gangs;
        right_rank += judged.right_rank;
    }
    for (cause, classes) in by_cause {
        let published = &world.source.causes[cause];
        let n: u64 = classes.values().sum();
        let mut classes: Vec<_> = classes.into_iter().collect();
        classes.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        let list: Vec<String> = classes
            .iter()
            .map(|(class, m)| format!("{class} {:.0} %", 100.0 * *m as f64 / n as f64))
            .collect();
        let hint = match published.hint {
            Hint::Deterministic => "deterministic",
            Hint::Transient => "transient",
            Hint::Node => "node",
            Hint::Ambiguous => "ambiguous",
        };
        println!(
            "  {:<32} {hint:<14} {n:>8}  {}",
            published.reason,
            list.join(", ")
        );
    }
    println!(
        "  deterministic failures that were retried: {} of {} ({:.2} %)",
        hopeless[1],
        hopeless[0],
        percent(hopeless)
    );
    println!(
        "  first failures that a retry might mend and that were not retried: {} of {} ({:.2} %)",
        mendable[1],
        mendable[0],
        percent(mendable)
    );
    println!(
        "  a class that a person would not give: {wrong} of {total} ({:.2} %)",
        100.0 * wrong as f64 / total.max(1) as f64
    );
    println!(
        "  the rank to blame was blamed in {right_rank} of {gangs} failures of gangs ({:.2} %)",
        100.0 * right_rank as f64 / gangs.max(1) as f64
    );
}

fn percent([all, of]: [u64; 2]) -> f64 {
    100.0 * of as f64 / all.max(1) as f64
}

/// The texts that diagnose gets wrong.
pub fn blind_test(library: &Library) {
    let (total, wrong) = checks::blind_test(library);
    println!(
        "\n=== each text alone: {} of {total} renderings get a class that a person would not give ===",
        wrong.len()
    );
    for (text, found, right) in wrong {
        let right: Vec<String> = right.iter().map(ToString::to_string).collect();
        println!("  {text:<44} got {found:<16} right: {}", right.join(" or "));
    }
}
