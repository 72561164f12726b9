//! Reading back: the stored lines of a job, those of all ranks merged by time, also while they are
//! being written and after the pods are gone.
//!
//! Lines of one container keep their stored order, whatever their stamps say. First come the files, all
//! streams merged; then the write-ahead log, in the order in which lines came, which is nearly the same.
//! A segment that is cut meanwhile is no loss: its lines are in files then, and are read there. Following
//! looks for growth a few times a second: unlike notifications that works on every volume, and a line is
//! seen as soon as it is safe.

mod answer;
pub mod completeness;
mod cursor;
mod file;
mod filter;
mod reader;
mod render;
mod tail;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, ops::RangeInclusive, str::FromStr};

use thiserror::Error;

pub use self::{
    answer::{Answer, Block, Shape},
    cursor::Cursor,
    filter::{Filter, time},
    reader::Reader,
    render::{Format, JsonLine},
    tail::Entry,
};
use super::{lake::Lake, line::StreamId, store};

/// Why there is nothing to read.
#[derive(Debug, Error)]
pub enum Error {
    /// Nothing of the job.
    #[error(
        "no lines of job {job} in namespace {namespace} are stored: check the name and the namespace; lines from before the collector was installed are not there"
    )]
    NoJob {
        /// Namespace that was asked for.
        namespace: String,
        /// Job that was asked for.
        job: String,
    },
    /// The job is there, its lines are not.
    #[error(
        "job {job} in namespace {namespace} has not logged anything yet: --follow waits for its lines; kubectl describe trainingjob {job} -n {namespace} says what it waits for"
    )]
    NotYet {
        /// Namespace that was asked for.
        namespace: String,
        /// Job that was asked for.
        job: String,
    },
    /// Not that attempt.
    #[error("no lines of attempt {attempt} are stored; there are lines of {there}")]
    NoAttempt {
        /// What was asked for.
        attempt: u32,
        /// What there is.
        there: String,
    },
    /// Not that rank.
    #[error("no lines of rank {rank} are stored for {attempt}; there are lines of {there}")]
    NoRank {
        /// What was asked for.
        rank: u32,
        /// Of which attempt.
        attempt: String,
        /// What there is.
        there: String,
    },
    /// Not that container.
    #[error(
        "no lines of container {container} are stored for {attempt}; there are lines of {there}"
    )]
    NoContainer {
        /// What was asked for.
        container: String,
        /// Of which attempt.
        attempt: String,
        /// What there is.
        there: String,
    },
    /// Too much at once.
    #[error("the last {n} lines are too large to be held together; ask for fewer")]
    LongTail {
        /// How many were asked for.
        n: usize,
    },
    /// The store.
    #[error("can't read the store in {place}: {source}; check --store and its rights")]
    Store {
        /// Where it is.
        place: String,
        /// Why not.
        source: Box<store::Error>,
    },
    /// The collector is being stopped.
    #[error("the collector is stopping; ask again in a moment")]
    Stopping,
}

/// Which attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attempts {
    /// The newest one; when following, those after it too.
    #[default]
    Newest,
    /// One.
    One(u32),
    /// All.
    All,
}

impl FromStr for Attempts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "newest" => Ok(Self::Newest),
            "all" => Ok(Self::All),
            n => n
                .parse()
                .map(Self::One)
                .map_err(|_| "an attempt is its number, from 1, or `all`, or `newest`".to_owned()),
        }
    }
}

impl std::fmt::Display for Attempts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Newest => f.write_str("newest"),
            Self::All => f.write_str("all"),
            Self::One(n) => n.fmt(f),
        }
    }
}

/// What to read of a job.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Which attempts.
    pub attempts: Attempts,
    /// One rank, or all.
    pub rank: Option<u32>,
    /// One container, or all.
    pub container: Option<String>,
    /// Which of their lines.
    pub filter: Filter,
    /// The last so many of the lines that are there.
    pub tail: Option<usize>,
    /// Those after this.
    pub cursor: Option<Cursor>,
    /// Go on with lines, ranks and attempts that are still to come.
    pub follow: bool,
}

impl Selection {
    /// Whether a stream of a selected attempt is selected.
    fn wants(&self, id: &StreamId) -> bool {
        self.rank.is_none_or(|rank| rank == id.rank)
            && (self.container.as_ref()).is_none_or(|container| *container == id.container)
    }
}

/// One job, by its uid.
#[derive(Clone, Debug)]
pub struct Job {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
}

fn failed(lake: &Lake, source: impl Into<store::Error>) -> Error {
    Error::Store {
        place: lake.name().to_owned(),
        source: Box::new(source.into()),
    }
}

/// Says what is there instead, where nothing is selected.
fn check(
    streams: &BTreeSet<&StreamId>,
    job: &Job,
    attempts: &RangeInclusive<u32>,
    selection: &Selection,
) -> Result<(), Error> {
    if streams.is_empty() {
        return Err(Error::NoJob {
            namespace: job.namespace.clone(),
            job: job.name.clone(),
        });
    }
    let selected = || streams.iter().filter(|s| attempts.contains(&s.attempt));
    if selected().next().is_none() {
        return Err(Error::NoAttempt {
            attempt: *attempts.start(),
            there: enumerate("attempt", streams.iter().map(|s| s.attempt)),
        });
    }
    let attempt = || enumerate("attempt", selected().map(|s| s.attempt));
    if let Some(rank) = selection.rank
        && !selected().any(|s| s.rank == rank)
    {
        return Err(Error::NoRank {
            rank,
            attempt: attempt(),
            there: enumerate("rank", selected().map(|s| s.rank)),
        });
    }
    if let Some(container) = &selection.container
        && !selected().any(|s| s.container == *container)
    {
        let there: BTreeSet<_> = selected().map(|s| s.container.as_str()).collect();
        let there: Vec<_> = there.into_iter().collect();
        return Err(Error::NoContainer {
            container: container.clone(),
            attempt: attempt(),
            there: there.join(", "),
        });
    }
    Ok(())
}

/// `ranks 0-3, 5`.
fn enumerate(what: &str, numbers: impl Iterator<Item = u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for n in numbers.collect::<BTreeSet<_>>() {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => runs.push((n, n)),
        }
    }
    let plural = runs.len() > 1 || runs.first().is_some_and(|(a, b)| a != b);
    let runs: Vec<_> = runs
        .iter()
        .map(|(a, b)| {
            if a == b {
                a.to_string()
            } else {
                format!("{a}-{b}")
            }
        })
        .collect();
    format!(
        "{what}{} {}",
        if plural { "s" } else { "" },
        runs.join(", ")
    )
}
