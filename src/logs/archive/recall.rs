//! A job as it was, from its rows: what it ran, how it ended, and its whole ledger.

use serde_json::Value;

use super::table::{self, ENTRY, MANIFEST, STATUS};
use crate::{
    api::{Attempt, TrainingJob},
    logs::{lake::Lake, layout, sink::Error},
};

/// The newest job of that name that has rows. None where there is none.
///
/// # Errors
/// Where the rows can't be read.
pub async fn recall(
    lake: &Lake,
    namespace: &str,
    name: &str,
) -> Result<Option<TrainingJob>, Error> {
    let Some(folder) = layout::job(namespace, name) else {
        return Ok(None);
    };
    let rows = lake.rows(&format!("{}/{folder}", layout::JOBS)).await?;
    let Some((path, _)) = rows.into_iter().max_by_key(|(_, stored)| *stored) else {
        return Ok(None);
    };
    let wrong = |source| Error::Parquet {
        path: path.to_string(),
        source,
    };
    let file = lake.row(&path).await?;
    let [manifest, status] = table::texts(file, [MANIFEST, STATUS]).map_err(wrong)?;
    let mut job: Value = parse(path.as_ref(), manifest.as_deref())?;
    job["status"] = parse(path.as_ref(), status.as_deref())?;
    let mut job: TrainingJob = from_json(path.as_ref(), job)?;
    let uid = layout::uid_of_job_row(path.as_ref()).unwrap_or_default();
    let mut ledger = ledger(lake, namespace, name, uid).await?;
    if let Some(status) = &mut job.status {
        // One that has not ended has no row.
        let open = status.attempts.iter().filter(|a| a.end_time.is_none());
        ledger.extend(open.cloned());
        ledger.sort_by_key(|attempt| attempt.number);
        status.attempts = ledger;
    }
    Ok(Some(job))
}

/// What to say where there is none.
#[must_use]
pub fn nothing(namespace: &str, name: &str) -> String {
    format!(
        "nothing is stored of a job {name} in namespace {namespace}: check the name and the namespace; jobs that ended before the collector was installed are not there"
    )
}

async fn ledger(
    lake: &Lake,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<Vec<Attempt>, Error> {
    let mut ledger = Vec::new();
    let folder = layout::attempt_rows(namespace, name, uid).unwrap_or_default();
    for (path, _) in lake.rows(&folder).await? {
        let file = lake.row(&path).await?;
        let [entry] = table::texts(file, [ENTRY]).map_err(|source| Error::Parquet {
            path: path.to_string(),
            source,
        })?;
        let entry = parse(path.as_ref(), entry.as_deref())?;
        ledger.push(from_json(path.as_ref(), entry)?);
    }
    Ok(ledger)
}

fn parse(path: &str, text: Option<&str>) -> Result<Value, Error> {
    serde_json::from_str(text.unwrap_or("null")).map_err(|source| wrong(path, source))
}

fn from_json<T: serde::de::DeserializeOwned>(path: &str, value: Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|source| wrong(path, source))
}

fn wrong(path: &str, source: serde_json::Error) -> Error {
    Error::Parquet {
        path: path.to_owned(),
        source: parquet::errors::ParquetError::External(Box::new(source)),
    }
}
