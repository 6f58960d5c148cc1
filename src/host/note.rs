//! What is noted beside a running container: what it was started from and where its output goes, so
//! that a keeper that never saw its start can take it over, and a command can be run inside it.

use crate::keeper::Output;
use crate::sandbox::{CgroupJoin, Root};
use crate::spec::{IdRange, Object, Timestamp};
use crate::sys::may_die;
use serde::de::DeserializeOwned;
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
    /// These two are in a file of their own, as they come later: a file system may write a file to the disk at
    /// once that takes another one's place, and who removes it soon waits for that.
    #[serde(default, skip_serializing)]
    pub pid: Option<u32>,
    #[serde(default, skip_serializing)]
    pub since: Option<Timestamp>,
}

/// What is known once the process is there.
#[derive(Serialize, Deserialize)]
struct Process {
    pid: u32,
    since: Timestamp,
}

const NOTE: &str = "instance.json";
const PROCESS: &str = "process.json";

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
    /// Replaces the note whole: a reader sees the old one or the new one. There is no process yet.
    pub fn write(&self, run_dir: &Path) -> Result<(), NoteError> {
        // First: that of an earlier run is not this one's.
        let path = run_dir.join(PROCESS);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                return Err(NoteError::File { operation: "removing", path, source });
            }
            _ => {}
        }
        put(run_dir, NOTE, self)
    }

    /// Notes the process beside what was written before.
    pub fn write_process(run_dir: &Path, pid: u32, since: Timestamp) -> Result<(), NoteError> {
        put(run_dir, PROCESS, &Process { pid, since })
    }

    /// `None` when there is none: the container was never started, or its run directory is gone.
    pub fn read(run_dir: &Path) -> Result<Option<Self>, NoteError> {
        let Some(mut note) = get::<Self>(run_dir, NOTE)? else { return Ok(None) };
        if let Some(Process { pid, since }) = get(run_dir, PROCESS)? {
            (note.pid, note.since) = (Some(pid), Some(since));
        }
        Ok(Some(note))
    }
}

fn put(run_dir: &Path, name: &str, content: &impl Serialize) -> Result<(), NoteError> {
    let path = run_dir.join(name);
    let text = serde_json::to_vec(content).map_err(|source| NoteError::Content { path: path.clone(), source })?;
    let new = run_dir.join(format!("{name}.new"));
    let written = std::fs::write(&new, text)
        .inspect(|()| may_die("note half written"))
        .and_then(|()| std::fs::rename(&new, &path))
        .inspect(|()| may_die("note written"));
    written.map_err(|source| NoteError::File { operation: "writing", path, source })
}

fn get<T: DeserializeOwned>(run_dir: &Path, name: &str) -> Result<Option<T>, NoteError> {
    let path = run_dir.join(name);
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|source| NoteError::Content { path, source }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(NoteError::File { operation: "reading", path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn note() -> InstanceNote {
        let object = json!({
            "id": "Container/default/web", "labels": {}, "annotations": {},
            "spec": {"image": "host:/", "command": ["/bin/true"]},
        });
        InstanceNote {
            object: serde_json::from_value(object).unwrap(),
            ids: None,
            root: Root::Directory { path: "/".to_owned() },
            cgroup: CgroupJoin::default(),
            output: Output {
                log: crate::keeper::LogTarget { path: "log".into(), max_size: 1, files: 1 },
                stdout: "out".into(),
                stderr: "err".into(),
                uid: 0,
                gid: 0,
            },
            pid: None,
            since: None,
        }
    }

    #[test]
    fn a_process_is_noted_beside_what_it_was_started_from() {
        let dir = tempfile::tempdir().unwrap();

        note().write(dir.path()).unwrap();
        InstanceNote::write_process(dir.path(), 7, Timestamp(9)).unwrap();

        let expected = InstanceNote { pid: Some(7), since: Some(Timestamp(9)), ..note() };
        assert_eq!(InstanceNote::read(dir.path()).unwrap(), Some(expected));
    }

    #[test]
    fn the_process_of_an_earlier_run_is_not_this_ones() {
        let dir = tempfile::tempdir().unwrap();
        note().write(dir.path()).unwrap();
        InstanceNote::write_process(dir.path(), 7, Timestamp(9)).unwrap();

        note().write(dir.path()).unwrap();

        assert_eq!(InstanceNote::read(dir.path()).unwrap(), Some(note()));
    }

    /// As one was written before these were apart.
    #[test]
    fn a_note_that_names_its_process_itself_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut old = serde_json::to_value(note()).unwrap();
        old["pid"] = json!(7);
        old["since"] = serde_json::to_value(Timestamp(9)).unwrap();
        std::fs::write(dir.path().join(NOTE), old.to_string()).unwrap();

        let read = InstanceNote::read(dir.path()).unwrap().unwrap();

        assert_eq!((read.pid, read.since), (Some(7), Some(Timestamp(9))));
    }
}
