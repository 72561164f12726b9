//! Publishing Events. kube's recorder is not used: it merges Events that differ only in their note,
//! which would hide every failure after the first. There are as many Events as recorded decisions,
//! so there is nothing to merge.

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event as KubeEvent},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use thiserror::Error;
use tokio::time::timeout;

use crate::{api::names, plan::Event, process::REQUEST_TIMEOUT};

/// Why an Event was not published. It is not tried again: what it tells is in a status or a log too.
#[derive(Debug, Error)]
pub enum Error {
    /// The API server said no, or could not be asked.
    #[error("an Event about {about} is lost: {source}")]
    Api {
        /// The object.
        about: String,
        /// What came back.
        source: Box<kube::Error>,
    },
    /// The API server did not answer.
    #[error("an Event about {0} may be lost: no answer from the API server")]
    Timeout(String),
}

/// Publishes an Event about an object of a namespace.
///
/// # Errors
/// Where the API server does not take it.
pub async fn publish(
    client: &Client,
    identity: &str,
    regarding: ObjectReference,
    event: Event,
) -> Result<(), Error> {
    let now = Timestamp::now();
    let namespace = regarding.namespace.clone().unwrap_or_default();
    let name = regarding.name.clone().unwrap_or_default();
    let about = format!("{} {name}", regarding.kind.as_deref().unwrap_or("object"));
    let kube_event = KubeEvent {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}", now.as_nanosecond())),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(if event.warning { "Warning" } else { "Normal" }.into()),
        reason: Some(event.reason.into()),
        note: Some(shortened(event.note)),
        action: Some("Reconcile".into()),
        regarding: Some(regarding),
        reporting_controller: Some(names::OPERATOR.into()),
        reporting_instance: Some(identity.to_owned()),
        ..KubeEvent::default()
    };
    let api: Api<KubeEvent> = Api::namespaced(client.clone(), &namespace);
    match timeout(
        REQUEST_TIMEOUT,
        api.create(&PostParams::default(), &kube_event),
    )
    .await
    {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(source)) => Err(Error::Api {
            about,
            source: Box::new(source),
        }),
        Err(_) => Err(Error::Timeout(about)),
    }
}

/// The API server takes notes of up to 1 KiB.
fn shortened(mut note: String) -> String {
    const MAX: usize = 1024;
    if note.len() > MAX {
        let end = (0..=MAX - '…'.len_utf8())
            .rev()
            .find(|&i| note.is_char_boundary(i))
            .unwrap_or(0);
        note.truncate(end);
        note.push('…');
    }
    note
}
