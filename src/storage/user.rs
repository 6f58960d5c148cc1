//! Who a manifest's `user` is inside a container.
//!
//! The container can write these files. They decide only who its own command is, inside its own
//! ids: numbers are read strictly, files are bounded, regular and found without leaving the layer.

use crate::image::tree;
use crate::sandbox::{Overlay, Root};
use crate::spec::{IdRange, IdSpec, User};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::io;
use std::path::Path;

const MAX_FILE: u64 = 1 << 20;
const MAX_GROUPS: usize = 64;

/// Ids inside the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedUser {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    pub home: String,
}

#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("the image has no user {0:?} in its /etc/passwd")]
    NoUser(String),
    #[error("the image has no group {0:?} in its /etc/group")]
    NoGroup(String),
    #[error("reading {file} of the image in {layer}")]
    Read {
        file: &'static str,
        layer: String,
        #[source]
        source: io::Error,
    },
    #[error("{file} of the image in {layer} is not a regular file of at most 1 MiB")]
    Unusable { file: &'static str, layer: String },
}

struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

pub(super) fn resolve(root: &Root, user: &User) -> Result<ResolvedUser, UserError> {
    let User { user, group } = user;
    let passwd = read(root, "etc/passwd")?;
    let account = lines(&passwd).filter_map(account).find(|account| match user {
        IdSpec::Id(id) => account.uid == *id,
        IdSpec::Name(name) => account.name == *name,
    });
    let uid = match (user, &account) {
        (IdSpec::Id(id), _) => *id,
        (IdSpec::Name(_), Some(account)) => account.uid,
        (IdSpec::Name(name), None) => return Err(UserError::NoUser(name.clone())),
    };
    let home = account.as_ref().map_or_else(|| String::from("/"), |account| account.home.clone());
    let primary = account.as_ref().map_or(0, |account| account.gid);

    // A group that is asked for is the only one.
    let (gid, groups) = match group {
        Some(IdSpec::Id(gid)) => (*gid, Vec::new()),
        Some(IdSpec::Name(name)) => {
            let groups = read(root, "etc/group")?;
            let found = lines(&groups).filter_map(self::group).find(|group| group.name == *name);
            (found.ok_or_else(|| UserError::NoGroup(name.clone()))?.gid, Vec::new())
        }
        None => match &account {
            None => (primary, Vec::new()),
            Some(account) => {
                let text = read(root, "etc/group")?;
                let mut groups: Vec<u32> = lines(&text)
                    .filter_map(self::group)
                    .filter(|group| group.members.contains(&account.name) && group.gid != primary)
                    .map(|group| group.gid)
                    .collect();
                groups.sort_unstable();
                groups.dedup();
                groups.truncate(MAX_GROUPS);
                (primary, groups)
            }
        },
    };
    Ok(ResolvedUser { uid, gid, groups, home })
}

/// The file as the container sees it: of the first layer that has it or says that it is gone.
/// Empty when there is none.
fn read(root: &Root, file: &'static str) -> Result<Vec<u8>, UserError> {
    let layers: Vec<&str> = match root {
        Root::Directory { path } => vec![path],
        Root::Overlay { base: Overlay { lower, upper, work: _ }, grafts: _ } => {
            std::iter::once(upper).chain(lower).map(String::as_str).collect()
        }
    };
    for layer in layers {
        let failed = |error: Errno| UserError::Read { file, layer: layer.to_owned(), source: error.into() };
        let unusable = || UserError::Unusable { file, layer: layer.to_owned() };
        let directory = match tree::open_directory(Path::new(layer)) {
            Ok(directory) => directory,
            Err(error) => return Err(failed(error)),
        };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = match tree::open_in_root(&directory, file, flags) {
            Ok(opened) => opened,
            Err(Errno::NOENT) => {
                if hides_lower(&directory).map_err(failed)? {
                    return Ok(Vec::new());
                }
                continue;
            }
            // A whiteout of the directory, or of the file: a device that nobody may open.
            Err(Errno::NOTDIR | Errno::NXIO | Errno::NODEV | Errno::ACCESS) => return Ok(Vec::new()),
            Err(Errno::LOOP | Errno::NAMETOOLONG) => return Err(unusable()),
            Err(error) => return Err(failed(error)),
        };
        return match tree::read_regular(opened, MAX_FILE) {
            Ok(tree::Regular::Read(content)) => Ok(content),
            Ok(tree::Regular::Other | tree::Regular::TooLarge) => Err(unusable()),
            Err(source) => Err(UserError::Read { file, layer: layer.to_owned(), source }),
        };
    }
    Ok(Vec::new())
}

