//! What is noted beside a running container: what it was started from and where its output goes, so
//! that a keeper that never saw its start can take it over, and a command can be run inside it.

use crate::keeper::Output;
use crate::sandbox::{CgroupJoin, Root};
use crate::spec::{IdRange, Object, Timestamp};
use crate::sys::may_die;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InstanceNote {
    pub object: Object,
    #[serde(default)]
    pub ids: Option<IdRange>,
    pub root: Root,
    pub cgroup: CgroupJoin,
    pub output: Output,
    #[serde(default)]
    pub pid: Option<u32>,
    #[serde(default)]
    pub since: Option<Timestamp>,
}

#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    #[error("{operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the note in {} cannot be read", path.display())]
    Content {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

impl InstanceNote {
    fn path(run_dir: &Path) -> PathBuf {
        run_dir.join("instance.json")
    }

    /// Replaces the note whole: a reader sees the old one or the new one.
    pub fn write(&self, run_dir: &Path) -> Result<(), NoteError> {
        let path = Self::path(run_dir);
        let text = serde_json::to_vec(self).map_err(|source| NoteError::Content { path: path.clone(), source })?;
        let new = run_dir.join("instance.json.new");
        let written = std::fs::write(&new, text)
            .inspect(|()| may_die("note half written"))
            .and_then(|()| std::fs::rename(&new, &path))
            .inspect(|()| may_die("note written"));
        written.map_err(|source| NoteError::File { operation: "writing", path, source })
    }

    /// `None` when there is none: the container was never started, or its run directory is gone.
    pub fn read(run_dir: &Path) -> Result<Option<Self>, NoteError> {
        let path = Self::path(run_dir);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|source| NoteError::Content { path, source }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(NoteError::File { operation: "reading", path, source }),
        }
    }
}
