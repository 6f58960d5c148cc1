//! How an agent is started, and the numbers it goes by.

use super::config::{MaxDelete, ReadOnlySocket, SourceConfig};
use crate::host::KeeperBy;
use crate::plan::Settings;
use crate::spec::Span;
use std::path::PathBuf;
use std::time::Duration;

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Options {
    /// Puts everything below this directory: see `host::Paths`.
    pub root: Option<PathBuf>,
    /// The watched directories; the system's one when there are no other sources either.
    pub manifests: Vec<PathBuf>,
    /// Where else manifests come from.
    pub sources: Vec<SourceConfig>,
    /// For a person in the foreground: the directory's owner is
    /// trusted when it is the user who called sudo.
    pub foreground: bool,
    /// How long what is left of a removed object is kept.
    pub retention: Span,
    /// How long an object has to be absent before it is removed.
    pub deletion_grace: Span,
    /// More removals at once wait for consent.
    pub max_delete: MaxDelete,
    /// Everything is looked at again after this long.
    pub resync: Span,
    /// The cgroup, from the hierarchies' roots, that everything is below, instead of our own.
    pub cgroup_parent: Option<String>,
    /// Who sees to it that there is a keeper.
    pub keeper: KeeperBy,
    /// Stop every container in order, forget nothing, and leave: the host goes down.
    pub halt: bool,
    /// A second socket of the interface, for who may only look.
    pub read_only_socket: Option<ReadOnlySocket>,
}

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("the agent makes namespaces and cgroups, which takes root: run it with sudo")]
    NotRoot,
    #[error(transparent)]
    Privileges(#[from] crate::host::PrivilegeError),
    #[error("preparing {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("another agent is running on {}: stop it first, or give this one a --root of its own", path.display())]
    Running { path: PathBuf },
    #[error("opening the agent's memory")]
    Store(#[from] crate::store::StoreError),
    #[error("preparing the host: {0}")]
    Host(String),
    #[error(transparent)]
    Source(#[from] super::given::SourceError),
    #[error("the events of {operation}")]
    Runtime {
        operation: &'static str,
        #[source]
        source: std::io::Error,
    },
}

/// How the rounds are paced. One place, so that they can be measured and changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// A file event is answered when no other followed for this long …
    pub trailing: Duration,
    /// … or at the latest after this long, so that a steady writer cannot starve the loop.
    pub longest: Duration,
    /// Everything is looked at again after this long, give or take a quarter.
    pub resync: Duration,
    /// Actions on the host that run at the same time.
    pub workers: usize,
}

impl Pace {
    /// How long until everything is looked at again, where nobody says.
    pub const RESYNC: Span = Span::from_secs(40);
    /// A resync at each round would be a busy loop.
    const SHORTEST_RESYNC: Duration = Duration::from_secs(1);

    pub fn new(resync: Span) -> Self {
        Self {
            trailing: Duration::from_millis(20),
            longest: Duration::from_millis(250),
            resync: resync.duration().max(Self::SHORTEST_RESYNC),
            workers: 8,
        }
    }
}

impl Options {
    /// What can't be changed in an agent that runs, of what differs.
    pub(super) fn needs_restart(&self, other: &Self) -> Vec<&'static str> {
        let differs = [
            ("cgroupParent", self.cgroup_parent != other.cgroup_parent),
            ("keeper", self.keeper != other.keeper),
            ("readOnlySocket", self.read_only_socket != other.read_only_socket),
        ];
        differs.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
    }

    pub(super) fn settings(&self, id_base: u32, id_ranges: u32) -> Settings {
        Settings {
            id_base,
            id_ranges,
            deletion_grace: self.deletion_grace,
            retention: self.retention,
            max_delete: self.max_delete.count,
            max_delete_percent: self.max_delete.percent,
            pruning: self.sources.iter().map(|source| (source.name.to_string(), source.pruning())).collect(),
            stop_all: false,
            halt: self.halt,
        }
    }
}
