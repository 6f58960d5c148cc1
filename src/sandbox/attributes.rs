//! What a process may be given beside its ids and rights: how it is scheduled, where its memory and
//! its keys are, which label it has.

use super::lanes::text;
use super::ops::{ChildOp, ParentOp, Scheduling, Slot};
use super::script::{ScriptError, Slots};
use crate::sys::SchedulerAttributes;

/// Nothing of it, and an unnamed keyring of its own, when nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// For personality(2).
    pub personality: Option<u32>,
    pub scheduler: Option<SchedulerAttributes>,
    /// For ioprio_set(2): class and level.
    pub io_priority: Option<u16>,
    pub affinity: Affinity,
    pub memory_policy: Option<MemoryPolicy>,
    pub keyring: Keyring,
    /// For `/proc/self/attr/apparmor/exec`.
    pub apparmor: Option<String>,
    /// For `/proc/self/attr/exec`.
    pub selinux: Option<String>,
    /// Supplementary groups stay those of who starts it.
    pub keep_groups: bool,
}

/// The CPUs that the process runs on, of those that its cpuset has. One bit for each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Affinity {
    /// Those of who starts it.
    #[default]
    Inherited,
    All,
    /// For a command in a container: `before` it is in the container's cgroup, and `after` that.
    Chosen {
        before: Option<Vec<u64>>,
        after: Option<Vec<u64>>,
    },
}

/// For set_mempolicy(2): a mode with its flags, and one bit for each node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicy {
    pub mode: u32,
    pub nodes: Vec<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Keyring {
    #[default]
    Unnamed,
    /// One that others of the container find by its name.
    Named(String),
    /// That of who starts it.
    Inherited,
}

/// Whether a process forks before its program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forks {
    No,
    Yes,
}

/// More than any kernel has; it takes those that there are.
const EVERY_CPU: [u64; 128] = [u64::MAX; 128];

impl Attributes {
    /// What is done before there is a child.
    pub(super) fn before(&self) -> Option<ParentOp> {
        match &self.affinity {
            Affinity::Chosen { before: Some(cpus), .. } => Some(ParentOp::SetAffinity { cpus: cpus.clone() }),
            _ => None,
        }
    }

    /// Once it is in its cgroups, whose cpuset counts.
    pub(super) fn placed(&self, child: &mut Vec<ChildOp>) {
        match &self.affinity {
            Affinity::Inherited => {}
            Affinity::Chosen { after: Some(cpus), .. } => child.push(ChildOp::SetAffinity { cpus: cpus.clone() }),
            Affinity::All | Affinity::Chosen { after: None, .. } => {
                child.push(ChildOp::SetAffinity { cpus: EVERY_CPU.to_vec() });
            }
        }
        if let Some(MemoryPolicy { mode, nodes }) = &self.memory_policy {
            child.push(ChildOp::SetMemoryPolicy { mode: *mode, nodes: nodes.clone() });
        }
    }

    pub(super) fn scheduling(&self, forks: Forks) -> Vec<Scheduling> {
        /// `SCHED_DEADLINE` and `SCHED_FLAG_RESET_ON_FORK`.
        const DEADLINE: u32 = 6;
        const RESET_ON_FORK: u64 = 1;
        let mut all = Vec::new();
        if let Some(mut attributes) = self.scheduler {
            if attributes.policy == DEADLINE && forks == Forks::Yes {
                // Without it nothing with a deadline can fork (sched(7)): what is asked for could not be had.
                attributes.flags |= RESET_ON_FORK;
            }
            all.push(Scheduling::Cpu(attributes));
        }
        all.extend(self.io_priority.map(|priority| Scheduling::Io { priority }));
        all
    }

    pub(super) fn keyring(&self, child: &mut Vec<ChildOp>) -> Result<(), ScriptError> {
        match &self.keyring {
            Keyring::Unnamed => child.push(ChildOp::NewKeyring),
            Keyring::Named(name) => child.push(ChildOp::JoinKeyring { name: text(name)? }),
            Keyring::Inherited => {}
        }
        Ok(())
    }

    /// Opens the files while `/proc` is still the host's: in a container's own nobody knows what stands
    /// there (CVE-2019-16884, CVE-2023-28642). Only the process itself can write to them.
    pub(super) fn open_labels(
        &self,
        child: &mut Vec<ChildOp>,
        slots: &mut Slots,
    ) -> Result<Vec<(Slot, String)>, ScriptError> {
        let mut opened = Vec::new();
        let apparmor = self.apparmor.iter().map(|profile| ("apparmor/exec", format!("exec {profile}")));
        let selinux = self.selinux.iter().map(|label| ("exec", label.clone()));
        for (file, value) in apparmor.chain(selinux) {
            let into = slots.take()?;
            child.push(ChildOp::OpenAttribute { path: text(&format!("/proc/thread-self/attr/{file}"))?, into });
            opened.push((into, value));
        }
        Ok(opened)
    }
}
