//! `mounts`: from destinations and options to what is mounted how.

use super::build::extents;
use super::config::{Device, DeviceKind, Invalid, Mount};
use crate::cgroup::place::{Directory, Place};
use crate::cgroup::table::Version;
use crate::sandbox::{
    self, DeviceNode, IdExtent, IdMaps, Link, MappedBy, Mapping, MountChange, NodeKind, Propagation, PropagationKind,
    Tree, usual_nodes,
};
use std::path::Path;

/// What the mounts are made from, beside their own entries.
pub(super) struct Surroundings<'a> {
    pub bundle: &'a Path,
    /// On the host.
    pub root: &'a Path,
    pub devices: &'a [Device],
    pub place: &'a Place,
    /// The container has a cgroup namespace of its own.
    pub own_cgroups: bool,
    /// Of the container's user namespace.
    pub ids: Option<&'a IdMaps>,
}

pub(super) struct Planned {
    pub mounts: Vec<sandbox::Mount>,
    /// Devices that are made in the root itself.
    pub nodes: Vec<DeviceNode>,
    /// For each of `mounts` the entry that it is for.
    pub origins: Vec<usize>,
}

pub(super) fn plan(mounts: &[Mount], around: &Surroundings<'_>) -> Result<Planned, Invalid> {
    let (mut planned, mut origins) = (Vec::new(), Vec::new());
    let mut devices = Devices::InTheRoot;
    for (index, mount) in mounts.iter().enumerate() {
        let place = format!("mounts[{index}]");
        let Mount { destination, kind, source, options, uid_mappings: _, gid_mappings: _ } = mount;
        // Relative ones were allowed in 1.0, and mean the root.
        let at = if destination.starts_with('/') { destination.clone() } else { format!("/{destination}") };
        // Other runtimes take a path of the host's root for the one inside.
        let at = below(Path::new(&at), around.root).unwrap_or(at);
        if destination.is_empty() || at.split('/').any(|part| part == "..") || destination.contains('\0') {
            return Err(Invalid::new(format!("{place}.destination"), format!("{destination:?} is not a path inside")));
        }
        let parsed = Options::parse(options);
        let is_bind = parsed.bind.is_some() || kind == "bind" || kind == "rbind";
        let mapping = parsed.mapping(mount, around, &place)?;
        for (word, fits) in [
            (Extra::TmpCopyUp, kind == "tmpfs" && !is_bind && (clean(&at) != "/dev" || around.ids.is_none())),
            (Extra::CopySymlink, is_bind),
            (Extra::SrcNoFollow, is_bind),
        ] {
            if let Some((number, option)) = parsed.extra(word).filter(|_| !fits) {
                let what = format!("{option:?} is not an option of this mount");
                return Err(Invalid::new(format!("{place}.options[{number}]"), what));
            }
        }
        if mapping.is_some() && (!is_bind || parsed.remounts()) {
            return Err(Invalid::new(format!("{place}.uidMappings"), "take a bind mount"));
        }
        let follows = parsed.extra(Extra::DestNoFollow).is_none();
        let link = if follows { Link::Follow } else { Link::Itself };
        if parsed.remounts() && is_bind {
            let (set, clear) = parsed.flags.named();
            planned.push(sandbox::Mount::Change { at, change: MountChange { set, clear, ..parsed.change } });
        } else if parsed.remounts() {
            planned.push(remount(kind, source, at, &parsed, link));
        } else if is_bind {
            if clean(&at) == "/dev" {
                devices = Devices::Hosts(around.bundle.join(source));
            }
            let bound = bind(mount, at, parsed, mapping, link, (around, &planned), &place)?;
            planned.push(bound);
        } else {
            let Options { flags, change, data, .. } = &parsed;
            let split = |option: &str| match option.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None => (option.to_owned(), String::new()),
            };
            let options = || data.iter().map(|(_, option)| split(option)).collect();
            let (flags, change) = (flags.set, change.clone());
            match kind.as_str() {
                "" | "none" => return Err(Invalid::new(format!("{place}.type"), "missing")),
                "cgroup" | "cgroup2" => cgroups(&mut planned, &at, &parsed.flags, kind, around),
                // A user namespace can make no devices: it gets a tmpfs that has them.
                "tmpfs" if clean(&at) == "/dev" && around.ids.is_some() => {
                    devices = Devices::Own;
                    let (at, options) = ("/dev".to_owned(), options());
                    planned.push(sandbox::Mount::Devices { at, options, flags, nodes: nodes(around) });
                }
                "tmpfs" if parsed.extra(Extra::TmpCopyUp).is_some() => {
                    planned.push(sandbox::Mount::Copy { at, options: options(), flags, change });
                }
                _ => {
                    let source = if source.is_empty() { kind.clone() } else { source.clone() };
                    let (kind, data) = (kind.clone(), parsed.data());
                    planned.push(sandbox::Mount::Fresh { kind, source, at, data, flags, change, link });
                }
            }
        }
        origins.resize(planned.len(), index);
    }
    let nodes = match devices {
        Devices::InTheRoot => nodes(around),
        Devices::Own => listed(around).into_iter().filter(|node| !node.path.starts_with("/dev/")).collect(),
        Devices::Hosts(from) => hosts(around, &from)?,
    };
    Ok(Planned { mounts: planned, nodes, origins })
}

