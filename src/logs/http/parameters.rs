//! The parameters of a question about a job's logs, as they are in its URL. Those who ask and those who
//! answer have them from here, and so has the `OpenAPI` document.

use std::{num::NonZeroUsize, sync::Arc};

use k8s_openapi::jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::logs::{
    columns::grep::Grep,
    read::{Attempts, Filter, Format, Selection, Shape, time},
};

/// The most lines that `tail` takes.
pub const MAX_TAIL: usize = 100_000;
/// The most lines that `limit` takes.
pub const MAX_LIMIT: usize = 10_000;

/// What is asked for. All of it may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Which attempt: its number, `all`, or `newest` (default).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<String>,
    /// One rank; by default the lines of all, merged by time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<u32>,
    /// One container; by default the lines of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Lines stamped at this time or later: RFC 3339, or how long ago (90s, 10m, 1h30m, 2d).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Lines stamped before this time, written as in `since`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Lines whose message has this regular expression (syntax of Rust's regex crate, linear time;
    /// `(?i)` in front: upper and lower case are the same).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grep: Option<String>,
    /// The last so many of these lines, at most 100000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<NonZeroUsize>,
    /// Go on with new lines, and with `newest` into the next attempts, until the job has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
    /// The first so many of these lines, at most 10000. The answer's header `trainyard-cursor` says
    /// where to go on. It may have fewer: when it has no line, nothing more is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<NonZeroUsize>,
    /// Goes on exactly after the answer that had it. The other parameters must be the same, but `tail`,
    /// which is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// `text` (default), `json` (one object a line), or `raw` (the bytes that the containers wrote).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// The answer comes in blocks: before each a line with a JSON object
    /// `{"bytes": its length, "cursor": what goes on after it, "attempt": the newest one so far}`, in the
    /// last also `"last": true`. So a reader knows whether an answer is whole, and can go on with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks: Option<bool>,
}

impl Parameters {
    /// What they mean. `now` is what durations are counted from.
    ///
    /// # Errors
    /// Where one of them is wrong, or two don't go together; in words for the person who asks.
    pub fn meaning(&self, now: Timestamp) -> Result<(Selection, Shape), String> {
        let follow = self.follow.unwrap_or(false);
        for (one, two, both) in [
            ("follow", "until", follow && self.until.is_some()),
            ("follow", "limit", follow && self.limit.is_some()),
            ("tail", "limit", self.tail.is_some() && self.limit.is_some()),
            (
                "tail",
                "cursor",
                self.tail.is_some() && self.cursor.is_some(),
            ),
        ] {
            if both {
                return Err(format!("{one} and {two} can't both be asked for"));
            }
        }
        let at_most = |name: &str, n: Option<NonZeroUsize>, most: usize| match n {
            Some(n) if n.get() > most => Err(format!("{name} is at most {most}")),
            n => Ok(n.map(NonZeroUsize::get)),
        };
        let time = |name: &str, text: &Option<String>| match text {
            Some(text) => time(text, now)
                .map(Some)
                .map_err(|e| format!("{name}: {e}")),
            None => Ok(None),
        };
        let grep = self.grep.as_deref().filter(|pattern| !pattern.is_empty());
        let selection = Selection {
            attempts: match self.attempt.as_deref() {
                None | Some("") => Attempts::Newest,
                Some(text) => text.parse()?,
            },
            rank: self.rank,
            container: self.container.clone(),
            filter: Filter {
                since: time("since", &self.since)?,
                until: time("until", &self.until)?,
                grep: grep.map(Grep::new).transpose()?.map(Arc::new),
            },
            tail: at_most("tail", self.tail, MAX_TAIL)?,
            cursor: self.cursor.as_deref().map(str::parse).transpose()?,
            follow,
        };
        let shape = Shape {
            format: match self.format.as_deref() {
                None => Format::Text,
                Some(text) => text.parse()?,
            },
            limit: at_most("limit", self.limit, MAX_LIMIT)?,
        };
        Ok((selection, shape))
    }

    /// As the query of a URL.
    #[must_use]
    pub fn query(&self) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        // Plain data always becomes JSON.
        let fields = serde_json::to_value(self).unwrap_or_default();
        for (name, value) in fields.as_object().into_iter().flatten() {
            match value {
                serde_json::Value::String(text) => query.append_pair(name, text),
                other => query.append_pair(name, &other.to_string()),
            };
        }
        query.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_arrives() {
        let all = Parameters {
            attempt: Some("all".into()),
            rank: Some(7),
            container: Some("trainer".into()),
            since: Some("10m".into()),
            until: Some("2026-03-01T10:00:00+01:00".into()),
            grep: Some("(?i)loss & co = \\d+%".into()),
            tail: NonZeroUsize::new(5),
            follow: Some(true),
            limit: NonZeroUsize::new(6),
            cursor: Some("abc".into()),
            format: Some("json".into()),
            blocks: Some(false),
        };
        for parameters in [all, Parameters::default()] {
            let uri = format!("/logs?{}", parameters.query()).parse().unwrap();
            let axum::extract::Query(arrived) =
                axum::extract::Query::<Parameters>::try_from_uri(&uri).unwrap();
            assert_eq!(arrived, parameters);
        }
    }

    #[test]
    fn what_is_wrong_with_a_question_is_said() {
        let refusal = |query: &str| {
            let uri = format!("/logs?{query}").parse().unwrap();
            let parsed = axum::extract::Query::<Parameters>::try_from_uri(&uri);
            match parsed {
                Ok(axum::extract::Query(p)) => p.meaning(Timestamp::now()).unwrap_err(),
                Err(error) => error.to_string(),
            }
        };
        for (query, words) in [
            ("attempt=x", "from 1"),
            ("since=yesterday", "since: yesterday is no time"),
            ("grep=(", "unclosed group"),
            ("format=xml", "text, json or raw"),
            ("tail=0", "nonzero"),
            ("tail=100001", "at most 100000"),
            ("limit=10001", "at most 10000"),
            ("follow=true&until=1m", "follow and until"),
            ("cursor=x", "cursor"),
            ("tial=3", "unknown field `tial`"),
        ] {
            let said = refusal(query);
            assert!(said.contains(words), "{query}: {said}");
        }
    }
}
