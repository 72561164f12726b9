//! Lines → the bytes of an answer: the uniform text format for people, JSON for programs, or what the
//! containers wrote.

use std::str::FromStr;

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::tail::Entry;
use crate::logs::line::{Formatter, StreamId};

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// `TIME job/attempt/rank OUTPUT message`, one line a line.
    #[default]
    Text,
    /// One JSON object a line, with everything that identifies and times it.
    Json,
    /// The bytes that the containers wrote, and nothing else.
    Raw,
}

impl Format {
    /// How it is asked for.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Raw => "raw",
        }
    }

    /// Of an answer in it.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Json => "application/jsonl",
            Self::Raw => "application/octet-stream",
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Text, Self::Json, Self::Raw];
        let found = all.into_iter().find(|format| format.as_str() == text);
        found.ok_or_else(|| "format: it is text, json or raw".to_owned())
    }
}

/// A line in the format json. Its fields are the columns of the store's files.
#[derive(Serialize, JsonSchema)]
pub struct JsonLine<'a> {
    /// Its number in its stream (job, attempt, rank, container), from 1, without holes.
    seq: u64,
    /// When the container runtime read it. Not always in order: a node's clock may be set back.
    #[schemars(with = "String")]
    time: Timestamp,
    /// When the collector received it.
    #[schemars(with = "String")]
    observed: Timestamp,
    /// Which output: stdout, stderr, or - where the source does not say.
    stream: &'static str,
    /// No newline followed: it goes on in the next line of its stream, or was the last.
    partial: bool,
    /// Something secret was taken out of it.
    redacted: bool,
    /// It is stamped earlier than the line before it.
    clock_back: bool,
    /// The message, where it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<&'a str>,
    /// The message in Base64, where it is no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<String>,
    /// Name of the cluster, as the collector was told it.
    cluster: &'a str,
    /// Namespace of the job.
    namespace: &'a str,
    /// Name of the job.
    job: &'a str,
    /// Uid of the job.
    uid: &'a str,
    /// Number of the attempt, from 1.
    attempt: u32,
    /// Rank, from 0.
    rank: u32,
    /// Name of the pod.
    pod: &'a str,
    /// Uid of the pod.
    pod_uid: &'a str,
    /// Name of the node.
    node: &'a str,
    /// Name of the container.
    container: &'a str,
    /// The run of the container, by the runtime's id.
    container_id: &'a str,
    /// The image that ran.
    image: &'a str,
}

/// Writes lines of many streams.
pub(super) struct Renderer {
    format: Format,
    /// By the streams' places.
    formatters: Vec<Option<Formatter>>,
}

impl Renderer {
    pub fn new(format: Format) -> Self {
        Self {
            format,
            formatters: Vec::new(),
        }
    }

    /// Appends a line of `id`.
    pub fn write(&mut self, id: &StreamId, entry: &Entry, to: &mut Vec<u8>) {
        match self.format {
            Format::Text => {
                if self.formatters.len() <= entry.at {
                    self.formatters.resize(entry.at + 1, None);
                }
                let formatter = &mut self.formatters[entry.at];
                let formatter = formatter.get_or_insert_with(|| Formatter::new(id));
                formatter.write(&entry.line, to);
            }
            Format::Json => json(id, entry, to),
            Format::Raw => {
                to.extend_from_slice(&entry.line.message);
                if !entry.line.flags.partial {
                    to.push(b'\n');
                }
            }
        }
    }
}

fn json(id: &StreamId, entry: &Entry, to: &mut Vec<u8>) {
    let (line, origin) = (&entry.line, &entry.origin);
    let text = std::str::from_utf8(&line.message).ok();
    let object = JsonLine {
        seq: line.seq,
        time: line.time,
        observed: line.observed,
        stream: line.output.as_str(),
        partial: line.flags.partial,
        redacted: line.flags.redacted,
        clock_back: line.flags.clock_back,
        line: text,
        raw: text.is_none().then(|| STANDARD.encode(&line.message)),
        cluster: &origin.cluster,
        namespace: &id.namespace,
        job: &id.job,
        uid: &id.uid,
        attempt: id.attempt,
        rank: id.rank,
        pod: &origin.pod,
        pod_uid: &origin.pod_uid,
        node: &origin.node,
        container: &id.container,
        container_id: &origin.container_id,
        image: &origin.image,
    };
    // Plain data always becomes JSON.
    let _ = serde_json::to_writer(&mut *to, &object);
    to.push(b'\n');
}
