//! CEL rules that several types share. Each message is a whole sentence for the person who wrote the
//! manifest: what is wrong and what to write instead.
//!
//! The API server refuses a CRD whose rules could cost too much, and estimates the cost from the
//! bounds of what a rule reads; hence the `maxLength` beside most of them.

use kube::core::Rule;

/// Longest deadline or wait: ten years, so that no sum of a time and a duration overflows.
const MAX_SECONDS: i64 = 315_360_000;

/// A label's or a taint's key.
const LABEL_KEY: &str =
    r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";
const LABEL_VALUE: &str = "^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$";

fn rule(rule: String, message: String) -> Rule {
    Rule::new(rule).message(message.as_str())
}

/// `field` names another object: the characters that Kubernetes allows in the names of most.
pub(super) fn object_name(field: &str, what: &str) -> Rule {
    rule(
        "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')".into(),
        format!("{field} must name {what}: lower-case letters, digits, '-' and '.'"),
    )
}

/// `field` is a container image.
pub(super) fn image(otherwise: &str) -> Rule {
    rule(
        r"self.matches('^\\S+$')".into(),
        format!("image must name a container image, without spaces; {otherwise}"),
    )
}

/// A wait or deadline of at least `min` seconds.
pub(super) fn seconds(field: &str, min: i64, otherwise: &str) -> Rule {
    rule(
        format!("self >= {min} && self <= {MAX_SECONDS}"),
        format!("{field} must be {min} to {MAX_SECONDS} (ten years); {otherwise}"),
    )
}

/// Exactly one of the optional `fields` is set.
pub(super) fn exactly_one(fields: &[&str], what: &str) -> Rule {
    let has: Vec<_> = fields.iter().map(|f| format!("has(self.{f})")).collect();
    let (last, others) = fields.split_last().unwrap_or((&"", &[]));
    rule(
        format!("[{}].exists_one(x, x)", has.join(", ")),
        format!(
            "{what} takes exactly one of {} and {last}",
            others.join(", ")
        ),
    )
}

/// No two items of the list `list` have the same `key`.
pub(super) fn unique(list: &str, key: &str) -> Rule {
    rule(
        format!("self.all(a, self.exists_one(b, b.{key} == a.{key}))"),
        format!("two {list} have the same {key}: give each its own, or remove one"),
    )
}

/// The strings that `sizes` (a CEL list of numbers) measures are at most `max` characters together.
pub(super) fn total(field: &str, sizes: &str, max: usize) -> Rule {
    rule(
        format!("{sizes}.sum() <= {max}"),
        format!(
            "{field} holds more than {} KiB: put what is long into the image, a ConfigMap or a volume",
            max / 1024
        ),
    )
}

/// The name of an environment variable, as Kubernetes takes it.
pub(super) fn env_name() -> Rule {
    rule(
        "self.matches('^[ -<>-~]+$')".into(),
        "an env name must be printable ASCII without '=': write name and value as two fields"
            .into(),
    )
}

/// A field of the pod that the kubelet can put into the environment.
pub(super) fn pod_field() -> Rule {
    rule(
        r"self in ['metadata.name', 'metadata.namespace', 'metadata.uid', 'spec.nodeName', 'spec.serviceAccountName', 'status.hostIP', 'status.hostIPs', 'status.podIP', 'status.podIPs'] || self.matches('^metadata[.](labels|annotations)\\[\'[^\']+\'\\]$')".into(),
        "fieldPath must be metadata.name, metadata.namespace, metadata.uid, metadata.labels['KEY'], metadata.annotations['KEY'], spec.nodeName, spec.serviceAccountName, status.hostIP, status.hostIPs, status.podIP or status.podIPs".into(),
    )
}

/// A quantity that can be had: a number, not negative. For a string.
pub(super) fn quantity() -> Rule {
    quantity_if("isQuantity(self) && !self.startsWith('-')")
}

/// The same for an integer or a string. CEL takes the length of such a string to be without bounds,
/// so there is a budget for reading only a dozen of them, once each.
pub(super) fn int_or_string_quantity() -> Rule {
    quantity_if("type(self) == int ? self >= 0 : isQuantity(self) && !self.startsWith('-')")
}

fn quantity_if(valid: &str) -> Rule {
    Rule::new(valid).message(
        "a quantity must be a number of 0 or more with an optional unit, such as 4, 500m or 16Gi",
    )
}

