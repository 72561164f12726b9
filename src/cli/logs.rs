//! `kubectl trainyard logs JOB`: the stored lines of a job, from the collector or from a store.

use std::io::{self, IsTerminal, Write};

use clap::Args as ClapArgs;
use futures::{AsyncBufReadExt, FutureExt};
use thiserror::Error;

use super::cluster::{self, Cluster};
use crate::logs::{
    http, job,
    lake::OpenError,
    read::{self, Attempts, Selection},
    store::Store,
};

/// Arguments of `logs`.
#[derive(ClapArgs, Clone, Debug)]
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
    /// Go on with new lines, and with the next attempts, until the job has ended.
    #[arg(short, long)]
    follow: bool,
    /// Read a store directly instead of asking the collector: a folder, or a URL such as s3://….
    #[arg(long, env = "TRAINYARD_STORE", value_name = "DIR|URL")]
    store: Option<String>,
}

/// Why no lines, or not all, were printed.
#[derive(Debug, Error)]
pub enum Error {
    /// The cluster or the collector.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// The store.
    #[error(transparent)]
    Read(#[from] read::Error),
    /// The place of the store.
    #[error(transparent)]
    Place(#[from] OpenError),
    /// In the middle of it.
    #[error(
        "the connection to the collector broke, so lines are missing here: {0}; they are stored: run the command again"
    )]
    Broken(io::Error),
    /// Standard output.
    #[error("can't print the lines: {0}")]
    Print(io::Error),
}

/// Prints the lines.
///
/// # Errors
/// Where they can't be read, and where they can't be printed, unless the reader of a pipe has had
/// enough.
pub async fn run(args: Args, cluster: &cluster::Args) -> Result<(), Error> {
    let printed = match &args.store {
        Some(place) => from_store(place, &args, cluster).await,
        None => from_collector(&args, &cluster.cluster().await?).await,
    };
    match printed {
        Err(Error::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

impl Args {
    fn selection(&self) -> Selection {
        Selection {
            attempts: self.attempt,
            rank: self.rank,
            follow: self.follow,
        }
    }
}

async fn from_collector(args: &Args, cluster: &Cluster) -> Result<(), Error> {
    let path = http::path(&cluster.namespace, &args.job, &args.selection());
    let mut body = cluster.ask(&path).await?;
    let mut printer = Printer::new();
    loop {
        // What is there is printed together, and shown before more is waited for.
        let there = body.fill_buf().now_or_never();
        let data = if let Some(data) = there {
            data
        } else {
            printer.flush()?;
            body.fill_buf().await
        };
        let data = data.map_err(Error::Broken)?;
        if data.is_empty() {
            return printer.finish();
        }
        printer.print(data)?;
        let n = data.len();
        body.consume_unpin(n);
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
    let client = live.filter(|_| args.follow).map(|live| live.client);
    let selection = args.selection();
    let store = Store::at(place)?;
    let (reader, job) = job::open(store, client.as_ref(), &namespace, &args.job, selection).await?;
    let ended = selection.follow.then_some(async move {
        match client {
            Some(client) => job::ended(client, job).await,
            None => std::future::pending().await,
        }
    });
    let mut blocks = read::start(reader, ended);
    let mut printer = Printer::new();
    while let Some(block) = blocks.recv().await {
        printer.print(&block?)?;
        printer.flush()?;
    }
    printer.finish()
}

/// Prints lines; on a terminal each rank has its own colour.
struct Printer {
    out: io::BufWriter<io::Stdout>,
    colour: bool,
    /// The beginning of a line whose end has not come.
    rest: Vec<u8>,
}

impl Printer {
    fn new() -> Self {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            out: io::BufWriter::with_capacity(64 * 1024, io::stdout()),
            colour,
            rest: Vec::new(),
        }
    }

    fn print(&mut self, data: &[u8]) -> Result<(), Error> {
        if !self.colour {
            return self.out.write_all(data).map_err(Error::Print);
        }
        for piece in data.split_inclusive(|b| *b == b'\n') {
            self.rest.extend_from_slice(piece);
            if self.rest.ends_with(b"\n") {
                let line = std::mem::take(&mut self.rest);
                self.out.write_all(&coloured(&line)).map_err(Error::Print)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.out.flush().map_err(Error::Print)
    }

    fn finish(mut self) -> Result<(), Error> {
        self.out.write_all(&self.rest).map_err(Error::Print)?;
        self.flush()
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