/// Where the devices of the container are.
enum Devices {
    InTheRoot,
    /// In a tmpfs at `/dev`.
    Own,
    /// In a directory of the host's that is bound to `/dev`: nothing is made in it.
    Hosts(std::path::PathBuf),
}

/// Devices that are listed beside a `/dev` of the host's have to be there.
fn hosts(around: &Surroundings<'_>, from: &Path) -> Result<Vec<DeviceNode>, Invalid> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let mut elsewhere = listed(around);
    elsewhere.retain(|node| !node.path.starts_with("/dev/"));
    for (index, device) in around.devices.iter().enumerate() {
        let path = clean(&device.path);
        let Some(name) = path.strip_prefix("/dev/") else { continue };
        let is_same = std::fs::symlink_metadata(from.join(name)).is_ok_and(|file| {
            let number = (libc::major(file.rdev()), libc::minor(file.rdev())) == (device.major, device.minor);
            match device.kind {
                DeviceKind::Character => file.file_type().is_char_device() && number,
                DeviceKind::Block => file.file_type().is_block_device() && number,
                DeviceKind::Fifo => file.file_type().is_fifo(),
            }
        });
        if !is_same {
            let what = format!("{} is bound to /dev, and has no such device", from.display());
            return Err(Invalid::new(format!("linux.devices[{index}].path"), what));
        }
    }
    Ok(elsewhere)
}

/// The file system that is mounted there already changes.
fn remount(kind: &str, source: &str, at: String, parsed: &Options, link: Link) -> sandbox::Mount {
    let (kind, source, data, change) = (kind.to_owned(), source.to_owned(), parsed.data(), parsed.change.clone());
    let flags = parsed.flags.set;
    sandbox::Mount::Fresh { kind, source, at, data, flags, change, link }
}

