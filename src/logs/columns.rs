//! A stream's lines ↔ one Parquet file.
//!
//! The columns are what design and docs promise to other programs, so they are only ever added to:
//! `seq`, `time`, `observed` (UTC, nanoseconds), `stream`, `partial`, `redacted`, `clock_back`, `line`
//! (the text, where it is UTF-8) or `raw` (the bytes, where it is not), and who wrote it. Identity is
//! dictionary-encoded: it costs some bytes a file. Every column has statistics, so that a reader skips
//! row groups by number, time or identity; an index of [`trigrams`] lets a search skip them too.
//!
//! Here is how a file is written; [`decode`] reads it. Not here: where files are ([`super::lake`]).

pub mod decode;
pub mod grep;
#[cfg(test)]
mod tests;
pub mod trigrams;

use std::sync::Arc;

use bytes::Bytes;
use parquet::{
    basic::{
        Compression, Encoding, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel,
    },
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type},
    errors::{ParquetError, Result},
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties},
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::types::{ColumnPath, Type},
};

pub use self::decode::Decoder;
use super::{
    line::{Line, Origin, StreamId, nanos},
    planted::{Bug, planted},
};

/// Bytes of messages in one row group, at most (but at least one line).
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// Lines in one row group, at most.
const GROUP_LINES: usize = 64 * 1024;

const SEQ: usize = 0;
const TIME: usize = 1;
const OBSERVED: usize = 2;
const STREAM: usize = 3;
const PARTIAL: usize = 4;
const REDACTED: usize = 5;
const CLOCK_BACK: usize = 6;
const LINE: usize = 7;
const RAW: usize = 8;
const CLUSTER: usize = 9;
const POD: usize = 15;
const POD_UID: usize = 16;
const NODE: usize = 17;
const CONTAINER_ID: usize = 19;
const IMAGE: usize = 20;

fn schema() -> Result<Arc<Type>> {
    let time = || LogicalType::timestamp(true, TimeUnit::NANOS);
    let field = |name: &str, physical, logical: Option<LogicalType>, repetition| {
        Type::primitive_type_builder(name, physical)
            .with_repetition(repetition)
            .with_logical_type(logical)
            .build()
            .map(Arc::new)
    };
    let required =
        |name: &str, physical, logical| field(name, physical, logical, Repetition::REQUIRED);
    let text = |name| required(name, Physical::BYTE_ARRAY, Some(LogicalType::String));
    let optional = |name, logical| field(name, Physical::BYTE_ARRAY, logical, Repetition::OPTIONAL);
    let fields = vec![
        required("seq", Physical::INT64, None)?,
        required("time", Physical::INT64, Some(time()))?,
        required("observed", Physical::INT64, Some(time()))?,
        text("stream")?,
        required("partial", Physical::BOOLEAN, None)?,
        required("redacted", Physical::BOOLEAN, None)?,
        required("clock_back", Physical::BOOLEAN, None)?,
        optional("line", Some(LogicalType::String))?,
        optional("raw", None)?,
        text("cluster")?,
        text("namespace")?,
        text("job")?,
        text("uid")?,
        required("attempt", Physical::INT32, None)?,
        required("rank", Physical::INT32, None)?,
        text("pod")?,
        text("pod_uid")?,
        text("node")?,
        text("container")?,
        text("container_id")?,
        text("image")?,
    ];
    Type::group_type_builder("line")
        .with_fields(fields)
        .build()
        .map(Arc::new)
}

fn properties(epoch: u64) -> Result<WriterProperties> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_data_page_size_limit(256 * 1024)
        .set_created_by(concat!("trainyard ", env!("CARGO_PKG_VERSION")).into())
        .set_key_value_metadata(Some(vec![KeyValue::new(
            "trainyard.epoch".into(),
            format!("{epoch:x}"),
        )]));
    for name in ["seq", "time", "observed"] {
        let path = ColumnPath::from(name);
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    for name in ["line", "raw"] {
        properties = properties
            .set_column_dictionary_enabled(ColumnPath::from(name), false)
            // A whole line as a bound would double the footer.
            .set_column_statistics_enabled(ColumnPath::from(name), EnabledStatistics::Chunk);
    }
    Ok(properties.set_statistics_truncate_length(Some(64)).build())
}

/// One Parquet file with these lines. `epoch` names the log from which they come.
///
/// # Errors
/// Where the library refuses, which it has no reason for.
pub fn encode(id: &StreamId, origin: &Origin, lines: &[Line], epoch: u64) -> Result<Vec<u8>> {
    encode_groups(id, origin, lines, epoch, GROUP_LINES)
}

