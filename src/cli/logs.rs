//! `kubectl trainyard logs JOB`: prints the stored lines of a job, from the collector or from a store.

use std::{
    io::{self, IsTerminal, Write},
    num::NonZeroUsize,
    process::ExitCode,
};

use clap::Args as ClapArgs;
use thiserror::Error;

use super::{
    cluster,
    lines::{self, Lines, Question},
};
use crate::logs::{
    http::parameters::Parameters,
    read::{Attempts, Format},
};

/// What `--help` says below the flags.
const AFTER: &str = "\
Exit codes:
  0  all that was asked for is printed, or the reader of the pipe has had enough
  1  nothing can be read: no such job, no right to, no collector
  2  the arguments are wrong
  3  the output ends in the middle, because the connection broke for good";

/// Arguments of `logs`.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = AFTER)]
pub struct Args {
    /// Name of the job.
    #[arg(value_parser = cluster::name)]
    job: String,
    /// Which attempt: its number, `all`, or `newest`.
    #[arg(long, default_value = "newest", value_name = "N")]
    attempt: Attempts,
    /// Only one rank; by default the lines of all, merged by time.
    #[arg(long)]
    rank: Option<u32>,
    /// Only one container; by default the lines of all.
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Only lines whose message has this regular expression; `(?i)` in front ignores case.
    #[arg(short, long, value_name = "REGEX")]
    grep: Option<String>,
    /// Only lines since a time: RFC 3339, or how long ago, such as 90s, 10m, 1h30m, 2d.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only lines before a time, written as for --since.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only the last N of these lines.
    #[arg(short = 't', long, value_name = "N")]
    tail: Option<NonZeroUsize>,
    /// Go on with new lines, and with the next attempts, until the job has ended.
    #[arg(short, long)]
    follow: bool,
    /// As text, as json (one object a line, with all that is known of it), or raw (what the containers
    /// wrote, byte by byte).
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// Read a store directly instead of asking the collector: a folder, or a URL such as s3://….
    #[arg(long, env = "TRAINYARD_STORE", value_name = "DIR|URL")]
    store: Option<String>,
}

/// Why no lines, or not all, were printed.
#[derive(Debug, Error)]
pub enum Error {
    /// They can't be read.
    #[error(transparent)]
    Lines(#[from] lines::Error),
    /// Standard output.
    #[error("can't print the lines: {0}")]
    Print(io::Error),
}

impl Error {
    /// What the command exits with.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Lines(lines::Error::Question(_)) => ExitCode::from(2),
            Self::Lines(lines::Error::Broken(_)) => ExitCode::from(3),
            Self::Lines(_) | Self::Print(_) => ExitCode::FAILURE,
        }
    }
}

impl From<cluster::Error> for Error {
    fn from(error: cluster::Error) -> Self {
        Self::Lines(error.into())
    }
}

/// Prints the lines.
///
/// # Errors
/// Where they can't be read, and where they can't be printed, unless the reader of a pipe has had
/// enough.
pub async fn run(args: Args, cluster: &cluster::Args) -> Result<(), Error> {
    let printed = match &args.store {
        Some(place) => from_store(place, &args, cluster).await,
        None => {
            let cluster = cluster.cluster().await?;
            let lines = Lines::of_collector(&cluster, args.question()).await?;
            print(lines, &args).await
        }
    };
    match printed {
        Err(Error::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

impl Args {
    fn question(&self) -> Question {
        Question {
            job: self.job.clone(),
            parameters: Parameters {
                attempt: Some(self.attempt.to_string()),
                rank: self.rank,
                container: self.container.clone(),
                since: self.since.clone(),
                until: self.until.clone(),
                grep: self.grep.clone(),
                tail: self.tail,
                follow: self.follow.then_some(true),
                format: Some(self.output.as_str().to_owned()),
                ..Parameters::default()
            },
        }
    }
}

async fn from_store(place: &str, args: &Args, cluster: &cluster::Args) -> Result<(), Error> {
    // A store can be read without a cluster; only the end of a followed job is not seen then.
    let live = if args.follow || cluster.given_namespace().is_none() {
        cluster.cluster().await.ok()
    } else {
        None
    };
    let namespace = match (&live, cluster.given_namespace()) {
        (Some(live), _) => live.namespace.clone(),
        (None, Some(given)) => given.to_owned(),
        (None, None) => "default".to_owned(),
    };
    let live = live.as_ref().filter(|_| args.follow);
    let lines = Lines::of_store(place, live, &namespace, args.question()).await?;
    print(lines, args).await
}

async fn print(mut lines: Lines<'_>, args: &Args) -> Result<(), Error> {
    let mut printer = Printer::new(args.output);
    let mut attempt = 0;
    loop {
        let block = lines.next().await?;
        if args.follow && attempt != 0 && block.attempt > attempt {
            eprintln!("attempt {} of {} begins", block.attempt, args.job);
        }
        attempt = block.attempt;
        printer.print(&block.data)?;
        if block.last {
            return Ok(());
        }
    }
}

/// Prints lines; on a terminal each rank has its own colour.
struct Printer {
    out: io::BufWriter<io::Stdout>,
    colour: bool,
}

impl Printer {
    fn new(format: Format) -> Self {
        let terminal = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            out: io::BufWriter::with_capacity(64 * 1024, io::stdout()),
            colour: terminal && format == Format::Text,
        }
    }

    /// Prints whole lines.
    fn print(&mut self, data: &[u8]) -> Result<(), Error> {
        let written = if self.colour {
            data.split_inclusive(|b| *b == b'\n')
                .try_for_each(|line| self.out.write_all(&coloured(line)))
        } else {
            self.out.write_all(data)
        };
        written
            .and_then(|()| self.out.flush())
            .map_err(Error::Print)
    }
}

/// Colours of ranks: those that can be read on dark and on light.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// The line with its time and identity in the colour of its rank.
fn coloured(line: &[u8]) -> Vec<u8> {
    let mut spaces = line.iter().enumerate().filter(|(_, b)| **b == b' ');
    let identity = match (spaces.next(), spaces.next()) {
        (Some((from, _)), Some((to, _))) => from + 1..to,
        _ => return line.to_vec(),
    };
    let rank = line[identity.clone()]
        .split(|b| *b == b'/')
        .nth(2)
        .and_then(|rank| std::str::from_utf8(rank).ok()?.parse::<usize>().ok());
    let Some(rank) = rank else {
        return line.to_vec();
    };
    let colour = COLOURS[rank % COLOURS.len()];
    let mut text = format!("\x1b[{colour}m").into_bytes();
    text.extend_from_slice(&line[..identity.end]);
    text.extend_from_slice(b"\x1b[0m");
    text.extend_from_slice(&line[identity.end..]);
    text
}

#[cfg(test)]
mod tests {
    use super::coloured;

    #[test]
    fn each_rank_has_its_colour() {
        assert_eq!(
            coloured(b"T job/1/1 - m x\n"),
            b"\x1b[33mT job/1/1\x1b[0m - m x\n"
        );
        assert_eq!(coloured(b"something else\n"), b"something else\n");
    }
}
