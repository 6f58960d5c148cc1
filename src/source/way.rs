//! The way from `/` to what a path names, one look-up at a time.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// As the kernel: more links than this are a circle.
const MAX_LINKS: usize = 40;

/// Everything that decides where a path leads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Way {
    /// What was looked up, in this order: directories, links, and last the end or what is missing.
    pub(super) steps: Vec<Step>,
    /// Where it leads, without links; `None` when something on the way is missing.
    pub(super) end: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) path: PathBuf,
    pub(super) found: Found,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
    pub(super) identity: (u64, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Directory,
    Link,
    Other,
    Missing,
}

impl Way {
    /// `path` has to be absolute.
    pub(super) fn to(path: &Path) -> Self {
        let mut steps = Vec::new();
        let mut current = PathBuf::from("/");
        let mut links = 0;
        let mut rest: VecDeque<OsString> = VecDeque::new();
        prepend(&mut rest, path);
        steps.push(Step::new(current.clone(), current.symlink_metadata().ok()));
        while let Some(part) = rest.pop_front() {
            if part == ".." {
                current.pop();
                continue;
            }
            let next = current.join(&part);
            let step = Step::new(next.clone(), next.symlink_metadata().ok());
            let found = step.found;
            steps.push(step);
            match found {
                Found::Link => {
                    links += 1;
                    let Some(target) = next.read_link().ok().filter(|_| links <= MAX_LINKS) else {
                        return Self { steps, end: None };
                    };
                    if target.is_absolute() {
                        current = PathBuf::from("/");
                    }
                    prepend(&mut rest, &target);
                }
                Found::Directory | Found::Other => current = next,
                Found::Missing => return Self { steps, end: None },
            }
        }
        Self { steps, end: Some(current) }
    }

    /// The way without owners and modes: equal as long as the same directories are on it.
    pub(super) fn outline(mut self) -> Self {
        for step in &mut self.steps {
            (step.uid, step.gid, step.mode) = (0, 0, 0);
        }
        self
    }
}

impl Step {
    fn new(path: PathBuf, metadata: Option<Metadata>) -> Self {
        let Some(metadata) = metadata else {
            return Self { path, found: Found::Missing, uid: 0, gid: 0, mode: 0, identity: (0, 0) };
        };
        let found = if metadata.is_dir() {
            Found::Directory
        } else if metadata.is_symlink() {
            Found::Link
        } else {
            Found::Other
        };
        let identity = (metadata.dev(), metadata.ino());
        Self { path, found, uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode(), identity }
    }
}

fn prepend(rest: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(part) => rest.push_front(part.to_owned()),
            Component::ParentDir => rest.push_front(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_as_the_kernel_does() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("rev-1/manifests")).unwrap();
        symlink("rev-1", base.join("current")).unwrap();
        symlink("./rev-1/../current/manifests", base.join("link")).unwrap();
        symlink("circle", base.join("circle")).unwrap();

        let way = Way::to(&base.join("link"));

        assert_eq!(way.end, Some(base.join("rev-1/manifests")));
        let links: Vec<_> =
            way.steps.iter().filter(|step| step.found == Found::Link).map(|step| step.path.clone()).collect();
        assert_eq!(links, [base.join("link"), base.join("current")]);
        assert_eq!(Way::to(&base.join("circle")).end, None);
        let missing = Way::to(&base.join("none/deeper"));
        assert_eq!(missing.end, None);
        assert_eq!(missing.steps.last().map(|step| &step.path), Some(&base.join("none")));
    }
}
