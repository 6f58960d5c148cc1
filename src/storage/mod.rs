//! What an instance has on disk: its writable layers, the note of its ids, its logs and run directory.
//!
//! Everything is under `<family>/<number>` of one directory each. The directory of an instance is
//! ours alone (`0700`: set-user-ID files may be in it); the layers inside belong to the container's
//! own root. Which ids were used stands beside them as an extended attribute (or, on a file system
//! without, in a link's text): made in one step, so never half-written after a power cut, and gone
//! last.

mod accounts;
mod families;
mod ids;
mod user;

pub use accounts::ids_conflicts;
pub use user::{ResolvedUser, UserError};

use families::Families;

use crate::image::{Layers, Prepared, tree};
use crate::sandbox::{Overlay, Root};
use crate::spec::{IdRange, InstanceId, ObjectId, User};
use crate::sys::may_die;
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The link that names the image's directory, so that it is not removed while it is used.
const IMAGE: &str = "image";
const IDS: &str = "ids";

/// The instances' directories of one agent.
#[derive(Debug, Clone)]
pub struct Storage {
    /// `lib/instances`.
    instances: PathBuf,
    families: Arc<Mutex<Families>>,
    /// `run/instances`.
    run: PathBuf,
    logs: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("{operation} {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} was written with {found} and cannot be used with {wanted}", path.display())]
    OtherIds { path: PathBuf, found: String, wanted: String },
    #[error("{} is not text, which a mount needs", path.display())]
    NotText { path: PathBuf },
}

impl StorageError {
    fn io<E: Into<io::Error>>(operation: &'static str, path: &Path) -> impl FnOnce(E) -> Self + use<E> {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source: source.into() }
    }
}

impl Storage {
    /// `lib`, `run` and `log` are the agent's directories. Nothing is made yet.
    pub fn new(lib: &Path, run: &Path, log: &Path) -> Self {
        let (instances, run) = (lib.join("instances"), run.join("instances"));
        Self { instances, families: Arc::default(), run, logs: log.to_owned() }
    }

    /// Makes the instance's directories around a prepared image; what an interrupted call or an
    /// earlier run of the instance left is used.
    ///
    /// # Errors
    /// When it was made for other ids: its files would belong to somebody else.
    pub fn create(&self, id: &InstanceId, image: &Prepared, ids: Option<IdRange>) -> Result<Root, StorageError> {
        let place = self.place(id);
        let directory = self.open_or_make(&place)?;
        may_die("place made");
        // Before anything is written with them: a missing note means that nothing was.
        ids::note(&directory, &place, ids)?;
        may_die("ids noted");
        match &image.layers {
            Layers::Directory(path) => {
                self.note_image(&directory, &place, path)?;
                Ok(Root::Directory { path: text(path)? })
            }
            Layers::Overlay { base, grafts } => {
                self.note_image(&directory, &place, base)?;
                let owner = ids.map_or(0, |ids| ids.base);
                let base = overlay(&directory, &place, "", base, owner)?;
                let mut mounted = Vec::with_capacity(grafts.len());
                for (name, lower) in grafts.iter() {
                    let graft = overlay(&directory, &place, &format!("{name}."), lower, owner)?;
                    mounted.push((name.clone(), graft));
                }
                Ok(Root::Overlay { base, grafts: mounted })
            }
        }
    }

    /// What an instance that is yet to be made would find in its root.
    pub fn root_of(image: &Prepared) -> Result<Root, StorageError> {
        match &image.layers {
            Layers::Directory(path) | Layers::Overlay { base: path, .. } => Ok(Root::Directory { path: text(path)? }),
        }
    }

    /// Looks a user up in the container's own accounts: `/etc/passwd` and `/etc/group` of its
    /// writable layer, else of the layers below.
    pub fn resolve_user(&self, root: &Root, user: &User) -> Result<ResolvedUser, UserError> {
        user::resolve(root, user)
    }

    /// Takes away everything that the instance has on disk. Fine when there is nothing; after an
    /// error the rest is still listed, with its ids.
    ///
    /// # Errors
    /// Also when something is still mounted below, which then is left alone.
    pub fn remove(&self, id: &InstanceId) -> Result<(), StorageError> {
        let number = id.number.to_string();
        for parent in [&self.run, &self.logs] {
            let family = parent.join(id.family());
            let removing = || StorageError::io("removing", &family.join(&number));
            match tree::open_directory(&family) {
                Ok(opened) => {
                    tree::remove(&opened, &*number).map_err(removing())?;
                    may_die("files removed");
                }
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(removing()(error)),
            }
            remove_empty(&family)?;
        }

        let place = self.place(id);
        let removing = || StorageError::io("removing", &place);
        match tree::open_directory(&place) {
            Ok(directory) => {
                for entry in names(&directory).map_err(removing())? {
                    if entry != IDS {
                        tree::remove(&directory, &*entry).map_err(removing())?;
                        may_die("layer removed");
                    }
                }
                tree::remove(&directory, IDS).map_err(removing())?;
                match rustix::fs::unlinkat(rustix::fs::CWD, &place, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(error) => return Err(removing()(error)),
                }
                may_die("place removed");
            }
            Err(Errno::NOENT) => {}
            Err(error) => return Err(removing()(error)),
        }
        remove_empty(&self.instances.join(id.family()))
    }

