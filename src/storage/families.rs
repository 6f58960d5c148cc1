//! Which instances have a directory: `<family>/<number>`.
//!
//! A family whose directory has not been written to since it was listed is not listed again; with an
//! instance or two in each, listing would be most of a look at the disk.

use super::{StorageError, list_or_nothing};
use crate::spec::InstanceId;
use rustix::fs::{AtFlags, CWD, FileType};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Debug, Default)]
pub(super) struct Families(BTreeMap<String, Listed>);

/// What was found in a directory, and what the directory was then.
#[derive(Debug)]
struct Listed {
    stamp: Stamp,
    instances: Vec<InstanceId>,
}

/// Device, inode, and when an entry was last made or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    identity: (u64, u64),
    written: Duration,
}

/// Two changes within one tick of the file system's clock have one time.
const TICK: Duration = Duration::from_secs(1);

impl Families {
    /// Everything that stands there.
    pub fn list(&mut self, instances: &Path) -> Result<Vec<InstanceId>, StorageError> {
        let mut before = std::mem::take(&mut self.0);
        let mut found = Vec::with_capacity(before.len());
        for family in list_or_nothing(instances)? {
            let place = instances.join(&family);
            // Taken before it is listed, so that what comes later is seen the next time.
            let Some(stamp) = Stamp::of(&place)? else { continue };
            let known = before.remove(&family).filter(|known| known.stamp == stamp);
            let listed = match known {
                Some(known) => known,
                None => {
                    let named = |number: &String| format!("{family}.{number}").parse().ok();
                    // What has no such name is not ours.
                    Listed { stamp, instances: list_or_nothing(&place)?.iter().filter_map(named).collect() }
                }
            };
            found.extend(listed.instances.iter().cloned());
            if stamp.is_settled(SystemTime::now()) {
                self.0.insert(family, listed);
            }
        }
        Ok(found)
    }
}

impl Stamp {
    /// `None` for what is not there or no directory.
    fn of(place: &Path) -> Result<Option<Self>, StorageError> {
        let stat = match rustix::fs::statat(CWD, place, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(StorageError::io("looking at", place)(error)),
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(None);
        }
        let seconds = Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
        let written = seconds + Duration::from_nanos(stat.st_mtime_nsec);
        Ok(Some(Self { identity: (stat.st_dev, stat.st_ino), written }))
    }

    /// Whether a later change would have another time.
    fn is_settled(self, now: SystemTime) -> bool {
        let age = now.duration_since(UNIX_EPOCH).ok().and_then(|now| now.checked_sub(self.written));
        age.is_some_and(|age| age > TICK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_comes_and_goes_is_seen_whatever_was_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let mut families = Families::default();
        let mut list = || {
            let names = families.list(dir.path()).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
            names.join(" ")
        };
        let place = |name: &str| dir.path().join(name);
        // As if it had been made long ago.
        let age = |name: &str| {
            let old = SystemTime::now() - Duration::from_secs(60);
            fs::File::open(place(name)).unwrap().set_modified(old).unwrap();
        };

        fs::create_dir_all(place("default_web/1")).unwrap();
        fs::create_dir_all(place("default_db/7")).unwrap();
        fs::create_dir_all(place("default_db/none of ours")).unwrap();
        fs::write(place("file"), "").unwrap();
        age("default_web");
        age("default_db");

        let sorted = |text: String| {
            let mut names: Vec<String> = text.split(' ').map(str::to_owned).collect();
            names.sort();
            names
        };
        assert_eq!(sorted(list()), ["default_db.7", "default_web.1"]);
        assert_eq!(sorted(list()), ["default_db.7", "default_web.1"]);
        fs::create_dir(place("default_web/2")).unwrap();
        assert_eq!(sorted(list()), ["default_db.7", "default_web.1", "default_web.2"]);
        fs::rename(place("default_web/2"), place("default_web/3")).unwrap();
        assert_eq!(sorted(list()), ["default_db.7", "default_web.1", "default_web.3"]);
        fs::remove_dir_all(place("default_db")).unwrap();
        assert_eq!(sorted(list()), ["default_web.1", "default_web.3"]);
    }
}
