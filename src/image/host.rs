//! `host:/`: the host's own programs and a generated `/etc`.
//!
//! An allow-list, because with id-mapped layers a container's root can read every file of a layer:
//! `/usr` (and on a host where they are not links into it `/bin`, `/sbin`, `/lib*`) as they are; of
//! `/etc` only what is named here, and of that only what everybody on the host can read; nothing of
//! `/root`, `/home`, `/var`, `/srv`, `/tmp` and `/run`. No shadow, no keys, no machine id. Accounts
//! are the ones every Debian has, and none of a person.

use super::skeleton::{Node, Skeleton};
use super::tree;
use super::{ImageError, Layers, Prepared, make_private};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// What was prepared, and the state of everything it was made from.
#[derive(Debug)]
pub(super) struct Known {
    stamp: Vec<Stat>,
    prepared: Prepared,
}

impl Known {
    pub(super) fn base(&self) -> &Path {
        match &self.prepared.layers {
            Layers::Directory(path) | Layers::Overlay { base: path, .. } => path,
        }
    }
}

/// Enough of a file to tell that it is another one now: device, inode, size, mtime and ctime.
type Stat = Option<(u64, u64, u64, i64, i64, i64, i64)>;

/// Top-level directories that are programs: on a merged host links into `/usr`.
const PROGRAMS: [&str; 7] = ["bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32"];