/// Whether the layer's `/etc` was made anew, so that nothing of the layers below shows in it.
fn hides_lower(layer: &std::os::fd::OwnedFd) -> Result<bool, Errno> {
    let etc = match tree::open_in_root(layer, "etc", OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(etc) => etc,
        Err(Errno::NOENT) => return Ok(false),
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(true),
        Err(error) => return Err(error),
    };
    let mut value = [0_u8; 8];
    // overlay(5): `userxattr` mounts, as inside a user namespace, use the second name.
    for name in ["trusted.overlay.opaque", "user.overlay.opaque"] {
        if let Ok(length) = rustix::fs::fgetxattr(&etc, name, &mut value[..]) {
            return Ok(value[..length] == *b"y");
        }
    }
    Ok(false)
}

fn lines(content: &[u8]) -> impl Iterator<Item = &str> {
    content.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok())
}

fn account(line: &str) -> Option<Account> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
    let home = if home.starts_with('/') && !home.contains('\0') { home } else { "/" };
    Some(Account { name: name.to_owned(), uid: number(uid)?, gid: number(gid)?, home: home.to_owned() })
}

fn group(line: &str) -> Option<Group> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, gid, members] = fields[..] else { return None };
    let members = members.split(',').map(|member| member.trim().to_owned()).collect();
    Some(Group { name: name.to_owned(), gid: number(gid)?, members })
}

