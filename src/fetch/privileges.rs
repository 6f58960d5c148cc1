//! Becoming nobody, before anything that came from elsewhere is looked at.

use crate::sys;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, User, setgroups, setresgid, setresuid};
use std::io;

/// The user that packages make for it. Where it is missing, it is `nobody`.
pub const USER: &str = "plimsoll-fetch";
const NOBODY: u32 = 65_534;

/// Who fetches: a user and its group.
pub fn fetcher() -> (u32, u32) {
    let named = |name| User::from_name(name).ok().flatten();
    let user = named(USER).or_else(|| named("nobody"));
    user.map_or((NOBODY, NOBODY), |user| (user.uid.as_raw(), user.gid.as_raw()))
}

/// A file that a server makes us write is not longer. A pack of a repository with manifests is a thousandth.
const FILE: u64 = 256 << 20;
/// What a compressed object becomes in memory is not larger.
const MEMORY: u64 = 1 << 30;
const DESCRIPTORS: u64 = 256;
/// Seconds of computing.
const COMPUTING: u64 = 120;

/// Gives up what root may do, for good and for every program that is started from here, and ends with the agent.
pub(super) fn drop_all() -> io::Result<()> {
    for (resource, limit) in [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, FILE),
        (Resource::RLIMIT_AS, MEMORY),
        (Resource::RLIMIT_NOFILE, DESCRIPTORS),
        (Resource::RLIMIT_CPU, COMPUTING),
        (Resource::RLIMIT_MEMLOCK, 0),
    ] {
        setrlimit(resource, limit, limit)?;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    if Uid::effective().is_root() {
        let (uid, gid) = fetcher();
        setgroups(&[])?;
        setresgid(Gid::from_raw(gid), Gid::from_raw(gid), Gid::from_raw(gid))?;
        // From 0 to another: every capability goes with it (capabilities(7)).
        setresuid(Uid::from_raw(uid), Uid::from_raw(uid), Uid::from_raw(uid))?;
    }
    sys::set_no_new_privileges()?;
    // Others of the same user may not look at the secrets in here.
    sys::set_not_dumpable()?;
    // Last: it is forgotten when the user changes.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    Ok(())
}
