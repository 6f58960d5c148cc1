//! `mounts`: from destinations and options to what is mounted how.

use super::config::{Device, DeviceKind, Invalid, Mount};
use crate::cgroup::place::{Directory, Place};
use crate::cgroup::table::Version;
use crate::sandbox::{self, DeviceNode, MountChange, NodeKind, Propagation, PropagationKind, Tree, usual_nodes};
use std::path::Path;

/// What the mounts are made from, beside their own entries.
pub(super) struct Surroundings<'a> {
    pub bundle: &'a Path,
    pub devices: &'a [Device],
    pub place: &'a Place,
    /// The container has a cgroup namespace of its own.
    pub own_cgroups: bool,
    pub user_namespace: bool,
}

pub(super) struct Planned {
    pub mounts: Vec<sandbox::Mount>,
    /// Devices that are made in the root itself.
    pub nodes: Vec<DeviceNode>,
}

pub(super) fn plan(mounts: &[Mount], around: &Surroundings<'_>) -> Result<Planned, Invalid> {
    let mut planned = Vec::new();
    let mut has_devices = false;
    for (index, mount) in mounts.iter().enumerate() {
        let place = format!("mounts[{index}]");
        let Mount { destination, kind, source, options, uid_mappings, gid_mappings } = mount;
        uid_mappings.refuse(format!("{place}.uidMappings"))?;
        gid_mappings.refuse(format!("{place}.gidMappings"))?;
        // Relative ones were allowed in 1.0, and mean the root.
        let at = if destination.starts_with('/') { destination.clone() } else { format!("/{destination}") };
        if destination.is_empty() || at.split('/').any(|part| part == "..") || destination.contains('\0') {
            return Err(Invalid::new(format!("{place}.destination"), format!("{destination:?} is not a path inside")));
        }
        let parsed = Options::parse(options, &place)?;
        let Options { flags, bind, change, data } = parsed;
        if bind.is_some() || kind == "bind" || kind == "rbind" {
            if let Some((number, option)) = data.first() {
                let what = format!("{option:?} is not an option of a bind mount");
                return Err(Invalid::new(format!("{place}.options[{number}]"), what));
            }
            if source.is_empty() {
                return Err(Invalid::new(format!("{place}.source"), "a bind mount needs one"));
            }
            let recursive = bind == Some(Bind::Recursive) || kind == "rbind";
            let from = around.bundle.join(source).to_string_lossy().into_owned();
            let change = MountChange { set: flags.set_attributes(), clear: flags.clear_attributes(), ..change };
            has_devices |= clean(&at) == "/dev";
            let tree = Tree { path: from, recursive, change, mapped: false };
            planned.push(sandbox::Mount::Bind { tree, at });
            continue;
        }
        let joined = data.iter().map(|(_, option)| option.as_str()).collect::<Vec<_>>().join(",");
        match kind.as_str() {
            "" | "none" => return Err(Invalid::new(format!("{place}.type"), "missing")),
            "cgroup" | "cgroup2" => cgroups(&mut planned, &at, &flags, kind, around),
            // A user namespace can make no devices: it gets a tmpfs that has them. Everybody else makes
            // them where the mount is: in the kernel's list a mount that came ready-made would stand
            // before those that are listed in front of it.
            "tmpfs" if clean(&at) == "/dev" && around.user_namespace => {
                has_devices = true;
                let split = |option: &str| match option.split_once('=') {
                    Some((name, value)) => (name.to_owned(), value.to_owned()),
                    None => (option.to_owned(), String::new()),
                };
                let options = data.iter().map(|(_, option)| split(option)).collect();
                let (at, flags) = ("/dev".to_owned(), flags.set);
                planned.push(sandbox::Mount::Devices { at, options, flags, nodes: nodes(around) });
            }
            _ => {
                let source = if source.is_empty() { kind.clone() } else { source.clone() };
                let kind = kind.clone();
                planned.push(sandbox::Mount::Fresh { kind, source, at, data: joined, flags: flags.set, change });
            }
        }
    }
    let elsewhere = |node: &DeviceNode| !has_devices || !node.path.starts_with("/dev/");
    let mut nodes = if has_devices { listed(around) } else { nodes(around) };
    nodes.retain(elsewhere);
    let bound = planned.iter().any(|m| matches!(m, sandbox::Mount::Bind { at, .. } if clean(at) == "/dev"));
    if bound && around.devices.iter().any(|device| clean(&device.path).starts_with("/dev/")) {
        let what = "devices are not supported yet where /dev is bound from the host";
        return Err(Invalid::new("linux.devices", what));
    }
    if around.user_namespace && !nodes.is_empty() {
        let what = "with a user namespace devices take a tmpfs at /dev, and can be nowhere else";
        return Err(Invalid::new(if has_devices { "linux.devices" } else { "mounts" }, what));
    }
    Ok(Planned { mounts: planned, nodes })
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
            let tree = Tree { path: directory.full(), recursive: false, change, mapped: false };
            return sandbox::Mount::Bind { tree, at };
        }
        let names: Vec<&str> = directory.controllers.iter().map(|controller| controller.name(Version::V1)).collect();
        let (kind, data) = match directory.version {
            Version::V2 => ("cgroup2", String::new()),
            Version::V1 => ("cgroup", names.join(",")),
        };
        let (source, change) = ("cgroup".to_owned(), MountChange::default());
        sandbox::Mount::Fresh { kind: kind.to_owned(), source, at, data, flags: flags.set, change }
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
    /// What the file system itself is told, with its position.
    data: Vec<(usize, String)>,
}

