//! Files that are there as a whole or as they were, also after a power cut.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

/// Replaces what `path` holds. Durable on return.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let file = fs::File::create(&new)?;
    (&file).write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // The name is the directory's to keep.
    path.parent().map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all())
}
