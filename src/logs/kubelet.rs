//! The log endpoint of the API server, as a [`super::source::Open`].

use std::pin::Pin;

use futures::AsyncBufRead;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{Api, api::LogParams, core::Status};

use super::{
    position::Part,
    source::{Open, OpenError},
};
use crate::process::REQUEST_TIMEOUT;

/// One container's log.
pub struct KubeLog {
    /// The pods of the namespace.
    pub pods: Api<Pod>,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
}

/// Whether the API server says that there is no such pod. A kubelet that was started a moment ago knows
/// no pods either, and its 404 comes with another kind, `pods/log`.
fn is_pod_missing(status: &Status) -> bool {
    let kind = status.details.as_ref().map(|details| details.kind.as_str());
    status.code == 404 && kind == Some("pods")
}

impl Open for KubeLog {
    type Reader = Pin<Box<dyn AsyncBufRead + Send>>;

    async fn open(&self, part: Part, follow: bool) -> Result<Self::Reader, OpenError> {
        // Never `since_time`: it leaves out lines with older stamps, new ones too, and whole seconds
        // are all that it knows.
        let params = LogParams {
            container: Some(self.container.clone()),
            follow,
            tail_lines: match part {
                Part::Tail(lines) => Some(lines.into()),
                Part::Whole | Part::Head(_) => None,
            },
            limit_bytes: match part {
                Part::Head(bytes) => Some(bytes.into()),
                Part::Whole | Part::Tail(_) => None,
            },
            timestamps: true,
            ..LogParams::default()
        };
        // Only the answer is waited for with a limit; the stream behind it may last for days.
        let opened =
            tokio::time::timeout(REQUEST_TIMEOUT, self.pods.log_stream(&self.pod, &params));
        match opened.await {
            Ok(Ok(reader)) => Ok(Box::pin(reader)),
            Ok(Err(kube::Error::Api(status))) if is_pod_missing(&status) => Err(OpenError::Gone),
            Ok(Err(error)) => Err(OpenError::Failed(error.to_string())),
            Err(_) => Err(OpenError::Failed(format!(
                "no answer within {} s",
                REQUEST_TIMEOUT.as_secs()
            ))),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
