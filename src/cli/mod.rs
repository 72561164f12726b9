//! The commands of `kubectl trainyard`: one file a command. `src/bin/kubectl-trainyard.rs` only
//! parses and prints the error; everything a command needs of the cluster is in [`cluster`].

mod cluster;
pub mod explain;
mod explain_job;
mod lines;
pub mod logs;
mod story;
mod token;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The arguments of the plugin.
#[derive(Parser, Debug)]
#[command(
    name = "kubectl-trainyard",
    bin_name = "kubectl trainyard",
    version,
    about = "Training jobs, for people: what they logged, and why they failed",
    long_about = None
)]
pub struct Cli {
    #[command(flatten)]
    cluster: cluster::Args,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Print the stored lines of a job, also after its pods are gone.
    Logs(logs::Args),
    /// Say why a job, or the program that wrote a log, failed, and what can be done.
    Explain(explain::Args),
}

/// Runs the command and says what went wrong, if anything did.
pub async fn run(cli: Cli) -> ExitCode {
    let (error, code): (Box<dyn std::error::Error>, ExitCode) = match cli.command {
        Command::Logs(args) => match logs::run(args, &cli.cluster).await {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => {
                let code = error.exit_code();
                (error.into(), code)
            }
        },
        Command::Explain(args) => match explain::run(&args, &cli.cluster).await {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => (error.into(), ExitCode::FAILURE),
        },
    };
    eprintln!("error: {error}");
    code
}
