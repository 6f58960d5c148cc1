//! What a container uses now, from its cgroup.

use crate::cgroup::Statistics;
use crate::spec::Bytes;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// CPU time since its start, in microseconds.
    pub cpu_usec: u64,
    /// Thousandths of a CPU since it was last asked, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_milli: Option<u64>,
    pub memory: Option<Bytes>,
    pub pids: Option<u64>,
}

/// Everything that its cgroups tell of a container.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub statistics: Statistics,
    pub oom_kills: u64,
}
