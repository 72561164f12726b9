//! Parquet file → lines: the footer, and the row groups one at a time, so that no more of a file has to
//! be there than what is wanted of it.

use std::{collections::VecDeque, iter, ops::Range, sync::Arc};

use bytes::{Buf, Bytes};
use parquet::{
    basic::{Encoding, Type as Physical},
    column::{
        page::{Page, PageReader},
        reader::{ColumnReader, ColumnReaderImpl, get_column_reader, get_typed_column_reader},
    },
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int64Type},
    errors::{ParquetError, Result},
    file::{
        metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader},
        reader::{ChunkReader, Length, SerializedPageReader},
        statistics::Statistics,
    },
};

use super::{
    CLOCK_BACK, CLUSTER, CONTAINER_ID, IMAGE, LINE, NODE, OBSERVED, PARTIAL, POD, POD_UID, RAW,
    REDACTED, SEQ, STREAM, TIME, grep::Grep, trigrams,
};
use crate::logs::line::{Flags, Line, Origin, Output, from_nanos};

/// Lines decoded at a time.
const BATCH: usize = 1024;

/// A part of a file.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Where in the file it begins.
    pub at: u64,
    /// Its bytes.
    pub data: Bytes,
}

impl Piece {
    /// The bytes at these places of the file, where they are in this part of it.
    #[must_use]
    pub fn get(&self, range: &Range<u64>) -> Option<Bytes> {
        let start = usize::try_from(range.start.checked_sub(self.at)?).ok()?;
        let end = usize::try_from(range.end.checked_sub(self.at)?).ok()?;
        (start <= end && end <= self.data.len()).then(|| self.data.slice(start..end))
    }

    fn from(&self, start: u64) -> Result<Bytes> {
        self.get(&(start..self.len()))
            .ok_or_else(|| wrong("it is cut short"))
    }
}

impl Length for Piece {
    fn len(&self) -> u64 {
        self.at + self.data.len() as u64
    }
}

impl ChunkReader for Piece {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.get(&(start..start + length as u64))
            .ok_or_else(|| wrong("it is cut short"))
    }
}

fn wrong(what: &str) -> ParquetError {
    ParquetError::General(format!("no file of ours: {what}"))
}

/// What a file says of itself at its end.
#[derive(Clone, Debug)]
pub struct Footer {
    metadata: Arc<ParquetMetaData>,
    /// Where the skip index of each row group is; empty where the file has none.
    indexes: Vec<Range<u64>>,
}

impl Footer {
    /// From the last part of a file.
    ///
    /// # Errors
    /// `NeedMoreData` where the part is too small, with how many bytes it takes; others where this is no
    /// Parquet file.
    pub fn parse(end: &Piece) -> Result<Self> {
        let mut reader = ParquetMetaDataReader::new();
        reader.try_parse_sized(&end.data, end.len())?;
        let metadata = reader.finish()?;
        let pairs = metadata.file_metadata().key_value_metadata();
        let key = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == trigrams::KEY));
        let ranges = key.and_then(|key| key.value.as_deref());
        let mut indexes = trigrams::read_ranges(ranges.unwrap_or_default());
        if indexes.len() != metadata.num_row_groups() {
            indexes.clear();
        }
        Ok(Self {
            metadata: Arc::new(metadata),
            indexes,
        })
    }

    /// How many lines the file has.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.metadata.file_metadata().num_rows().cast_unsigned()
    }

    /// How many row groups the file has.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.metadata.num_row_groups()
    }

    /// Where in the file the index of a row group is.
    #[must_use]
    pub fn index(&self, group: usize) -> Option<Range<u64>> {
        self.indexes.get(group).cloned()
    }

    /// Where in the file the indexes of all row groups are.
    #[must_use]
    pub fn all_indexes(&self) -> Option<Range<u64>> {
        Some(self.indexes.first()?.start..self.indexes.last()?.end)
    }

    /// Where in the file a row group is.
    #[must_use]
    pub fn span(&self, group: usize) -> Range<u64> {
        let columns = self.metadata.row_group(group).columns().iter();
        let (mut from, mut to) = (u64::MAX, 0);
        for (start, length) in columns.map(ColumnChunkMetaData::byte_range) {
            from = from.min(start);
            to = to.max(start + length);
        }
        from.min(to)..to
    }

    /// The least and the greatest number of its lines.
    #[must_use]
    pub fn seqs(&self, group: usize) -> Option<(u64, u64)> {
        let (first, last) = self.bounds(group, SEQ)?;
        Some((first.cast_unsigned(), last.cast_unsigned()))
    }

    /// The earliest and the latest of its lines' times, in nanoseconds.
    #[must_use]
    pub fn times(&self, group: usize) -> Option<(i64, i64)> {
        self.bounds(group, TIME)
    }

    fn bounds(&self, group: usize, column: usize) -> Option<(i64, i64)> {
        match self.metadata.row_group(group).column(column).statistics()? {
            Statistics::Int64(bounds) => Some((*bounds.min_opt()?, *bounds.max_opt()?)),
            _ => None,
        }
    }

    /// The lines of a row group. With `grep` those that may have it, and perhaps others.
    ///
    /// # Errors
    /// Where the file is damaged, or has other columns.
    pub fn rows(&self, group: usize, data: Piece, grep: Option<&Grep>) -> Result<Rows> {
        let chunks = Chunks {
            metadata: self.metadata.clone(),
            group,
            data: Arc::new(data),
        };
        let lines = chunks.lines();
        let ranges = match grep.filter(|grep| grep.has_needle()) {
            Some(grep) => chunks.candidates(grep)?,
            None => iter::once(0..lines).collect(),
        };
        Ok(Rows {
            columns: Columns::new(&chunks)?,
            chunks,
            ranges,
            at: 0,
        })
    }
}

