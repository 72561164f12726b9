//! Counting what a user wrote, in the API server's audit log.

use std::{collections::BTreeMap, fs};

use serde_json::Value;

/// Writes of `user` so far, by verb and resource. Leases are left out: renewing leadership is all
/// that an operator at rest does. None where the cluster is not ours and has no audit log to read.
pub fn writes(user: &str) -> Option<BTreeMap<String, usize>> {
    let path = std::env::var("TRAINYARD_AUDIT_LOG").ok()?;
    let log = fs::read_to_string(path).expect("the audit log can be read");
    let mut counts = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains(user)) {
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            continue; // the line that is being written
        };
        let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or("");
        let by = [text("/user/username"), text("/impersonatedUser/username")];
        let verb = text("/verb");
        let resource = text("/objectRef/resource");
        let written = ["create", "update", "patch", "delete", "deletecollection"].contains(&verb);
        if by.contains(&user)
            && written
            && resource != "leases"
            && text("/stage") == "ResponseComplete"
        {
            let subresource = text("/objectRef/subresource");
            let key = format!("{verb} {resource}/{subresource}");
            *counts
                .entry(key.trim_end_matches('/').to_owned())
                .or_default() += 1;
        }
    }
    Some(counts)
}