fn encode_groups(
    id: &StreamId,
    origin: &Origin,
    lines: &[Line],
    epoch: u64,
    group_lines: usize,
) -> Result<Vec<u8>> {
    let mut writer =
        SerializedFileWriter::new(Vec::new(), schema()?, Arc::new(properties(epoch)?))?;
    let mut trigrams = trigrams::Builder::default();
    let mut indexes = Vec::new();
    let mut rest = lines;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(group_lines).take_while(|line| {
            bytes += line.message.len();
            bytes <= GROUP_BYTES
        });
        let (group, after) = rest.split_at(fits.count().max(1));
        rest = after;
        let mut to = writer.next_row_group()?;
        put_group(&mut to, id, origin, group)?;
        to.close()?;
        group.iter().for_each(|line| trigrams.add(&line.message));
        indexes.push(trigrams.finish());
    }
    put_indexes(&mut writer, &indexes)?;
    writer.into_inner()
}

/// Between the row groups and the footer, where other readers do not look.
fn put_indexes(writer: &mut SerializedFileWriter<Vec<u8>>, indexes: &[Vec<u8>]) -> Result<()> {
    let mut ranges = Vec::new();
    for index in indexes {
        let start = writer.bytes_written() as u64;
        writer.write_all(index)?;
        ranges.push(start..start + index.len() as u64);
    }
    let value = trigrams::write_ranges(&ranges);
    writer.append_key_value_metadata(KeyValue::new(trigrams::KEY.into(), value));
    Ok(())
}

type Group<'a> = SerializedRowGroupWriter<'a, Vec<u8>>;

fn put<T: DataType>(to: &mut Group<'_>, values: &[T::T], levels: Option<&[i16]>) -> Result<()> {
    let missing = || ParquetError::General("the schema has fewer columns".into());
    let mut column = to.next_column()?.ok_or_else(missing)?;
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}

fn put_group(to: &mut Group<'_>, id: &StreamId, origin: &Origin, lines: &[Line]) -> Result<()> {
    let times = |of: fn(&Line) -> i64| lines.iter().map(of).collect::<Vec<_>>();
    put::<Int64Type>(to, &times(|l| l.seq.cast_signed()), None)?;
    put::<Int64Type>(to, &times(|l| nanos(l.time)), None)?;
    put::<Int64Type>(to, &times(|l| nanos(l.observed)), None)?;
    let streams: Vec<ByteArray> = (lines.iter())
        .map(|l| ByteArray::from(Bytes::from_static(l.output.as_str().as_bytes())))
        .collect();
    put::<ByteArrayType>(to, &streams, None)?;
    for flag in [
        |l: &Line| l.flags.partial,
        |l: &Line| l.flags.redacted,
        |l: &Line| l.flags.clock_back,
    ] {
        put::<BoolType>(to, &lines.iter().map(flag).collect::<Vec<_>>(), None)?;
    }
    for text in [true, false] {
        let mut values = Vec::new();
        let mut levels = Vec::with_capacity(lines.len());
        for line in lines {
            let here = (std::str::from_utf8(&line.message).is_ok()
                || planted(Bug::ParquetLosesRawBytes))
                == text;
            levels.push(i16::from(here));
            if here && planted(Bug::ParquetLosesRawBytes) {
                let lossy = String::from_utf8_lossy(&line.message).into_owned();
                values.push(ByteArray::from(lossy.into_bytes()));
            } else if here {
                values.push(ByteArray::from(line.message.clone()));
            }
        }
        put::<ByteArrayType>(to, &values, Some(&levels))?;
    }
    let same =
        |text: &str| vec![ByteArray::from(Bytes::copy_from_slice(text.as_bytes())); lines.len()];
    let number = |n: u32| vec![n.cast_signed(); lines.len()];
    for text in [&origin.cluster, &id.namespace, &id.job, &id.uid] {
        put::<ByteArrayType>(to, &same(text), None)?;
    }
    for n in [id.attempt, id.rank] {
        put::<Int32Type>(to, &number(n), None)?;
    }
    for text in [
        &origin.pod,
        &origin.pod_uid,
        &origin.node,
        &id.container,
        &origin.container_id,
        &origin.image,
    ] {
        put::<ByteArrayType>(to, &same(text), None)?;
    }
    Ok(())
}
