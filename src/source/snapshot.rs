//! Everything a source had to say at one instant, whatever kind of source it is.

use super::text::Text;
use crate::plan::SourceState;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Of a source, directories likewise.
pub const MAX_FILES: usize = 16_384;
pub(super) const MAX_DOCUMENTS: usize = 16_384;
/// Of all files together, in bytes.
pub const MAX_TOTAL: u64 = 64 << 20;
/// Directories below directories.
pub const MAX_DEPTH: usize = 32;

/// By their path below the source's root.
pub type Files = BTreeMap<String, Arc<FileState>>;

/// Everything a source had to say at one instant.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The very same map as long as nothing in it differs.
    pub files: Arc<Files>,
    pub state: SourceState,
    /// Names that were passed over, with the reason.
    pub ignored: BTreeMap<String, String>,
    /// How many files were parsed for this snapshot.
    pub parsed: usize,
    /// A file is being written: look again after this time.
    pub settle: Option<Duration>,
}

impl Snapshot {
    pub(super) fn unavailable(reason: String, parsed: usize, settle: Option<Duration>) -> Self {
        let state = SourceState::Unavailable { reason: reason.into() };
        Self { files: Arc::default(), state, ignored: BTreeMap::new(), parsed, settle }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum FileState {
    Read(Text),
    /// What it holds cannot be told: not to be opened, not trusted, too large, empty, being written.
    Unreadable(Arc<str>),
}
