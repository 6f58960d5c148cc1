//! The agent's own configuration: `/etc/plimsoll/agent.yaml`, or `agent.yaml` below `--root`.

mod source;

pub use source::{Git, LoginConfig, Origin, SourceConfig, SshConfig, VerifyConfig};

use super::options::{Options, Pace};
use crate::host::KeeperBy;
use crate::manifest::{self, Diagnostic};
use crate::source::Trust;
use crate::spec::{AbsolutePath, Span};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// What may be said there; what is not said is as usual, and the command line stands above it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Directories with manifests.
    pub manifests: Vec<AbsolutePath>,
    /// Where else manifests come from.
    #[serde(deserialize_with = "source::distinct")]
    pub sources: Vec<SourceConfig>,
    /// How long an object has to be absent before its removal begins.
    pub deletion_grace: Span,
    /// How long what is left of a removed container is kept.
    pub keep_removed: Span,
    /// Removals beyond this wait for consent.
    pub max_delete: MaxDelete,
    /// Everything is read and looked at again after this long, give or take a quarter, whether anything was
    /// heard of it or not.
    pub resync: Span,
    /// The cgroup, from the hierarchies' roots, that all containers are below.
    pub cgroup_parent: Option<AbsolutePath>,
    pub keeper: Keeper,
    /// A second socket, for who may only look.
    pub read_only_socket: Option<ReadOnlySocket>,
}

/// Members of the group may ask there, and change nothing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReadOnlySocket {
    pub path: AbsolutePath,
    pub group: String,
}

/// The larger of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MaxDelete {
    pub count: usize,
    pub percent: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Keeper {
    /// The agent starts one where none runs.
    #[default]
    Start,
    /// It is a service of its own, and waited for.
    Service,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            manifests: Vec::new(),
            sources: Vec::new(),
            deletion_grace: Span::from_secs(10),
            keep_removed: Span::from_secs(24 * 60 * 60),
            max_delete: MaxDelete::default(),
            resync: Pace::RESYNC,
            cgroup_parent: None,
            keeper: Keeper::Start,
            read_only_socket: None,
        }
    }
}

impl Default for MaxDelete {
    fn default() -> Self {
        Self { count: 3, percent: 30 }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("reading {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} {reason}: whoever can write to it is root on this host", path.display())]
    Untrusted { path: PathBuf, reason: String },
    #[error("{}", rendered(.0))]
    Invalid(Vec<Diagnostic>),
}

impl Config {
    /// Where it is when nobody says.
    pub fn path(root: Option<&Path>) -> PathBuf {
        root.map_or_else(|| PathBuf::from("/etc/plimsoll/agent.yaml"), |root| root.join("agent.yaml"))
    }

    /// Reads the file. `given` says that somebody has named it, so that it has to be there.
    pub fn read(path: &Path, given: bool) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        let mut file = match std::fs::File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !given => return Ok(Self::default()),
            file => file.map_err(failed)?,
        };
        let metadata = file.metadata().map_err(failed)?;
        let trust = Trust::Strict { uids: BTreeSet::from([0]) };
        if let Some(reason) = trust.objects_to(&metadata) {
            return Err(ConfigError::Untrusted { path: path.to_owned(), reason });
        }
        let mut bytes = Vec::new();
        let limit = u64::try_from(manifest::MAX_FILE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
        file.by_ref().take(limit).read_to_end(&mut bytes).map_err(failed)?;
        manifest::settings(&path.display().to_string(), &bytes).map_err(ConfigError::Invalid)
    }

    /// An agent that runs as this says.
    pub fn options(&self, root: Option<PathBuf>) -> Options {
        Options {
            root,
            manifests: self.manifests.iter().map(|path| PathBuf::from(path.as_str())).collect(),
            sources: self.sources.clone(),
            foreground: false,
            retention: self.keep_removed,
            deletion_grace: self.deletion_grace,
            max_delete: self.max_delete,
            resync: self.resync,
            cgroup_parent: self.cgroup_parent.as_ref().map(ToString::to_string),
            keeper: match self.keeper {
                Keeper::Start => KeeperBy::Us,
                Keeper::Service => KeeperBy::ServiceManager,
            },
            halt: false,
            read_only_socket: self.read_only_socket.clone(),
        }
    }
}

