//! End to end: real API server, real kubelets, real containers. Each test has a namespace of its own
//! and says in its name what a user would lose if it failed.
//!
//! Run through `dev/test e2e`, which brings the local cluster up with the images (or uses the one
//! that KUBECONFIG names) and sets the environment.

mod audit;
mod chaos;
mod failures;
#[path = "../logs/files.rs"]
#[allow(
    dead_code,
    reason = "it is tests/logs's, and not all of it is compared"
)]
mod files;
mod flood;
mod history;
#[path = "../logs/kubelet.rs"]
#[allow(
    dead_code,
    reason = "it is tests/logs's, and not all of it is compared"
)]
mod kubelet;
mod lifecycle;
mod log_endpoint;
mod logs;
mod policy;
mod quiet;
mod retries;
mod site;
mod training;
