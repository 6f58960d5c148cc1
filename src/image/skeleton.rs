//! A directory tree as a value: what `host:/` has beside the host's programs.

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

/// Paths without a leading slash; a parent sorts before what is in it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Skeleton(pub(super) BTreeMap<String, Node>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Directory { mode: u32 },
    File { content: Vec<u8> },
    Link { target: String },
}

impl Skeleton {
    pub(super) fn directory(&mut self, path: &str, mode: u32) {
        self.parents(path);
        self.0.insert(path.to_owned(), Node::Directory { mode });
    }

    pub(super) fn file(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.parents(path);
        self.0.insert(path.to_owned(), Node::File { content: content.into() });
    }

    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.parents(path);
        self.0.insert(path.to_owned(), Node::Link { target: target.to_owned() });
    }

    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            self.0.entry(path[..at].to_owned()).or_insert(Node::Directory { mode: 0o755 });
        }
    }

    /// Everything that makes it what it is, each part with its length before it.
    pub(super) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
            hash.update(bytes);
        };
        for (path, node) in &self.0 {
            part(path.as_bytes());
            match node {
                Node::Directory { mode } => part(format!("directory {mode:o}").as_bytes()),
                Node::File { content } => {
                    part(b"file");
                    part(content);
                }
                Node::Link { target } => {
                    part(b"link");
                    part(target.as_bytes());
                }
            }
        }
        hex::encode(hash.finalize())
    }

    /// Writes it into an empty directory, durable on return.
    ///
    /// # Errors
    /// The path in the tree and the cause.
    pub(super) fn write(&self, root: &OwnedFd) -> Result<(), (String, Errno)> {
        let mut directories = vec![String::from(".")];
        for (path, node) in &self.0 {
            let made = match node {
                Node::Directory { mode } => {
                    directories.push(path.clone());
                    let mode = Mode::from_raw_mode(*mode);
                    rustix::fs::mkdirat(root, path, mode)
                        // The process' umask has taken bits away.
                        .and_then(|()| rustix::fs::chmodat(root, path, mode, AtFlags::empty()))
                }
                Node::File { content } => write_file(root, path, content),
                Node::Link { target } => rustix::fs::symlinkat(target, root, path),
            };
            made.map_err(|error| (path.clone(), error))?;
        }
        for path in directories {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat(root, &path, flags, Mode::empty())
                .and_then(rustix::fs::fsync)
                .map_err(|error| (path, error))?;
        }
        Ok(())
    }
}

fn write_file(root: &OwnedFd, path: &str, content: &[u8]) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(0o644);
    let file = rustix::fs::openat(
        root,
        path,
        OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        mode,
    )?;
    let mut rest = content;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = &rest[written..];
    }
    rustix::fs::fchmod(&file, mode)?;
    rustix::fs::fsync(&file)
}