/// Digits alone, inside a container's ids: a number that is nearly one must never be somebody else.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id < IdRange::SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    struct Layers(tempfile::TempDir);

    impl Layers {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for path in ["upper", "work", "lower/etc"] {
                fs::create_dir_all(dir.path().join(path)).unwrap();
            }
            let layers = Self(dir);
            layers.write(
                "lower/etc/passwd",
                "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/sh\nweb:x:1:1::/second:/bin/sh\n",
            );
            layers.write("lower/etc/group", "root:x:0:\nweb:x:34:\nadm:x:4:root,web\ntty:x:5:web\nbig:x:99999:web\n");
            layers
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn write(&self, path: &str, text: impl AsRef<[u8]>) {
            let path = self.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn resolve(&self, user: &str) -> Result<ResolvedUser, UserError> {
            let path = |path| self.path(path).to_str().unwrap().to_owned();
            let base = Overlay { lower: vec![path("lower")], upper: path("upper"), work: path("work") };
            resolve(&Root::Overlay { base, grafts: Vec::new() }, &user.parse().unwrap())
        }
    }

    fn user(uid: u32, gid: u32, groups: &[u32], home: &str) -> ResolvedUser {
        ResolvedUser { uid, gid, groups: groups.to_vec(), home: home.to_owned() }
    }

    #[test]
    fn names_and_numbers_as_docker_reads_them() {
        let layers = Layers::new();

        for (asked, expected) in [
            ("0", user(0, 0, &[4], "/root")),
            ("web", user(33, 34, &[4, 5], "/var/www")),
            ("33", user(33, 34, &[4, 5], "/var/www")),
            ("33:7", user(33, 7, &[], "/var/www")),
            ("web:adm", user(33, 4, &[], "/var/www")),
            ("4000", user(4000, 0, &[], "/")),
            ("4000:adm", user(4000, 4, &[], "/")),
        ] {
            assert_eq!(layers.resolve(asked).unwrap(), expected, "{asked}");
        }
        assert!(matches!(layers.resolve("nobody"), Err(UserError::NoUser(name)) if name == "nobody"));
        assert!(matches!(layers.resolve("web:nogroup"), Err(UserError::NoGroup(name)) if name == "nogroup"));
        assert!(matches!(layers.resolve("web:big"), Err(UserError::NoGroup(_))), "beyond a container's ids");
    }

    #[test]
    fn the_writable_layer_comes_first() {
        let layers = Layers::new();
        layers.write("upper/etc/passwd", "web:x:77:78::/new:/bin/sh\n");

        assert_eq!(layers.resolve("web").unwrap(), user(77, 78, &[4, 5], "/new"));
    }

    #[test]
    fn an_image_without_accounts_has_numbers() {
        let layers = Layers::new();
        fs::remove_dir_all(layers.path("lower/etc")).unwrap();

        assert_eq!(layers.resolve("5:6").unwrap(), user(5, 6, &[], "/"));
        assert!(layers.resolve("web").is_err());
    }

    #[test]
    fn hostile_accounts_are_nobody() {
        for line in [
            "web:x:-1:0::/:/bin/sh",
            "web:x:+0:0::/:/bin/sh",
            "web:x: 0:0::/:/bin/sh",
            "web:x:4294967296:0::/:/bin/sh",
            "web:x:65536:0::/:/bin/sh",
            "web:x::0::/:/bin/sh",
            "web:x:0",
            "web",
            "",
        ] {
            let layers = Layers::new();
            layers.write("upper/etc/passwd", line);
            assert!(matches!(layers.resolve("web"), Err(UserError::NoUser(_))), "{line}");
        }
        let layers = Layers::new();
        layers.write("upper/etc/passwd", b"\xff\xfe:x:0:0\nweb:x:5:6::not/absolute:/bin/sh\n");
        assert_eq!(layers.resolve("web").unwrap().home, "/");
    }

    #[test]
    fn hostile_files_are_not_read() {
        let out = tempfile::tempdir().unwrap();
        fs::write(out.path().join("passwd"), "web:x:99:99::/:/bin/sh\n").unwrap();

        let through_link = Layers::new();
        symlink(out.path(), through_link.path("upper/etc")).unwrap();
        assert_eq!(through_link.resolve("web").unwrap().uid, 33, "a link does not lead out of the layer");

        let fifo = Layers::new();
        fs::create_dir(fifo.path("upper/etc")).unwrap();
        let path = fifo.path("upper/etc/passwd");
        rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::from_raw_mode(0o644)).unwrap();
        assert!(matches!(fifo.resolve("web"), Err(UserError::Unusable { .. })));

        let large = Layers::new();
        large.write("upper/etc/passwd", vec![b'x'; 2 << 20]);
        assert!(matches!(large.resolve("web"), Err(UserError::Unusable { .. })));

        let circle = Layers::new();
        fs::create_dir(circle.path("upper/etc")).unwrap();
        symlink("passwd", circle.path("upper/etc/passwd")).unwrap();
        assert!(matches!(circle.resolve("web"), Err(UserError::Unusable { .. })));
    }

    mod root {
        use super::*;
        use rustix::fs::{CWD, FileType, Mode, XattrFlags};

        #[test]
        #[ignore = "needs root"]
        fn what_the_container_deleted_is_gone() {
            let layers = Layers::new();
            fs::create_dir(layers.path("upper/etc")).unwrap();
            let whiteout = layers.path("upper/etc/passwd");
            rustix::fs::mknodat(CWD, &whiteout, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
            assert!(matches!(layers.resolve("web"), Err(UserError::NoUser(_))));

            fs::remove_file(&whiteout).unwrap();
            assert!(layers.resolve("web").is_ok());

            let etc = layers.path("upper/etc");
            rustix::fs::setxattr(&etc, "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
            assert!(matches!(layers.resolve("web"), Err(UserError::NoUser(_))));
        }
    }
}
