//! Logs: every line of every container is stored once, in order, or it is recorded where some are missing.
//!
//! ```text
//! pods (which containers) ─→ collector ─→ one task a container (follow)
//!
//!   source  ──→ position ──→ wal ──────────────→ ship ──→ sinks: lake (Parquet in an object store)
//!   what to     which line   safe on disk before           folder (plain text files)
//!   read next   has which    anybody is told so;     cut only when every sink has it
//!               number; gaps group fsync
//!
//! condition: "all of this pod's lines are stored"     verify: is it all there?
//! archive: a row for each job and attempt             retain: what is too old goes
//! kubectl trainyard logs ←─ http ←─ read (merge ranks, follow) ←─ store (lake + wal)
//! ```
//!
//! What is promised, and what rests on what:
//! - **once, in order**: [`position`] counts lines from one whose number is certain; the numbers of a
//!   stream have no holes.
//! - **all**: a stream is complete when a reading of its end, opened after the container had exited, is
//!   what is stored, and the file that was read to its end is the one that the stream began in
//!   ([`source`]). Otherwise there is a [`record::Gap`].
//! - **safe**: [`wal`] answers after fsync; [`ship`] cuts it after all sinks have answered; replaying
//!   anything is harmless, because every record has its place.
//! - **bounded**: memory by one batch a stream and one segment; disk by quotas.
//!
//! All of it runs in a simulation with every fault that the world has for it ([`sim`], in tests).
//! Seams: [`source::Open`] (a log), [`source::Event`] (another source), [`disk::Disk`], [`sink::Sink`],
//! [`shard`] (several collectors).

pub mod archive;
pub mod collector;
pub mod columns;
pub mod condition;
pub mod disk;
pub mod folder;
pub mod follow;
pub mod generated;
pub mod http;
pub mod job;
pub mod kubelet;
pub mod lake;
pub mod layout;
pub mod line;
pub mod metrics;
pub mod place;
pub mod planted;
pub mod pods;
pub mod position;
pub mod read;
pub mod recall;
pub mod record;
pub mod retain;
pub mod shard;
pub mod ship;
#[cfg(test)]
mod sim;
pub mod sink;
pub mod source;
pub mod store;
pub mod verify;
pub mod wal;
