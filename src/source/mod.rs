//! Where manifests come from: a directory, read as a whole, or a revision of a repository.
//!
//! [`Directory::snapshot`] lists and reads everything there is at one instant; [`desired`] folds the
//! snapshots of all sources into what the planner takes. [`watch`] says only "look again". A file
//! that cannot be read, trusted or understood is never absent, and a directory that is not what it
//! was before removes nothing.
#![doc = include_str!("rules.md")]

mod directory;
mod fold;
mod mounts;
mod names;
mod place;
mod repository;
mod revision;
mod rights;
mod snapshot;
mod text;
mod trust;
mod watch;
mod way;

pub use directory::{Directory, WINDOW};
pub use fold::{Fold, desired};
pub use names::{ignored, ignored_directory};
pub use place::Lasting;
pub use repository::Repository;
pub use revision::{Commit, Found, Revision};
pub use rights::Rights;
pub use snapshot::{FileState, Files, MAX_DEPTH, MAX_FILES, MAX_TOTAL, Snapshot};
pub use text::Text;
pub use trust::Trust;
pub use watch::{WatchError, WatchEvent, Watcher, watch};
