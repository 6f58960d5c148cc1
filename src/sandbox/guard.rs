//! Guards that a test takes out, to see that the attack they are for then succeeds.
//!
//! Only with the feature `attackable`, which no program that is shipped is built with: without it
//! every guard is in, and the compiler leaves nothing of this module.

/// What keeps a container from something that other runtimes once let it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// What we run from is out of reach (CVE-2019-5736).
    HiddenProgram,
    /// Nobody may look into a process on its way (CVE-2016-9962).
    NotDumpable,
    /// Descriptors that we were born with are closed at `execve` (CVE-2024-21626).
    ClosedDescriptors,
    /// The working directory is one of the container's (CVE-2024-21626).
    WorkingDirectory,
    /// Paths are resolved with the container's root as their `/` (CVE-2024-45310, CVE-2026-41579).
    InRoot,
    /// `/proc` and `/sys` are no links (CVE-2019-19921).
    RealDirectory,
    /// What hides a file is the host's `/dev/null` (CVE-2025-31133).
    HostsNull,
    /// The console is the terminal that was opened, whatever is called so now (CVE-2025-52565).
    OpenedTerminal,
    /// Settings are written through the host's `/proc` (CVE-2025-52881).
    HostsProc,
    /// Inheritable capabilities are those that were asked for (CVE-2022-29162).
    Inheritable,
    /// A user that can't be read is none (CVE-2026-30892).
    StrictUser,
}

/// Whether a guard has been taken out.
#[cfg(not(feature = "attackable"))]
pub const fn is_out(_: Guard) -> bool {
    false
}

/// Whether the environment names it as the one to be taken out.
#[cfg(feature = "attackable")]
pub fn is_out(guard: Guard) -> bool {
    std::env::var("PLIM_WITHOUT_GUARD").is_ok_and(|name| name == format!("{guard:?}"))
}
