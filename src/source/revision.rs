//! The manifests of one commit, as they came from a repository.

use super::snapshot::{MAX_FILES, MAX_TOTAL};
use crate::spec::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, BufRead, Read as _, Write};

/// Longer than this no line before the contents is: `MAX_FILES` paths of ordinary length.
const MAX_HEAD: u64 = 8 << 20;

/// What a source's repository held at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    pub about: Commit,
    /// By their path below the source's directory in the repository.
    pub files: BTreeMap<String, Found>,
    /// Names that were passed over, with the reason.
    pub ignored: BTreeMap<String, String>,
}

/// Which commit it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Commit {
    /// In full.
    pub id: String,
    /// The first line of its message.
    pub summary: String,
    pub author: String,
    /// When it was committed, as its committer says.
    pub at: Timestamp,
    /// Whose signature was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Text(Vec<u8>),
    /// Not to be used, and why, as the end of a sentence.
    Unusable(String),
}

/// The line before the contents.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    about: Commit,
    files: Vec<Entry>,
    ignored: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    Text { path: String, size: u64 },
    Unusable { path: String, reason: String },
}

impl Commit {
    /// As people write it.
    pub fn short(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

impl Revision {
    /// Writes it as [`Revision::read`] takes it: a line of JSON, then the contents of all files in its order.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        let entry = |(path, found): (&String, &Found)| match found {
            Found::Text(bytes) => Entry::Text { path: path.clone(), size: u64::try_from(bytes.len()).unwrap_or(0) },
            Found::Unusable(reason) => Entry::Unusable { path: path.clone(), reason: reason.clone() },
        };
        let files = self.files.iter().map(entry).collect();
        let head = Head { about: self.about.clone(), files, ignored: self.ignored.clone() };
        let mut line = serde_json::to_vec(&head)?;
        line.push(b'\n');
        to.write_all(&line)?;
        for found in self.files.values() {
            if let Found::Text(bytes) = found {
                to.write_all(bytes)?;
            }
        }
        Ok(())
    }

    /// # Errors
    /// Also for what is longer than a source may be, before room is made for it.
    pub fn read(mut from: impl BufRead) -> io::Result<Self> {
        let mut line = Vec::new();
        from.by_ref().take(MAX_HEAD).read_until(b'\n', &mut line)?;
        let Head { about, files: entries, ignored } = serde_json::from_slice(&line)?;
        let mut files = BTreeMap::new();
        let mut left = MAX_TOTAL;
        if entries.len() > MAX_FILES {
            return Err(io::Error::other(format!("{} files, more than {MAX_FILES}", entries.len())));
        }
        for entry in entries {
            match entry {
                Entry::Text { path, size } => {
                    left = left.checked_sub(size).ok_or_else(|| io::Error::other("longer than a source may be"))?;
                    let mut bytes = Vec::new();
                    from.by_ref().take(size).read_to_end(&mut bytes)?;
                    if u64::try_from(bytes.len()).ok() != Some(size) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    files.insert(path, Found::Text(bytes));
                }
                Entry::Unusable { path, reason } => {
                    files.insert(path, Found::Unusable(reason));
                }
            }
        }
        Ok(Self { about, files, ignored })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision() -> Revision {
        let about = Commit {
            id: "0123456789abcdef0123456789abcdef01234567".to_owned(),
            summary: "web: more memory".to_owned(),
            author: "A U Thor".to_owned(),
            at: Timestamp(1_700_000_000_000),
            signer: None,
        };
        let text = |text: &str| Found::Text(text.as_bytes().to_vec());
        let files = BTreeMap::from([
            ("a.yaml".to_owned(), text("one\ntwo\n")),
            ("b.yaml".to_owned(), Found::Unusable("is a link to nothing".to_owned())),
            ("c.yaml".to_owned(), text("")),
        ]);
        Revision { about, files, ignored: BTreeMap::from([("README.md".to_owned(), "no manifest".to_owned())]) }
    }

    #[test]
    fn a_revision_is_read_as_it_was_written() {
        let mut bytes = Vec::new();
        revision().write(&mut bytes).unwrap();

        assert_eq!(Revision::read(&bytes[..]).unwrap(), revision());
    }

    #[test]
    fn one_that_was_cut_off_anywhere_is_no_revision() {
        let mut bytes = Vec::new();
        revision().write(&mut bytes).unwrap();

        for end in 0..bytes.len() {
            assert!(Revision::read(&bytes[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn sizes_that_no_source_may_have_are_refused_before_they_are_read() {
        let mut bytes = Vec::new();
        revision().write(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap().replace("\"size\":8", &format!("\"size\":{}", u64::MAX));

        assert!(Revision::read(text.as_bytes()).unwrap_err().to_string().contains("longer"));
    }
}
