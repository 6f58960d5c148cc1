//! Compiled seccomp filters, kept by what they were compiled from.
//!
//! Compiling takes some 20 ms, several times what a whole start does. The result depends on the
//! profile, the capabilities, this program and the kernel, and all four are in the name of its file.

use super::OciError;
use super::build;
use super::config::Seccomp;
use crate::sandbox::seccomp;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Begins with a dot, which no container's id does.
const DIRECTORY: &str = ".seccomp";

fn path(root: &Path, name: &str) -> PathBuf {
    root.join(DIRECTORY).join(name)
}

/// The name of the profile's filter, which is compiled if there is none yet.
pub(super) fn compiled(root: &Path, profile: &Seccomp, capabilities: u64) -> Result<String, OciError> {
    let profile = build::profile(profile);
    let mut hash = Sha256::new();
    // Debug output names every field, which is all that a key has to do.
    hash.update(format!("{profile:?}"));
    hash.update(capabilities.to_ne_bytes());
    hash.update(env!("CARGO_PKG_VERSION"));
    // What stands in the place of what the library writes.
    hash.update("shortened");
    hash.update(rustix::system::uname().release().to_bytes());
    let name = hex::encode(hash.finalize());
    let file = path(root, &name);
    if file.exists() {
        return Ok(name);
    }
    let filter = seccomp::compile(&profile, capabilities).map_err(OciError::Seccomp)?;
    let failed = |source| OciError::Io { what: format!("writing {}", file.display()), source };
    let directory = root.join(DIRECTORY);
    std::fs::create_dir_all(&directory).map_err(failed)?;
    // By a name of our own first: another start may write the same at the same time.
    let new = directory.join(format!(".{}", std::process::id()));
    std::fs::write(&new, filter).map_err(failed)?;
    std::fs::rename(&new, &file).map_err(failed)?;
    Ok(name)
}

pub(super) fn open(root: &Path, name: &str) -> Result<File, OciError> {
    let file = path(root, name);
    File::open(&file).map_err(|source| OciError::Io { what: format!("opening {}", file.display()), source })
}
