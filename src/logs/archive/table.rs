//! PURE: a job, and its attempts, as rows of the tables `jobs` and `attempts`: Parquet files of one row
//! each. The columns are what docs/reference.md promises to other programs, so they are only ever added
//! to.

use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::ResourceExt;
use parquet::{
    basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel},
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int64Type},
    errors::{ParquetError, Result},
    file::{
        properties::WriterProperties,
        reader::{FileReader, SerializedFileReader},
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    record::Field,
    schema::types::Type,
};
use serde_json::{Value, json};

use crate::api::{Attempt, LogsStatus, TrainingJob, conditions};

/// Column with a job's manifest, as JSON.
pub const MANIFEST: &str = "manifest";
/// Column with a job's status, as JSON.
pub const STATUS: &str = "status";
/// Column with an attempt as it was in the ledger, as JSON.
pub const ENTRY: &str = "entry";

/// A value, where there is one.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// UTF-8.
    Text(Option<String>),
    /// A number.
    Number(Option<i64>),
    /// UTC. In microseconds: DuckDB does not subtract those of nanoseconds.
    Time(Option<Timestamp>),
    /// Yes or no.
    Flag(Option<bool>),
}

/// One row, by column.
pub type Row = Vec<(&'static str, Cell)>;

fn text(value: impl Into<String>) -> Cell {
    Cell::Text(Some(value.into()))
}

fn number(value: impl Into<i64>) -> Cell {
    Cell::Number(Some(value.into()))
}

fn time(value: Option<&Time>) -> Cell {
    Cell::Time(value.map(|t| t.0))
}

fn identity(job: &TrainingJob, cluster: &str) -> Row {
    vec![
        ("cluster", text(cluster)),
        ("namespace", text(job.namespace().unwrap_or_default())),
        ("job", text(job.name_any())),
        ("uid", text(job.uid().unwrap_or_default())),
    ]
}

fn logs(logs: Option<&LogsStatus>) -> Row {
    vec![
        ("logs_complete", Cell::Flag(logs.map(|l| l.complete))),
        ("lines", Cell::Number(logs.map(|l| l.lines))),
        ("bytes", Cell::Number(logs.map(|l| l.bytes))),
        ("gaps", Cell::Number(logs.map(|l| l.gaps))),
    ]
}

/// The row of a job as it is now. `deleted`: when the object was seen to be gone, if it is.
#[must_use]
pub fn job(job: &TrainingJob, cluster: &str, deleted: Option<Timestamp>) -> Row {
    let status = job.status.clone().unwrap_or_default();
    let summary = status.condition(conditions::SUCCEEDED);
    let succeeded = summary.and_then(|c| match c.status.as_str() {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    });
    let mut manifest = json!(job);
    if let Some(object) = manifest.as_object_mut() {
        object.remove("status");
    }
    if let Some(metadata) = manifest["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    let runtime = status.runtime.as_ref();
    let json = |value: Value| text(value.to_string());
    let mut row = identity(job, cluster);
    row.extend([
        ("created", time(job.metadata.creation_timestamp.as_ref())),
        ("started", time(status.start_time.as_ref())),
        ("completed", time(status.completion_time.as_ref())),
        ("deleted", Cell::Time(deleted)),
        ("succeeded", Cell::Flag(succeeded)),
        ("reason", Cell::Text(summary.map(|c| c.reason.clone()))),
        ("message", Cell::Text(summary.map(|c| c.message.clone()))),
        ("retries", number(status.retries)),
        ("retries_ignored", number(status.retries_ignored)),
        ("num_nodes", number(job.spec.num_nodes)),
        ("gpus_per_node", number(job.spec.gpus_per_node)),
        ("runtime", Cell::Text(runtime.map(|r| r.name.clone()))),
    ]);
    row.extend(logs(status.logs.as_ref()));
    row.extend([
        (MANIFEST, json(manifest)),
        (
            "runtime_snapshot",
            Cell::Text(runtime.map(|r| json!(r).to_string())),
        ),
        (STATUS, json(json!(status))),
    ]);
    row
}

/// The row of an attempt that has ended.
#[must_use]
pub fn attempt(job: &TrainingJob, attempt: &Attempt, cluster: &str) -> Row {
    let cause = attempt.root_cause.as_ref();
    let of_cause =
        |part: fn(&crate::api::RootCause) -> Option<String>| Cell::Text(cause.and_then(part));
    let mut row = identity(job, cluster);
    row.extend([
        ("attempt", number(attempt.number)),
        ("started", time(Some(&attempt.start_time))),
        ("ended", time(attempt.end_time.as_ref())),
        ("class", Cell::Text(attempt.class.map(|c| c.to_string()))),
        ("rule", Cell::Text(attempt.rule.clone())),
        ("reason", of_cause(|c| Some(c.reason.clone()))),
        ("message", of_cause(|c| Some(c.message.clone()))),
        (
            "rank",
            Cell::Number(cause.and_then(|c| c.rank).map(i64::from)),
        ),
        ("pod", of_cause(|c| c.pod.clone())),
        ("node", of_cause(|c| c.node.clone())),
        ("container", of_cause(|c| c.container.clone())),
        (
            "exit_code",
            Cell::Number(cause.and_then(|c| c.exit_code).map(i64::from)),
        ),
        ("hint", Cell::Text(attempt.hint.clone())),
        ("decision", Cell::Text(attempt.decision.clone())),
    ]);
    row.extend(logs(attempt.logs.as_ref()));
    row.push((ENTRY, text(json!(attempt).to_string())));
    row
}

/// The texts in these columns of a file of one row, where there are some.
///
/// # Errors
/// Where it is no such file.
pub fn texts<const N: usize>(file: Bytes, columns: [&str; N]) -> Result<[Option<String>; N]> {
    let reader = SerializedFileReader::new(file)?;
    let mut rows = reader.get_row_iter(None)?;
    let none = || ParquetError::General("there is no row".into());
    let row = rows.next().ok_or_else(none)??;
    let text = |column: &str| {
        let mut columns = row.get_column_iter();
        columns.find_map(|(name, value)| match value {
            Field::Str(text) if name == column => Some(text.clone()),
            _ => None,
        })
    };
    Ok(columns.map(text))
}

/// A Parquet file with this one row.
///
/// # Errors
/// Where the library refuses, which it has no reason for.
pub fn encode(table: &str, row: &Row) -> Result<Vec<u8>> {
    let fields: Result<Vec<_>> = row.iter().map(|(name, cell)| field(name, cell)).collect();
    let schema = Type::group_type_builder(table)
        .with_fields(fields?)
        .build()?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        // One row: a dictionary would be as large as the value.
        .set_dictionary_enabled(false)
        .set_statistics_truncate_length(Some(64))
        .set_created_by(concat!("trainyard ", env!("CARGO_PKG_VERSION")).into())
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    for (_, cell) in row {
        match cell {
            Cell::Text(value) => put::<ByteArrayType>(
                &mut group,
                value
                    .as_ref()
                    .map(|v| ByteArray::from(v.as_bytes().to_vec())),
            ),
            Cell::Number(value) => put::<Int64Type>(&mut group, *value),
            Cell::Time(value) => put::<Int64Type>(&mut group, value.map(Timestamp::as_microsecond)),
            Cell::Flag(value) => put::<BoolType>(&mut group, *value),
        }?;
    }
    group.close()?;
    writer.into_inner()
}

fn field(name: &str, cell: &Cell) -> Result<Arc<Type>> {
    let time = LogicalType::timestamp(true, TimeUnit::MICROS);
    let (physical, logical) = match cell {
        Cell::Text(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        Cell::Number(_) => (Physical::INT64, None),
        Cell::Time(_) => (Physical::INT64, Some(time)),
        Cell::Flag(_) => (Physical::BOOLEAN, None),
    };
    Type::primitive_type_builder(name, physical)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(logical)
        .build()
        .map(Arc::new)
}

fn put<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    value: Option<T::T>,
) -> Result<()> {
    let missing = || ParquetError::General("the schema has fewer columns".into());
    let mut column = group.next_column()?.ok_or_else(missing)?;
    let levels = [i16::from(value.is_some())];
    let values: Vec<T::T> = value.into_iter().collect();
    column
        .typed::<T>()
        .write_batch(&values, Some(&levels), None)?;
    column.close()
}
