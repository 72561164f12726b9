//! `loggen`: writes lines that prove themselves (see `trainyard::logs::generated`), so that
//! `trainyard logs verify --generated` can say whether all of them are stored. For tests and
//! measurements; it is not part of trainyard's image.

use std::{
    io::{self, Write},
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use trainyard::logs::{
    generated::{Generator, Kind, Piece},
    line::Output,
};

/// How long the other output is quiet before and after a line that the runtime splits: longer than a
/// busy node takes to read what is in a pipe.
const QUIET: Duration = Duration::from_millis(500);

/// Write numbered lines with checksums to standard output and standard error.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Bytes a second; without it, as fast as they are taken.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// For so many seconds.
    #[arg(long, value_name = "SECONDS", required_unless_present = "bytes")]
    duration: Option<u64>,
    /// Until so many bytes are written.
    #[arg(long, value_name = "BYTES")]
    bytes: Option<u64>,
    /// The same seed on a host of the same name (a pod's, for one) writes the same lines.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What the lines are like: all, or some of them.
    #[arg(long, value_delimiter = ',', default_value = "all", value_parser = kinds())]
    kinds: Vec<String>,
}

fn kinds() -> clap::builder::PossibleValuesParser {
    let all = clap::builder::PossibleValue::new("all").help("All of these");
    let kinds = Kind::value_variants()
        .iter()
        .filter_map(ValueEnum::to_possible_value);
    clap::builder::PossibleValuesParser::new(std::iter::once(all).chain(kinds))
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error is what broke, the exit code has to do.
            let _ = writeln!(io::stderr(), "loggen: can't write: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    let kind = |name: &String| Kind::from_str(name, false).ok();
    // "all" is no kind: with it the list is none, which stands for all.
    let kinds: Option<Vec<Kind>> = args.kinds.iter().map(kind).collect();
    let kinds = kinds.unwrap_or_default();
    let host = std::env::var("HOSTNAME").unwrap_or_default();
    let seed = crc32fast::hash(format!("{} {host}", args.seed).as_bytes());
    let mut generator = Generator::new(seed, &kinds);
    let begin = Instant::now();
    let mut bytes = 0;
    while args.bytes.is_none_or(|end| bytes < end)
        && (args.duration).is_none_or(|end| begin.elapsed() < Duration::from_secs(end))
    {
        let piece = generator.piece();
        bytes += piece.bytes.len() as u64;
        write(&piece, args.rate.is_some())?;
        if let Some(rate) = args.rate {
            let due = Duration::from_secs_f64(bytes as f64 / rate as f64);
            sleep(due.saturating_sub(begin.elapsed()));
        }
    }
    for piece in generator.end() {
        write(&piece, args.rate.is_some())?;
    }
    Ok(())
}

fn write(piece: &Piece, paced: bool) -> io::Result<()> {
    // At full speed into a file nothing is split, and nothing is waited for.
    let quiet = if piece.alone && paced {
        QUIET
    } else {
        Duration::ZERO
    };
    sleep(quiet);
    if piece.output == Output::Stderr {
        io::stderr().lock().write_all(&piece.bytes)?;
    } else {
        // Standard output is buffered up to a newline; what is behind the last one must go, too.
        let mut stdout = io::stdout().lock();
        stdout.write_all(&piece.bytes)?;
        stdout.flush()?;
    }
    sleep(quiet);
    Ok(())
}
