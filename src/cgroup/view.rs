//! What of the hierarchies a container may see.

use super::Cgroups;
use super::detect::Version;

impl Cgroups {
    /// Every controller is in the v2 hierarchy, so a container's own part of it tells everything.
    pub fn is_unified(&self) -> bool {
        self.hierarchies.iter().all(|hierarchy| hierarchy.version == Version::V2)
    }
}
