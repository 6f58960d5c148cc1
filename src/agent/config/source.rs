//! One entry of `sources` in the agent's configuration.

use super::MaxDelete;
use crate::fetch::{self, Reference};
use crate::plan;
use crate::source::Rights;
use crate::spec::{AbsolutePath, Name, Span};
use serde::Deserialize;

/// Where manifests come from, and what they may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct SourceConfig {
    pub name: Name,
    pub origin: Origin,
    pub rights: Rights,
    /// What was read last holds, and nothing newer is read.
    pub suspend: bool,
    /// What is gone from it is removed.
    pub prune: bool,
    /// Of its own objects, instead of the one that holds for all.
    pub max_delete: Option<MaxDelete>,
}

impl SourceConfig {
    pub(in crate::agent) fn pruning(&self) -> plan::Pruning {
        let max_delete = self.max_delete.map(|MaxDelete { count, percent }| plan::MaxDelete { count, percent });
        plan::Pruning { prune: self.prune, max_delete }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Directory(AbsolutePath),
    Git(Box<Git>),
}

/// A directory of a repository, as one of its commits has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Git {
    pub url: String,
    pub reference: Reference,
    /// Empty for the repository's root.
    pub path: String,
    /// How often the server is asked, give or take a quarter.
    pub interval: Span,
    /// What takes longer is ended.
    pub timeout: Span,
    pub login: Option<LoginConfig>,
    pub ssh: Option<SshConfig>,
    pub certificates_file: Option<AbsolutePath>,
    pub verify: Option<VerifyConfig>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoginConfig {
    pub username: String,
    pub password_file: AbsolutePath,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SshConfig {
    pub key_file: AbsolutePath,
    pub known_hosts_file: AbsolutePath,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VerifyConfig {
    pub allowed_signers_file: AbsolutePath,
    /// Every commit since the last revision that was used, not the newest alone.
    #[serde(default)]
    pub every: bool,
}

/// Sources that each have a name of their own.
pub(super) fn distinct<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<SourceConfig>, D::Error> {
    let sources = Vec::<SourceConfig>::deserialize(deserializer)?;
    let mut names = std::collections::BTreeSet::new();
    match sources.iter().find(|source| !names.insert(&source.name)) {
        Some(SourceConfig { name, .. }) => Err(serde::de::Error::custom(format!("two sources of the name {name}"))),
        None => Ok(sources),
    }
}

/// As it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    name: Name,
    #[serde(default)]
    directory: Option<AbsolutePath>,
    #[serde(default)]
    git: Option<Git>,
    #[serde(default)]
    allow: Rights,
    #[serde(default)]
    suspend: bool,
    #[serde(default = "yes")]
    prune: bool,
    #[serde(default)]
    max_delete: Option<MaxDelete>,
}

const fn yes() -> bool {
    true
}

impl TryFrom<Written> for SourceConfig {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { name, directory, git, allow: rights, suspend, prune, max_delete } = written;
        let origin = match (directory, git) {
            (Some(directory), None) => Origin::Directory(directory),
            (None, Some(git)) => Origin::Git(Box::new(git)),
            (None, None) | (Some(_), Some(_)) => return Err("a source has either `directory` or `git`".to_owned()),
        };
        Ok(Self { name, origin, rights, suspend, prune, max_delete })
    }
}

/// As it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenGit {
    url: String,
    branch: Option<String>,
    tag: Option<String>,
    semver: Option<semver::VersionReq>,
    commit: Option<String>,
    #[serde(default)]
    path: String,
    #[serde(default = "a_minute")]
    interval: Span,
    #[serde(default = "a_minute")]
    timeout: Span,
    login: Option<LoginConfig>,
    ssh: Option<SshConfig>,
    certificates_file: Option<AbsolutePath>,
    verify: Option<VerifyConfig>,
}

const fn a_minute() -> Span {
    Span::from_secs(60)
}

impl<'de> Deserialize<'de> for Git {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        WrittenGit::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}

impl TryFrom<WrittenGit> for Git {
    type Error = String;

    fn try_from(written: WrittenGit) -> Result<Self, String> {
        let WrittenGit {
            url,
            branch,
            tag,
            semver,
            commit,
            path,
            interval,
            timeout,
            login,
            ssh,
            certificates_file,
            verify,
        } = written;
        fetch::check_url(&url, verify.is_some())?;
        let said = [
            branch.map(Reference::Branch),
            tag.map(Reference::Tag),
            semver.map(Reference::Semver),
            commit.map(Reference::Commit),
        ];
        let mut said = said.into_iter().flatten();
        let reference = said.next().unwrap_or(Reference::Head);
        if said.next().is_some() {
            return Err("of `branch`, `tag`, `semver` and `commit` one can be given".to_owned());
        }
        reference.check()?;
        let path = path.trim_matches('/').to_owned();
        if path.split('/').any(|part| matches!(part, "." | "..")) {
            return Err(format!("`path` is a directory in the repository, and {path:?} is none"));
        }
        if interval < Span::from_secs(1) {
            return Err("`interval` is at least a second".to_owned());
        }
        Ok(Self { url, reference, path, interval, timeout, login, ssh, certificates_file, verify })
    }
}
