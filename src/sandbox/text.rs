//! A string as the kernel takes it.

use serde::{Deserialize, Serialize};
use std::ffi::{CStr, CString};
use std::fmt;

/// Text without a zero byte, kept with one at its end, so that the child can pass it to the kernel
/// without allocating.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Text(CString);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} contains a zero byte, which ends a string for the kernel")]
pub struct ZeroByte(pub String);

impl Text {
    pub fn as_c_str(&self) -> &CStr {
        &self.0
    }

    pub fn as_str(&self) -> &str {
        // Made from a `String` in every case.
        self.0.to_str().unwrap_or_default()
    }
}

impl TryFrom<String> for Text {
    type Error = ZeroByte;

    fn try_from(text: String) -> Result<Self, ZeroByte> {
        CString::new(text).map(Self).map_err(|error| ZeroByte(String::from_utf8_lossy(&error.into_vec()).into_owned()))
    }
}

impl TryFrom<&str> for Text {
    type Error = ZeroByte;

    fn try_from(text: &str) -> Result<Self, ZeroByte> {
        text.to_owned().try_into()
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.as_str().to_owned()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
