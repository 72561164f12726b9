//! Counters of the collector. No label names a job: their number has no bound.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// What the collector counts. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Containers that are being followed.
    pub streams: Gauge,
    /// Containers that wait because `--max-streams` are being followed.
    pub waiting: Gauge,
    /// Lines stored.
    pub lines: Counter,
    /// Bytes of their messages.
    pub bytes: Counter,
    /// Times that a log stream was opened, the first time included.
    pub opened: Counter,
    /// Times that a log stream could not be opened, or broke.
    pub errors: Counter,
    /// Gaps recorded.
    pub gaps: Counter,
    /// Lines without a time, which are not the container's: the kubelet's own words.
    pub foreign: Counter,
    /// Containers read to their end.
    pub complete: Counter,
    /// Containers whose pod vanished before the end of their log was proven.
    pub incomplete: Counter,
    /// Times that a sink refused lines; they are kept and tried again.
    pub store_errors: Counter,
    /// Times that the write-ahead log could not be written.
    pub wal_errors: Counter,
    /// Times that lines waited because the write-ahead log was full.
    pub full: Counter,
    /// Times that lines were refused because their job had stored as much as a job may.
    pub job_full: Counter,
    /// Bytes of the store, as counted every hour.
    pub store_bytes: Gauge,
    /// Attempts that retention has deleted.
    pub deleted_attempts: Counter,
    /// Bytes that retention has deleted.
    pub deleted_bytes: Counter,
    /// Batches of lines that every sink has.
    pub shipped: Counter,
    /// Bytes of the write-ahead log.
    pub wal_bytes: Gauge,
    /// Times that the rows of a job could not be stored.
    pub archive_errors: Counter,
    /// Failed watches of the pods and the jobs.
    pub watch_errors: Counter,
}

impl Metrics {
    /// Registers everything under `trainyard_logs_`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        let r = registry.sub_registry_with_prefix("trainyard_logs");
        r.register("streams", "Containers being followed", m.streams.clone());
        r.register(
            "streams_waiting",
            "Containers that wait because --max-streams are being followed",
            m.waiting.clone(),
        );
        r.register(
            "wal_bytes",
            "Bytes of the write-ahead log",
            m.wal_bytes.clone(),
        );
        r.register(
            "store_bytes",
            "Bytes of the store, as counted every hour",
            m.store_bytes.clone(),
        );
        let counters = [
            ("lines", "Lines stored", &m.lines),
            ("bytes", "Bytes of the stored messages", &m.bytes),
            ("streams_opened", "Log streams opened", &m.opened),
            (
                "stream_errors",
                "Log streams that could not be opened or broke",
                &m.errors,
            ),
            (
                "gaps",
                "Gaps recorded: places where lines are or may be missing",
                &m.gaps,
            ),
            (
                "foreign_lines",
                "Lines without a time, which are not the container's",
                &m.foreign,
            ),
            (
                "containers_complete",
                "Containers read to their end",
                &m.complete,
            ),
            (
                "containers_incomplete",
                "Containers whose pod vanished before the end of their log was proven",
                &m.incomplete,
            ),
            (
                "store_errors",
                "Times that a sink refused lines, which are kept and tried again",
                &m.store_errors,
            ),
            (
                "wal_errors",
                "Times that the write-ahead log could not be written",
                &m.wal_errors,
            ),
            (
                "wal_full",
                "Times that lines waited because the write-ahead log was full",
                &m.full,
            ),
            (
                "job_quota_refusals",
                "Times that lines were refused because their job had stored as much as a job may",
                &m.job_full,
            ),
            (
                "attempts_deleted",
                "Attempts whose lines were deleted, being beyond what is kept",
                &m.deleted_attempts,
            ),
            (
                "bytes_deleted",
                "Bytes of files that were deleted, being beyond what is kept",
                &m.deleted_bytes,
            ),
            (
                "batches_shipped",
                "Batches of lines that every sink has",
                &m.shipped,
            ),
            (
                "archive_errors",
                "Times that the rows of a job could not be stored, which is tried again",
                &m.archive_errors,
            ),
            (
                "watch_errors",
                "Failed watches of the pods and the jobs",
                &m.watch_errors,
            ),
        ];
        for (name, help, counter) in counters {
            r.register(name, help, counter.clone());
        }
        m
    }
}