/// Empty directories, with their modes.
const DIRECTORIES: [(&str, u32); 24] = [
    ("proc", 0o555),
    ("sys", 0o555),
    ("dev", 0o755),
    ("run", 0o755),
    ("run/lock", 0o1777),
    ("tmp", 0o1777),
    ("root", 0o700),
    ("home", 0o755),
    ("usr", 0o755),
    ("etc", 0o755),
    ("opt", 0o755),
    ("srv", 0o755),
    ("mnt", 0o755),
    ("media", 0o755),
    ("var", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/local", 0o755),
    ("var/log", 0o755),
    ("var/mail", 0o755),
    ("var/opt", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
    ("var/www", 0o755),
];

/// Files of `/etc` that are copied when everybody can read them.
const FILES: [&str; 24] = [
    "bash.bashrc",
    "ca-certificates.conf",
    "debian_version",
    "ethertypes",
    "gai.conf",
    "host.conf",
    "hosts",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "locale.alias",
    "localtime",
    "login.defs",
    "lsb-release",
    "magic",
    "mime.types",
    "networks",
    "os-release",
    "profile",
    "protocols",
    "rpc",
    "services",
    "shells",
    "timezone",
];

/// Directories of `/etc` that are copied likewise.
const TREES: [&str; 9] = [
    "alternatives",
    "crypto-policies",
    "ld.so.conf.d",
    "perl",
    "pki/ca-trust/extracted",
    "pki/tls/certs",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
];

const MAX_FILE: u64 = 4 << 20;
const MAX_NODES: usize = 16_384;
const MAX_TOTAL: usize = 64 << 20;

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:x:2:2:bin:/bin:/usr/sbin/nologin
sys:x:3:3:sys:/dev:/usr/sbin/nologin
sync:x:4:65534:sync:/bin:/bin/sync
games:x:5:60:games:/usr/games:/usr/sbin/nologin
man:x:6:12:man:/var/cache/man:/usr/sbin/nologin
lp:x:7:7:lp:/var/spool/lpd:/usr/sbin/nologin
mail:x:8:8:mail:/var/mail:/usr/sbin/nologin
news:x:9:9:news:/var/spool/news:/usr/sbin/nologin
uucp:x:10:10:uucp:/var/spool/uucp:/usr/sbin/nologin
proxy:x:13:13:proxy:/bin:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
backup:x:34:34:backup:/var/backups:/usr/sbin/nologin
list:x:38:38:Mailing List Manager:/var/list:/usr/sbin/nologin
irc:x:39:39:ircd:/run/ircd:/usr/sbin/nologin
_apt:x:42:65534::/nonexistent:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
";

/// Name and number of every group of a bare Debian.
const GROUPS: [(&str, u32); 38] = [
    ("root", 0),
    ("daemon", 1),
    ("bin", 2),
    ("sys", 3),
    ("adm", 4),
    ("tty", 5),
    ("disk", 6),
    ("lp", 7),
    ("mail", 8),
    ("news", 9),
    ("uucp", 10),
    ("man", 12),
    ("proxy", 13),
    ("kmem", 15),
    ("dialout", 20),
    ("fax", 21),
    ("voice", 22),
    ("cdrom", 24),
    ("floppy", 25),
    ("tape", 26),
    ("sudo", 27),
    ("audio", 29),
    ("dip", 30),
    ("www-data", 33),
    ("backup", 34),
    ("operator", 37),
    ("list", 38),
    ("irc", 39),
    ("src", 40),
    ("shadow", 42),
    ("utmp", 43),
    ("video", 44),
    ("sasl", 45),
    ("plugdev", 46),
    ("staff", 50),
    ("games", 60),
    ("users", 100),
    ("nogroup", 65_534),
];

const NSSWITCH: &str = "\
passwd: files
group: files
shadow: files
gshadow: files
hosts: files dns
networks: files
protocols: files
services: files
ethers: files
rpc: files
netgroup: files
";

const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// Prepares the image from the host whose root is `root`, anew when `known` is no longer true.
pub(super) fn prepare(
    directory: &Path,
    state: &Path,
    root: &Path,
    known: &mut Option<Known>,
) -> Result<Prepared, ImageError> {
    // Looked at before the content is read: a change in between is found the next time.
    let stamp = stamp(root);
    if let Some(known) = known.as_ref().filter(|known| known.stamp == stamp && known.prepared.stands()) {
        return Ok(known.prepared.clone());
    }
    let (mut skeleton, grafts) = programs(root)?;
    for (_, path) in &grafts {
        refuse_own_state(path, state)?;
    }
    for (path, mode) in DIRECTORIES {
        skeleton.directory(path, mode);
    }
    etc(root, &mut skeleton)?;
    let base = materialise(&skeleton, directory)?;
    let layers = Layers::Overlay { base, grafts: grafts.into() };
    let prepared = Prepared { layers, digest: None, notes: Arc::from([]) };
    *known = Some(Known { stamp, prepared: prepared.clone() });
    Ok(prepared)
}

fn stamp(root: &Path) -> Vec<Stat> {
    let etc = root.join("etc");
    let stat = |found: io::Result<std::fs::Metadata>| {
        let found = found.ok()?;
        Some((
            found.dev(),
            found.ino(),
            found.size(),
            found.mtime(),
            found.mtime_nsec(),
            found.ctime(),
            found.ctime_nsec(),
        ))
    };
    // Links are copied as links, but for the one whose text is wanted wherever it is.
    let followed = ["resolv.conf", "ssl/certs/ca-certificates.crt"];
    let contents = followed.into_iter().map(|name| stat(etc.join(name).metadata()));
    let entries = FILES.into_iter().chain(TREES).map(|name| stat(etc.join(name).symlink_metadata()));
    // A program that is installed changes neither the layers nor the tree: the place is what counts.
    let programs = PROGRAMS.into_iter().chain(["usr"]).map(|name| {
        let found = root.join(name).symlink_metadata().ok()?;
        Some((found.dev(), found.ino(), 0, 0, 0, 0, 0))
    });
    contents.chain(entries).chain(programs).collect()
}

/// The directories with the host's programs, and the links that lead into them.
fn programs(root: &Path) -> Result<(Skeleton, Vec<(String, PathBuf)>), ImageError> {
    let mut skeleton = Skeleton::default();
    let usr = root.join("usr");
    let found = usr.symlink_metadata().map_err(ImageError::io("looking at", &usr))?;
    if !found.is_dir() {
        return Err(ImageError::NoHostDirectory { path: usr });
    }
    let mut grafts = vec![(String::from("usr"), usr)];
    for name in PROGRAMS {
        let path = root.join(name);
        let found = match path.symlink_metadata() {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(ImageError::io("looking at", &path)(error)),
        };
        if found.is_dir() {
            skeleton.directory(name, 0o755);
            grafts.push((String::from(name), path));
        } else if found.is_symlink() {
            let target = path.read_link().map_err(ImageError::io("reading the link", &path))?;
            let text = target.to_str().unwrap_or_default();
            if text.trim_start_matches('/').starts_with("usr/") && inside(name, text).is_some() {
                skeleton.link(name, text);
            }
        }
    }
    Ok((skeleton, grafts))
}

fn refuse_own_state(graft: &Path, state: &Path) -> Result<(), ImageError> {
    // The state directory may not be there yet: then its nearest parent that is decides.
    let real = state.ancestors().find_map(|path| path.canonicalize().ok());
    let graft = graft.canonicalize().map_err(ImageError::io("resolving", graft))?;
    if state.starts_with(&graft) || real.is_some_and(|real| real.starts_with(&graft)) {
        return Err(ImageError::OwnState { state: state.to_owned() });
    }
    Ok(())
}

fn etc(root: &Path, skeleton: &mut Skeleton) -> Result<(), ImageError> {
    skeleton.file("etc/passwd", PASSWD);
    let groups: String = GROUPS.iter().map(|(name, id)| format!("{name}:x:{id}:\n")).collect();
    skeleton.file("etc/group", groups);
    skeleton.file("etc/nsswitch.conf", NSSWITCH);
    skeleton.file("etc/hosts", HOSTS);
    skeleton.link("etc/mtab", "../proc/self/mounts");

    let path = root.join("etc");
    let etc = tree::open_directory(&path).map_err(ImageError::io("opening", &path))?;
    for name in FILES.into_iter().chain(TREES) {
        copy(&etc, name, &format!("etc/{name}"), skeleton).map_err(ImageError::io("reading", &path.join(name)))?;
    }
    // Often a link to what a resolver wrote below /run: its text is wanted, wherever it is.
    let text = match rustix::fs::open(path.join("resolv.conf"), READ, Mode::empty()) {
        Ok(file) => public_content(file).map_err(ImageError::io("reading", &path.join("resolv.conf")))?,
        Err(_) => None,
    };
    skeleton.file("etc/resolv.conf", text.unwrap_or_default());
    drop_dangling(skeleton);
    Ok(())
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Copies one file, link or directory, as far as everybody may read it and it is no secret by its
/// kind. What may not be copied is left out without a word: the list is of what may be there.
fn copy(etc: &std::os::fd::OwnedFd, name: &str, to: &str, skeleton: &mut Skeleton) -> io::Result<()> {
    if skeleton.0.len() > MAX_NODES {
        return Ok(());
    }
    let link = match rustix::fs::readlinkat(etc, name, Vec::new()) {
        Ok(target) => target.into_string().ok(),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => return Ok(()),
        // Not a link.
        Err(Errno::INVAL) => {
            return copy_content(etc, name, to, skeleton);
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(target) = link.filter(|target| inside(to, target).is_some()) {
        skeleton.link(to, &target);
    }
    Ok(())
}

fn copy_content(etc: &std::os::fd::OwnedFd, name: &str, to: &str, skeleton: &mut Skeleton) -> io::Result<()> {
    let file = match rustix::fs::openat(etc, name, READ | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::ACCESS) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        if let Some(content) = public_content(file)? {
            let total: usize = skeleton.0.values().map(Node::size).sum();
            if total.saturating_add(content.len()) <= MAX_TOTAL {
                skeleton.file(to, content);
            }
        }
        return Ok(());
    }
    if stat.st_mode & 0o005 != 0o005 {
        return Ok(());
    }
    skeleton.directory(to, 0o755);
    let mut names: Vec<OsString> = Vec::new();
    let mut entries = rustix::fs::Dir::read_from(&file)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(std::os::unix::ffi::OsStringExt::from_vec(entry.file_name().to_bytes().to_vec()));
        }
    }
    for child in names.iter().filter_map(|name| name.to_str()) {
        copy(&file, child, &format!("{to}/{child}"), skeleton)?;
    }
    Ok(())
}

impl Node {
    fn size(&self) -> usize {
        match self {
            Self::File { content } => content.len(),
            Self::Directory { .. } | Self::Link { .. } => 0,
        }
    }
}

/// A regular file's content, when everybody on the host can read it and it is no private key.
fn public_content(file: std::os::fd::OwnedFd) -> io::Result<Option<Vec<u8>>> {
    if rustix::fs::fstat(&file)?.st_mode & 0o004 == 0 {
        return Ok(None);
    }
    let content = match tree::read_regular(file, MAX_FILE)? {
        tree::Regular::Read(content) => content,
        tree::Regular::Other | tree::Regular::TooLarge => return Ok(None),
    };
    let key = b"PRIVATE KEY";
    Ok((!content.windows(key.len()).any(|window| window == key)).then_some(content))
}

/// Where the link at `path` leads, as a path from the root, when that is something of ours:
/// a program's directory or `/etc`.
fn inside(path: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    if !target.starts_with('/') {
        parts.extend(Path::new(path).parent()?.to_str()?.split('/').filter(|part| !part.is_empty()));
    }
    for component in Path::new(target).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            // Above the root is an escape on paper, and a mistake in any case.
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::CurDir | Component::RootDir => {}
            Component::Prefix(_) => return None,
        }
    }
    let first = *parts.first()?;
    (first == "usr" || first == "etc" || PROGRAMS.contains(&first)).then(|| parts.join("/"))
}