fn rendered(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().fold(String::new(), |mut text, diagnostic| {
        let _infallible = write!(text, "{}", diagnostic.render());
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../deploy/agent.yaml");

    #[test]
    fn what_is_shipped_says_nothing_but_comments() {
        assert_eq!(manifest::settings::<Config>("agent.yaml", SHIPPED.as_bytes()).unwrap(), Config::default());
    }

    #[test]
    fn the_comments_of_what_is_shipped_show_every_option_with_what_holds_anyway() {
        let setting = |line: &&str| line.starts_with('#') && !line.starts_with("# ");
        let text: String = SHIPPED.lines().filter(setting).map(|line| format!("{}\n", &line[1..])).collect();

        let said = manifest::settings::<Config>("agent.yaml", text.as_bytes()).unwrap();

        let manifests = vec!["/etc/plimsoll/manifests".parse().unwrap()];
        let cgroup_parent = Some("/plimsoll".parse().unwrap());
        assert_eq!(said, Config { manifests, cgroup_parent, ..Config::default() });
        let debug = format!("{said:?}");
        assert_eq!(
            text.lines().count(),
            debug.matches(": ").count() - 2,
            "one line each, but for the two in maxDelete"
        );
    }

    #[test]
    fn the_example_of_sources_is_one() {
        let lines = SHIPPED.lines().filter_map(|line| line.strip_prefix("#   "));
        let text = format!("sources:\n{}\n", lines.collect::<Vec<_>>().join("\n"));

        let said = manifest::settings::<Config>("agent.yaml", text.as_bytes()).unwrap();

        let [SourceConfig { origin: Origin::Git(git), rights, .. }, local] = &said.sources[..] else {
            panic!("{said:?}")
        };
        assert_eq!((git.path.as_str(), git.interval), ("hosts/web", Span::from_secs(60)));
        assert!(!rights.privileged);
        assert_eq!(local.origin, Origin::Directory("/srv/manifests".parse().unwrap()));
    }

    #[test]
    fn a_source_that_cannot_be_is_refused_with_its_place() {
        for (text, place, reason) in [
            ("- name: a", "agent.yaml:2:", "either \"directory\" or \"git\""),
            (
                "- {name: a, directory: /srv, git: {url: 'https://a/b'}}",
                "agent.yaml:2:",
                "either \"directory\" or \"git\"",
            ),
            ("- {name: a, git: {url: 'https://a/b', branch: x, tag: y}}", "agent.yaml:2:", "one can be given"),
            ("- {name: a, git: {url: 'https://ann:pw@a/b'}}", "agent.yaml:2:", "password in the URL"),
            ("- {name: a, git: {url: 'http://a/b'}}", "agent.yaml:2:", "use https"),
            ("- {name: a, git: {url: 'https://a/b', path: ../x}}", "agent.yaml:2:", "directory in the repository"),
            ("- {name: a, git: {url: 'https://a/b', semver: ~1 or so}}", "agent.yaml:2:", ""),
            ("- {name: a, git: {url: 'https://a/b', brnach: x}}", "agent.yaml:2:", "brnach"),
            ("- {name: a, directory: /a}\n- {name: a, directory: /b}", "agent.yaml:1:1", "two sources of the name a"),
        ] {
            let text = format!("sources:\n{text}\n");
            let said = manifest::settings::<Config>("agent.yaml", text.as_bytes()).unwrap_err();
            let said = said.iter().map(ToString::to_string).collect::<String>();

            assert!(said.starts_with(place) && said.contains(reason), "{text}{said}");
            assert!(!said.contains("pw"), "{said}");
        }
    }
}
