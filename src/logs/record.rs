//! What is kept of a stream besides its lines: where lines are missing, where the container's current
//! log file began, and how the stream ended.
//!
//! A stream's numbers have no holes: a gap lies between two numbers, and is a record of its own.

use k8s_openapi::jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::line::Line;

/// Lines that the container wrote, or may have written, and that are not stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// They lie after this line, or after one before it (see `not_before`). 0: before the first.
    pub after_seq: u64,
    /// They lie after this line at the earliest. Equal to `after_seq` where the place is certain.
    pub not_before: u64,
    /// Stamp of the last line before them, where there is one.
    #[schemars(with = "Option<String>")]
    pub from: Option<Timestamp>,
    /// Stamp of the first line after them, or when it was noticed.
    #[schemars(with = "Option<String>")]
    pub to: Option<Timestamp>,
    /// Why.
    pub reason: Reason,
    /// How many. None: unknown, and it may be none at all.
    pub lost: Option<u64>,
}

/// Why lines are missing, or may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Reason {
    /// The container ran for a while before its log was first opened, and what is there begins late.
    ReadLate,
    /// Nobody was reading when the node rotated the file away that held the next lines.
    RotatedAway,
    /// The node rotated the file while it was being followed, and the kubelet may skip lines then.
    /// The API has no way to tell; a source that reads the node's files would.
    RotatedWhileFollowed,
    /// The pod vanished before the end of its log was proven.
    PodGone,
    /// The node has no readable log of the container any more, although its pod is there.
    Unreadable,
    /// The collector's write-ahead log was lost, with its volume, while the container was followed, and
    /// with it what was noted of the node's rotations. Lines that the node still has are stored for all that.
    LogLost,
    /// The job has stored as much as a job may.
    JobQuota,
}

/// The first line of the file that the kubelet reads now: what every reading of it begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStart {
    /// Its stamp.
    pub time: i64,
    /// Its number. Where the stream and a reading count a line differently that lies across the
    /// rotation, this is so that the numbers of all later lines are right.
    pub seq: i64,
}

/// How a container's log ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// The run of the container, by the runtime's id.
    pub container_id: Option<String>,
    /// Whether the end of its log is proven, and nothing is missing before it.
    pub complete: bool,
    /// Number of the last line.
    pub lines: u64,
    /// Bytes of all messages.
    #[serde(default)]
    pub bytes: u64,
}

/// One entry of a stream, in the order in which it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A line.
    Line(Line),
    /// Missing lines.
    Gap(Gap),
    /// Another file began.
    File(FileStart),
    /// Nothing more will come, unless the container runs again.
    End(End),
}
