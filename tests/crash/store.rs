//! What an API server keeps: objects under resourceVersions, and the history that watches are served
//! from. Behaves as kube-apiserver does, as far as the operator can tell (`tests/api/in_memory.rs`
//! compares the two).
//!
//! Not here: HTTP ([`super::api_server`]), and whether what is written is right ([`super::auditor`]).

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Plural of a resource, its namespace ("" for cluster-wide) and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub resource: String,
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(resource: &str, namespace: &str, name: &str) -> Self {
        Self {
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// An entry of the history.
#[derive(Clone, Debug)]
pub struct Change {
    pub at: Instant,
    pub version: u64,
    pub key: Key,
    pub kind: &'static str,
    pub object: Arc<Value>,
}

/// The API server says no.
#[derive(Clone, Debug)]
pub struct Refused {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
}

type Answer = Result<Value, Refused>;

#[derive(Default)]
pub struct Store {
    version: u64,
    uids: u64,
    /// Watches can't begin before this version.
    pub compacted: u64,
    objects: BTreeMap<Key, Value>,
    pub history: Vec<Change>,
}

impl Store {
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key)
    }

    /// All objects of a resource; of all namespaces where `namespace` is empty.
    pub fn list<'a>(
        &'a self,
        resource: &'a str,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Key, &'a Value)> {
        self.objects.iter().filter(move |(key, _)| {
            key.resource == resource && (namespace.is_empty() || key.namespace == namespace)
        })
    }

    fn commit(&mut self, key: &Key, kind: &'static str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        if kind == "DELETED" {
            self.objects.remove(key);
        } else {
            self.objects.insert(key.clone(), object.clone());
        }
        self.history.push(Change {
            at: Instant::now(),
            version: self.version,
            key: key.clone(),
            kind,
            object: Arc::new(object.clone()),
        });
        object
    }

    pub fn create(&mut self, key: &Key, mut object: Value, now: Timestamp) -> Answer {
        if self.objects.contains_key(key) {
            return Err(refused(409, "AlreadyExists", key, "already exists"));
        }
        self.uids += 1;
        object["metadata"]["uid"] = format!("{:08x}-0000-4000-8000-000000000000", self.uids).into();
        if !key.namespace.is_empty() {
            object["metadata"]["namespace"] = key.namespace.clone().into();
        }
        object["metadata"]["creationTimestamp"] = seconds(now);
        match key.resource.as_str() {
            "pods" => {
                object["status"] = json!({"phase": "Pending"});
                let grace = &mut object["spec"]["terminationGracePeriodSeconds"];
                if grace.is_null() {
                    *grace = 30.into();
                }
            }
            "trainingjobs" => {
                object["metadata"]["generation"] = 1.into();
                if let Some(object) = object.as_object_mut() {
                    object.remove("status");
                }
            }
            _ => {}
        }
        Ok(self.commit(key, "ADDED", object))
    }

    /// PUT on `/status`: everything but the status is ignored.
    pub fn replace_status(&mut self, key: &Key, body: &Value) -> Answer {
        let stored = self.existing(key)?.clone();
        let version = body["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default();
        if version.is_empty() {
            return Err(refused(
                422,
                "Invalid",
                key,
                "metadata.resourceVersion: must be specified for an update",
            ));
        }
        let uid = body["metadata"]["uid"].as_str();
        let other = uid.is_some_and(|uid| stored["metadata"]["uid"] != uid);
        if other || stored["metadata"]["resourceVersion"] != version {
            return Err(refused(
                409,
                "Conflict",
                key,
                "the object has been modified",
            ));
        }
        if body["status"] == stored["status"] {
            return Ok(stored);
        }
        let mut object = stored;
        object["status"] = body["status"].clone();
        Ok(self.commit(key, "MODIFIED", object))
    }

    /// What a user, a kubelet or a controller changes; a new generation where the spec of a job changes.
    pub fn edit(&mut self, key: &Key, change: impl FnOnce(&mut Value)) -> Answer {
        let stored = self.existing(key)?;
        let mut object = stored.clone();
        change(&mut object);
        if object == *stored {
            return Ok(object);
        }
        if key.resource == "trainingjobs" && object["spec"] != stored["spec"] {
            let generation = stored["metadata"]["generation"].as_i64().unwrap_or(1);
            object["metadata"]["generation"] = (generation + 1).into();
        }
        Ok(self.commit(key, "MODIFIED", object))
    }

    /// DELETE. A pod that may still run on a node only gets a deletionTimestamp.
    pub fn delete(&mut self, key: &Key, uid: Option<&str>, now: Timestamp) -> Answer {
        let stored = self.existing(key)?.clone();
        if uid.is_some_and(|uid| stored["metadata"]["uid"] != uid) {
            return Err(refused(
                409,
                "Conflict",
                key,
                "the UID in the precondition does not match",
            ));
        }
        let on_node = stored["spec"]["nodeName"].is_string();
        let ended = matches!(
            stored["status"]["phase"].as_str(),
            Some("Succeeded" | "Failed")
        );
        if key.resource != "pods" {
            self.commit(key, "DELETED", stored);
            // Of a custom resource that is gone at once, a real one says so instead of showing it.
            return Ok(
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}),
            );
        }
        if !on_node || ended {
            return Ok(self.finish_deletion(key, stored, now));
        }
        if stored["metadata"]["deletionTimestamp"].is_string() {
            return Ok(stored);
        }
        let grace = stored["spec"]["terminationGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(30);
        let mut object = stored;
        object["metadata"]["deletionTimestamp"] =
            seconds(now.checked_add(grace.seconds()).unwrap_or(now));
        object["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        Ok(self.commit(key, "MODIFIED", object))
    }

    /// The kubelet confirms that a pod's containers are gone.
    pub fn remove(&mut self, key: &Key, now: Timestamp) {
        if let Some(object) = self.objects.get(key).cloned() {
            self.finish_deletion(key, object, now);
        }
    }

    /// Nothing of the object is left but its finalizers, if it has some.
    fn finish_deletion(&mut self, key: &Key, mut object: Value, now: Timestamp) -> Value {
        if !has_finalizers(&object) {
            return self.commit(key, "DELETED", object);
        }
        if object["metadata"]["deletionGracePeriodSeconds"] == 0 {
            return object;
        }
        let metadata = &mut object["metadata"];
        if metadata["deletionTimestamp"].is_null() {
            metadata["deletionTimestamp"] = seconds(now);
        }
        metadata["deletionGracePeriodSeconds"] = 0.into();
        self.commit(key, "MODIFIED", object)
    }

    /// A strategic merge PATCH of a pod, as far as the operator sends some: it takes finalizers away and
    /// may set a deadline.
    pub fn patch_pod(&mut self, key: &Key, patch: &Value) -> Answer {
        let mut object = self.existing(key)?.clone();
        let metadata = &patch["metadata"];
        if metadata["uid"] != object["metadata"]["uid"] {
            let message = "metadata.uid: field is immutable";
            return Err(refused(422, "Invalid", key, message));
        }
        let taken = metadata["$deleteFromPrimitiveList/finalizers"].as_array();
        let taken = taken.cloned().unwrap_or_default();
        let before = object.clone();
        if let Some(finalizers) = object["metadata"]["finalizers"].as_array_mut() {
            finalizers.retain(|f| !taken.contains(f));
        }
        let deadline = &patch["spec"]["activeDeadlineSeconds"];
        if deadline.is_number() {
            object["spec"]["activeDeadlineSeconds"] = deadline.clone();
        }
        if object == before {
            return Ok(object);
        }
        let gone = object["metadata"]["deletionGracePeriodSeconds"] == 0;
        if gone && !has_finalizers(&object) {
            return Ok(self.commit(key, "DELETED", object));
        }
        Ok(self.commit(key, "MODIFIED", object))
    }

    fn existing(&self, key: &Key) -> Result<&Value, Refused> {
        self.objects
            .get(key)
            .ok_or_else(|| refused(404, "NotFound", key, "not found"))
    }
}

fn has_finalizers(object: &Value) -> bool {
    let finalizers = object["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|f| !f.is_empty())
}

fn refused(code: u16, reason: &'static str, key: &Key, message: &str) -> Refused {
    Refused {
        code,
        reason,
        message: format!("{} \"{}\": {message}", key.resource, key.name),
    }
}

/// Kubernetes keeps times to the second.
pub fn seconds(t: Timestamp) -> Value {
    let whole = Timestamp::from_second(t.as_second()).unwrap_or(t);
    whole.to_string().into()
}