/// The keys of `limits` and `requests`.
pub(super) fn resource_names() -> Rule {
    rule(
        "self.all(k, k in ['cpu', 'memory', 'ephemeral-storage'] || k.startsWith('hugepages-') || k.indexOf('/') > 0)".into(),
        "a resource must be cpu, memory, ephemeral-storage, hugepages-SIZE, or a full name such as nvidia.com/gpu; for GPUs set gpusPerNode".into(),
    )
}

/// No request is above its limit, for the resources that have both as a rule: CEL has no budget to
/// compare all of them. The API server checks the rest when the pods are created.
pub(super) fn requests_within_limits() -> Rule {
    let both = "k in self.limits && k in self.requests && isQuantity(string(self.limits[k])) && isQuantity(string(self.requests[k]))";
    rule(
        format!(
            "!has(self.limits) || !has(self.requests) || ['cpu', 'memory', 'ephemeral-storage'].all(k, !({both}) || quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)"
        ),
        "a request exceeds its limit: lower the request or raise the limit".into(),
    )
}

/// A taint's key, or none.
pub(super) fn optional_label_key() -> Rule {
    rule(
        format!("self == '' || self.matches('{LABEL_KEY}')"),
        "key must be a taint's key, such as nvidia.com/gpu: letters, digits, '-', '_' and '.', with an optional domain and '/' before it".into(),
    )
}

/// A label's or a taint's value.
pub(super) fn label_value(field: &str) -> Rule {
    rule(
        format!("self.matches('{LABEL_VALUE}')"),
        format!(
            "{field} must be up to 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit"
        ),
    )
}

/// The keys of a map of labels or annotations.
pub(super) fn keys(field: &str) -> Rule {
    rule(
        format!("self.all(k, k.matches('{LABEL_KEY}'))"),
        format!(
            "a key in {field} must be letters, digits, '-', '_' and '.', with an optional domain and '/' before it, such as example.com/team"
        ),
    )
}

/// The values of a map of labels.
pub(super) fn values(field: &str) -> Rule {
    rule(
        format!("self.all(k, self[k].matches('{LABEL_VALUE}'))"),
        format!(
            "a value in {field} must be up to 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit"
        ),
    )
}

/// No key is one of trainyard's own.
pub(super) fn not_ours(field: &str) -> Rule {
    rule(
        "!self.exists(k, k.startsWith('trainyard.dev/'))".into(),
        format!("{field} must not start with trainyard.dev/: trainyard finds its pods by those"),
    )
}

/// The name of a volume.
pub(super) fn volume_name() -> Rule {
    rule(
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')".into(),
        "a volume name must be lower-case letters, digits and '-', starting and ending with a letter or digit".into(),
    )
}

/// A path within a volume.
pub(super) fn sub_path() -> Rule {
    rule(
        "!self.startsWith('/') && !self.matches('(^|/)[.][.](/|$)')".into(),
        "subPath must be a relative path within the volume, without '..'".into(),
    )
}

/// Regular expressions that compile. CEL's are RE2, as ours are but for a few rarities, which the
/// operator reports in a condition. A pattern that does not compile is an error of the evaluation,
/// for which the API server gives CEL's words and ours.
pub(super) fn patterns(field: &str) -> Rule {
    rule(
        "self.all(p, ''.matches(p) || !''.matches(p))".into(),
        format!(
            "a pattern in {field} is no regular expression: see https://github.com/google/re2/wiki/Syntax"
        ),
    )
}

/// One such regular expression.
pub(super) fn pattern(field: &str) -> Rule {
    rule(
        "''.matches(self) || !''.matches(self)".into(),
        format!("{field} is no regular expression: see https://github.com/google/re2/wiki/Syntax"),
    )
}

/// A ceiling of retries for one class.
pub(super) fn max_retries() -> Rule {
    rule(
        "self >= 0 && self <= 100".into(),
        "maxRetries must be 0 to 100; 0 means no retry".into(),
    )
}

/// A wait before a retry.
pub(super) fn backoff(field: &str) -> Rule {
    rule(
        "self >= 0 && self <= 86400".into(),
        format!("{field} must be 0 to 86400 (a day); 0 retries at once"),
    )
}
