//! What is on the host, as the kernel and the keeper tell it.

use super::Exit;
use crate::spec::{IdRange, InstanceId, Object, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Everything that carries our mark, known to the records or not.
    pub instances: BTreeMap<InstanceId, Sighting>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sighting {
    pub process: ProcessSeen,
    pub group: Option<GroupSeen>,
    /// Its root filesystem's directories stand; with the ids that are noted beside them.
    pub rootfs: bool,
    pub ids: Option<IdRange>,
    /// What the running process was started from, as it is noted beside it: for an agent that has lost
    /// its memory.
    pub started_from: Option<Arc<Object>>,
    pub health: HealthSeen,
}

/// What the probes of a running process have come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum HealthSeen {
    /// Nothing is asked, or nothing has been answered yet.
    #[default]
    Unknown,
    /// Its startup has not passed yet, for this reason.
    Starting(String),
    Ready,
    NotReady(String),
    /// It does not work and will not by itself, for this reason: it is to be started again.
    Failed(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ProcessSeen {
    #[default]
    None,
    Running {
        pid: u32,
        since: Timestamp,
        /// PID 1 has no handler for its stop signal, so the kernel drops it (pid_namespaces(7)).
        ignores_stop: bool,
    },
    Exited(Exit),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupSeen {
    /// Some process is in it or below it.
    pub populated: bool,
    /// The content of every control file that we write, by name.
    pub limits: BTreeMap<String, String>,
}
