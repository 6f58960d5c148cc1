//! The mounts that every container of ours has before anything is asked for.

use super::{DeviceNode, Link, MappedBy, Mapping, Mount, MountChange, NodeKind, Propagation, PropagationKind, Tree};

/// What shows at `/sys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SysView {
    /// A fresh one.
    Own,
    /// The host's, read-only: a fresh sysfs shows the network namespace, which then has to be the user
    /// namespace's own. Without what the host has mounted in it: its cgroups, the pinned programs of
    /// BPF, tracing.
    Hosts,
}

/// What the container sees at `/sys/fs/cgroup`, read-only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CgroupView {
    /// An empty directory.
    #[default]
    Nothing,
    /// Its own part of the v2 hierarchy.
    Unified,
    /// Its own part of these v1 hierarchies, each with its controllers: `memory`, `cpu,cpuacct`.
    V1(Vec<String>),
}

/// Bits of mount(2).
const RDONLY: u32 = 1;
const NOSUID: u32 = 2;
const NODEV: u32 = 4;
const NOEXEC: u32 = 8;
const NOTHING: u32 = NOSUID | NODEV | NOEXEC;

pub fn usual_mounts(sys: SysView, cgroups: &CgroupView) -> Vec<Mount> {
    let mut mounts = vec![
        fresh("proc", "/proc", "", NOTHING),
        match sys {
            SysView::Own => fresh("sysfs", "/sys", "", NOTHING | RDONLY),
            SysView::Hosts => {
                let private = Propagation { kind: PropagationKind::Private, recursive: false };
                let change =
                    MountChange { set: u64::from(RDONLY), propagation: vec![private], ..MountChange::default() };
                let (mapping, link_itself) = (None, false);
                let tree = Tree { path: "/sys".to_owned(), recursive: false, change, mapping, link_itself };
                Mount::Bind { tree, at: "/sys".to_owned(), link: Link::Follow }
            }
        },
        Mount::Devices {
            at: "/dev".to_owned(),
            options: [("mode", "0755"), ("size", "65536k")].map(|(a, b)| (a.to_owned(), b.to_owned())).to_vec(),
            flags: NOSUID | NOEXEC,
            nodes: usual_nodes(),
        },
        // Its nodes are devices.
        fresh("devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=0620,gid=5", NOSUID | NOEXEC),
        fresh("tmpfs", "/dev/shm", "mode=1777,size=65536k", NOTHING),
        fresh("mqueue", "/dev/mqueue", "", NOTHING),
    ];
    let at = "/sys/fs/cgroup";
    match cgroups {
        CgroupView::Nothing => {}
        CgroupView::Unified => mounts.push(fresh("cgroup2", at, "", NOTHING | RDONLY)),
        CgroupView::V1(hierarchies) => {
            mounts.push(fresh("tmpfs", at, "mode=755,size=64k", NOTHING | RDONLY));
            for controllers in hierarchies {
                let path = format!("{at}/{}", controllers.strip_prefix("name=").unwrap_or(controllers));
                mounts.push(fresh("cgroup", &path, controllers, NOTHING | RDONLY));
            }
        }
    }
    mounts
}

/// A tree of the host at `at`: read-only or not, and with owners taken for the container's.
pub fn bound(from: &str, at: &str, read_only: bool, mapped: bool) -> Mount {
    let private = Propagation { kind: PropagationKind::Private, recursive: true };
    let set_all = if read_only { u64::from(RDONLY) } else { 0 };
    let change = MountChange { set_all, propagation: vec![private], ..MountChange::default() };
    let mapping = mapped.then_some(Mapping { by: MappedBy::Container, recursive: true });
    let tree = Tree { path: from.to_owned(), recursive: true, change, mapping, link_itself: false };
    Mount::Bind { tree, at: at.to_owned(), link: Link::Follow }
}

/// A tmpfs at `at`; `mode` are the permission bits of its root.
pub fn scratch(at: &str, size_bytes: u64, mode: u32, read_only: bool) -> Mount {
    let read_only = if read_only { RDONLY } else { 0 };
    fresh("tmpfs", at, &format!("size={size_bytes},mode={mode:o}"), NOSUID | NODEV | read_only)
}

fn fresh(kind: &str, at: &str, data: &str, flags: u32) -> Mount {
    let (kind, at, data) = (kind.to_owned(), at.to_owned(), data.to_owned());
    Mount::Fresh { source: kind.clone(), kind, at, data, flags, change: MountChange::default(), link: Link::Follow }
}

/// What every container has in `/dev`: devices that give nothing away (devices.txt of the kernel), and
/// links.
pub fn usual_nodes() -> Vec<DeviceNode> {
    const DEVICES: [(&str, u32, u32); 6] = [
        ("/dev/null", 1, 3),
        ("/dev/zero", 1, 5),
        ("/dev/full", 1, 7),
        ("/dev/random", 1, 8),
        ("/dev/urandom", 1, 9),
        ("/dev/tty", 5, 0),
    ];
    const LINKS: [(&str, &str); 5] = [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/ptmx", "pts/ptmx"),
    ];
    let plain = |path: &str, kind, mode| DeviceNode { path: path.to_owned(), kind, mode, uid: 0, gid: 0 };
    let devices = DEVICES.map(|(path, major, minor)| plain(path, NodeKind::Character { major, minor }, 0o666));
    let links = LINKS.map(|(path, to)| plain(path, NodeKind::Link { to: to.to_owned() }, 0));
    devices.into_iter().chain(links).collect()
}
