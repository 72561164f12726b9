//! The published tables of failures: what is in the file, and what had to be assumed beside it.
//!
//! The file gives, for each reason, how often it came (a count, or a share of all tasks) and a hint
//! whether a retry helps. It does not say how many jobs did not fail, how many GPUs they had, or how long
//! they ran; [`Assumed`] does, and is printed with the results.

use std::{collections::BTreeMap, path::PathBuf};

/// The environment variable that names the file.
pub const VARIABLE: &str = "TRAINYARD_FAILURE_TABLES";

/// What the published hint says about a retry. A policy never sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Every attempt repeats it.
    Deterministic,
    /// A retry may help.
    Transient,
    /// A retry may help, and the fault may stick to the node.
    Node,
    /// Nobody knows: a retry helps at the rate of [`crate::world::AMBIGUOUS`].
    Ambiguous,
}

/// A published reason.
#[derive(Clone, Debug)]
pub struct Cause {
    /// As published.
    pub reason: String,
    /// Whether a retry helps.
    pub hint: Hint,
    /// How often it comes, relative to its source's others.
    pub weight: f64,
    /// Mean hours from an attempt's start to the failure.
    pub hours: f64,
}

/// What the file does not say.
#[derive(Clone, Copy, Debug)]
pub struct Assumed {
    /// How the file calls the source.
    name: &'static str,
    /// Jobs of a seed: so many that the intervals are narrow and the replay takes minutes.
    pub jobs: u64,
    /// Share of jobs of which the first attempt fails.
    pub failing: f64,
    /// Mean hours to failure over all reasons.
    hours: f64,
    /// GPUs of a job, with weights.
    pub gpus: &'static [(i32, f64)],
    /// Where the numbers come from.
    pub why: &'static str,
}

const ASSUMED: [Assumed; 4] = [
    Assumed {
        name: "Acme NSDI24",
        jobs: 20,
        failing: 0.40,
        hours: 1.0,
        gpus: &[(1, 0.50), (8, 0.32), (16, 0.10), (32, 0.05), (64, 0.03)],
        why: "40 % of jobs fail (assumed); hours to failure by reason = share of GPU-time / count, scaled to a mean of 1 h (assumed); GPUs assumed",
    },
    Assumed {
        name: "Philly ATC19",
        jobs: 40,
        failing: 0.17,
        hours: 3.0,
        gpus: &[(1, 0.75), (2, 0.07), (4, 0.08), (8, 0.06), (16, 0.04)],
        why: "17 % of jobs fail (assumed); hours to failure by reason = share of runtime / count, scaled to a mean of 3 h (assumed); GPUs assumed",
    },
    Assumed {
        name: "Unicron",
        jobs: 10,
        failing: 0.433,
        hours: 12.0,
        gpus: &[(8, 0.40), (16, 0.25), (32, 0.20), (64, 0.15)],
        why: "43.3 % of tasks fail (the sum of the table's shares); hours to failure (mean 12) and GPUs assumed",
    },
    Assumed {
        name: "Llama3 (54 d,16k GPU, 419 unplanned)",
        jobs: 5,
        failing: 0.61,
        hours: 240.0,
        gpus: &[(64, 1.0)],
        why: "419 interruptions in 54 d on 16,384 GPUs make 0.91 in 30 d on 64: so 1 - e^-0.91 = 61 % of 30-day jobs on 64 GPUs fail at least once; mean 240 h to failure assumed",
    },
];

/// One published source.
#[derive(Clone, Debug)]
pub struct Source {
    /// As in the file.
    pub name: String,
    /// Its reasons.
    pub causes: Vec<Cause>,
    /// What had to be assumed.
    pub assumed: Assumed,
}

impl Source {
    /// The name without what is in brackets.
    pub fn short(&self) -> &str {
        self.name.split(" (").next().unwrap_or(&self.name)
    }

    /// Share of the failures with that hint.
    pub fn share(&self, hint: Hint) -> f64 {
        let all: f64 = self.causes.iter().map(|c| c.weight).sum();
        let with = self.causes.iter().filter(|c| c.hint == hint);
        with.fold(0.0, |sum, c| sum + c.weight) / all
    }
}

/// Where the file is.
pub fn path() -> PathBuf {
    std::env::var_os(VARIABLE).map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/failure_tables.csv"),
        PathBuf::from,
    )
}

/// The sources of the file's text, in its order.
pub fn read(text: &str) -> Result<Vec<Source>, String> {
    let mut rows = text.lines().map(fields);
    let head = rows.next().unwrap_or_default();
    let column = |name: &str| {
        let found = head.iter().position(|h| h == name);
        found.ok_or(format!("the table has no column {name}"))
    };
    let [source, reason, count, share, basis, hint] = [
        column("source")?,
        column("reason")?,
        column("count")?,
        column("share")?,
        column("share_basis")?,
        column("retry_hint")?,
    ];
    let mut order: Vec<String> = Vec::new();
    let mut by_name: BTreeMap<String, Vec<Cause>> = BTreeMap::new();
    for row in rows.filter(|r| r.len() > 1) {
        let get = |i: usize| row.get(i).map(String::as_str).unwrap_or_default();
        let number = |i: usize| get(i).parse::<f64>().ok();
        let share_of_time = get(basis).contains("time");
        let relative_hours = match (number(count), number(share)) {
            (Some(n), Some(s)) if share_of_time && n > 0.0 => s / n,
            _ => 1.0,
        };
        if !order.iter().any(|o| o == get(source)) {
            order.push(get(source).to_owned());
        }
        by_name
            .entry(get(source).to_owned())
            .or_default()
            .push(Cause {
                reason: get(reason).to_owned(),
                hint: meaning(get(hint))?,
                weight: number(count).or(number(share)).unwrap_or(0.0),
                hours: relative_hours,
            });
    }
    order
        .into_iter()
        .map(|name| {
            let assumed = ASSUMED.into_iter().find(|a| a.name == name).ok_or(format!(
                "nothing is assumed yet about the source {name}: add it to ASSUMED"
            ))?;
            let mut causes = by_name.remove(&name).unwrap_or_default();
            scale(&mut causes, assumed.hours);
            Ok(Source {
                name,
                causes,
                assumed,
            })
        })
        .collect()
}

/// Relative hours become hours with the mean `mean`, at least a minute: a program that can't be parsed
/// fails at once, but not before its image is there.
fn scale(causes: &mut [Cause], mean: f64) {
    let weights: f64 = causes.iter().map(|c| c.weight).sum();
    let now: f64 = causes.iter().map(|c| c.weight * c.hours).sum::<f64>() / weights;
    for cause in causes {
        cause.hours = (cause.hours / now * mean).max(1.0 / 60.0);
    }
}

/// Unicron's hints say what has to be replaced or restarted, the others' whether it helps.
fn meaning(hint: &str) -> Result<Hint, String> {
    Ok(match hint {
        "deterministic" => Hint::Deterministic,
        "transient" | "transient in place" | "restart process" => Hint::Transient,
        "transient_node" | "new node" => Hint::Node,
        "ambiguous" | "unknown" => Hint::Ambiguous,
        other => {
            return Err(format!(
                "the table has a retry_hint that is not known: {other}"
            ));
        }
    })
}

/// The fields of a line; quotes hold commas together.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields.last_mut().expect("never empty").push(c),
        }
    }
    fields
}
