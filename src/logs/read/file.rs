//! One stored file, of which no more is fetched than what is wanted: its end, and the row groups that may
//! have wanted lines.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use object_store::path::Path;
use parquet::errors::ParquetError;

use super::filter::Filter;
use crate::logs::{
    columns::decode::{Footer, Piece, Rows},
    lake::Lake,
    layout,
    line::{Line, Origin, StreamId},
    sink::Error,
};

/// What is fetched of a file's end at first. Small files are there as a whole then.
const END: u64 = 64 * 1024;

/// A file that is being read.
pub(super) struct File {
    path: Path,
    /// Numbers of its first and last line.
    pub lines: (u64, u64),
    footer: Footer,
    /// Its last bytes.
    end: Piece,
    /// The row groups that may have wanted lines, and are still to be read.
    groups: VecDeque<usize>,
    rows: Option<Rows>,
    origin: Arc<Origin>,
}

impl File {
    /// Looks at the end of a file.
    ///
    /// # Errors
    /// Where it can't be read.
    pub async fn open(
        lake: &Lake,
        id: &StreamId,
        lines: (u64, u64),
        filter: &Filter,
    ) -> Result<Self, Error> {
        let path = layout::lines(id, lines.0, lines.1).ok_or_else(|| Error::Name(id.clone()))?;
        let mut end = lake.end(&path, END).await?;
        let footer = loop {
            match Footer::parse(&end) {
                Ok(footer) => break footer,
                Err(ParquetError::NeedMoreData(bytes)) if bytes > end.data.len() => {
                    end = lake.end(&path, bytes as u64).await?;
                }
                Err(source) => return Err(damaged(&path, source)),
            }
        };
        let mut groups: VecDeque<usize> = (0..footer.groups())
            .filter(|group| (footer.times(*group)).is_none_or(|times| filter.wants_some(times)))
            .collect();
        let query = filter.grep.as_ref().map(|grep| grep.query());
        if let Some(query) = query.filter(|query| query.is_selective())
            && let Some(indexes) = footer.all_indexes().filter(|_| !groups.is_empty())
        {
            let indexes = fetch(lake, &path, &end, indexes).await?;
            groups.retain(|group| {
                let index = footer.index(*group).and_then(|range| indexes.get(&range));
                index.is_none_or(|index| query.may_be_in(&index))
            });
        }
        Ok(Self {
            path,
            lines,
            footer,
            end,
            groups,
            rows: None,
            origin: Arc::default(),
        })
    }

    /// Who wrote the lines that were read last.
    pub fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// The next wanted lines with numbers after `read`; none at the end.
    ///
    /// # Errors
    /// Where they can't be read.
    pub async fn next_lines(
        &mut self,
        lake: &Lake,
        filter: &Filter,
        read: u64,
    ) -> Result<Vec<Line>, Error> {
        let grep = filter.grep.as_deref();
        loop {
            while let Some(rows) = &mut self.rows {
                let lines = rows.next_lines(grep);
                let mut lines = lines.map_err(|source| damaged(&self.path, source))?;
                if lines.is_empty() {
                    self.rows = None;
                }
                lines.retain(|line| line.seq > read && filter.wants_time(line.time));
                if !lines.is_empty() {
                    return Ok(lines);
                }
            }
            let Some(group) = self.groups.pop_front() else {
                return Ok(Vec::new());
            };
            if self
                .footer
                .seqs(group)
                .is_some_and(|(_, last)| last <= read)
            {
                continue;
            }
            // Looking through thousands of groups must not keep other readers waiting.
            tokio::task::yield_now().await;
            let span = self.footer.span(group);
            let data = fetch(lake, &self.path, &self.end, span).await?;
            let rows = self.footer.rows(group, data, grep);
            let rows = rows.map_err(|source| damaged(&self.path, source))?;
            if !rows.is_empty() {
                let origin = rows.origin();
                let origin = origin.map_err(|source| damaged(&self.path, source))?;
                if *self.origin != origin {
                    self.origin = Arc::new(origin);
                }
                self.rows = Some(rows);
            }
        }
    }
}

/// A part of a file, of which the end is there already.
async fn fetch(lake: &Lake, path: &Path, end: &Piece, range: Range<u64>) -> Result<Piece, Error> {
    match end.get(&range) {
        Some(data) => Ok(Piece {
            at: range.start,
            data,
        }),
        None => lake.piece(path, range).await,
    }
}

fn damaged(path: &Path, source: ParquetError) -> Error {
    Error::Parquet {
        path: path.to_string(),
        source,
    }
}
