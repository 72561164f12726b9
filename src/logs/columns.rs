//! A stream's lines ↔ one Parquet file.
//!
//! The columns are what design and docs promise to other programs, so they are only ever added to:
//! `seq`, `time`, `observed` (UTC, nanoseconds), `stream`, `partial`, `redacted`, `clock_back`, `line`
//! (the text, where it is UTF-8) or `raw` (the bytes, where it is not), and who wrote it. Identity is
//! dictionary-encoded: it costs some bytes a file. Every column has statistics, so that a reader skips
//! row groups by number, time or identity.
//!
//! Not here: where files are ([`super::lake`]).

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use parquet::{
    basic::{
        Compression, Encoding, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel,
    },
    column::reader::{ColumnReader, ColumnReaderImpl, get_typed_column_reader},
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type},
    errors::{ParquetError, Result},
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties},
        reader::{FileReader, SerializedFileReader},
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::types::{ColumnPath, Type},
};

use super::{
    line::{Flags, Line, Origin, Output, StreamId, from_nanos, nanos},
    planted::{Bug, planted},
};

/// Bytes of messages in one row group, at most (but at least one line).
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// Lines in one row group, at most.
const GROUP_LINES: usize = 64 * 1024;
/// Lines decoded at a time.
const BATCH: usize = 1024;

const SEQ: usize = 0;
const TIME: usize = 1;
const OBSERVED: usize = 2;
const STREAM: usize = 3;
const PARTIAL: usize = 4;
const REDACTED: usize = 5;
const CLOCK_BACK: usize = 6;
const LINE: usize = 7;
const RAW: usize = 8;

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
    let mut writer =
        SerializedFileWriter::new(Vec::new(), schema()?, Arc::new(properties(epoch)?))?;
    let mut rest = lines;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(GROUP_LINES).take_while(|line| {
            bytes += line.message.len();
            bytes <= GROUP_BYTES
        });
        let (group, after) = rest.split_at(fits.count().max(1));
        rest = after;
        let mut to = writer.next_row_group()?;
        put_group(&mut to, id, origin, group)?;
        to.close()?;
    }
    writer.into_inner()
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

/// The lines of one file, a batch at a time.
pub struct Decoder {
    file: SerializedFileReader<Bytes>,
    group: usize,
    /// Lines of the group that were not read yet.
    left: usize,
    columns: Option<Columns>,
}

struct Columns {
    seq: ColumnReaderImpl<Int64Type>,
    time: ColumnReaderImpl<Int64Type>,
    observed: ColumnReaderImpl<Int64Type>,
    stream: ColumnReaderImpl<ByteArrayType>,
    flags: [ColumnReaderImpl<BoolType>; 3],
    line: ColumnReaderImpl<ByteArrayType>,
    raw: ColumnReaderImpl<ByteArrayType>,
}

fn wrong(what: &str) -> ParquetError {
    ParquetError::General(format!("no file of ours: {what}"))
}

fn read<T: DataType>(
    from: &mut ColumnReaderImpl<T>,
    lines: usize,
    levels: Option<&mut Vec<i16>>,
) -> Result<Vec<T::T>> {
    let mut values = Vec::with_capacity(lines);
    let (records, _, _) = from.read_records(lines, levels, None, &mut values)?;
    if records == lines {
        Ok(values)
    } else {
        Err(wrong("a column is short"))
    }
}

impl Decoder {
    /// For the contents of a file.
    ///
    /// # Errors
    /// Where it is no Parquet file.
    pub fn new(data: Bytes) -> Result<Self> {
        Ok(Self {
            file: SerializedFileReader::new(data)?,
            group: 0,
            left: 0,
            columns: None,
        })
    }