fn bind(
    mount: &Mount,
    at: String,
    parsed: Options,
    mapping: Option<Mapping>,
    link: Link,
    (around, before): (&Surroundings<'_>, &[sandbox::Mount]),
    place: &str,
) -> Result<sandbox::Mount, Invalid> {
    for (number, option) in &parsed.data {
        // They are a file system's own, and this one has been mounted before.
        super::log::warn(&format!("{place}.options[{number}]: {option:?} is not an option of a bind mount"));
    }
    if mount.source.is_empty() {
        return Err(Invalid::new(format!("{place}.source"), "a bind mount needs one"));
    }
    let from = around.bundle.join(&mount.source);
    if parsed.extra(Extra::CopySymlink).is_some()
        && let Ok(to) = std::fs::read_link(&from)
    {
        return Ok(sandbox::Mount::Link { at, to: to.to_string_lossy().into_owned() });
    }
    let link_itself = parsed.extra(Extra::SrcNoFollow).is_some();
    let recursive = parsed.bind == Some(Bind::Recursive) || mount.kind == "rbind";
    let (set, clear) = parsed.flags.of_a_bind(if around.ids.is_some() { Owner::Container } else { Owner::Host });
    let change = MountChange { set, clear, ..parsed.change };
    let path = from.to_string_lossy().into_owned();
    if let Some(path) = below(&from, around.root).filter(|path| before.iter().any(|mount| mount.shows_in(path))) {
        if mapping.is_some() && around.ids.is_some() {
            let what = "has mounts of the container's, which can't be mapped in its user namespace";
            return Err(Invalid::new(format!("{place}.source"), what));
        }
        let tree = Tree { path, recursive, change, mapping, link_itself };
        return Ok(sandbox::Mount::Again { tree, at, link });
    }
    let tree = Tree { path, recursive, change, mapping, link_itself };
    Ok(sandbox::Mount::Bind { tree, at, link })
}

/// A path of the host below the root, as it is inside.
fn below(path: &Path, root: &Path) -> Option<String> {
    let rest = path.strip_prefix(root).ok().filter(|_| root.is_absolute())?;
    Some(format!("/{}", rest.to_str()?))
}

impl sandbox::Mount {
    /// Whether what is at a path inside is another thing with this mount, or has it below.
    fn shows_in(&self, path: &str) -> bool {
        let at = match self {
            Self::Bind { at, .. } | Self::Again { at, .. } | Self::Fresh { at, .. } => at,
            Self::Copy { at, .. } | Self::Devices { at, .. } => at,
            Self::Link { .. } | Self::Change { .. } => return false,
        };
        let (at, path) = (clean(at), clean(path));
        Path::new(&at).starts_with(&path) || Path::new(&path).starts_with(&at)
    }
}

fn clean(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    format!("/{}", parts.join("/"))
}

/// What the specification demands in every container, and what is listed beside or instead of it.
fn nodes(around: &Surroundings<'_>) -> Vec<DeviceNode> {
    let listed = listed(around);
    let mut all = usual_nodes();
    all.retain(|node| listed.iter().all(|other| other.path != node.path));
    all.extend(listed);
    all
}

fn listed(around: &Surroundings<'_>) -> Vec<DeviceNode> {
    let node = |device: &Device| {
        let Device { kind, ref path, major, minor, file_mode, uid, gid } = *device;
        let kind = match kind {
            DeviceKind::Character => NodeKind::Character { major, minor },
            DeviceKind::Block => NodeKind::Block { major, minor },
            DeviceKind::Fifo => NodeKind::Fifo,
        };
        DeviceNode { path: clean(path), kind, mode: file_mode.unwrap_or(0o666) & 0o7777, uid, gid }
    };
    // Of one path the last entry counts.
    let mut nodes: Vec<DeviceNode> = Vec::new();
    for device in around.devices.iter().map(node) {
        nodes.retain(|other| other.path != device.path);
        nodes.push(device);
    }
    nodes
}

/// The container's own part of each hierarchy that it is in.
fn cgroups(planned: &mut Vec<sandbox::Mount>, at: &str, flags: &Flags, kind: &str, around: &Surroundings<'_>) {
    let one = |directory: &Directory, at: String| {
        if !around.own_cgroups {
            let change = MountChange { set: flags.set_attributes(), ..MountChange::default() };
            let (path, mapping) = (directory.full(), None);
            let tree = Tree { path, recursive: false, change, mapping, link_itself: false };
            return sandbox::Mount::Bind { tree, at, link: Link::Follow };
        }
        let names: Vec<&str> = directory.controllers.iter().map(|controller| controller.name(Version::V1)).collect();
        let (kind, data) = match directory.version {
            Version::V2 => ("cgroup2", String::new()),
            Version::V1 => ("cgroup", names.join(",")),
        };
        let (source, change) = ("cgroup".to_owned(), MountChange::default());
        let (kind, flags, link) = (kind.to_owned(), flags.set, Link::Follow);
        sandbox::Mount::Fresh { kind, source, at, data, flags, change, link }
    };
    let directories = around.place.directories();
    // The v2 one stands first.
    if let Some(directory) = directories.first()
        && directory.version == Version::V2
        && (kind == "cgroup2" || directories.len() == 1)
    {
        planned.push(one(directory, at.to_owned()));
        return;
    }
    planned.push(sandbox::Mount::Fresh {
        kind: "tmpfs".to_owned(),
        source: "tmpfs".to_owned(),
        at: at.to_owned(),
        data: "mode=755".to_owned(),
        flags: flags.set,
        change: MountChange::default(),
        link: Link::Follow,
    });
    for directory in directories {
        let name = directory.mount.rsplit('/').next().unwrap_or_default();
        planned.push(one(directory, format!("{at}/{name}")));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bind {
    Alone,
    Recursive,
}

/// Bits of mount(2), and those that were explicitly taken away.
#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    set: u32,
    cleared: u32,
}

#[derive(Debug, Default)]
struct Options {
    flags: Flags,
    bind: Option<Bind>,
    change: MountChange,
    /// Those that are ours alone, with their positions.
    extra: Vec<(Extra, usize, String)>,
    idmap: Option<(Idmapped, usize)>,
    /// What the file system itself is told, with its position.
    data: Vec<(usize, String)>,
}

/// What no flag says and no file system knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extra {
    TmpCopyUp,
    CopySymlink,
    SrcNoFollow,
    DestNoFollow,
}

/// `idmap` or `ridmap`, and what is behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Idmapped {
    recursive: bool,
    maps: Option<String>,
}

