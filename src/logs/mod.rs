//! Logs: source → lines → sink, and reading them back.
//!
//! ```text
//! pods (which containers) ─→ source (API stream) ─→ position (number, drop repeats) ─→ sink ─→ folder
//!                                         collector (one task a container)                      │
//!                        kubectl trainyard logs ←─ http ←─ read (merge ranks, follow) ←─ store ─┘
//! ```
//!
//! [`line`] holds the one line format. What is not here yet: the write-ahead log, Parquet, the
//! verifier and access control; they replace parts behind [`sink::Sink`], [`position::Position`]
//! and [`http`].

pub mod collector;
pub mod folder;
pub mod http;
pub mod job;
pub mod line;
pub mod metrics;
pub mod pods;
pub mod position;
pub mod read;
pub mod sink;
pub mod source;
pub mod store;
