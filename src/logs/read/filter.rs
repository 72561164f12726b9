//! Which lines of the selected streams are wanted: by their time, and by what is in them.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;

use crate::logs::{
    columns::grep::Grep,
    line::{Line, nanos},
};

/// What a line must be like. The default wants all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Not stamped earlier than this.
    pub since: Option<Timestamp>,
    /// Stamped earlier than this.
    pub until: Option<Timestamp>,
    /// Has this in its message.
    pub grep: Option<Arc<Grep>>,
}

impl Filter {
    /// Whether every line is wanted.
    #[must_use]
    pub fn wants_all(&self) -> bool {
        self.since.is_none() && self.until.is_none() && self.grep.is_none()
    }

    /// Whether a line is wanted.
    #[must_use]
    pub fn wants(&self, line: &Line) -> bool {
        self.wants_time(line.time) && (self.grep.as_ref()).is_none_or(|g| g.matches(&line.message))
    }

    /// Whether a line with this stamp may be wanted.
    #[must_use]
    pub fn wants_time(&self, time: Timestamp) -> bool {
        self.since.is_none_or(|since| since <= time) && self.until.is_none_or(|until| time < until)
    }

    /// Whether one of several lines may be wanted, of which these are the earliest and the latest stamp,
    /// in nanoseconds. Stamps that did not fit are cut, so bounds are never left out.
    #[must_use]
    pub fn wants_some(&self, (earliest, latest): (i64, i64)) -> bool {
        self.since.is_none_or(|since| nanos(since) <= latest)
            && self.until.is_none_or(|until| earliest <= nanos(until))
    }
}

/// A point in time: RFC 3339, or how long before `now`, such as `90s`, `10m`, `1h30m` or `2d`.
///
/// # Errors
/// Where it is neither.
pub fn time(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let wrong = || {
        format!(
            "{text} is no time: give RFC 3339, such as 2026-03-01T09:15:00Z, or how long ago, such as 90s, 10m, 1h30m or 2d"
        )
    };
    let ago = duration(text).ok_or_else(wrong)?;
    now.checked_sub(ago).map_err(|_| wrong())
}

fn duration(text: &str) -> Option<Duration> {
    let mut total = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = match rest[digits..].chars().next()? {
            's' => 1,
            'm' => 60,
            'h' => 60 * 60,
            'd' => 24 * 60 * 60,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[digits + 1..];
    }
    (!text.is_empty()).then(|| Duration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_do() {
        let now: Timestamp = "2026-03-01T10:00:00Z".parse().unwrap();
        let at = |text| time(text, now).map(|t| t.to_string());
        assert_eq!(at("10m").unwrap(), "2026-03-01T09:50:00Z");
        assert_eq!(at("1h30m5s").unwrap(), "2026-03-01T08:29:55Z");
        assert_eq!(at("2d").unwrap(), "2026-02-27T10:00:00Z");
        assert_eq!(
            at("2026-02-28T23:00:00+01:00").unwrap(),
            "2026-02-28T22:00:00Z"
        );
        for wrong in [
            "",
            "10",
            "m",
            "10x",
            "-5m",
            "yesterday",
            "99999999999999999d",
        ] {
            assert!(at(wrong).unwrap_err().contains("RFC 3339"), "{wrong}");
        }
    }
}