/// Whose user namespace a mount is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Host,
    Container,
}

const RDONLY: u32 = 1;
const NOSUID: u32 = 2;
const NODEV: u32 = 4;
const NOEXEC: u32 = 8;
const REMOUNT: u32 = 32;
const NOSYMFOLLOW: u32 = 256;
const NOATIME: u32 = 1 << 10;
const NODIRATIME: u32 = 1 << 11;
const RELATIME: u32 = 1 << 21;
const STRICTATIME: u32 = 1 << 24;

/// Option, bits of mount(2), and whether they are set or cleared by it.
const FLAGS: [(&str, u32, bool); 33] = [
    ("ro", RDONLY, true),
    ("rw", RDONLY, false),
    ("nosuid", NOSUID, true),
    ("suid", NOSUID, false),
    ("nodev", NODEV, true),
    ("dev", NODEV, false),
    ("noexec", NOEXEC, true),
    ("exec", NOEXEC, false),
    ("nosymfollow", NOSYMFOLLOW, true),
    ("symfollow", NOSYMFOLLOW, false),
    ("noatime", NOATIME, true),
    ("atime", NOATIME, false),
    ("nodiratime", NODIRATIME, true),
    ("diratime", NODIRATIME, false),
    ("relatime", RELATIME, true),
    ("norelatime", RELATIME, false),
    ("strictatime", STRICTATIME, true),
    ("nostrictatime", STRICTATIME, false),
    ("sync", 1 << 4, true),
    ("async", 1 << 4, false),
    ("mand", 1 << 6, true),
    ("nomand", 1 << 6, false),
    ("dirsync", 1 << 7, true),
    ("silent", 1 << 15, true),
    ("loud", 1 << 15, false),
    ("iversion", 1 << 23, true),
    ("noiversion", 1 << 23, false),
    ("lazytime", 1 << 25, true),
    ("nolazytime", 1 << 25, false),
    ("defaults", 0, true),
    ("acl", 1 << 16, true),
    ("noacl", 1 << 16, false),
    ("remount", REMOUNT, true),
];

/// Of mount(2) and of mount_setattr(2).
const ATTRIBUTES: [(u32, u64); 6] =
    [(RDONLY, 1), (NOSUID, 2), (NODEV, 4), (NOEXEC, 8), (NODIRATIME, 0x80), (NOSYMFOLLOW, 0x20_0000)];
const ATIME: u64 = 0x70;

impl Flags {
    fn attributes(bits: u32) -> u64 {
        ATTRIBUTES.iter().filter(|(flag, _)| bits & flag != 0).fold(0, |all, (_, attribute)| all | attribute)
    }

