//! `kubectl trainyard`: the kubectl plugin.

use std::process::ExitCode;

use clap::Parser;
use trainyard::cli;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    cli::run(cli::Cli::parse()).await
}
