//! Where root filesystems come from: the host's own programs, a directory, a tarball.
//!
//! [`Images::prepare`] turns a reference into directories that can be the lower layers of an
//! overlay, or the root itself. What it unpacks or generates is kept under the name of its content
//! and never changed in place, so that a running container's layers stay what they were.

mod host;
mod skeleton;
mod tarball;
pub(crate) mod tree;

use crate::spec::ImageRef;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The images of one agent.
#[derive(Debug)]
pub struct Images {
    /// `lib/images`.
    directory: PathBuf,
    /// The agent's own state, which no image may contain.
    state: PathBuf,
    host: Mutex<Option<host::Known>>,
    /// Content by the identity of the file that was hashed.
    tarballs: Mutex<BTreeMap<(PathBuf, tarball::Stamp), Prepared>>,
}

/// An image that is ready to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    pub layers: Layers,
    /// `sha256:…` of what the image is. An image without one never causes a new root filesystem by
    /// itself.
    pub digest: Option<String>,
    /// For a person: what was left out.
    pub notes: Arc<[String]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layers {
    /// This directory is the root filesystem, written to directly.
    Directory(PathBuf),
    /// Read-only layers for an overlay, and what is mounted over directories in it.
    Overlay { base: PathBuf, grafts: Arc<[(String, PathBuf)]> },
}

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("{operation} {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("rootfs:{}: {}", path.display(), .why)]
    Rootfs { path: PathBuf, why: &'static str },
    #[error("host:/ would contain the agent's own state, {}: choose another --root", state.display())]
    OwnState { state: PathBuf },
    #[error("host:/ needs {} to be a directory", path.display())]
    NoHostDirectory { path: PathBuf },
    #[error("tar:{}: {why}", path.display())]
    Tarball { path: PathBuf, why: String },
    #[error("tar:{}: {entry:?}: {why}", path.display())]
    Entry { path: PathBuf, entry: String, why: &'static str },
    #[error("tar:{}: {operation} {entry:?}", path.display())]
    Unpack {
        path: PathBuf,
        operation: &'static str,
        entry: String,
        #[source]
        source: io::Error,
    },
}

impl ImageError {
    /// The same error as a function that maps a cause: `.map_err(ImageError::io("reading", path))`.
    fn io<E: Into<io::Error>>(operation: &'static str, path: &Path) -> impl FnOnce(E) -> Self + use<E> {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source: source.into() }
    }
}

impl Images {
    /// Images kept in `images` below the agent's state directory. Nothing is made yet.
    pub fn new(lib: impl Into<PathBuf>) -> Self {
        let state = lib.into();
        Self { directory: state.join("images"), state, host: Mutex::new(None), tarballs: Mutex::new(BTreeMap::new()) }
    }

    /// Makes the image's directories ready. Cheap when nothing has changed: a few `stat`s.
    ///
    /// # Errors
    /// When the image is not there, not what its transport says, or cannot be unpacked; nothing is
    /// left of a failed try.
    pub fn prepare(&self, image: &ImageRef) -> Result<Prepared, ImageError> {
        match image {
            ImageRef::Host => {
                let mut known = self.host.lock().unwrap_or_else(PoisonError::into_inner);
                host::prepare(&self.directory.join("host"), &self.state, Path::new("/"), &mut known)
            }
            ImageRef::Rootfs(path) => rootfs(Path::new(path.as_str())),
            ImageRef::Tar(path) => {
                let path = Path::new(path.as_str());
                // Held while unpacking: two containers of one image wait for one unpacking.
                let mut known = self.tarballs.lock().unwrap_or_else(PoisonError::into_inner);
                let file = tarball::open(path)?;
                let key = (path.to_owned(), file.stamp);
                if let Some(prepared) = known.get(&key).filter(|prepared| prepared.stands()) {
                    return Ok(prepared.clone());
                }
                let prepared = tarball::prepare(&self.directory.join("tar"), file)?;
                known.retain(|(other, _), _| other != path);
                known.insert(key, prepared.clone());
                Ok(prepared)
            }
        }
    }

    /// Removes generated and unpacked images that are neither in `used` (the directories named by
    /// [`crate::storage::Storage::images_in_use`]) nor current, and what an interrupted preparation
    /// left. Not to be called while a container is being started.
    pub fn gc(&self, used: &BTreeSet<PathBuf>) -> Result<Vec<PathBuf>, ImageError> {
        let mut removed = Vec::new();
        let host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tarballs = self.tarballs.lock().unwrap_or_else(PoisonError::into_inner);
        let current = host.as_ref().map(host::Known::base);
        for transport in ["host", "tar"] {
            let directory = self.directory.join(transport);
            let opened = match tree::open_directory(&directory) {
                Ok(opened) => opened,
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(ImageError::io("opening", &directory)(error)),
            };
            let entries = std::fs::read_dir(&directory).map_err(ImageError::io("listing", &directory))?;
            for entry in entries {
                let entry = entry.map_err(ImageError::io("listing", &directory))?;
                let path = entry.path();
                if used.contains(&path) || current == Some(path.as_path()) {
                    continue;
                }
                // Under another name first: half of an image must never be taken for one.
                let name = entry.file_name();
                let mut doomed = std::ffi::OsString::from(".old-");
                doomed.push(&name);
                rustix::fs::renameat(&opened, &name, &opened, &doomed).map_err(ImageError::io("removing", &path))?;
                tree::remove(&opened, &doomed).map_err(ImageError::io("removing", &path))?;
                removed.push(path);
            }
        }
        tarballs.retain(|_, prepared| prepared.stands());
        Ok(removed)
    }
}

impl Prepared {
    /// Whether its directory is still there.
    fn stands(&self) -> bool {
        match &self.layers {
            Layers::Directory(path) | Layers::Overlay { base: path, .. } => path.is_dir(),
        }
    }
}

fn rootfs(path: &Path) -> Result<Prepared, ImageError> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            Ok(Prepared { layers: Layers::Directory(path.to_owned()), digest: None, notes: Arc::from([]) })
        }
        Ok(_) => Err(ImageError::Rootfs { path: path.to_owned(), why: "is not a directory" }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(ImageError::Rootfs { path: path.to_owned(), why: "there is no such directory" })
        }
        Err(error) => Err(ImageError::io("looking at", path)(error)),
    }
}

