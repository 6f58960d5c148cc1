//! What the fetching process is told, and what it answers.

use crate::source::Revision;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, BufRead, Read, Write};

/// Longer no order is: three files of secrets and lists.
const MAX_ORDER: u64 = 4 << 20;
/// Longer no answer is, but for a revision.
const MAX_ANSWER: u64 = 64 << 10;

/// Everything that is needed to fetch one source once.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    pub url: String,
    pub reference: Reference,
    /// The directory in the repository; empty for its root.
    pub path: String,
    /// The commit that is used now: where it stands still there is nothing to do, and what comes instead of it
    /// has to come after it.
    pub after: Option<String>,
    /// A commit that may be used though the history was rewritten.
    pub accepted: Option<String>,
    pub login: Option<Login>,
    pub ssh: Option<Ssh>,
    pub verify: Option<Verify>,
}

/// Which commit of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reference {
    /// The branch that the server calls its own.
    Head,
    Branch(String),
    Tag(String),
    /// The highest tag, with or without a `v`, that is in this range of versions.
    Semver(semver::VersionReq),
    Commit(String),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("HEAD"),
            Self::Branch(name) => write!(f, "branch {name}"),
            Self::Tag(name) => write!(f, "tag {name}"),
            Self::Semver(range) => write!(f, "tags {range}"),
            Self::Commit(id) => write!(f, "commit {id}"),
        }
    }
}

/// For https.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    pub username: String,
    pub password: String,
}

/// For ssh.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ssh {
    /// A private key without a passphrase.
    pub key: String,
    /// As in `~/.ssh/known_hosts`: a host that is not there is not talked to.
    pub known_hosts: String,
}

// What is secret is in no log, whatever prints it.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

impl fmt::Debug for Ssh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ssh").finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// The text of an `allowed_signers` file.
    pub allowed_signers: String,
    /// Every commit since the last revision that was used, not the newest alone.
    pub every: bool,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The reference stands where it stood.
    Unchanged,
    Revision(Box<Revision>),
    /// There is a newer commit that is not to be used.
    Refused {
        commit: String,
        why: Refusal,
        reason: String,
    },
    Failed {
        reason: String,
    },
}

/// Why a commit is not to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Refusal {
    /// It does not come after the one that is used now. A person may accept it.
    Rewritten,
    /// Its signature, or the one of a commit before it.
    Signature,
    /// What is in it.
    Content,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Line {
    Unchanged,
    /// A revision follows.
    Revision,
    Refused {
        commit: String,
        why: Refusal,
        reason: String,
    },
    Failed {
        reason: String,
    },
}

impl Order {
    pub(super) fn read(from: impl Read) -> io::Result<Self> {
        Ok(serde_json::from_reader(from.take(MAX_ORDER))?)
    }
}

impl Answer {
    pub(super) fn write(&self, mut to: impl Write) -> io::Result<()> {
        let (line, revision) = match self {
            Self::Unchanged => (Line::Unchanged, None),
            Self::Revision(revision) => (Line::Revision, Some(revision)),
            Self::Refused { commit, why, reason } => {
                (Line::Refused { commit: commit.clone(), why: *why, reason: reason.clone() }, None)
            }
            Self::Failed { reason } => (Line::Failed { reason: reason.clone() }, None),
        };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        to.write_all(&text)?;
        revision.map_or(Ok(()), |revision| revision.write(to))
    }

    pub(super) fn read(mut from: impl BufRead) -> io::Result<Self> {
        let mut line = Vec::new();
        from.by_ref().take(MAX_ANSWER).read_until(b'\n', &mut line)?;
        Ok(match serde_json::from_slice(&line)? {
            Line::Unchanged => Self::Unchanged,
            Line::Revision => Self::Revision(Box::new(Revision::read(from)?)),
            Line::Refused { commit, why, reason } => Self::Refused { commit, why, reason },
            Line::Failed { reason } => Self::Failed { reason },
        })
    }
}
