//! Where everything stands on this host: the system's places, or all of it under `--root`.

use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The directories and names of one agent. Two agents with different roots share none of them.
#[derive(Debug, Clone)]
pub struct Paths {
    /// `--root`, made absolute; `None` for the system's own agent.
    pub root: Option<PathBuf>,
    /// State: database, images, root filesystems.
    pub lib: PathBuf,
    /// Run time: sockets, FIFOs.
    pub run: PathBuf,
    /// Logs of containers.
    pub log: PathBuf,
    /// The cgroup that everything is below, from the hierarchies' roots.
    pub cgroup_parent: String,
    /// Which block of id ranges is ours: 0 for the system's agent.
    id_slot: u32,
}

/// Ranges of 65,536 ids per agent.
pub const ID_RANGES: u32 = 1024;
/// The first id of the first block. Below are the accounts of the host and, by custom of
/// useradd(8), the ranges of /etc/subuid; `plim check` looks whether that is so here.
const ID_FIRST: u32 = 0x1000_0000;
/// How many blocks fit below 2^32 - 65536: the last range is kept free, 4294967295 is no id.
const ID_BLOCKS: u32 = 59;

impl Paths {
    /// Makes nothing. A root that is not there yet is taken by its absolute name.
    pub fn new(root: Option<&Path>) -> std::io::Result<Self> {
        let Some(root) = root else {
            return Ok(Self {
                root: None,
                lib: "/var/lib/plimsoll".into(),
                run: "/run/plimsoll".into(),
                log: "/var/log/plimsoll".into(),
                cgroup_parent: "/plimsoll".to_owned(),
                id_slot: 0,
            });
        };
        let root = match root.canonicalize() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => std::path::absolute(root)?,
            root => root?,
        };
        let digest = Sha256::digest(root.as_os_str().as_encoded_bytes());
        let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        Ok(Self {
            lib: root.join("lib"),
            run: root.join("run"),
            log: root.join("log"),
            cgroup_parent: format!("/plimsoll-{}", hex::encode(&digest[..4])),
            id_slot: 1 + number % (ID_BLOCKS - 1),
            root: Some(root),
        })
    }

    /// Puts the cgroups elsewhere, as where a service manager has handed a part of the tree over.
    pub fn below(mut self, cgroup_parent: Option<String>) -> Self {
        if let Some(parent) = cgroup_parent {
            self.cgroup_parent = parent;
        }
        self
    }

    /// The first id that containers of this agent get.
    pub fn id_base(&self) -> u32 {
        ID_FIRST + self.id_slot * ID_RANGES * crate::spec::IdRange::SIZE
    }

    /// The agent's socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join("plim.sock")
    }

    pub fn keeper_socket(&self) -> PathBuf {
        self.run.join("keeper.sock")
    }

    pub fn database(&self) -> PathBuf {
        self.lib.join("db")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_roots_share_no_directory_and_no_cgroup() {
        let dir = tempfile::tempdir().unwrap();

        let a = Paths::new(Some(&dir.path().join("a"))).unwrap();
        let b = Paths::new(Some(&dir.path().join("b"))).unwrap();

        assert_ne!(a.cgroup_parent, b.cgroup_parent);
        assert_ne!(a.lib, b.lib);
        assert_ne!(a.cgroup_parent, Paths::new(None).unwrap().cgroup_parent);
    }

    #[test]
    fn the_last_block_of_ids_ends_below_the_largest_id() {
        let last = u64::from(ID_FIRST) + u64::from(ID_BLOCKS) * u64::from(ID_RANGES) * 65_536;

        assert!(last <= u64::from(u32::MAX) - 65_535, "{last}");
    }
}
