//! Logs: source → lines → sink, and reading them back.

pub mod collector;
