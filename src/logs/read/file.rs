//! One stored file, of which no more is fetched than what is wanted: its end, and the row groups that may
//! have wanted lines.

use std::{ops::Range, sync::Arc};

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
    /// The indexes of all its row groups, once one was needed.
    indexes: Option<Piece>,
    /// The next row group.
    group: usize,
    rows: Option<Rows>,
    origin: Arc<Origin>,
}

impl File {
    /// # Errors
    /// Where it can't be read.
    pub async fn open(lake: &Lake, id: &StreamId, lines: (u64, u64)) -> Result<Self, Error> {
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
        Ok(Self {
            path,
            lines,
            footer,
            end,
            indexes: None,
            group: 0,
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
            if self.group == self.footer.groups() {
                return Ok(Vec::new());
            }
            let group = self.group;
            self.group += 1;
            // Looking through thousands of groups must not keep other readers waiting.
            tokio::task::yield_now().await;
            if self.may_have(lake, filter, read, group).await? {
                let data = fetch(lake, &self.path, &self.end, self.footer.span(group)).await?;
                let rows = self.footer.rows(group, data, grep);
                let rows = rows.map_err(|source| damaged(&self.path, source))?;
                let origin = rows.origin();
                let origin = origin.map_err(|source| damaged(&self.path, source))?;
                if *self.origin != origin {
                    self.origin = Arc::new(origin);
                }
                self.rows = Some(rows);
            }
        }
    }

    /// Whether a row group may have wanted lines, as far as can be told without looking at them.
    async fn may_have(
        &mut self,
        lake: &Lake,
        filter: &Filter,
        read: u64,
        group: usize,
    ) -> Result<bool, Error> {
        if self
            .footer
            .seqs(group)
            .is_some_and(|(_, last)| last <= read)
            || !(self.footer.times(group)).is_none_or(|times| filter.wants_some(times))
        {
            return Ok(false);
        }
        let query = filter.grep.as_ref().map(|grep| grep.query());
        let query = query.filter(|query| query.is_selective());
        let (Some(query), Some(index)) = (query, self.footer.index(group)) else {
            return Ok(true);
        };
        if self.indexes.is_none() {
            let all = self.footer.all_indexes().unwrap_or_else(|| index.clone());
            self.indexes = Some(fetch(lake, &self.path, &self.end, all).await?);
        }
        let index = self.indexes.as_ref().and_then(|all| all.get(&index));
        Ok(index.is_none_or(|index| query.may_be_in(&index)))
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
