//! The requests of one operator process as a test sees them, and what can happen to them.
//!
//! Not here: how they are answered ([`super::api_server`]).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::Method;
use serde_json::Value;

use super::store::Key;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Status 500.
    Error,
    /// The connection breaks.
    Reset,
    /// No answer ever comes.
    Hang,
    /// The process ends at this moment.
    Crash,
    /// The process ends; the request is on its way and arrives so much later.
    CrashThenArrive(Duration),
    /// The watches end; true: and have to list anew.
    CutWatches(bool),
    /// Someone deletes every pod that is there, and the connection breaks.
    ResetAndDeletePods,
    /// Someone deletes every pod that is there, and the process ends.
    CrashAndDeletePods,
    /// Someone deletes every pod that is there.
    DeletePods,
}

/// When: the request is not carried out, or it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Before,
    After,
}

/// A request, as a test sees it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// From 1, within the process.
    pub number: usize,
    /// create, get, list, watch, update, patch, delete.
    pub verb: &'static str,
    pub key: Key,
    pub status: bool,
}

impl Asked {
    pub fn writes(&self) -> bool {
        matches!(self.verb, "create" | "update" | "patch" | "delete")
    }
}

type Faults = Arc<dyn Fn(&Asked) -> Option<(When, Fault)> + Send + Sync>;

/// How a process of the operator meets its API server.
#[derive(Clone)]
pub struct Weather {
    pub faults: Faults,
    /// How late the watch of a resource is.
    pub lag: BTreeMap<&'static str, Duration>,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            faults: Arc::new(|_| None),
            lag: BTreeMap::new(),
        }
    }
}

impl Asked {
    /// `/api/v1/…` or `/apis/{group}/{version}/…`, then `[namespaces/{ns}/]{resource}[/{name}[/status]]`.
    pub fn of(
        method: &Method,
        path: &str,
        query: &BTreeMap<String, String>,
        body: &Value,
        number: usize,
    ) -> Self {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let rest = parts
            .get(if parts[0] == "api" { 2 } else { 3 }..)
            .unwrap_or_default();
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let name = rest.get(1).copied();
        let verb = match (method.as_str(), name) {
            ("GET", None) if query.get("watch").is_some_and(|w| w == "true" || w == "1") => "watch",
            ("GET", None) => "list",
            ("GET", Some(_)) => "get",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", _) => "delete",
            (other, _) => panic!("the operator is not expected to {other} {path}"),
        };
        let name = name
            .or(body["metadata"]["name"].as_str())
            .unwrap_or_default();
        Self {
            number,
            verb,
            key: Key::new(rest.first().copied().unwrap_or_default(), namespace, name),
            status: rest.get(2) == Some(&"status"),
        }
    }
}

pub fn form(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(k, v)| (k.into(), v.replace("%2F", "/")))
        .collect()
}
