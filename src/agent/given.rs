//! Which sources an agent is to have: the directories that are named by themselves, and those of its
//! configuration, each with a name of its own.

use super::config::{Git, Origin, SourceConfig};
use super::options::Options;
use crate::source::Rights;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// One source as it was asked for. What is equal goes on as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub name: String,
    pub from: Place,
    pub rights: Rights,
    /// What was read last holds, and nothing newer is read.
    pub suspend: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Directory(PathBuf),
    Git(Box<Git>),
}

/// Why sources cannot be as they are asked for.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("the configuration has two sources of the name {0}: give one of them another")]
    Twice(String),
    #[error("opening the source {name}")]
    Open {
        name: String,
        #[source]
        source: std::io::Error,
    },
}

/// All of them, in the order in which they are asked for.
///
/// # Errors
/// When two have one name.
pub(super) fn given(options: &Options) -> Result<Vec<Given>, SourceError> {
    let mut names = BTreeSet::new();
    let mut all = Vec::new();
    for path in manifests(options) {
        let name = free(&path, &names);
        names.insert(name.clone());
        let rights = Rights::default();
        all.push(Given { name, from: Place::Directory(path), rights, suspend: false });
    }
    for SourceConfig { name, origin, rights, suspend, prune: _, max_delete: _ } in options.sources.clone() {
        let name = name.to_string();
        if !names.insert(name.clone()) {
            return Err(SourceError::Twice(name));
        }
        let from = match origin {
            Origin::Directory(path) => Place::Directory(PathBuf::from(path.as_str())),
            Origin::Git(git) => Place::Git(git),
        };
        all.push(Given { name, from, rights, suspend });
    }
    Ok(all)
}

/// A directory that has no name of its own is called as its last part is.
fn free(path: &Path, names: &BTreeSet<String>) -> String {
    let stem = path.file_name().map_or_else(|| "root".to_owned(), |name| name.to_string_lossy().into_owned());
    let numbered = (1..).map(|number| format!("{stem}-{number}"));
    let name = std::iter::once(stem.clone()).chain(numbered).find(|name| !names.contains(name));
    name.unwrap_or(stem)
}

/// The directories that are named by themselves; the system's one when there are no other sources either.
pub(super) fn manifests(options: &Options) -> Vec<PathBuf> {
    if options.manifests.is_empty() && !options.sources.is_empty() {
        return Vec::new();
    }
    if options.manifests.is_empty() {
        let system = Path::new("/etc/plimsoll/manifests").to_path_buf();
        return vec![options.root.as_ref().map_or(system, |root| root.join("manifests"))];
    }
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    options.manifests.iter().map(absolute).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use crate::manifest;

    fn names(text: &str) -> Result<Vec<String>, String> {
        let config = manifest::settings::<Config>("agent.yaml", text.as_bytes()).unwrap();
        let given = given(&config.options(Some("/r".into()))).map_err(|error| error.to_string())?;
        Ok(given.into_iter().map(|given| given.name).collect())
    }

    #[test]
    fn each_source_has_a_name_of_its_own() {
        assert_eq!(names("").unwrap(), ["manifests"]);
        assert_eq!(names("manifests: [/a/web, /b/web, /]").unwrap(), ["web", "web-1", "root"]);
        assert_eq!(names("sources: [{name: fleet, directory: /a}]").unwrap(), ["fleet"]);
        assert_eq!(names("manifests: [/a]\nsources: [{name: b, directory: /a}]").unwrap(), ["a", "b"]);
        let twice = names("manifests: [/a]\nsources: [{name: a, directory: /b}]").unwrap_err();
        assert!(twice.contains("two sources of the name a"), "{twice}");
    }
}
