//! The note of which ids an instance's files belong to.

use super::{IDS, StorageError};
use crate::spec::IdRange;
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;

/// `trusted.` where we may (only root can write or see it), else `user.`.
const ATTRIBUTES: [&str; 2] = ["trusted.plimsoll.ids", "user.plimsoll.ids"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    /// The host's own: no user namespace.
    Host,
    Range(IdRange),
}

impl Noted {
    pub(super) fn range(self) -> Option<IdRange> {
        match self {
            Self::Host => None,
            Self::Range(range) => Some(range),
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        if text == "host" {
            return Some(Self::Host);
        }
        let (base, size) = text.split_once('+')?;
        Some(Self::Range(IdRange { base: base.parse().ok()?, size: size.parse().ok()? }))
    }
}

impl fmt::Display for Noted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Range(IdRange { base, size }) => write!(f, "{base}+{size}"),
        }
    }
}

/// Writes the note, or compares with the one that is there.
pub(super) fn note(directory: &OwnedFd, place: &Path, ids: Option<IdRange>) -> Result<(), StorageError> {
    let wanted = ids.map_or(Noted::Host, Noted::Range);
    match noted(directory, place)? {
        Some(found) if found == wanted => return Ok(()),
        Some(found) => {
            let named = |noted: Noted| match noted {
                Noted::Host => String::from("the host's own ids"),
                Noted::Range(range) => format!("the ids from {}", range.base),
            };
            return Err(StorageError::OtherIds { path: place.to_owned(), found: named(found), wanted: named(wanted) });
        }
        None => {}
    }
    let text = wanted.to_string();
    for name in ATTRIBUTES {
        match rustix::fs::fsetxattr(directory, name, text.as_bytes(), XattrFlags::empty()) {
            Ok(()) => break,
            // The link says the same on a file system that has no attributes.
            Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(error) => return Err(StorageError::io("noting the ids beside", place)(error)),
        }
    }
    rustix::fs::symlinkat(&*text, directory, IDS).map_err(StorageError::io("noting the ids beside", place))
}

/// Reads the note: the link, else the attribute.
pub(super) fn noted(directory: &OwnedFd, place: &Path) -> Result<Option<Noted>, StorageError> {
    let reading = || StorageError::io("reading the ids noted beside", place);
    match rustix::fs::readlinkat(directory, IDS, Vec::new()) {
        Ok(text) => {
            return Noted::parse(text.as_bytes()).map(Some).ok_or_else(|| reading()(Errno::INVAL));
        }
        Err(Errno::NOENT) => {}
        Err(error) => return Err(reading()(error)),
    }
    let mut buffer = [0_u8; 64];
    for name in ATTRIBUTES {
        match rustix::fs::fgetxattr(directory, name, &mut buffer[..]) {
            Ok(length) => {
                return Noted::parse(&buffer[..length]).map(Some).ok_or_else(|| reading()(Errno::INVAL));
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(error) => return Err(reading()(error)),
        }
    }
    Ok(None)
}