const RDONLY: u32 = 1;
const NOSUID: u32 = 2;
const NODEV: u32 = 4;
const NOEXEC: u32 = 8;
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
    ("remount", 1 << 5, true),
];

/// Of mount(2) and of mount_setattr(2).
const ATTRIBUTES: [(u32, u64); 6] =
    [(RDONLY, 1), (NOSUID, 2), (NODEV, 4), (NOEXEC, 8), (NODIRATIME, 0x80), (NOSYMFOLLOW, 0x20_0000)];
const ATIME: u64 = 0x70;

impl Flags {
    fn attributes(bits: u32) -> u64 {
        ATTRIBUTES.iter().filter(|(flag, _)| bits & flag != 0).fold(0, |all, (_, attribute)| all | attribute)
    }

    fn atime(&self) -> Option<u64> {
        [(NOATIME, 0x10), (STRICTATIME, 0x20), (RELATIME, 0)]
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

impl Options {
    fn parse(options: &[String], place: &str) -> Result<Self, Invalid> {
        use PropagationKind::{Private, Shared, Slave, Unbindable};
        let mut parsed = Self::default();
        let mut all = Flags::default();
        for (number, option) in options.iter().enumerate() {
            let refuse =
                || Invalid::new(format!("{place}.options[{number}]"), format!("{option:?} is not supported yet"));
            if matches!(
                option.as_str(),
                "remount" | "tmpcopyup" | "idmap" | "ridmap" | "copy-symlink" | "src-nofollow" | "dest-nofollow"
            ) || option.starts_with("idmap=")
                || option.starts_with("ridmap=")
            {
                return Err(refuse());
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
        Ok(parsed)
    }
}

const PROPAGATION: [&str; 4] = ["private", "shared", "slave", "unbindable"];

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &[&str]) -> Result<Options, Invalid> {
        Options::parse(&list.iter().map(ToString::to_string).collect::<Vec<_>>(), "mounts[0]")
    }

    #[test]
    fn each_option_goes_to_the_call_that_takes_it() {
        let parsed = options(&["rbind", "ro", "rnosuid", "rprivate", "strictatime", "size=1m"]).unwrap();

        assert_eq!(parsed.bind, Some(Bind::Recursive));
        assert_eq!((parsed.flags.set_attributes(), parsed.flags.clear_attributes()), (0x21, ATIME));
        assert_eq!((parsed.change.set_all, parsed.change.clear_all), (2, 0));
        let private = Propagation { kind: PropagationKind::Private, recursive: true };
        assert_eq!(parsed.change.propagation, [private]);
        assert_eq!(parsed.data, [(5, "size=1m".to_owned())]);
    }

    #[test]
    fn the_later_of_two_opposites_wins() {
        let parsed = options(&["ro", "nodev", "rw"]).unwrap();

        assert_eq!((parsed.flags.set_attributes(), parsed.flags.clear_attributes()), (4, 1));
    }

    #[test]
    fn what_is_not_there_yet_is_refused_with_its_place() {
        let error = options(&["ro", "tmpcopyup"]).unwrap_err();

        assert_eq!(error.to_string(), "mounts[0].options[1]: \"tmpcopyup\" is not supported yet");
    }
}
