//! A manifest's container without an agent: what it would be made as, for who makes it by other means.

use super::blueprint::{Prepared, blueprint};
use super::machine::MachineError;
use super::paths::Paths;
use super::privileges::grantable;
use super::references;
use super::seccomp_cache;
use crate::image::{Images, Layers};
use crate::sandbox::seccomp::{self, Profile};
use crate::sandbox::{Blueprint, CgroupJoin, CgroupView};
use crate::spec::{IdRange, InstanceId, Object};
use crate::storage::Storage;
use std::path::PathBuf;

/// What a container is made as. Its cgroup is for others to choose.
#[derive(Debug)]
pub struct Alone {
    /// With the image's own directory as the root, which is written to directly.
    pub blueprint: Blueprint,
    /// What is mounted over directories of the root before all else, for the host's own programs.
    pub grafts: Vec<(String, PathBuf)>,
    /// Its filter as rules that count without a condition; `None` for no filter.
    pub profile: Option<Profile>,
}

/// `paths` are where an image is unpacked that is no directory yet.
///
/// # Errors
/// When something that the manifest names is not on this host.
pub fn alone(object: &Object, paths: &Paths) -> Result<Alone, MachineError> {
    let Object { id, labels: _, annotations: _, spec } = object;
    if let Some(missing) = references::missing(spec, None).filter(|missing| missing.field != references::COMMAND) {
        return Err(missing.into());
    }
    let instance = InstanceId { namespace: id.namespace.clone(), name: id.name.clone(), number: 1 };
    let image = Images::new(&paths.lib).prepare(&spec.image)?;
    let root = Storage::root_of(&image)?;
    let storage = Storage::new(&paths.lib, &paths.run, &paths.log);
    let user = storage.resolve_user(&root, &spec.user)?;
    let ids = spec.security.user_namespace.then(|| IdRange { base: paths.id_base(), size: IdRange::SIZE });
    let capabilities = grantable(spec.security.capabilities.mask(), ids.is_some())?;
    let profile = seccomp_cache::profile(&spec.security.seccomp).map_err(super::seccomp_cache::FilterError::from)?;
    let profile = profile.map(|profile| seccomp::for_capabilities(&profile, capabilities));
    let grafts = match &image.layers {
        Layers::Directory(_) => Vec::new(),
        Layers::Overlay { base: _, grafts } => grafts.to_vec(),
    };
    let prepared = Prepared {
        instance: &instance,
        root,
        ids,
        user: &user,
        cgroup: CgroupJoin::default(),
        cgroup_view: CgroupView::Unified,
        capabilities,
        seccomp: profile.is_some(),
    };
    Ok(Alone { blueprint: blueprint(spec, prepared), grafts, profile })
}