/// Makes the directory that holds images, for us alone: files in images may be set-user-ID.
fn make_private(path: &Path) -> Result<(), ImageError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(ImageError::io("making", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rootfs_has_to_be_a_directory_and_the_error_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::new(dir.path().join("lib"));
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let reference = |path: &Path| ImageRef::try_from(format!("rootfs:{}", path.display())).unwrap();

        let missing = images.prepare(&reference(&dir.path().join("missing"))).unwrap_err().to_string();
        let wrong = images.prepare(&reference(&file)).unwrap_err().to_string();
        let fine = images.prepare(&reference(dir.path())).unwrap();

        assert!(missing.contains("/missing: there is no such directory"), "{missing}");
        assert!(wrong.contains("/file: is not a directory"), "{wrong}");
        assert_eq!(fine.layers, Layers::Directory(dir.path().to_owned()));
        assert_eq!(fine.digest, None);
    }

    mod root {
        use super::*;

        fn tarball(path: &Path, content: &[u8]) -> ImageRef {
            let mut header = tar::Header::new_gnu();
            header.set_size(u64::try_from(content.len()).unwrap());
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            let mut builder = tar::Builder::new(std::fs::File::create(path).unwrap());
            builder.append_data(&mut header, "file", content).unwrap();
            builder.finish().unwrap();
            format!("tar:{}", path.display()).try_into().unwrap()
        }

        fn base(prepared: &Prepared) -> PathBuf {
            match &prepared.layers {
                Layers::Overlay { base, .. } => base.clone(),
                Layers::Directory(path) => path.clone(),
            }
        }

        #[test]
        #[ignore = "needs root"]
        fn what_is_used_or_current_is_kept() {
            let dir = tempfile::tempdir().unwrap();
            let images = Images::new(dir.path().join("lib"));
            let reference = tarball(&dir.path().join("image.tar"), b"one");
            let first = images.prepare(&reference).unwrap();
            assert_eq!(images.prepare(&reference).unwrap(), first);
            tarball(&dir.path().join("image.tar"), b"two!");
            let second = images.prepare(&reference).unwrap();
            assert_ne!(first.digest, second.digest);
            let host = images.prepare(&ImageRef::Host).unwrap();
            std::fs::create_dir(dir.path().join("lib/images/tar/.new-interrupted")).unwrap();

            let removed = images.gc(&BTreeSet::from([base(&first)])).unwrap();

            assert_eq!(removed.len(), 2, "{removed:?}");
            assert!(base(&first).exists() && base(&host).exists() && !base(&second).exists());
            // What was removed is made again when it is asked for.
            assert_eq!(images.prepare(&reference).unwrap(), second);
            assert!(base(&second).join("file").is_file());
        }
    }
}
