//! A cgroup that systemd makes for us: a transient scope with a tree of ours below it (`Delegate=yes`,
//! systemd.scope(5), org.freedesktop.systemd1(5)).

use super::CgroupError;
use super::bus::{Argument, Bus, BusError, Target};
use crate::sys;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{WaitId, WaitIdOptions};
use std::os::fd::{AsFd, OwnedFd};

#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error("{name:?} is not the name of a slice")]
    Slice { name: String },
    #[error("systemd did not {verb} {unit}: {result}")]
    Job { verb: &'static str, unit: String, result: String },
    #[error("holding a place in {unit}")]
    Placeholder { unit: String, source: std::io::Error },
    #[error("{unit} is at {found:?} and not at {expected:?}")]
    Elsewhere { unit: String, expected: String, found: String },
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

/// A scope's name and where it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// `user-1000.slice`
    pub slice: String,
    /// `libpod-0123.scope`
    pub unit: String,
    pub description: String,
}

impl Scope {
    /// Where its cgroup is in the hierarchy: a slice's name has those above it in it (systemd.slice(5)).
    pub fn path(&self) -> Result<String, ScopeError> {
        let invalid = || ScopeError::Slice { name: self.slice.clone() };
        let name = self.slice.strip_suffix(".slice").ok_or_else(invalid)?;
        let mut path = String::new();
        if name != "-" {
            let mut above = String::new();
            for part in name.split('-') {
                if part.is_empty() || part.contains(['/', '\0', '\n']) {
                    return Err(invalid());
                }
                above = if above.is_empty() { part.to_owned() } else { format!("{above}-{part}") };
                path = format!("{path}/{above}.slice");
            }
        }
        Ok(format!("{path}/{}", self.unit))
    }
}

const MANAGER: Target = Target {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};

const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// systemd, at the other end of a bus.
#[derive(Debug)]
pub struct Systemd(Bus);

/// A process that does nothing and keeps a scope from being empty, which would be its end.
#[derive(Debug)]
pub struct Placeholder {
    /// It ends when this is closed, however that comes about.
    hold: Option<OwnedFd>,
    child: sys::Cloned,
}

