//! Records of loggers that write a JSON object a line.

use serde_json::Value;

use super::line::Level;

/// What such a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The exception's own line where there is a traceback, else the error, else the message.
    pub text: String,
    pub level: Option<Level>,
    /// It is an exception with its traceback.
    pub raised: bool,
}

/// Names of the field with a traceback, with an error, with the message, and with the level: those of
/// structlog, python-json-logger, loguru, zap, slog, pino and Google Cloud Logging.
const TRACEBACK: [&str; 6] = [
    "exc",
    "exc_info",
    "exception",
    "traceback",
    "stack",
    "stack_trace",
];
const ERROR: [&str; 3] = ["error", "err", "error_message"];
const MESSAGE: [&str; 3] = ["message", "msg", "event"];
const LEVEL: [&str; 4] = ["level", "levelname", "severity", "lvl"];

impl Record {
    /// Of a line; None where it is no such record.
    pub(super) fn of(raw: &[u8]) -> Option<Self> {
        let Value::Object(fields) = serde_json::from_slice(raw).ok()? else {
            return None;
        };
        let text = |names: &[&str]| {
            let mut values = names.iter().filter_map(|n| fields.get(*n)?.as_str());
            values.find(|v| !v.trim().is_empty())
        };
        let level = text(&LEVEL).and_then(level);
        let raised = text(&TRACEBACK).and_then(|t| t.trim_end().lines().next_back());
        let said = raised.or_else(|| text(&ERROR)).or_else(|| text(&MESSAGE))?;
        Some(Self {
            text: said.trim().to_owned(),
            level,
            raised: raised.is_some(),
        })
    }
}

fn level(word: &str) -> Option<Level> {
    Some(match word.to_ascii_lowercase().as_str() {
        "trace" | "debug" => Level::Debug,
        "info" | "notice" | "default" => Level::Info,
        "warn" | "warning" => Level::Warning,
        "error" | "err" => Level::Error,
        "critical" | "fatal" | "alert" | "emergency" | "panic" => Level::Fatal,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decisive_text_of_a_record_is_its_exception_then_its_error_then_its_message() {
        for (raw, expected) in [
            (
                r#"{"level":"fatal","msg":"uncaught","exc":"Traceback:\n  a\nIndexError: x"}"#,
                Some(("IndexError: x", Some(Level::Fatal), true)),
            ),
            (
                r#"{"severity":"ERROR","message":"m","error":"disk"}"#,
                Some(("disk", Some(Level::Error), false)),
            ),
            (
                r#"{"level":"info","step":3,"event":"e"}"#,
                Some(("e", Some(Level::Info), false)),
            ),
            (r#"{"step":3}"#, None),
            ("{not json", None),
            ("[1]", None),
        ] {
            let told = Record::of(raw.as_bytes());
            let told = told.as_ref().map(|r| (r.text.as_str(), r.level, r.raised));
            assert_eq!(told, expected, "{raw}");
        }
    }
}