    /// As mount(2) takes several of them.
    fn atime(&self) -> Option<u64> {
        [(STRICTATIME, 0x20), (NOATIME, 0x10), (RELATIME, 0)]
            .iter()
            .find(|(flag, _)| self.set & flag != 0)
            .map(|(_, value)| *value)
    }

    fn set_attributes(&self) -> u64 {
        Self::attributes(self.set) | self.atime().unwrap_or(0)
    }

    fn clear_attributes(&self) -> u64 {
        Self::attributes(self.cleared) | self.atime().map_or(0, |_| ATIME)
    }

    /// What is set and cleared when all that is not named stays as it is.
    ///
    /// The four words for times of access are one setting, and as in mount(2) one of them alone stands for
    /// relatime.
    fn named(&self) -> (u64, u64) {
        let (set, mut clear) = (self.set_attributes(), self.clear_attributes());
        if self.set & (NOATIME | NODIRATIME | RELATIME | STRICTATIME) != 0 {
            clear |= ATIME | (Self::attributes(NODIRATIME) & !set);
        }
        (set, clear)
    }

    /// The same for a tree of the host's. As `mount --bind -o` and other runtimes have it, one option is
    /// enough, and those of the source that are not named are gone; times of access are as they were.
    ///
    /// In a user namespace the source keeps what the kernel would have locked there
    /// (mount_namespaces(7)), but for what is taken away by name.
    fn of_a_bind(&self, owner: Owner) -> (u64, u64) {
        let of_mount = ATTRIBUTES.iter().fold(NOATIME | RELATIME | STRICTATIME, |all, (flag, _)| all | flag);
        if (self.set | self.cleared) & of_mount == 0 {
            return (0, 0);
        }
        let (set, clear) = self.named();
        let unnamed = match owner {
            Owner::Host => Self::attributes(RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW),
            Owner::Container => Self::attributes(NOSYMFOLLOW),
        };
        (set, clear | unnamed & !set)
    }

    fn take(&mut self, bits: u32, set: bool) {
        if set {
            self.set |= bits;
            self.cleared &= !bits;
        } else {
            self.set &= !bits;
            self.cleared |= bits;
        }
    }
}

/// Whether a word among a mount's options is one for us; others are for the file system.
pub(super) fn knows(option: &str) -> bool {
    Options::parse(&[option.to_owned()]).data.is_empty()
}

impl Options {
    fn parse(options: &[String]) -> Self {
        use PropagationKind::{Private, Shared, Slave, Unbindable};
        let mut parsed = Self::default();
        let mut all = Flags::default();
        for (number, option) in options.iter().enumerate() {
            let extra = match option.as_str() {
                "tmpcopyup" => Some(Extra::TmpCopyUp),
                "copy-symlink" => Some(Extra::CopySymlink),
                "src-nofollow" => Some(Extra::SrcNoFollow),
                "dest-nofollow" => Some(Extra::DestNoFollow),
                _ => None,
            };
            if let Some(extra) = extra {
                parsed.extra.push((extra, number, option.clone()));
                continue;
            }
            let (word, maps) = match option.split_once('=') {
                Some((word, maps)) => (word, Some(maps.to_owned())),
                None => (option.as_str(), None),
            };
            if matches!(word, "idmap" | "ridmap") {
                parsed.idmap = Some((Idmapped { recursive: word == "ridmap", maps }, number));
                continue;
            }
            if let Some((_, bits, set)) = FLAGS.iter().find(|(name, _, _)| name == option) {
                parsed.flags.take(*bits, *set);
                continue;
            }
            let propagation = match option.strip_prefix('r').filter(|rest| PROPAGATION.contains(rest)) {
                Some(rest) => Some((rest, true)),
                None => PROPAGATION.contains(&option.as_str()).then_some((option.as_str(), false)),
            };
            if let Some((word, recursive)) = propagation {
                let kind = match word {
                    "private" => Private,
                    "shared" => Shared,
                    "slave" => Slave,
                    _ => Unbindable,
                };
                parsed.change.propagation.push(Propagation { kind, recursive });
                continue;
            }
            match option.as_str() {
                "bind" => parsed.bind = parsed.bind.or(Some(Bind::Alone)),
                "rbind" => parsed.bind = Some(Bind::Recursive),
                _ => {
                    let plain = option.strip_prefix('r').and_then(|rest| {
                        let of_mount = ATTRIBUTES.map(|(flag, _)| flag);
                        FLAGS.iter().find(|(name, bits, _)| {
                            name == &rest
                                && (of_mount.contains(bits) || [NOATIME, RELATIME, STRICTATIME].contains(bits))
                        })
                    });
                    match plain {
                        Some((_, bits, set)) => all.take(*bits, *set),
                        None => parsed.data.push((number, option.clone())),
                    }
                }
            }
        }
        parsed.change.set_all = all.set_attributes();
        parsed.change.clear_all = all.clear_attributes();
        parsed
    }