impl Systemd {
    pub fn connect() -> Result<Self, ScopeError> {
        let mut bus = Bus::system()?;
        bus.listen(
            "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'",
        )?;
        match bus.call(MANAGER, "Subscribe", &[]) {
            // On its own socket everybody is told anyway.
            Ok(_) | Err(BusError::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self(bus))
    }

    /// Starts a scope with nothing in it but a placeholder, and waits until it is there.
    pub fn start(&mut self, scope: &Scope, limits: &[(String, Argument)]) -> Result<Placeholder, ScopeError> {
        let expected = scope.path()?;
        let held = |errno: Errno| ScopeError::Placeholder { unit: scope.unit.clone(), source: errno.into() };
        let placeholder = Placeholder::new().map_err(held)?;
        let pid = placeholder.child.pid.as_raw_nonzero().get();
        let flag = |name: &str| (name.to_owned(), Argument::Flag(true));
        let mut properties = vec![
            ("Description".to_owned(), Argument::Text(scope.description.clone())),
            ("Slice".to_owned(), Argument::Text(scope.slice.clone())),
            ("PIDs".to_owned(), Argument::Numbers32(vec![pid.cast_unsigned()])),
            flag("Delegate"),
            flag("CPUAccounting"),
            flag("MemoryAccounting"),
            flag("TasksAccounting"),
            flag("IOAccounting"),
            // When it ends is for who runs containers to say, and not for the order of units at a shutdown.
            ("DefaultDependencies".to_owned(), Argument::Flag(false)),
        ];
        properties.extend_from_slice(limits);
        let arguments = [
            Argument::Text(scope.unit.clone()),
            Argument::Text("replace".to_owned()),
            Argument::Properties(properties),
            Argument::NoUnits,
        ];
        let reply = match self.0.call(MANAGER, "StartTransientUnit", &arguments) {
            // One that failed, of an earlier container with the same name.
            Err(BusError::Refused { name, .. }) if name == UNIT_EXISTS => {
                self.forget(&scope.unit)?;
                self.0.call(MANAGER, "StartTransientUnit", &arguments)
            }
            reply => reply,
        }?;
        self.wait(&reply.text()?, "start", &scope.unit)?;
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .map_err(|source| ScopeError::Placeholder { unit: scope.unit.clone(), source })?;
        let found = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
        if found != expected {
            let (unit, found) = (scope.unit.clone(), found.to_owned());
            return Err(ScopeError::Elsewhere { unit, expected, found });
        }
        Ok(placeholder)
    }

    /// Stops a scope, with everything in it, and waits until it is gone; fine with one that is not there.
    pub fn stop(&mut self, unit: &str) -> Result<(), ScopeError> {
        let arguments = [Argument::Text(unit.to_owned()), Argument::Text("replace".to_owned())];
        match self.0.call(MANAGER, "StopUnit", &arguments) {
            Err(BusError::Refused { name, .. }) if name == NO_SUCH_UNIT => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(reply) => self.wait(&reply.text()?, "stop", unit)?,
        }
        self.forget(unit)
    }

    /// Changes limits of a scope that runs, so that systemd does not write back the old ones. What it
    /// writes itself is written when this returns.
    pub fn change(&mut self, unit: &str, limits: &[(String, Argument)]) -> Result<(), ScopeError> {
        // Until the next start of the host, as the scope itself.
        let runtime = Argument::Flag(true);
        let arguments = [Argument::Text(unit.to_owned()), runtime, Argument::Properties(limits.to_vec())];
        self.0.call(MANAGER, "SetUnitProperties", &arguments)?;
        // It answers before it writes the files, and takes the next question afterwards.
        self.0.call(MANAGER, "GetUnit", &[Argument::Text(unit.to_owned())])?;
        Ok(())
    }

    /// A unit that failed is kept by systemd, for who wants to look at it.
    fn forget(&mut self, unit: &str) -> Result<(), ScopeError> {
        match self.0.call(MANAGER, "ResetFailedUnit", &[Argument::Text(unit.to_owned())]) {
            Ok(_) | Err(BusError::Refused { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn wait(&mut self, job: &str, verb: &'static str, unit: &str) -> Result<(), ScopeError> {
        loop {
            let signal = self.0.signal()?;
            if signal.member != "JobRemoved" {
                continue;
            }
            let (_, [path, _, result]) = signal.number_and_texts()?;
            if path == job {
                let failed = || ScopeError::Job { verb, unit: unit.to_owned(), result: result.clone() };
                return if result == "done" { Ok(()) } else { Err(failed()) };
            }
        }
    }
}

impl Placeholder {
    fn new() -> Result<Self, Errno> {
        let (end, hold) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let (own, other) = (end.as_fd(), hold.as_fd());
        let child = sys::clone3(sys::Request::default(), || {
            // Its own copy, or it would wait for itself.
            sys::close_copy(other);
            let mut byte = [0];
            while let Err(Errno::INTR) = rustix::io::read(own, &mut byte) {}
        })?;
        Ok(Self { hold: Some(hold), child })
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        drop(self.hold.take());
        let id = || WaitId::PidFd(self.child.pidfd.as_fd());
        while let Err(Errno::INTR) = rustix::process::waitid(id(), WaitIdOptions::EXITED) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slices_name_has_those_above_it_in_it() {
        let path = |slice: &str| {
            let scope = Scope { slice: slice.to_owned(), unit: "a.scope".to_owned(), description: String::new() };
            scope.path().ok()
        };

        assert_eq!(path("system.slice").as_deref(), Some("/system.slice/a.scope"));
        assert_eq!(path("a-b-c.slice").as_deref(), Some("/a.slice/a-b.slice/a-b-c.slice/a.scope"));
        assert_eq!(path("-.slice").as_deref(), Some("/a.scope"));
        for wrong in ["system", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice", ".slice"] {
            assert_eq!(path(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_placeholder_is_there_until_it_is_let_go() {
        let placeholder = Placeholder::new().unwrap();
        let pid = placeholder.child.pid;
        assert!(rustix::process::test_kill_process(pid).is_ok());

        drop(placeholder);

        assert_eq!(rustix::process::test_kill_process(pid), Err(Errno::SRCH));
    }
}
