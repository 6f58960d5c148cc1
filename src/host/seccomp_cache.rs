//! Compiled system call filters, each in a sealed memory file that is handed to every start that
//! uses it. Compiling one costs several whole container starts.

use crate::sandbox::seccomp::{self, Profile, SeccompError};
use crate::spec::Seccomp;
use std::collections::HashMap;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

#[derive(Debug, Default)]
pub(super) struct SeccompCache {
    filters: Mutex<HashMap<Key, Arc<OwnedFd>>>,
}

/// What a filter depends on: the profile's name, for a file also when it was written, and the
/// capabilities that open further system calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    profile: String,
    written: Option<SystemTime>,
    capabilities: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("making the system call filter")]
    Compile(#[from] SeccompError),
    #[error("keeping the system call filter in memory")]
    Memory(#[from] std::io::Error),
}

impl SeccompCache {
    /// The filter as a sealed memory file; `None` for `unconfined`.
    pub fn filter(&self, profile: &Seccomp, capabilities: u64) -> Result<Option<Arc<OwnedFd>>, FilterError> {
        let written = match profile {
            Seccomp::Unconfined => return Ok(None),
            Seccomp::Default => None,
            // A file that cannot be looked at is reported by the compilation, with its path.
            Seccomp::File(path) => std::fs::metadata(path.as_str()).and_then(|metadata| metadata.modified()).ok(),
        };
        let key = Key { profile: profile.clone().into(), written, capabilities };
        // Held while compiling: fifty starts at once want one compilation, not fifty.
        let mut filters = self.filters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(filter) = filters.get(&key) {
            return Ok(Some(filter.clone()));
        }
        let Some(profile) = self::profile(profile)? else { return Ok(None) };
        let filter = Arc::new(sealed("seccomp", &seccomp::compile(&profile, capabilities)?)?);
        filters.insert(key, filter.clone());
        Ok(Some(filter))
    }
}

/// The rules that a container asks for; none for `unconfined`.
pub(super) fn profile(wish: &Seccomp) -> Result<Option<Profile>, SeccompError> {
    Ok(match wish {
        Seccomp::Unconfined => None,
        Seccomp::Default => Some(seccomp::default_profile()),
        Seccomp::File(path) => Some(Profile::from_file(Path::new(path.as_str()))?),
    })
}

fn sealed(name: &str, bytes: &[u8]) -> std::io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file.into())
}