    /// How many lines the file has.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.file
            .metadata()
            .file_metadata()
            .num_rows()
            .cast_unsigned()
    }

    /// Who wrote the lines, by the file's first one.
    ///
    /// # Errors
    /// Where the file has other columns.
    pub fn origin(&self) -> Result<Origin> {
        let row = self.file.get_row_iter(None)?.next().transpose()?;
        let row = row.ok_or_else(|| wrong("it is empty"))?;
        let text = |name: &str| {
            let column = row.get_column_iter().find(|(n, _)| *n == name);
            match column {
                Some((_, parquet::record::Field::Str(text))) => text.clone(),
                _ => String::new(),
            }
        };
        Ok(Origin {
            cluster: text("cluster"),
            node: text("node"),
            pod: text("pod"),
            pod_uid: text("pod_uid"),
            container_id: text("container_id"),
            image: text("image"),
        })
    }

    /// The next lines; none at the end.
    ///
    /// # Errors
    /// Where the file is damaged, or has other columns.
    pub fn next_lines(&mut self) -> Result<Vec<Line>> {
        while self.left == 0 {
            if self.group == self.file.num_row_groups() {
                return Ok(Vec::new());
            }
            let group = self.file.get_row_group(self.group)?;
            self.left = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
            let column = |at: usize| group.get_column_reader(at);
            self.columns = Some(Columns {
                seq: typed(column(SEQ)?)?,
                time: typed(column(TIME)?)?,
                observed: typed(column(OBSERVED)?)?,
                stream: typed(column(STREAM)?)?,
                flags: [
                    typed(column(PARTIAL)?)?,
                    typed(column(REDACTED)?)?,
                    typed(column(CLOCK_BACK)?)?,
                ],
                line: typed(column(LINE)?)?,
                raw: typed(column(RAW)?)?,
            });
            self.group += 1;
        }
        let n = self.left.min(BATCH);
        self.left -= n;
        let columns = self.columns.as_mut().ok_or_else(|| wrong("no group"))?;
        columns.next(n)
    }
}

fn typed<T: DataType>(column: ColumnReader) -> Result<ColumnReaderImpl<T>> {
    let physical = match &column {
        ColumnReader::BoolColumnReader(_) => Physical::BOOLEAN,
        ColumnReader::Int64ColumnReader(_) => Physical::INT64,
        ColumnReader::ByteArrayColumnReader(_) => Physical::BYTE_ARRAY,
        _ => return Err(wrong("a column has another type")),
    };
    if physical == T::get_physical_type() {
        Ok(get_typed_column_reader(column))
    } else {
        Err(wrong("a column has another type"))
    }
}

impl Columns {
    fn next(&mut self, n: usize) -> Result<Vec<Line>> {
        let seq = read(&mut self.seq, n, None)?;
        let time = read(&mut self.time, n, None)?;
        let observed = read(&mut self.observed, n, None)?;
        let stream = read(&mut self.stream, n, None)?;
        let [partial, redacted, clock_back] = &mut self.flags;
        let partial = read(partial, n, None)?;
        let redacted = read(redacted, n, None)?;
        let clock_back = read(clock_back, n, None)?;
        let mut is_text = Vec::new();
        let mut text = read(&mut self.line, n, Some(&mut is_text))?.into_iter();
        let mut is_raw = Vec::new();
        let mut raw = read(&mut self.raw, n, Some(&mut is_raw))?.into_iter();
        (0..n)
            .map(|at| {
                let message = if is_text[at] == 1 {
                    text.next()
                } else {
                    raw.next()
                };
                let output = Output::ALL
                    .into_iter()
                    .find(|o| o.as_str().as_bytes() == stream[at].data());
                Ok(Line {
                    seq: seq[at].cast_unsigned(),
                    time: from_nanos(time[at]),
                    observed: from_nanos(observed[at]),
                    output: output.unwrap_or_default(),
                    flags: Flags {
                        partial: partial[at],
                        redacted: redacted[at],
                        clock_back: clock_back[at],
                    },
                    message: message
                        .ok_or_else(|| wrong("a line has no text"))?
                        .data()
                        .to_vec(),
                })
            })
            .collect()
    }
}
