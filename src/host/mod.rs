//! The machine, as the reconciler sees it. The real one, [`Machine`], composes cgroups, sandbox,
//! keeper, images and storage; the simulated one, `simulation`, judges the planner in the tests.

mod alone;
mod blueprint;
mod exec;
#[cfg(test)]
mod fuzz;
mod health;
mod keeper_link;
mod logs;
mod machine;
mod mounts;
mod note;
mod paths;
mod pid_one;
mod privileges;
mod references;
mod seccomp_cache;
#[cfg(test)]
mod simulation;
mod usage;

pub use alone::{Alone, alone};
pub use exec::{ExecError, ExecRequest, ExecSession};
pub use health::Watched;
pub use keeper_link::{HostEvent, KeeperBy};
pub use machine::{Machine, MachineError};
pub use paths::{ID_RANGES, Paths};
pub use privileges::{PrivilegeError, check as check_privileges};
pub use references::{Missing, missing, missing_beside, pointed};
pub use usage::{Figures, Usage};

use crate::plan::{Action, Failure, Outcome, Seen};
use crate::spec::ObjectId;
use std::collections::BTreeSet;
use std::error::Error;

/// Which part of the host to look at.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    /// Everything that carries our mark.
    All,
    /// The instances of these objects alone.
    Objects(&'a BTreeSet<ObjectId>),
}

/// The first of the two seams: the real host, and the simulated one of the tests.
pub trait Host: Send + Sync {
    fn observe(&self, scope: Scope<'_>) -> Result<Seen, Failure>;

    /// Does one action. An error says nothing about how far it got; the next `observe` does.
    fn apply(&self, action: &Action) -> Result<Outcome, Failure>;
}

/// An error with all of its causes as one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // An error that is `transparent` over its cause would say the same twice.
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}
