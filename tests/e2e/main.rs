//! End to end: real API server, real kubelets, real containers. Each test has a namespace of its own
//! and says in its name what a user would lose if it failed.
//!
//! Run through `dev/test e2e`, which brings the local cluster up with the images (or uses the one
//! that KUBECONFIG names) and sets the environment.

mod audit;
mod chaos;
mod failures;
mod history;
mod lifecycle;
mod logs;
mod policy;
mod quiet;
mod retries;
mod site;
mod training;