    /// Takes away what a removal leaves that was cut off before its last step: directories of objects
    /// without an instance, which nobody would ever look at.
    pub fn sweep(&self) -> Result<(), StorageError> {
        for family in list_or_nothing(&self.instances)? {
            match rustix::fs::rmdir(self.instances.join(&family)) {
                Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                Err(error) => return Err(StorageError::io("removing", &self.instances.join(&family))(error)),
            }
        }
        Ok(())
    }

    /// Every instance that has a directory, with the ids its layers were written with; `None` for
    /// the host's own ids, or when none were used yet.
    pub fn list(&self) -> Result<BTreeMap<InstanceId, Option<IdRange>>, StorageError> {
        let mut found = BTreeMap::new();
        self.each(|id, place| {
            // Without, it was removed while we looked.
            if let Some(noted) = ids::noted_at(place)? {
                found.insert(id, noted.and_then(ids::Noted::range));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// As [`Self::list`], of these objects alone.
    pub fn list_of(&self, objects: &BTreeSet<ObjectId>) -> Result<BTreeMap<InstanceId, Option<IdRange>>, StorageError> {
        let mut found = BTreeMap::new();
        for object in objects {
            let family = self.instances.join(InstanceId::new(object, 0).family());
            let entries = match std::fs::read_dir(&family) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(source) => return Err(StorageError::Io { operation: "listing", path: family, source }),
            };
            for entry in entries {
                let entry =
                    entry.map_err(|source| StorageError::Io { operation: "listing", path: family.clone(), source })?;
                let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
                let id = InstanceId::new(object, number);
                if let Some(ids) = self.look(&id)? {
                    found.insert(id, ids);
                }
            }
        }
        Ok(found)
    }

    /// The ids of one instance's layers: `None` when it has no directory.
    pub fn look(&self, id: &InstanceId) -> Result<Option<Option<IdRange>>, StorageError> {
        Ok(ids::noted_at(&self.place(id))?.map(|noted| noted.and_then(ids::Noted::range)))
    }

    /// The directories of images that some instance is made of.
    pub fn images_in_use(&self) -> Result<BTreeSet<PathBuf>, StorageError> {
        let mut used = BTreeSet::new();
        self.each(|_, place| {
            match std::fs::read_link(place.join(IMAGE)) {
                Ok(image) => {
                    used.insert(image);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StorageError::io("reading the link", &place.join(IMAGE))(error)),
            }
            Ok(())
        })?;
        Ok(used)
    }

    /// Where the instance's writable layers are.
    pub fn place(&self, id: &InstanceId) -> PathBuf {
        self.instances.join(id.family()).join(id.number.to_string())
    }

    /// Where its FIFOs and sockets go; not made here.
    pub fn run_dir(&self, id: &InstanceId) -> PathBuf {
        self.run.join(id.family()).join(id.number.to_string())
    }

    /// Where the log of one run goes; its directory is not made here.
    pub fn log_path(&self, id: &InstanceId, run: u64) -> PathBuf {
        self.log_dir(id).join(format!("{run}.log"))
    }

    fn log_dir(&self, id: &InstanceId) -> PathBuf {
        self.logs.join(id.family()).join(id.number.to_string())
    }

    /// Makes the directory that [`Storage::run_dir`] names.
    pub fn make_run_dir(&self, id: &InstanceId) -> Result<PathBuf, StorageError> {
        let path = self.run_dir(id);
        private(&path)?;
        Ok(path)
    }

    /// Makes the directory of the instance's logs.
    pub fn make_log_dir(&self, id: &InstanceId) -> Result<PathBuf, StorageError> {
        let path = self.log_dir(id);
        private(&path)?;
        Ok(path)
    }

    /// Removes the logs of runs before the previous one, rotated parts included.
    pub fn prune_logs(&self, id: &InstanceId, current_run: u64) -> Result<(), StorageError> {
        let path = self.log_dir(id);
        let directory = match tree::open_directory(&path) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(StorageError::io("opening", &path)(error)),
        };
        for name in names(&directory).map_err(StorageError::io("listing", &path))? {
            let run = name.split_once(".log").and_then(|(run, _)| run.parse::<u64>().ok());
            if run.is_some_and(|run| run.saturating_add(1) < current_run) {
                tree::remove(&directory, &*name).map_err(StorageError::io("removing", &path.join(&name)))?;
            }
        }
        Ok(())
    }

    /// The run with the newest log; the first when there is none.
    pub fn last_run(&self, id: &InstanceId) -> Result<u64, StorageError> {
        let runs = list_or_nothing(&self.log_dir(id))?;
        let runs = runs.iter().filter_map(|name| name.split_once(".log")?.0.parse::<u64>().ok());
        Ok(runs.max().unwrap_or(1))
    }

    fn each(&self, mut visit: impl FnMut(InstanceId, &Path) -> Result<(), StorageError>) -> Result<(), StorageError> {
        let listed = self.families.lock().unwrap_or_else(PoisonError::into_inner).list(&self.instances)?;
        for id in listed {
            let place = self.place(&id);
            visit(id, &place)?;
        }
        Ok(())
    }

    fn open_or_make(&self, place: &Path) -> Result<OwnedFd, StorageError> {
        let mut tries = 0;
        loop {
            match tree::open_directory(place) {
                Ok(directory) => return Ok(directory),
                // Another instance of the family may have gone, and the family's directory with it.
                Err(Errno::NOENT) if tries < 16 => private(place).or_else(|error| match error {
                    StorageError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Ok(()),
                    error => Err(error),
                })?,
                Err(error) => return Err(StorageError::io("making", place)(error)),
            }
            tries += 1;
        }
    }

    fn note_image(&self, directory: &OwnedFd, place: &Path, image: &Path) -> Result<(), StorageError> {
        let noting = || StorageError::io("noting the image beside", place);
        match rustix::fs::readlinkat(directory, IMAGE, Vec::new()) {
            Ok(known) if known.as_bytes() == image.as_os_str().as_encoded_bytes() => return Ok(()),
            Ok(_) | Err(Errno::NOENT) => {}
            Err(error) => return Err(noting()(error)),
        }
        let new = ".image";
        tree::remove(directory, new)
            .and_then(|()| rustix::fs::symlinkat(image, directory, new))
            .inspect(|()| may_die("image half noted"))
            .and_then(|()| rustix::fs::renameat(directory, new, directory, IMAGE))
            .inspect(|()| may_die("image noted"))
            .map_err(noting())
    }
}

/// One overlay whose writable directories are `<prefix>upper` and `<prefix>work`. They stand side by
/// side: each directory more is an inode more, which is what a start has to wait for.
fn overlay(directory: &OwnedFd, place: &Path, prefix: &str, lower: &Path, owner: u32) -> Result<Overlay, StorageError> {
    let path = |name: &str| -> Result<String, StorageError> {
        let name = format!("{prefix}{name}");
        let path = place.join(&name);
        // Everybody inside looks names up in it: it is what `/` shows.
        make(directory, &name, 0o755, owner).map_err(StorageError::io("making", &path))?;
        text(&path)
    };
    Ok(Overlay { lower: vec![text(lower)?], upper: path("upper")?, work: path("work")? })
}

/// Makes a directory with this mode and owner; one that is there keeps what the container made of
/// it. It gets its name when it is complete, so a crash leaves none with the wrong owner.
fn make(parent: &OwnedFd, name: &str, mode: u32, owner: u32) -> Result<(), Errno> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => return Ok(()),
        Ok(_) => return Err(Errno::NOTDIR),
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    let unfinished = format!("{name}.new");
    let mode = Mode::from_raw_mode(mode);
    match rustix::fs::mkdirat(parent, &*unfinished, mode) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    may_die("layer half made");
    rustix::fs::chmodat(parent, &*unfinished, mode, AtFlags::empty())?;
    if owner != 0 {
        let ids = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)));
        rustix::fs::chownat(parent, &*unfinished, ids.0, ids.1, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    rustix::fs::renameat(parent, &*unfinished, parent, name)?;
    may_die("layer made");
    Ok(())
}

fn private(path: &Path) -> Result<(), StorageError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(StorageError::io("making", path))?;
    may_die("directory made");
    Ok(())
}

/// Removes the directory of an object's instances after the last of them.
fn remove_empty(path: &Path) -> Result<(), StorageError> {
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        Err(error) => Err(StorageError::io("removing", path)(error)),
    }
}

fn names(directory: &OwnedFd) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    let mut entries = rustix::fs::Dir::read_from(directory)?;
    while let Some(entry) = entries.read() {
        // A name that is not text is none of ours; a directory that still has it is not removed.
        match entry?.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => names.push(name.to_owned()),
        }
    }
    Ok(names)
}

fn list_or_nothing(path: &Path) -> Result<Vec<String>, StorageError> {
    match tree::open_directory(path) {
        Ok(directory) => names(&directory).map_err(StorageError::io("listing", path)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(Vec::new()),
        Err(error) => Err(StorageError::io("opening", path)(error)),
    }
}

fn text(path: &Path) -> Result<String, StorageError> {
    path.to_str().map(str::to_owned).ok_or_else(|| StorageError::NotText { path: path.to_owned() })
}

#[cfg(test)]
mod tests;
