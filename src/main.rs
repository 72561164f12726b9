//! `trainyard`: parses the arguments and starts one component. All components are in one image.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use trainyard::{api, logs, operator, process};

#[derive(Parser)]
#[command(version, about, long_about = None)]
struct Cli {
    #[command(flatten)]
    process: process::Args,
    #[command(subcommand)]
    component: Component,
}

#[derive(Subcommand)]
enum Component {
    /// Run the operator: start, watch and retry the TrainingJobs of the cluster.
    Operator(operator::Args),
    /// Run the collector: follow every container of every TrainingJob and store its lines.
    Collector(logs::collector::Args),
    /// Look at stored logs.
    #[command(subcommand)]
    Logs(Logs),
    /// Write the CRDs, generated from the Rust types, into a folder.
    Crds {
        /// The folder; it must exist.
        #[arg(default_value = "crds")]
        dir: PathBuf,
    },
}

#[derive(Subcommand)]
enum Logs {
    /// Prove that every line is there: read a whole store, and fail where there is a hole or a
    /// repeated line that no recorded gap explains.
    Verify(logs::verify::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    process::init_logging(&cli.process);
    let result: Result<(), Box<dyn std::error::Error>> = match cli.component {
        Component::Operator(args) => operator::run(args, &cli.process).await.map_err(Into::into),
        Component::Collector(args) => logs::collector::run(args, &cli.process)
            .await
            .map_err(Into::into),
        Component::Logs(Logs::Verify(args)) => logs::verify::run(args).await.map_err(Into::into),
        Component::Crds { dir } => api::write_crds(&dir).map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
