//! Instants and spans, as manifests, records and tables write them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration, time::SystemTime};

/// An instant: milliseconds since 1970-01-01T00:00:00Z. Written as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(pub u64);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an RFC 3339 instant")]
pub struct InvalidTimestamp(String);

impl Timestamp {
    pub fn from_system(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn after(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// How long it is from `earlier` to `self`; nothing when it is not earlier.
    pub fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl TryFrom<String> for Timestamp {
    type Error = InvalidTimestamp;

    fn try_from(text: String) -> Result<Self, InvalidTimestamp> {
        humantime::parse_rfc3339(&text).map(Self::from_system).map_err(|_| InvalidTimestamp(text))
    }
}

impl From<Timestamp> for String {
    fn from(at: Timestamp) -> Self {
        at.to_string()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // humantime renders up to the year 9999; later is no instant that a host will see.
        const LAST: u64 = 253_402_300_799_999;
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.min(LAST));
        write!(f, "{}", humantime::format_rfc3339_millis(time))
    }
}

/// A length of time in milliseconds, written `1h30m`, `20s`, `250ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Span(#[schemars(with = "String")] pub u64);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpan {
    #[error("{0:?} is not a length of time: write 20s, 5m, 1h30m or 250ms")]
    Unreadable(String),
    #[error("{0:?} is longer than 10 years")]
    TooLong(String),
}

impl Span {
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1000)
    }

    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl TryFrom<String> for Span {
    type Error = InvalidSpan;

    fn try_from(text: String) -> Result<Self, InvalidSpan> {
        let parsed = humantime::parse_duration(&text).map_err(|_| InvalidSpan::Unreadable(text.clone()))?;
        if parsed > Duration::from_secs(10 * 365 * 86_400) {
            return Err(InvalidSpan::TooLong(text));
        }
        Ok(Self(u64::try_from(parsed.as_millis()).expect("bounded above")))
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let text = humantime::format_duration(self.duration()).to_string();
        f.write_str(&text.replace(' ', ""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_span_has_a_unit() {
        let cases = [
            ("0s", Some(0)),
            ("250ms", Some(250)),
            ("20s", Some(20_000)),
            ("1h30m", Some(5_400_000)),
            ("20", None),
            ("-1s", None),
            ("", None),
            ("1 fortnight", None),
            ("11y", None),
            ("99999999999999999999s", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Span::try_from(text.to_owned()).ok().map(|span| span.0), expected, "{text:?}");
        }
    }

    #[test]
    fn an_instant_is_written_as_rfc_3339() {
        let at = Timestamp(1_700_000_000_123);

        assert_eq!(at.to_string(), "2023-11-14T22:13:20.123Z");
        assert_eq!(Timestamp::try_from(at.to_string()).unwrap(), at);
        assert_eq!(Timestamp(5).since(Timestamp(7)), Span(0));
        assert_eq!(Timestamp(u64::MAX).after(Span(1)), Timestamp(u64::MAX));
        assert_eq!(Timestamp(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }

    proptest! {
        #[test]
        fn a_span_is_read_as_it_is_written(ms in 0..10 * 365 * 86_400_000_u64) {
            prop_assert_eq!(Span::try_from(Span(ms).to_string()).unwrap(), Span(ms));
        }

        #[test]
        fn an_instant_is_read_as_it_is_written(ms in 0..253_402_300_800_000_u64) {
            prop_assert_eq!(Timestamp::try_from(Timestamp(ms).to_string()).unwrap(), Timestamp(ms));
        }
    }
}