/// The column chunks of one row group.
struct Chunks {
    metadata: Arc<ParquetMetaData>,
    group: usize,
    data: Arc<Piece>,
}

impl Chunks {
    fn lines(&self) -> usize {
        usize::try_from(self.metadata.row_group(self.group).num_rows()).unwrap_or(0)
    }

    fn pages(&self, column: usize) -> Result<SerializedPageReader<Piece>> {
        let group = self.metadata.row_group(self.group);
        if column >= group.num_columns() {
            return Err(wrong("it has fewer columns"));
        }
        SerializedPageReader::new(self.data.clone(), group.column(column), self.lines(), None)
    }

    fn reader<T: DataType>(&self, column: usize) -> Result<ColumnReaderImpl<T>> {
        let pages = Box::new(self.pages(column)?);
        let descriptor = self.metadata.row_group(self.group).column(column);
        let reader = get_column_reader(descriptor.column_descr_ptr(), pages);
        let physical = match &reader {
            ColumnReader::BoolColumnReader(_) => Physical::BOOLEAN,
            ColumnReader::Int64ColumnReader(_) => Physical::INT64,
            ColumnReader::ByteArrayColumnReader(_) => Physical::BYTE_ARRAY,
            _ => return Err(wrong("a column has another type")),
        };
        if physical == T::get_physical_type() {
            Ok(get_typed_column_reader(reader))
        } else {
            Err(wrong("a column has another type"))
        }
    }

    /// The rows in whose pages what is searched for may be: whole pages are looked through, at the speed
    /// at which they are decompressed.
    fn candidates(&self, grep: &Grep) -> Result<VecDeque<Range<usize>>> {
        let mut found = Vec::new();
        for column in [LINE, RAW] {
            let chunk = self.metadata.row_group(self.group).column(column);
            let nulls = chunk.statistics().and_then(Statistics::null_count_opt);
            if nulls == Some(self.lines() as u64) {
                continue;
            }
            let mut pages = self.pages(column)?;
            let mut row = 0;
            while let Some(page) = pages.get_next_page()? {
                if let Page::DictionaryPage { .. } = page {
                    return Ok(iter::once(0..self.lines()).collect());
                }
                let after = row + page.num_values() as usize;
                if page.encoding() != Encoding::PLAIN || grep.may_be_in(page.buffer()) {
                    found.push(row..after);
                }
                row = after;
            }
        }
        found.sort_unstable_by_key(|range| range.start);
        let mut ranges = VecDeque::<Range<usize>>::new();
        for range in found {
            match ranges.back_mut() {
                Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
                _ => ranges.push_back(range),
            }
        }
        Ok(ranges)
    }
}

/// The lines of one row group, a batch at a time.
pub struct Rows {
    chunks: Chunks,
    columns: Columns,
    /// Those that are still to be looked at.
    ranges: VecDeque<Range<usize>>,
    /// How many are behind.
    at: usize,
}

impl Rows {
    /// Whether it is certain that there is no line any more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The next lines that have what is searched for, or all; none at the end.
    ///
    /// # Errors
    /// Where the file is damaged.
    pub fn next_lines(&mut self, grep: Option<&Grep>) -> Result<Vec<Line>> {
        while let Some(range) = self.ranges.front_mut() {
            let skipped = range.start - self.at;
            let n = range.len().min(BATCH);
            self.at = range.start + n;
            range.start = self.at;
            if range.start == range.end {
                self.ranges.pop_front();
            }
            if skipped > 0 {
                self.columns.skip(skipped)?;
            }
            let messages = self.columns.messages(n)?;
            let wanted: Vec<bool> = (messages.iter())
                .map(|message| grep.is_none_or(|grep| grep.matches(message.data())))
                .collect();
            if wanted.contains(&true) {
                return self.columns.lines(messages, &wanted);
            }
            self.columns.skip_others(n)?;
        }
        Ok(Vec::new())
    }

