//! What a manifest names and this host does not have: an image, a program, a directory to mount.
//!
//! Looked for before anything that runs is stopped for it, and when a person asks whether a
//! manifest is right. Reads only. What cannot be told without starting the container is taken to be
//! there.

use super::blueprint::PATH;
use crate::image::tree;
use crate::manifest::{self, Diagnostic, DropIn, MAX_FILE_BYTES};
use crate::spec::{Container, ImageRef, Provenance, Seccomp};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::Path;

/// The field that names the program.
pub(super) const COMMAND: &str = "spec.command.0";

/// Something that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Missing {
    /// The field that names it, steps separated by dots: `spec.mounts.0.host`.
    pub field: String,
    pub message: String,
}

impl Missing {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// The first thing that `spec` names and that is missing. `standing` is the root directory of a
/// running instance whose root filesystem would stay: what was installed there counts too.
pub fn missing(spec: &Container, standing: Option<&OwnedFd>) -> Option<Missing> {
    image(&spec.image)
        .or_else(|| mounts(spec))
        .or_else(|| profile(&spec.security.seccomp))
        .or_else(|| command(spec, standing))
}

/// The root directory of a running process, with what is mounted in it.
pub(super) fn standing(pid: u32) -> Option<OwnedFd> {
    // Without it the image alone is looked at.
    tree::open_directory(Path::new(&format!("/proc/{pid}/root"))).ok()
}

/// As [`missing`], for a revision that would take the place of the running process `pid`.
pub fn missing_beside(spec: &Container, pid: Option<u32>) -> Option<Missing> {
    missing(spec, pid.and_then(standing).as_ref())
}

/// Where the author of a manifest reads about it. `None` when the file has changed since.
pub fn pointed(provenance: &Provenance, missing: &Missing) -> Option<Diagnostic> {
    let read = |path: String| text(&path).map(|bytes| (path, bytes));
    let (path, bytes) = read(provenance.path.clone())?;
    let drop_ins = provenance.drop_ins.iter().map(|name| read(format!("{path}.d/{name}")));
    let drop_ins: Vec<(String, Vec<u8>)> = drop_ins.collect::<Option<_>>()?;
    let drop_ins: Vec<DropIn<'_>> = drop_ins.iter().map(|(file, bytes)| DropIn { file, bytes }).collect();
    manifest::point((&path, &bytes), &drop_ins, &provenance.revision, &missing.field, &missing.message)
}

fn text(path: &str) -> Option<Vec<u8>> {
    // A name in a watched directory may have become a FIFO meanwhile, which would hang.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).ok()?;
    let limit = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
    match tree::read_regular(file, limit).ok()? {
        tree::Regular::Read(bytes) => Some(bytes),
        _ => None,
    }
}

fn image(image: &ImageRef) -> Option<Missing> {
    let (path, is_right, kind): (_, fn(&std::fs::Metadata) -> bool, _) = match image {
        ImageRef::Host => return None,
        ImageRef::Rootfs(path) => (path, std::fs::Metadata::is_dir, "directory"),
        ImageRef::Tar(path) => (path, std::fs::Metadata::is_file, "file"),
    };
    let message = match std::fs::metadata(path.as_str()) {
        Ok(found) if is_right(&found) => return None,
        Ok(_) => format!("{image}: is not a {kind}"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => format!("{image}: there is no such {kind}"),
        // Whoever asks may not be allowed to look.
        Err(_) => return None,
    };
    Some(Missing::new("spec.image", message))
}

fn mounts(spec: &Container) -> Option<Missing> {
    spec.mounts.iter().enumerate().find_map(|(index, mount)| {
        let from = mount.host.as_ref()?;
        let error = std::fs::symlink_metadata(from.as_str()).err()?;
        let message = format!("the mount at {}: {from} is not there on the host", mount.path);
        (error.kind() == std::io::ErrorKind::NotFound)
            .then(|| Missing::new(format!("spec.mounts.{index}.host"), message))
    })
}

fn profile(seccomp: &Seccomp) -> Option<Missing> {
    let Seccomp::File(path) = seccomp else { return None };
    let error = std::fs::metadata(path.as_str()).err()?;
    (error.kind() == std::io::ErrorKind::NotFound)
        .then(|| Missing::new("spec.security.seccomp", format!("the profile {path} is not there on the host")))
}

fn command(spec: &Container, standing: Option<&OwnedFd>) -> Option<Missing> {
    let program = spec.command.first()?;
    let base = match &spec.image {
        ImageRef::Host => Path::new("/"),
        ImageRef::Rootfs(path) => Path::new(path.as_str()),
        // Not before it is unpacked.
        ImageRef::Tar(_) => return None,
    };
    let base = tree::open_directory(base).ok()?;
    let candidates = if program.starts_with('/') {
        vec![program.clone()]
    } else if program.contains('/') {
        return None;
    } else {
        let given = spec.env.iter().find(|(name, _)| name.as_str() == "PATH").map(|(_, value)| value.as_str());
        let path = given.unwrap_or_else(|| PATH.trim_start_matches("PATH="));
        path.split(':').map(|directory| format!("{directory}/{program}")).collect()
    };
    // What a mount brings with it is not looked through, nor what a mount may hide.
    let mounted =
        |candidate: &str| spec.mounts.iter().any(|mount| Path::new(candidate).starts_with(mount.path.as_str()));
    if candidates.iter().any(|candidate| mounted(candidate)) {
        return None;
    }
    let mut found = Found::Nothing;
    for candidate in &candidates {
        for root in std::iter::once(&base).chain(standing) {
            found = found.max(look(root, candidate));
        }
    }
    let message = match found {
        Found::Program | Found::Unknown => return None,
        Found::NoProgram => format!("the command {program} is not an executable file"),
        Found::Nothing if program.starts_with('/') => format!("the command {program} is not there in {}", spec.image),
        Found::Nothing => format!("the command {program} is in no directory of the PATH in {}", spec.image),
    };
    Some(Missing::new(COMMAND, message))
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    Nothing,
    NoProgram,
    /// A link out of reach, or something that may not be looked at.
    Unknown,
    Program,
}

fn look(root: &OwnedFd, program: &str) -> Found {
    match tree::open_in_root(root, program, OFlags::PATH) {
        Ok(file) => match rustix::fs::fstat(&file) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & 0o111 != 0 => {
                Found::Program
            }
            Ok(_) => Found::NoProgram,
            Err(_) => Found::Unknown,
        },
        Err(Errno::NOENT | Errno::NOTDIR) => Found::Nothing,
        Err(_) => Found::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(spec: &str) -> Option<(String, String)> {
        let spec: Container = serde_json::from_value(serde_json::from_str(spec).unwrap()).unwrap();
        missing(&spec, None).map(|Missing { field, message }| (field, message))
    }

    #[test]
    fn what_is_missing_is_named_with_its_field() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display();
        std::fs::write(dir.path().join("text"), "").unwrap();

        let image = said(&format!(r#"{{"image": "rootfs:{path}/none", "command": ["/bin/sh"]}}"#));
        let tarball = said(&format!(r#"{{"image": "tar:{path}", "command": ["/bin/sh"]}}"#));
        let command = said(r#"{"image": "host:/", "command": ["/usr/bin/no-such-program"]}"#);
        let bare = said(r#"{"image": "host:/", "command": ["no-such-program"]}"#);
        let text = said(&format!(r#"{{"image": "rootfs:{path}", "command": ["/text"]}}"#));
        let mount = said(&format!(
            r#"{{"image": "host:/", "command": ["sh"], "mounts": [{{"path": "/a", "host": "{path}/none"}}]}}"#
        ));

        let pair = |field: &str, message: String| Some((field.to_owned(), message));
        assert_eq!(image, pair("spec.image", format!("rootfs:{path}/none: there is no such directory")));
        assert_eq!(tarball, pair("spec.image", format!("tar:{path}: is not a file")));
        let text_of = |program| format!("the command {program} is not there in host:/");
        assert_eq!(command, pair("spec.command.0", text_of("/usr/bin/no-such-program")));
        let message = "the command no-such-program is in no directory of the PATH in host:/".to_owned();
        assert_eq!(bare, pair(COMMAND, message));
        assert_eq!(text, pair("spec.command.0", "the command /text is not an executable file".to_owned()));
        let message = format!("the mount at /a: {path}/none is not there on the host");
        assert_eq!(mount, pair("spec.mounts.0.host", message));
    }

    #[test]
    fn what_is_there_or_cannot_be_told_is_not_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display();
        std::fs::write(dir.path().join("image.tar"), "").unwrap();

        for spec in [
            r#"{"image": "host:/", "command": ["sh"]}"#.to_owned(),
            r#"{"image": "host:/", "command": ["/bin/sh"]}"#.to_owned(),
            format!(r#"{{"image": "tar:{path}/image.tar", "command": ["/any"]}}"#),
            format!(
                r#"{{"image": "host:/", "command": ["/opt/app/run"], "mounts": [{{"path": "/opt", "host": "{path}"}}]}}"#
            ),
        ] {
            assert_eq!(said(&spec), None, "{spec}");
        }
    }
}
