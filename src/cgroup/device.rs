//! Disks by the paths on them.

use super::CgroupError;
use super::table::{DeviceLimits, DeviceNumber};
use crate::spec::{AbsolutePath, IoLimit};
use rustix::fs::FileType;
use std::collections::BTreeMap;
use std::path::Path;

/// Limits per disk. Two paths on one disk share its limits, the tighter of each.
pub fn resolve(limits: &[IoLimit]) -> Result<BTreeMap<DeviceNumber, DeviceLimits>, CgroupError> {
    let mut disks = BTreeMap::new();
    for limit in limits {
        let disk = whole_disk(&limit.path)?;
        let limits = DeviceLimits::from(limit);
        disks.entry(disk).and_modify(|old: &mut DeviceLimits| *old = old.tighter(&limits)).or_insert(limits);
    }
    Ok(disks)
}

/// The disk that holds `path`: throttling is done per queue, and a partition has none of its own.
fn whole_disk(path: &AbsolutePath) -> Result<DeviceNumber, CgroupError> {
    let no_disk = |reason: String| CgroupError::NoDisk { path: path.as_str().to_owned(), reason };
    let stat = rustix::fs::stat(path.as_str()).map_err(|error| no_disk(error.to_string()))?;
    let is_block = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
    let number = if is_block { stat.st_rdev } else { stat.st_dev };
    let device = DeviceNumber { major: rustix::fs::major(number), minor: rustix::fs::minor(number) };
    if device.major == 0 {
        return Err(no_disk("its file system is not on one block device (tmpfs, overlay, btrfs, network)".to_owned()));
    }
    let block = format!("/sys/dev/block/{device}");
    if Path::new(&format!("{block}/partition")).exists() {
        let text = std::fs::read_to_string(format!("{block}/../dev"))
            .map_err(|error| no_disk(format!("reading {block}/../dev: {error}")))?;
        return DeviceNumber::parse(text.trim())
            .ok_or_else(|| no_disk(format!("{block}/../dev says {:?}", text.trim())));
    }
    if Path::new(&block).exists() { Ok(device) } else { Err(no_disk(format!("{block} does not exist"))) }
}