    /// Who wrote the lines, by the first one.
    ///
    /// # Errors
    /// Where the file is damaged, or has other columns.
    pub fn origin(&self) -> Result<Origin> {
        let text = |column| {
            let mut reader = self.chunks.reader::<ByteArrayType>(column)?;
            let values = read(&mut reader, 1, None)?;
            let text = values.first().map(|value| value.as_utf8()).transpose()?;
            Ok::<_, ParquetError>(text.unwrap_or_default().to_owned())
        };
        Ok(Origin {
            cluster: text(CLUSTER)?,
            node: text(NODE)?,
            pod: text(POD)?,
            pod_uid: text(POD_UID)?,
            container_id: text(CONTAINER_ID)?,
            image: text(IMAGE)?,
        })
    }
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

fn skip<T: DataType>(in_column: &mut ColumnReaderImpl<T>, lines: usize) -> Result<()> {
    if in_column.skip_records(lines)? == lines {
        Ok(())
    } else {
        Err(wrong("a column is short"))
    }
}

impl Columns {
    fn new(chunks: &Chunks) -> Result<Self> {
        Ok(Self {
            seq: chunks.reader(SEQ)?,
            time: chunks.reader(TIME)?,
            observed: chunks.reader(OBSERVED)?,
            stream: chunks.reader(STREAM)?,
            flags: [
                chunks.reader(PARTIAL)?,
                chunks.reader(REDACTED)?,
                chunks.reader(CLOCK_BACK)?,
            ],
            line: chunks.reader(LINE)?,
            raw: chunks.reader(RAW)?,
        })
    }

    fn skip(&mut self, n: usize) -> Result<()> {
        skip(&mut self.line, n)?;
        skip(&mut self.raw, n)?;
        self.skip_others(n)
    }

    /// All but the messages.
    fn skip_others(&mut self, n: usize) -> Result<()> {
        for times in [&mut self.seq, &mut self.time, &mut self.observed] {
            skip(times, n)?;
        }
        skip(&mut self.stream, n)?;
        self.flags.iter_mut().try_for_each(|flag| skip(flag, n))
    }

    fn messages(&mut self, n: usize) -> Result<Vec<ByteArray>> {
        let mut is_text = Vec::with_capacity(n);
        let mut text = read(&mut self.line, n, Some(&mut is_text))?.into_iter();
        let mut is_raw = Vec::new();
        let mut raw = read(&mut self.raw, n, Some(&mut is_raw))?.into_iter();
        (is_text.into_iter())
            .map(|is_text| {
                let message = if is_text == 1 {
                    text.next()
                } else {
                    raw.next()
                };
                message.ok_or_else(|| wrong("a line has no text"))
            })
            .collect()
    }

    fn lines(&mut self, messages: Vec<ByteArray>, wanted: &[bool]) -> Result<Vec<Line>> {
        let n = messages.len();
        let seq = read(&mut self.seq, n, None)?;
        let time = read(&mut self.time, n, None)?;
        let observed = read(&mut self.observed, n, None)?;
        let stream = read(&mut self.stream, n, None)?;
        let [partial, redacted, clock_back] = &mut self.flags;
        let partial = read(partial, n, None)?;
        let redacted = read(redacted, n, None)?;
        let clock_back = read(clock_back, n, None)?;
        let of_name = |name: &[u8]| {
            Output::ALL
                .into_iter()
                .find(|o| o.as_str().as_bytes() == name)
        };
        Ok((messages.into_iter().enumerate())
            .filter(|(at, _)| wanted[*at])
            .map(|(at, message)| Line {
                seq: seq[at].cast_unsigned(),
                time: from_nanos(time[at]),
                observed: from_nanos(observed[at]),
                output: of_name(stream[at].data()).unwrap_or_default(),
                flags: Flags {
                    partial: partial[at],
                    redacted: redacted[at],
                    clock_back: clock_back[at],
                },
                message: message.data().to_vec(),
            })
            .collect())
    }
}

/// All lines of a file that is there as a whole, a batch at a time.
pub struct Decoder {
    footer: Footer,
    data: Bytes,
    group: usize,
    rows: Option<Rows>,
}

impl Decoder {
    /// For the contents of a file.
    ///
    /// # Errors
    /// Where it is no Parquet file.
    pub fn new(data: Bytes) -> Result<Self> {
        let whole = Piece { at: 0, data };
        Ok(Self {
            footer: Footer::parse(&whole)?,
            data: whole.data,
            group: 0,
            rows: None,
        })
    }

    /// How many lines the file has.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.footer.lines()
    }

    /// The next lines; none at the end.
    ///
    /// # Errors
    /// Where the file is damaged, or has other columns.
    pub fn next_lines(&mut self) -> Result<Vec<Line>> {
        loop {
            if let Some(rows) = &mut self.rows {
                let lines = rows.next_lines(None)?;
                if !lines.is_empty() {
                    return Ok(lines);
                }
                self.rows = None;
            }
            if self.group == self.footer.groups() {
                return Ok(Vec::new());
            }
            let whole = Piece {
                at: 0,
                data: self.data.clone(),
            };
            self.rows = Some(self.footer.rows(self.group, whole, None)?);
            self.group += 1;
        }
    }
}
