//! What somebody else may change on the host without its being corrected.

use super::change;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A limit, or several, as a JSON pointer (RFC 6901) into the manifest: `/spec/resources/memory/limit`,
/// `/spec/resources/cpu`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^/spec/resources(/[A-Za-z]+)*$"))]
pub struct LimitPointer(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} points to no limit: write /spec/resources/memory/limit, or /spec/resources/cpu for all of them")]
pub struct InvalidPointer(String);

const RESOURCES: &str = "spec.resources.";

impl LimitPointer {
    /// Whether a limit is at or below it; `limit` as it stands below `spec.resources`: `memory.limit`.
    pub fn covers(&self, limit: &str) -> bool {
        let own = self.0["/spec/resources".len()..].trim_start_matches('/').replace('/', ".");
        let rest = limit.strip_prefix(own.as_str());
        own.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

impl TryFrom<String> for LimitPointer {
    type Error = InvalidPointer;

    fn try_from(text: String) -> Result<Self, InvalidPointer> {
        let below = text.strip_prefix("/spec/resources");
        if below.is_none_or(|below| !below.is_empty() && !below.starts_with('/')) || text.ends_with('/') {
            return Err(InvalidPointer(text));
        }
        let pointer = Self(text);
        let mut limits = change::table().iter().filter_map(|row| row.field.strip_prefix(RESOURCES));
        if limits.any(|limit| pointer.covers(limit)) { Ok(pointer) } else { Err(InvalidPointer(pointer.0)) }
    }
}

impl From<LimitPointer> for String {
    fn from(pointer: LimitPointer) -> Self {
        pointer.0
    }
}

impl fmt::Display for LimitPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_covers_what_is_at_and_below_it() {
        let covers = |pointer: &str, limit: &str| LimitPointer::try_from(pointer.to_owned()).unwrap().covers(limit);

        assert!(covers("/spec/resources/memory/limit", "memory.limit"));
        assert!(covers("/spec/resources/memory", "memory.high"));
        assert!(covers("/spec/resources", "pids.limit"));
        assert!(covers("/spec/resources/hugepages", "hugepages"));
        assert!(!covers("/spec/resources/memory/limit", "memory.high"));
        assert!(!covers("/spec/resources/cpu", "cpuset"));
    }

    #[test]
    fn what_points_to_no_limit_is_an_error() {
        for text in ["", "/", "/spec", "/spec/env", "/spec/resourcesx", "/spec/resources/", "/spec/resources/memory/x"]
        {
            assert!(LimitPointer::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
