//! What this process may do itself, and so what it can give.

use caps::{CapSet, Capability, CapsHashSet};

/// What starting and keeping containers takes (capabilities(7)).
const NEEDED: [Capability; 9] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_KILL,
    Capability::CAP_MKNOD,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_SETUID,
    Capability::CAP_SYS_ADMIN,
];

#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    #[error("reading the agent's own capabilities")]
    Read(#[from] caps::errors::CapsError),
    #[error("the agent lacks {0}: containers can't be made without; run it as root, outside of a restricted container")]
    Lacking(String),
    #[error("{0} can't be given without a user namespace, because the agent does not have it itself")]
    NotOurs(String),
}

/// Whether this process has what it needs.
pub fn check() -> Result<(), PrivilegeError> {
    let own = caps::read(None, CapSet::Effective)?;
    let lacking = names(NEEDED.into_iter().filter(|needed| !own.contains(needed)));
    if lacking.is_empty() { Ok(()) } else { Err(PrivilegeError::Lacking(lacking)) }
}

/// A container's capabilities, as far as this kernel has them. In a user namespace of its own it may
/// have all of them; without one only what the agent has itself.
pub fn grantable(mask: u64, own_user_namespace: bool) -> Result<u64, PrivilegeError> {
    let known = bits(&caps::runtime::thread_all_supported());
    let asked = mask & known;
    if own_user_namespace {
        return Ok(asked);
    }
    let own = caps::read(None, CapSet::Permitted)?;
    let beyond = asked & !bits(&own);
    if beyond == 0 {
        return Ok(asked);
    }
    let lacking = caps::all().into_iter().filter(|capability| capability.bitmask() & beyond != 0);
    Err(PrivilegeError::NotOurs(names(lacking)))
}

fn bits(set: &CapsHashSet) -> u64 {
    set.iter().fold(0, |mask, capability| mask | capability.bitmask())
}

fn names(capabilities: impl Iterator<Item = Capability>) -> String {
    let mut names: Vec<String> = capabilities.map(|capability| capability.to_string()).collect();
    names.sort();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_that_no_kernel_has_is_not_passed_on() {
        assert_eq!(grantable(1 << 63 | 1, true).unwrap(), 1);
    }

    #[test]
    fn without_a_user_namespace_nobody_gives_what_he_has_not() {
        let own = bits(&caps::read(None, CapSet::Permitted).unwrap());
        let supported = bits(&caps::runtime::thread_all_supported());

        let all = grantable(u64::MAX, false);

        match supported & !own {
            0 => assert_eq!(all.unwrap(), supported),
            _ => assert!(all.unwrap_err().to_string().contains("CAP_")),
        }
    }
}
