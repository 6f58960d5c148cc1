//! What was changed about each object and what came of it, kept for people: `plim history`.
//!
//! Nothing is decided from it, so it is not in the database: a line of JSON per change, in a file per
//! object, that neither a damaged database nor the object's removal takes along.

use crate::spec::change::{Class, FieldChange};
use crate::spec::{ObjectId, Provenance, Timestamp};
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;

/// How many reports of an object are shown.
const KEPT: usize = 50;
/// A file that is larger is cut to the newest [`KEPT`].
const LARGE: u64 = 128 << 10;

/// One change of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub at: Timestamp,
    /// Counts the accepted revisions.
    pub generation: u64,
    pub class: Class,
    /// What was done, in one word: `Starting`, `Resizing`.
    pub action: String,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FieldChange>,
    /// `web.yaml:1 sha256:…`: where the text stood that asked for it.
    pub source: String,
    pub result: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// The reports of all objects.
#[derive(Debug, Clone)]
pub(super) struct History {
    directory: PathBuf,
}

impl History {
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    fn path(&self, object: &ObjectId) -> PathBuf {
        // Neither has a `_` or a `.` in it.
        self.directory.join(format!("{}_{}.jsonl", object.namespace, object.name))
    }

    /// Appends a report.
    ///
    /// # Errors
    /// Those of the file system. What is lost by them is a line for a person.
    pub fn add(&self, object: &ObjectId, report: &Report) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let path = self.path(object);
        let size = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        if size > LARGE {
            let lines: Vec<u8> = self.of(object)?.iter().flat_map(line).collect();
            let fresh = path.with_extension("jsonl.new");
            fs::write(&fresh, lines)?;
            fs::rename(fresh, &path)?;
        }
        OpenOptions::new().create(true).append(true).open(path)?.write_all(&line(report))
    }

    /// The newest reports of an object, oldest first.
    ///
    /// # Errors
    /// Those of the file system; an object without a report has none.
    pub fn of(&self, object: &ObjectId) -> io::Result<Vec<Report>> {
        let text = match fs::read_to_string(self.path(object)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        // A line that a crash has cut is left out.
        let reports: Vec<Report> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Ok(reports[reports.len().saturating_sub(KEPT)..].to_vec())
    }
}

fn line(report: &Report) -> Vec<u8> {
    let mut line = serde_json::to_vec(report).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Where a text stood, as it is told of a change.
pub(super) fn source(provenance: &Provenance) -> String {
    let Provenance { source: _, file, path: _, document: _, line, revision, drop_ins: _ } = provenance;
    let drop_ins: String = provenance.drop_in_files().iter().map(|file| format!(" with {file}")).collect();
    format!("{file}:{line} {revision}{drop_ins}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(number: u64) -> Report {
        Report {
            at: Timestamp(number),
            generation: number,
            class: Class::Live,
            action: "Resizing".to_owned(),
            reason: "x".repeat(500),
            changes: Vec::new(),
            source: "web.yaml:1 sha256:0".to_owned(),
            result: "written".to_owned(),
            took_ms: 1,
        }
    }

    #[test]
    fn the_newest_reports_are_kept_and_a_cut_line_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let history = History::new(directory.path().join("history"));
        let web: ObjectId = "Container/default/web".to_owned().try_into().unwrap();
        assert!(history.of(&web).unwrap().is_empty());

        for number in 0..1000 {
            history.add(&web, &report(number)).unwrap();
        }
        let file = directory.path().join("history/default_web.jsonl");
        assert!(fs::metadata(&file).unwrap().len() < LARGE + 1000);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, &text[..text.len() - 10]).unwrap();

        let kept: Vec<u64> = history.of(&web).unwrap().iter().map(|report| report.generation).collect();
        assert_eq!(kept, (949..999).collect::<Vec<_>>());
    }
}
