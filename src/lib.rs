//! trainyard: a Kubernetes operator for machine-learning training jobs.
//!
//! Data flows one way: the operator observes, [`plan`]s and applies. [`api`] holds the custom
//! resources; [`plan`], [`diagnose`] and [`pods`] are pure (no client, no clock); [`operator`] is the
//! only writer; [`logs`] follows the containers and keeps their lines.

pub mod api;
pub mod cli;
pub mod diagnose;
pub mod logs;
pub mod operator;
pub mod plan;
pub mod pods;
pub mod process;
