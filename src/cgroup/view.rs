//! Where an instance is now, for those who come later: a command run inside, a new keeper, a reader.

use super::place::{Directory, Place};
use super::table::{Controller, Version};
use super::{CgroupError, CgroupJoinPaths, Cgroups, Statistics};
use crate::spec::InstanceId;

impl Cgroups {
    /// Every controller is in the v2 hierarchy, so a container's own part of it tells everything.
    pub fn is_unified(&self) -> bool {
        self.hierarchies.iter().all(|hierarchy| hierarchy.version == Version::V2)
    }

    /// The directories in which the instance's processes are, and nobody else's: what is found in one of
    /// them is its own.
    pub fn own(&self, instance: &InstanceId) -> Vec<std::path::PathBuf> {
        let unified = self.unified().map(|index| {
            let payload = format!("{}{}", self.hierarchies[index].mount, self.unified_payload(instance));
            std::path::PathBuf::from(payload)
        });
        let v1 = self.hierarchies.iter().enumerate().filter(|(_, hierarchy)| hierarchy.version == Version::V1);
        unified.into_iter().chain(v1.map(|(index, _)| self.path(index, instance))).collect()
    }

    /// What the instance has used, by every file that tells of it. Reads only.
    pub fn statistics(&self, instance: &InstanceId) -> Result<Statistics, CgroupError> {
        let directories = self.hierarchies.iter().enumerate().map(|(index, hierarchy)| Directory {
            version: hierarchy.version,
            controllers: hierarchy.controllers.clone(),
            mount: String::new(),
            path: self.path(index, instance).to_string_lossy().into_owned(),
        });
        Place::of(directories.collect()).statistics()
    }

    /// The directories that the instance's processes are in now. A limit that was added while it ran
    /// may have brought another v1 hierarchy than those it was born into.
    pub fn present(&self, instance: &InstanceId) -> CgroupJoinPaths {
        let mut join = CgroupJoinPaths::default();
        if let Some(index) = self.unified() {
            join.unified = Some(format!("{}{}", self.hierarchies[index].mount, self.unified_payload(instance)));
        }
        for (index, hierarchy) in self.hierarchies.iter().enumerate() {
            let path = self.path(index, instance);
            if hierarchy.version == Version::V1 && path.exists() {
                join.v1.push(path.to_string_lossy().into_owned());
            }
        }
        if let Some(index) = self.v1_home(Controller::Devices) {
            join.v1.push(format!("{}{}/c", self.hierarchies[index].mount, self.parent));
        }
        join
    }
}
