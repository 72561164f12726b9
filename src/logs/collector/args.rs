//! Flags of the collector.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args as ClapArgs;

use crate::logs::store::Store;

pub(super) const MIB: u64 = 1024 * 1024;

/// Flags of the collector.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Where the lines are stored, as Parquet files: a folder, or a URL (s3://bucket/prefix, gs://…,
    /// az://…), with the usual environment variables for credentials and endpoints.
    #[arg(
        long,
        env = "TRAINYARD_STORE",
        value_name = "DIR|URL",
        default_value = "/var/lib/trainyard/logs"
    )]
    pub store: String,
    /// Folder of the write-ahead log, on a disk that survives a restart. By default `wal` in the
    /// store's folder; with a URL, /var/lib/trainyard/wal.
    #[arg(long, env = "TRAINYARD_WAL", value_name = "DIR")]
    pub wal: Option<PathBuf>,
    /// Also write plain text files below this folder.
    #[arg(long, env = "TRAINYARD_TEXT", value_name = "DIR")]
    pub text: Option<PathBuf>,
    /// Name of this cluster, for the lines' column `cluster`.
    #[arg(long, env = "TRAINYARD_CLUSTER", default_value = "")]
    pub cluster: String,
    /// Follow only the pods of one namespace; by default those of all.
    #[arg(long, env = "TRAINYARD_NAMESPACE")]
    pub namespace: Option<String>,
    /// Address at which the stored lines can be read (kubectl trainyard logs).
    #[arg(long, env = "TRAINYARD_LOGS_HTTP", default_value = "0.0.0.0:8081")]
    pub logs_http: SocketAddr,
    /// Size in bytes after which a new text file is begun.
    #[arg(
        long,
        env = "TRAINYARD_MAX_FILE",
        value_name = "BYTES",
        default_value_t = 64 * MIB,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub max_file: u64,
    /// How many containers are followed at a time; further ones wait, and are read when it is
    /// their turn.
    #[arg(
        long,
        env = "TRAINYARD_MAX_STREAMS",
        value_name = "N",
        default_value_t = 8192,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_streams: u32,
    /// Longest time in seconds that lines are in the write-ahead log alone.
    #[arg(
        long,
        env = "TRAINYARD_SHIP_SECONDS",
        value_name = "SECONDS",
        default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub ship_seconds: u64,
    /// Bytes that the write-ahead log may take while the store takes no lines.
    #[arg(
        long,
        env = "TRAINYARD_WAL_QUOTA",
        value_name = "BYTES",
        default_value_t = 4096 * MIB,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub wal_quota: u64,
    /// Bytes of lines that one job may store; what is beyond is a recorded gap.
    #[arg(
        long,
        env = "TRAINYARD_JOB_QUOTA",
        value_name = "BYTES",
        default_value_t = 64 * 1024 * MIB,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub job_quota: u64,
    /// Delete what was stored longer ago than so many days.
    #[arg(long, env = "TRAINYARD_RETAIN_DAYS", value_name = "DAYS")]
    pub retain_days: Option<u32>,
    /// Delete the oldest attempts while the store is larger than this.
    #[arg(long, env = "TRAINYARD_RETAIN_BYTES", value_name = "BYTES")]
    pub retain_bytes: Option<u64>,
}

impl Args {
    pub(super) fn wal_folder(&self) -> PathBuf {
        match &self.wal {
            Some(folder) => folder.clone(),
            None if self.store.contains("://") => PathBuf::from("/var/lib/trainyard/wal"),
            None => PathBuf::from(&self.store).join(Store::WAL),
        }
    }
}
