//! The custom resources against a real API server: what is refused and in which words, what is
//! accepted, what can't change once a job has started, and that the generated files are current; and who
//! may read stored logs.

mod accepted;
mod generated;
mod immutable;
mod in_memory;
mod manifest;
mod reading;
#[path = "../support/mod.rs"]
mod support;
mod wrong_jobs;
mod wrong_pods;
mod wrong_policies;
mod wrong_runtimes;
