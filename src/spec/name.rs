//! Names and paths that have been checked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The name of an object or a namespace: 1 to 63 of `a-z`, `0-9` and `-`, with a letter first and
/// no `-` last.
///
/// It goes unescaped into cgroup and directory names, so nothing that could leave a directory may
/// become one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("minLength" = 1, "maxLength" = 63, "pattern" = "^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
pub struct Name(String);

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
        if fits { Ok(Self(text)) } else { Err(InvalidName(text)) }
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
        name.0
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