    fn remounts(&self) -> bool {
        self.flags.set & REMOUNT != 0
    }

    fn extra(&self, wanted: Extra) -> Option<(usize, &str)> {
        let found = self.extra.iter().find(|(extra, _, _)| *extra == wanted)?;
        Some((found.1, found.2.as_str()))
    }

    /// As mount(2) takes it.
    fn data(&self) -> String {
        self.data.iter().map(|(_, option)| option.as_str()).collect::<Vec<_>>().join(",")
    }

    fn mapping(&self, mount: &Mount, around: &Surroundings<'_>, place: &str) -> Result<Option<Mapping>, Invalid> {
        let listed = match (mount.uid_mappings.is_empty(), mount.gid_mappings.is_empty()) {
            (true, true) => None,
            (true, false) => return Err(Invalid::new(format!("{place}.uidMappings"), "missing beside gidMappings")),
            (false, true) => return Err(Invalid::new(format!("{place}.gidMappings"), "missing beside uidMappings")),
            (false, false) => Some(IdMaps {
                uids: extents(&mount.uid_mappings, &format!("{place}.uidMappings"))?,
                gids: extents(&mount.gid_mappings, &format!("{place}.gidMappings"))?,
            }),
        };
        let Some((Idmapped { recursive, maps }, number)) = &self.idmap else {
            return Ok(listed.map(|maps| Mapping { by: MappedBy::Maps(maps), recursive: false }));
        };
        let invalid = |what: &str| Invalid::new(format!("{place}.options[{number}]"), what);
        let by = match (maps, listed) {
            (Some(_), Some(_)) => return Err(invalid("uidMappings are given, too")),
            (Some(text), None) => MappedBy::Maps(written(text, around.ids).map_err(|what| invalid(&what))?),
            (None, Some(maps)) => MappedBy::Maps(maps),
            (None, None) if around.ids.is_some() => MappedBy::Container,
            (None, None) => return Err(invalid("takes uidMappings and gidMappings, or a user namespace")),
        };
        Ok(Some(Mapping { by, recursive: *recursive }))
    }
}

/// `uids=0-1-10#10-11-10;gids=0-100-10`, as crun has it: ids of the file system, ids of the host, how
/// many. With `@` in front the second ones are those inside the container.
fn written(text: &str, ids: Option<&IdMaps>) -> Result<IdMaps, String> {
    let mut maps = IdMaps { uids: Vec::new(), gids: Vec::new() };
    for part in text.split(';') {
        let (into, of, list) = match part.split_once('=') {
            Some(("uids", list)) => (&mut maps.uids, ids.map(|ids| &ids.uids), list),
            Some(("gids", list)) => (&mut maps.gids, ids.map(|ids| &ids.gids), list),
            _ => return Err(format!("{part:?} is neither uids= nor gids=")),
        };
        for triple in list.split('#') {
            let (relative, numbers) = match triple.strip_prefix('@') {
                Some(rest) => (true, rest),
                None => (false, triple),
            };
            let numbers: Option<Vec<u32>> = numbers.split('-').map(|number| number.parse().ok()).collect();
            let Some([inside, outside, size]) = numbers.as_deref() else {
                return Err(format!("{triple:?} is not of the form FROM-TO-COUNT"));
            };
            let outside = if relative {
                let within =
                    |extent: &&IdExtent| outside.checked_sub(extent.inside).is_some_and(|above| above < extent.size);
                let extent = of.and_then(|extents| extents.iter().find(within));
                let extent = extent.ok_or_else(|| format!("{triple:?}: {outside} is not mapped in the container"))?;
                extent.outside + (outside - extent.inside)
            } else {
                *outside
            };
            into.push(IdExtent { inside: *inside, outside, size: *size });
        }
    }
    let fits = |extent: &IdExtent| {
        extent.size != 0
            && extent.inside.checked_add(extent.size).is_some()
            && extent.outside.checked_add(extent.size).is_some()
    };
    if maps.uids.is_empty() || maps.gids.is_empty() {
        return Err("takes uids and gids".to_owned());
    }
    if !maps.uids.iter().chain(&maps.gids).all(fits) {
        return Err("an extent does not fit".to_owned());
    }
    Ok(maps)
}

