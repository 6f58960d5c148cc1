//! Names and paths that have been checked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The name of an object or a namespace: 1 to 63 of `a-z`, `0-9` and `-`, with a letter first and
/// no `-` last.
///
/// It goes unescaped into cgroup and directory names, so nothing that could leave a directory may
/// become one. It is shared, because it is in every identity, and those are copied in every round.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("minLength" = 1, "maxLength" = 63, "pattern" = "^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
pub struct Name(Arc<str>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name: 1 to 63 of a-z, 0-9 and '-', with a letter first and no '-' last")]
pub struct InvalidName(String);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        let bytes = text.as_bytes();
        let fits = (1..=63).contains(&bytes.len())
            && bytes[0].is_ascii_lowercase()
            && bytes.iter().all(inner)
            && bytes[bytes.len() - 1] != b'-';
        if fits { Ok(Self(text.into())) } else { Err(InvalidName(text)) }
    }
}

impl std::str::FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::try_from(text.to_owned())
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// An absolute path without `.` or `..` components, doubled or trailing slashes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("minLength" = 1, "maxLength" = 4095, "pattern" = "^/"))]
pub struct AbsolutePath(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    #[error("{0:?} is not an absolute path: it has to begin with '/'")]
    Relative(String),
    #[error("{0:?} contains '..', which has no place in a manifest: write where it leads")]
    Parent(String),
    #[error("{0:?} is longer than the 4095 bytes that Linux takes, or contains a NUL")]
    Unusable(String),
}

impl AbsolutePath {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path without its leading slash: what to open relative to a root's descriptor.
    pub fn relative(&self) -> &str {
        &self.0[1..]
    }
}

impl TryFrom<String> for AbsolutePath {
    type Error = InvalidPath;

    fn try_from(text: String) -> Result<Self, InvalidPath> {
        if !text.starts_with('/') {
            return Err(InvalidPath::Relative(text));
        }
        if text.len() > 4095 || text.contains('\0') {
            return Err(InvalidPath::Unusable(text));
        }
        if text.split('/').any(|part| part == "..") {
            return Err(InvalidPath::Parent(text));
        }
        let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        Ok(Self(format!("/{}", parts.join("/"))))
    }
}

impl std::str::FromStr for AbsolutePath {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        Self::try_from(text.to_owned())
    }
}

impl From<AbsolutePath> for String {
    fn from(path: AbsolutePath) -> Self {
        path.0
    }
}

impl fmt::Display for AbsolutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_is_a_word_that_a_directory_can_have() {
        let longest = "a".repeat(63);
        for text in ["a", "web", "web-1", "a--b", longest.as_str()] {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), text);
        }
        let too_long = "a".repeat(64);
        let refused = [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a.b",
            "a_b",
            "Web",
            "1a",
            "-a",
            "a-",
            "a b",
            "a\n",
            "a\0",
            "é",
            too_long.as_str(),
        ];
        for text in refused {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_path_is_absolute_and_in_one_spelling() {
        let cases = [
            ("/", Some("/")),
            ("//", Some("/")),
            ("/a/b", Some("/a/b")),
            ("/a//b/./c/", Some("/a/b/c")),
            ("/..a/b..", Some("/..a/b..")),
            ("", None),
            ("a", None),
            ("./a", None),
            ("/a/../b", None),
            ("/..", None),
            ("/a\0", None),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<AbsolutePath>().ok().as_ref().map(AbsolutePath::as_str), expected, "{text:?}");
        }
        assert_eq!("/a/b".parse::<AbsolutePath>().unwrap().relative(), "a/b");
    }

    proptest! {
        #[test]
        fn no_name_leaves_its_directory(text in "[a-z0-9./_-]{0,70}|\\PC{0,10}") {
            if let Ok(name) = text.parse::<Name>() {
                prop_assert!(!name.as_str().contains(['/', '.', '_', '\0']) && !name.as_str().is_empty());
                prop_assert_eq!(name.as_str(), text);
            }
        }

        #[test]
        fn no_path_leads_upwards(text in "[a-z./]{0,30}|/\\PC{0,10}") {
            if let Ok(path) = text.parse::<AbsolutePath>() {
                prop_assert!(path.as_str().starts_with('/'));
                prop_assert!(path.relative().is_empty() || path.relative().split('/').all(|part| !matches!(part, "" | "." | "..")));
                prop_assert_eq!(path.as_str().parse::<AbsolutePath>().unwrap(), path);
            }
        }
    }
}
