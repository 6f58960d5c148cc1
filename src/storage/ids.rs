//! The note of which ids an instance's files belong to.

use super::{IDS, StorageError};
use crate::image::tree;
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
            Ok(()) => return Ok(()),
            Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(error) => return Err(StorageError::io("noting the ids beside", place)(error)),
        }
    }
    // The file system has no attributes.
    rustix::fs::symlinkat(&*text, directory, IDS).map_err(StorageError::io("noting the ids beside", place))
}

/// The note beside what is in `place`; `None` when there is no such directory. One system call where
/// there is an attribute: this is asked for every instance at every look at the host.
pub(super) fn noted_at(place: &Path) -> Result<Option<Option<Noted>>, StorageError> {
    let mut buffer = [0_u8; 64];
    match rustix::fs::lgetxattr(place, ATTRIBUTES[0], &mut buffer[..]) {
        Ok(length) => {
            let noted = Noted::parse(&buffer[..length]);
            let unreadable = || StorageError::io("reading the ids noted beside", place)(Errno::INVAL);
            Ok(Some(Some(noted.ok_or_else(unreadable)?)))
        }
        Err(Errno::NOENT) => Ok(None),
        Err(_) => match tree::open_directory(place) {
            Ok(directory) => Ok(Some(noted(&directory, place)?)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(StorageError::io("opening", place)(error)),
        },
    }
}

/// Reads the note: the attribute, else the link.
pub(super) fn noted(directory: &OwnedFd, place: &Path) -> Result<Option<Noted>, StorageError> {
    let reading = || StorageError::io("reading the ids noted beside", place);
    let parse = |text: &[u8]| Noted::parse(text).map(Some).ok_or_else(|| reading()(Errno::INVAL));
    let mut buffer = [0_u8; 64];
    for name in ATTRIBUTES {
        match rustix::fs::fgetxattr(directory, name, &mut buffer[..]) {
            Ok(length) => return parse(&buffer[..length]),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(error) => return Err(reading()(error)),
        }
    }
    match rustix::fs::readlinkat(directory, IDS, Vec::new()) {
        Ok(text) => parse(text.as_bytes()),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(reading()(error)),
    }
}