/// Removes links to what was not copied: they would only tell that it is there.
fn drop_dangling(skeleton: &mut Skeleton) {
    let known: Vec<String> = skeleton.0.keys().cloned().collect();
    skeleton.0.retain(|path, node| match node {
        Node::Link { target } => match inside(path, target) {
            Some(leads) => !leads.starts_with("etc/") || known.binary_search(&leads).is_ok(),
            // `etc/mtab`, the one link of our own.
            None => path == "etc/mtab",
        },
        Node::Directory { .. } | Node::File { .. } => true,
    });
}

/// Writes the tree under the name of its content, unless it is there.
fn materialise(skeleton: &Skeleton, directory: &Path) -> Result<PathBuf, ImageError> {
    let digest = skeleton.digest();
    let path = directory.join(&digest);
    if path.is_dir() {
        return Ok(path);
    }
    make_private(directory)?;
    let parent = tree::open_directory(directory).map_err(ImageError::io("opening", directory))?;
    let unfinished = format!(".new-{digest}");
    tree::remove(&parent, &*unfinished).map_err(ImageError::io("clearing", directory))?;
    let written = rustix::fs::mkdirat(&parent, &*unfinished, Mode::from_raw_mode(0o755))
        .and_then(|()| {
            rustix::fs::chmodat(&parent, &*unfinished, Mode::from_raw_mode(0o755), rustix::fs::AtFlags::empty())
        })
        .and_then(|()| tree::open_directory(&directory.join(&unfinished)))
        .map_err(ImageError::io("making", &directory.join(&unfinished)))
        .and_then(|root| {
            skeleton.write(&root).map_err(|(name, error)| ImageError::io("writing", &path.join(name))(error))
        })
        .and_then(|()| {
            rustix::fs::renameat(&parent, &*unfinished, &parent, &*digest)
                .and_then(|()| rustix::fs::fsync(&parent))
                .map_err(ImageError::io("naming", &path))
        });
    if let Err(error) = written {
        // The first error is the one to tell; what stays is cleared by the next try.
        let _ = tree::remove(&parent, &*unfinished);
        return Err(error);
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    struct FakeHost {
        dir: tempfile::TempDir,
        known: Option<Known>,
    }

    impl FakeHost {
        /// A merged host with a canary in every forbidden place.
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("host");
            for path in ["usr/bin", "usr/lib", "etc/ssl/certs", "etc/ssl/private", "etc/alternatives"] {
                fs::create_dir_all(root.join(path)).unwrap();
            }
            for name in ["bin", "lib"] {
                symlink(format!("usr/{name}"), root.join(name)).unwrap();
            }
            let private = [
                "root/secret",
                "home/ann/secret",
                "var/lib/secret",
                "srv/secret",
                "tmp/secret",
                "run/secret",
                "mnt/secret",
                "etc/shadow",
                "etc/gshadow",
                "etc/machine-id",
                "etc/ssh/ssh_host_key",
                "etc/ssl/private/key.pem",
                "etc/ssl/certs/private.pem",
                "etc/services",
                "etc/perl/secret",
                "boot/secret",
                "opt/secret",
            ];
            for path in private {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, "canary").unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            }
            fs::write(root.join("etc/ssl/certs/both.pem"), "-----BEGIN PRIVATE KEY-----\ncanary").unwrap();
            fs::write(root.join("etc/ssl/certs/ca.crt"), "public").unwrap();
            fs::write(root.join("etc/protocols"), "tcp 6 TCP\n").unwrap();
            fs::write(root.join("etc/passwd"), "ann:x:1000:1000:canary:/home/ann:/bin/sh\n").unwrap();
            fs::write(root.join("run/resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
            symlink("../run/resolv.conf", root.join("etc/resolv.conf")).unwrap();
            symlink("ca.crt", root.join("etc/ssl/certs/1234.0")).unwrap();
            symlink("../private/key.pem", root.join("etc/ssl/certs/out")).unwrap();
            symlink("/root/secret", root.join("etc/alternatives/out")).unwrap();
            symlink("/../../usr/bin/vim", root.join("etc/alternatives/odd")).unwrap();
            symlink("/usr/bin/vim", root.join("etc/alternatives/vi")).unwrap();
            symlink("/root/secret", root.join("etc/hosts")).unwrap();
            rustix::fs::mkfifoat(rustix::fs::CWD, root.join("etc/rpc"), Mode::from_raw_mode(0o644)).unwrap();
            Self { dir, known: None }
        }

        fn root(&self) -> PathBuf {
            self.dir.path().join("host")
        }

        fn prepare(&mut self) -> PathBuf {
            let root = self.root();
            let lib = self.dir.path().join("lib");
            let prepared = prepare(&lib.join("images/host"), &lib, &root, &mut self.known).unwrap();
            assert_eq!(prepared.digest, None);
            match prepared.layers {
                Layers::Overlay { base, grafts } => {
                    assert_eq!(*grafts, [(String::from("usr"), root.join("usr"))]);
                    base
                }
                Layers::Directory(path) => path,
            }
        }
    }

    fn files(at: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.clone());
            if path.symlink_metadata().unwrap().is_dir() {
                files(&path, found);
            }
        }
    }

    #[test]
    fn nothing_private_is_reachable() {
        let mut host = FakeHost::new();

        let base = host.prepare();

        let mut found = Vec::new();
        files(&base, &mut found);
        assert!(found.len() > 30);
        for path in found {
            let kind = path.symlink_metadata().unwrap();
            if kind.is_file() {
                let content = fs::read(&path).unwrap();
                assert!(!content.windows(6).any(|w| w == b"canary"), "{} has a canary", path.display());
            } else if kind.is_symlink() {
                let target = path.read_link().unwrap();
                assert!(!target.to_str().unwrap().contains("secret"), "{} leads out", path.display());
                assert!(!target.to_str().unwrap().contains("private"), "{} leads out", path.display());
            }
        }
        for absent in ["etc/shadow", "etc/machine-id", "etc/ssh", "etc/ssl/private", "boot", "etc/services", "etc/rpc"]
        {
            assert!(!base.join(absent).exists(), "{absent}");
        }
    }

    #[test]
    fn what_everybody_reads_is_there() {
        let mut host = FakeHost::new();

        let base = host.prepare();

        let read = |path: &str| fs::read_to_string(base.join(path)).unwrap();
        assert_eq!(read("etc/resolv.conf"), "nameserver 192.0.2.1\n");
        assert_eq!(read("etc/ssl/certs/1234.0"), "public");
        assert_eq!(base.join("etc/alternatives/vi").read_link().unwrap(), Path::new("/usr/bin/vim"));
        assert_eq!(base.join("bin").read_link().unwrap(), Path::new("usr/bin"));
        assert!(read("etc/passwd").contains("www-data:x:33:33"));
        assert!(read("etc/hosts").contains("localhost"));
        assert_eq!(base.join("tmp").metadata().unwrap().mode() & 0o7777, 0o1777);
        assert_eq!(base.metadata().unwrap().mode() & 0o7777, 0o755);
        assert_eq!(base.join("usr").read_dir().unwrap().count(), 0);
    }

    #[test]
    fn it_is_made_once_and_anew_after_a_change() {
        let mut host = FakeHost::new();
        let first = host.prepare();
        let inode = first.metadata().unwrap().ino();

        let second = host.prepare();
        assert_eq!((second.metadata().unwrap().ino(), &second), (inode, &first));

        fs::write(host.root().join("run/resolv.conf"), "nameserver 192.0.2.77\n").unwrap();
        let third = host.prepare();
        assert_ne!(third, first);
        assert!(first.exists(), "running containers still use it");

        // An agent that has just started remembers nothing, and makes nothing anew.
        host.known = None;
        assert_eq!(host.prepare(), third);
        fs::remove_dir_all(&third).unwrap();
        assert_eq!(host.prepare(), third);
        assert!(third.exists());
    }

    #[test]
    fn an_unmerged_host_has_more_grafts() {
        let host = FakeHost::new();
        fs::remove_file(host.root().join("bin")).unwrap();
        fs::create_dir(host.root().join("bin")).unwrap();

        let (skeleton, grafts) = programs(&host.root()).unwrap();

        assert_eq!(grafts.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["usr", "bin"]);
        assert_eq!(skeleton.0.get("bin"), Some(&Node::Directory { mode: 0o755 }));
        assert!(matches!(skeleton.0.get("lib"), Some(Node::Link { .. })));
    }

    #[test]
    fn our_own_state_is_not_in_it() {
        let host = FakeHost::new();
        let state = host.root().join("usr/lib/agent/not/yet/there");

        let result = prepare(&state.join("images/host"), &state, &host.root(), &mut None);

        assert!(matches!(result, Err(ImageError::OwnState { .. })), "{result:?}");
    }

    #[test]
    fn this_host_gives_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut known = None;

        let prepared = prepare(&dir.path().join("images"), dir.path(), Path::new("/"), &mut known).unwrap();

        let Layers::Overlay { base, grafts } = &prepared.layers else { panic!("{prepared:?}") };
        assert!(base.join("etc/passwd").is_file());
        assert!(!base.join("etc/shadow").exists());
        assert_eq!(grafts[0], (String::from("usr"), PathBuf::from("/usr")));
    }
}
