//! Where the store is: a folder or a URL → an object store. Credentials and endpoints come from the
//! environment, as the cloud's own tools take them; docs/log-store.md lists the variables.
//!
//! Not here: what is stored ([`super::lake`]).

use std::{sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ObjectStore, ObjectStoreScheme, RetryConfig, aws::AmazonS3Builder,
    azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder, local::LocalFileSystem,
    path::Path, prefix::PrefixStore,
};
use thiserror::Error;
use url::Url;

/// Why there is no store at a place.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It is no place.
    #[error(
        "--store {place}: {why}; give a folder, or a URL such as s3://bucket/prefix, gs://… or az://…"
    )]
    Place {
        /// What was given.
        place: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Hiccups are tried again at once; what lasts longer is the caller's to report, and to try again.
fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(1),
            base: 2.0,
        },
        max_retries: 3,
        retry_timeout: Duration::from_secs(10),
    }
}

/// The object store at `place`, where `variables` are the environment's.
///
/// # Errors
/// Where `place` is neither a folder that is there nor a URL of an object store.
pub fn open(
    place: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Arc<dyn ObjectStore>, OpenError> {
    let wrong = |why: String| OpenError::Place {
        place: place.to_owned(),
        why,
    };
    if !place.contains("://") {
        let objects = LocalFileSystem::new_with_prefix(place)
            .map_err(|e| wrong(e.to_string()))?
            // The write-ahead log is cut once a file is stored: it must be on the disk then.
            .with_fsync(true)
            .with_automatic_cleanup(true);
        return Ok(Arc::new(objects));
    }
    let url = Url::parse(place).map_err(|e| wrong(e.to_string()))?;
    let (scheme, prefix) =
        ObjectStoreScheme::parse(&url).map_err(|e| wrong(format!("it is no such URL ({e})")))?;
    let objects = remote(&scheme, &url, variables).map_err(|e| wrong(e.to_string()))?;
    let objects =
        objects.ok_or_else(|| wrong("there is no object store behind such a URL".into()))?;
    Ok(prefixed(objects, prefix))
}

fn prefixed(objects: Arc<dyn ObjectStore>, prefix: Path) -> Arc<dyn ObjectStore> {
    if prefix.as_ref().is_empty() {
        objects
    } else {
        Arc::new(PrefixStore::new(objects, prefix))
    }
}

/// None where the scheme is no object store's.
fn remote(
    scheme: &ObjectStoreScheme,
    url: &Url,
    variables: impl IntoIterator<Item = (String, String)>,
) -> object_store::Result<Option<Arc<dyn ObjectStore>>> {
    let variables = variables
        .into_iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value));
    // The three builders have the same methods, but no trait.
    macro_rules! build {
        ($builder:ty) => {{
            let mut builder = <$builder>::new()
                .with_url(url.as_str())
                .with_retry(retries());
            for (name, value) in variables {
                if let Ok(key) = name.parse() {
                    builder = builder.with_config(key, value);
                }
            }
            Arc::new(builder.build()?)
        }};
    }
    Ok(Some(match scheme {
        ObjectStoreScheme::AmazonS3 => build!(AmazonS3Builder),
        ObjectStoreScheme::GoogleCloudStorage => build!(GoogleCloudStorageBuilder),
        ObjectStoreScheme::MicrosoftAzure => build!(MicrosoftAzureBuilder),
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_store_is_refused_before_anything_is_collected() {
        let refused = |place: &str| open(place, []).unwrap_err().to_string();
        assert!(refused("/no/such/folder").starts_with("--store /no/such/folder: "));
        for place in [
            "s4://bucket",
            "memory://x",
            "http://127.0.0.1/x",
            "s3://",
            "ftp://x",
        ] {
            let text = refused(place);
            assert!(
                text.contains("give a folder, or a URL such as s3://bucket/prefix"),
                "{text}"
            );
        }
    }

    #[test]
    fn credentials_come_from_the_usual_variables() {
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let s3 = [
            variable("AWS_ACCESS_KEY_ID", "AK"),
            variable("AWS_SECRET_ACCESS_KEY", "secret"),
            variable("AWS_REGION", "eu-central-1"),
            variable("AWS_ENDPOINT", "http://127.0.0.1:9000"),
            variable("AWS_ALLOW_HTTP", "true"),
            variable("PATH", "/bin"),
        ];
        let objects = format!("{:?}", open("s3://logs/prod", s3).unwrap());
        for part in ["eu-central-1", "http://127.0.0.1:9000", "prod"] {
            assert!(objects.contains(part), "{objects}");
        }
        let azure = [
            variable("AZURE_STORAGE_ACCOUNT_NAME", "acme"),
            variable("AZURE_STORAGE_ACCOUNT_KEY", "a2V5"),
        ];
        let objects = format!("{:?}", open("az://logs/prod", azure).unwrap());
        assert!(objects.contains("acme"), "{objects}");
        let google = [variable(
            "GOOGLE_SERVICE_ACCOUNT_KEY",
            r#"{"private_key": "k", "private_key_id": "i", "client_email": "me@acme",
                "disable_oauth": true, "gcs_base_url": "http://127.0.0.1:9001"}"#,
        )];
        let objects = format!("{:?}", open("gs://logs/prod", google).unwrap());
        assert!(objects.contains("logs"), "{objects}");
    }
}
