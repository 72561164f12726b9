//! `kubectl trainyard explain`: why a job failed, as a person would tell it.
//!
//! `explain JOB` tells the story in the job's status, with the lines that decided it ([`super::story`]);
//! `explain --log FILE` judges any log anywhere, without a cluster. The judgement is in both cases
//! that of [`crate::diagnose`].

use std::{
    fs::File,
    io::{self, Read, Write},
    path::PathBuf,
};

use clap::{Args as ClapArgs, ValueEnum};
use thiserror::Error;

use super::{cluster, explain_job};
use crate::diagnose::offline::{self, Confidence, Explanation};

/// Arguments of `explain`.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Name of the job.
    #[arg(required_unless_present = "log", conflicts_with = "log", value_parser = cluster::name)]
    job: Option<String>,
    /// Read the lines from a store directly: a folder, or a URL such as s3://….
    #[arg(long, env = "TRAINYARD_STORE", value_name = "PLACE")]
    store: Option<String>,
    /// Explain this log instead; - for standard input. No cluster is needed.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Exit code of the program, where it is known; 128 + n for signal n.
    #[arg(long, requires = "log", allow_hyphen_values = true)]
    exit_code: Option<i32>,
    /// Reason that Kubernetes gives, where it gives one: OOMKilled, Evicted …
    #[arg(long, requires = "log")]
    reason: Option<String>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// How the answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum Error {
    /// The job.
    #[error(transparent)]
    Job(#[from] explain_job::Error),
    /// The log.
    #[error("can't read {file}: {error}; give an existing file, or - for standard input")]
    Read {
        /// Its name.
        file: String,
        /// Why not.
        error: io::Error,
    },
    /// Standard output.
    #[error("can't print the answer: {0}")]
    Print(io::Error),
}

/// Prints the story of the job, or what the log says.
///
/// # Errors
/// Where the job or the log can't be read, or the answer not be printed.
pub async fn run(args: &Args, cluster: &cluster::Args) -> Result<(), Error> {
    let text = match &args.job {
        Some(job) => explain_job::story(job, args.store.as_deref(), args.output, cluster).await?,
        None => of_log(args)?,
    };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Print(error)),
        _ => Ok(()),
    }
}

fn of_log(args: &Args) -> Result<String, Error> {
    let file = args.log.clone().unwrap_or_else(|| PathBuf::from("-"));
    let explanation = read(&file)
        .and_then(|log| offline::explain(log, args.exit_code, args.reason.as_deref()))
        .map_err(|error| Error::Read {
            file: file.display().to_string(),
            error,
        })?;
    Ok(match args.output {
        Output::Text => story(&explanation),
        Output::Json => json(&explanation),
    })
}

fn read(file: &std::path::Path) -> io::Result<Box<dyn Read>> {
    if file.as_os_str() == "-" {
        Ok(Box::new(io::stdin().lock()))
    } else {
        Ok(Box::new(File::open(file)?))
    }
}

fn json(explanation: &Explanation) -> String {
    serde_json::to_string_pretty(explanation).map_or_else(|_| "{}\n".into(), |text| text + "\n")
}

fn story(found: &Explanation) -> String {
    let mut lines = Vec::new();
    if let (Some(line), Some(number)) = (&found.line, found.line_number) {
        lines.push(format!("{number}: {line}"));
    }
    lines.push(match (found.confidence, &found.rule) {
        (Confidence::Unknown, _) => "Nothing in it says for sure why the program ended.".into(),
        (Confidence::High, Some(rule)) => format!("{} ({rule}).", found.class),
        (_, Some(rule)) => format!("Probably {} ({rule}).", found.class),
        (_, None) => format!("{}.", found.class),
    });
    lines.extend(found.hint.clone());
    lines.push(if found.retry {
        "Starting it again may help.".into()
    } else {
        "Starting it again unchanged would not help.".to_owned()
    });
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::FailureClass;

    #[test]
    fn the_answer_is_told_and_written_for_programs() {
        let log = "step 1\nTraceback (most recent call last):\n  File \"a.py\", line 1, in <module>\nValueError: expected 10 classes\n";
        let found = offline::explain(log.as_bytes(), Some(1), None).unwrap();
        assert_eq!(
            story(&found),
            "4: ValueError: expected 10 classes\nUserError (python-user-error).\nThe program fails the same way each time. See the traceback in the log.\nStarting it again unchanged would not help.\n"
        );
        let value: serde_json::Value = serde_json::from_str(&json(&found)).unwrap();
        assert_eq!(value["class"], "UserError");
        assert_eq!(value["confidence"], "High");
        assert_eq!(value["lineNumber"], 4);
        assert_eq!(value["retry"], false);
    }

    #[test]
    fn a_log_that_says_nothing_is_unknown() {
        let found = offline::explain(&b"step 1\nstep 2\n"[..], Some(137), None).unwrap();
        assert_eq!(found.class, FailureClass::Unknown);
        assert_eq!(found.confidence, Confidence::Unknown);
        assert!(found.hint.is_some_and(|h| h.contains("SIGKILL")));
    }

    #[test]
    fn a_reason_of_kubernetes_counts_for_more_than_the_log() {
        let found = offline::explain(&b"step 1\n"[..], Some(137), Some("OOMKilled")).unwrap();
        assert_eq!(found.class, FailureClass::HostOutOfMemory);
        assert!(!found.retry);
    }
}