const PROPAGATION: [&str; 4] = ["private", "shared", "slave", "unbindable"];

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &[&str]) -> Options {
        Options::parse(&list.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn each_option_goes_to_the_call_that_takes_it() {
        let parsed = options(&["rbind", "ro", "rnosuid", "rprivate", "strictatime", "size=1m"]);

        assert_eq!(parsed.bind, Some(Bind::Recursive));
        assert_eq!((parsed.flags.set_attributes(), parsed.flags.clear_attributes()), (0x21, ATIME));
        assert_eq!((parsed.change.set_all, parsed.change.clear_all), (2, 0));
        let private = Propagation { kind: PropagationKind::Private, recursive: true };
        assert_eq!(parsed.change.propagation, [private]);
        assert_eq!(parsed.data, [(5, "size=1m".to_owned())]);
    }

    #[test]
    fn the_later_of_two_opposites_wins() {
        let parsed = options(&["ro", "nodev", "rw"]);

        assert_eq!((parsed.flags.set_attributes(), parsed.flags.clear_attributes()), (4, 1));
    }

    #[test]
    fn an_option_of_a_bind_takes_away_those_that_are_not_named() {
        const ALL: u64 = 0x20_000f;
        let change = |list: &[&str], owner| options(list).flags.of_a_bind(owner);

        assert_eq!(change(&["bind", "rprivate"], Owner::Host), (0, 0));
        assert_eq!(change(&["dev"], Owner::Host), (0, ALL));
        assert_eq!(change(&["ro", "nosuid"], Owner::Host), (3, ALL & !3));
        assert_eq!(change(&["noatime"], Owner::Host), (0x10, ALL | ATIME | 0x80));
        assert_eq!(change(&["nodiratime"], Owner::Host), (0x80, ALL | ATIME));
        assert_eq!(change(&["ro"], Owner::Container), (1, ALL & !0xf));
        assert_eq!(change(&["ro", "dev"], Owner::Container), (1, 4 | ALL & !0xf));
    }

    #[test]
    fn a_mapping_in_words_is_read_and_may_be_relative_to_the_container() {
        let extent = |inside, outside, size| IdExtent { inside, outside, size };
        let ids = IdMaps { uids: vec![extent(0, 0, 1), extent(1, 2, 1000)], gids: vec![extent(0, 50, 10)] };

        let maps = written("uids=0-1-10#@1-3-10;gids=0-100-10", Some(&ids)).unwrap();

        assert_eq!(maps.uids, [extent(0, 1, 10), extent(1, 4, 10)]);
        assert_eq!(maps.gids, [extent(0, 100, 10)]);
        for (text, what) in [
            ("uids=0-1", "\"0-1\" is not of the form FROM-TO-COUNT"),
            ("uids=0-1-1", "takes uids and gids"),
            ("users=0-1-1", "\"users=0-1-1\" is neither uids= nor gids="),
            ("uids=@0-9000-1;gids=0-0-1", "\"@0-9000-1\": 9000 is not mapped in the container"),
            ("uids=0-4294967295-2;gids=0-0-1", "an extent does not fit"),
        ] {
            assert_eq!(written(text, Some(&ids)).unwrap_err(), what);
        }
    }
}
