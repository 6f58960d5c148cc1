//! The mounts of a blueprint in their order, and how each is made best. Pure.
//!
//! Most are made detached, by the parent or before the child's root is there. A file system that is
//! mounted in one of those, and whose place there is known, is mounted by a relative path: its place
//! needs no look-up, for nobody else can have changed it.

use super::ops::{Fresh, Slot};
use super::{DeviceNode, Link, Mount, MountChange, Tree};

pub(super) struct Layout<'a> {
    /// With the place of what is made before it is mounted.
    pub(super) steps: Vec<(Step<'a>, Option<Slot>)>,
    /// What becomes read-only when all is mounted.
    pub(super) read_only: Vec<String>,
    /// Steps whose trees nobody else has mounted anything in.
    ours: Vec<usize>,
    /// Nothing is made before its turn.
    listed_in_order: bool,
}

pub(super) enum Step<'a> {
    /// The parent's copy of a tree of the host.
    Tree { tree: &'a Tree, at: String, link: Link },
    /// A copy of what is there in the root by then.
    Again { tree: &'a Tree, at: String, link: Link },
    /// A symbolic link.
    Link { at: String, to: &'a str },
    /// What is mounted there already changes.
    Change { at: String, change: &'a MountChange },
    /// The parent's tmpfs with a copy of what is there.
    Copy { at: String, options: &'a [(String, String)], flags: u32, change: &'a MountChange },
    /// The parent's tmpfs; `directories` are made in it for what follows.
    Devices {
        at: String,
        options: &'a [(String, String)],
        flags: u32,
        nodes: &'a [DeviceNode],
        directories: Vec<String>,
    },
    /// A proc or sysfs that the child makes before it has its root.
    Kernel { what: Fresh, at: String, flags: u32 },
    /// Mounted at a relative path in the tree of an earlier step.
    Inside { tree: usize, path: String, make: bool, kind: &'a str, source: &'a str, data: &'a str, flags: u32 },
    /// Mounted at its place in the root.
    Mount { at: String, kind: &'a str, source: &'a str, data: &'a str, flags: u32, change: &'a MountChange, link: Link },
}

impl Step<'_> {
    pub(super) fn at(&self) -> &str {
        match self {
            Self::Tree { at, .. }
            | Self::Again { at, .. }
            | Self::Link { at, .. }
            | Self::Change { at, .. }
            | Self::Copy { at, .. }
            | Self::Devices { at, .. }
            | Self::Kernel { at, .. }
            | Self::Mount { at, .. } => at,
            Self::Inside { path, .. } => path,
        }
    }
}

/// Bits of mount(2) that are attributes of a mount, with the same values in `fsmount(2)`.
const ATTRIBUTES: u32 = 0xf;
const RDONLY: u32 = 1;
const REMOUNT: u32 = 1 << 5;

impl<'a> Layout<'a> {
    pub(super) fn of(mounts: &'a [Mount], listed_in_order: bool) -> Self {
        let mut layout = Self { steps: Vec::new(), read_only: Vec::new(), ours: Vec::new(), listed_in_order };
        for mount in mounts {
            let step = match mount {
                Mount::Bind { tree, at, link } => {
                    let at = clean(at);
                    layout.cover(&at);
                    if tree.path == "/sys" && at == "/sys" && !tree.recursive {
                        layout.ours.push(layout.steps.len());
                    }
                    Step::Tree { tree, at, link: *link }
                }
                Mount::Again { tree, at, link } => {
                    let at = clean(at);
                    layout.cover(&at);
                    Step::Again { tree, at, link: *link }
                }
                Mount::Link { at, to } => Step::Link { at: clean(at), to },
                Mount::Change { at, change } => Step::Change { at: clean(at), change },
                Mount::Copy { at, options, flags, change } => {
                    let at = clean(at);
                    layout.cover(&at);
                    if flags & RDONLY != 0 {
                        layout.read_only.push(at.clone());
                    }
                    Step::Copy { at, options, flags: flags & !RDONLY, change }
                }
                Mount::Devices { at, options, flags, nodes } => {
                    let at = clean(at);
                    layout.cover(&at);
                    layout.ours.push(layout.steps.len());
                    if flags & RDONLY != 0 {
                        layout.read_only.push(at.clone());
                    }
                    Step::Devices { at, options, flags: flags & !RDONLY, nodes, directories: Vec::new() }
                }
                Mount::Fresh { .. } => match layout.fresh(mount) {
                    Some(step) => step,
                    None => continue,
                },
            };
            layout.steps.push((step, None));
        }
        layout
    }

    fn fresh(&mut self, mount: &'a Mount) -> Option<Step<'a>> {
        let Mount::Fresh { kind, source, at, data, flags, change, link } = mount else { return None };
        let (kind, at, flags) = (kind.as_str(), clean(at), *flags);
        let what = match (kind, at.as_str()) {
            _ if self.listed_in_order => None,
            ("proc", "/proc") => Some(Fresh::Proc),
            ("sysfs", "/sys") => Some(Fresh::Sysfs),
            _ => None,
        };
        let plain = *change == MountChange::default() && flags & REMOUNT == 0 && *link == Link::Follow;
        if let Some(what) = what.filter(|_| plain && data.is_empty() && flags & !ATTRIBUTES == 0) {
            self.cover(&at);
            self.ours.push(self.steps.len());
            return Some(Step::Kernel { what, at, flags });
        }
        let read_only = kind == "tmpfs" && flags & RDONLY != 0 && flags & REMOUNT == 0;
        if read_only {
            self.read_only.push(at.clone());
        }
        let flags = if read_only { flags & !RDONLY } else { flags };
        if let Some((tree, path, make)) = self.place(&at).filter(|_| plain) {
            if let Some((Step::Devices { directories, .. }, _)) = self.steps.get_mut(tree) {
                directories.push(path.clone());
            }
            return Some(Step::Inside { tree, path, make, kind, source, data, flags });
        }
        self.cover(&at);
        // Their places must be no links (CVE-2019-19921).
        let link = if matches!(kind, "proc" | "sysfs") { Link::Refuse } else { *link };
        Some(Step::Mount { at, kind, source, data, flags, change, link })
    }

    /// Something of somebody else's comes to `at`: the trees that it covers or changes are ours no more.
    fn cover(&mut self, at: &str) {
        let steps = &self.steps;
        self.ours.retain(|index| {
            let own = steps.get(*index).map_or("", |(step, _)| step.at());
            below(own, at).is_none() && below(at, own).is_none()
        });
    }

    /// The tree of ours that has a known place for a mount at `at`, its path there, and whether a
    /// directory has to be made first.
    fn place(&self, at: &str) -> Option<(usize, String, bool)> {
        self.ours.iter().rev().find_map(|index| {
            let (step, _) = self.steps.get(*index)?;
            let path = below(at, step.at()).filter(|path| !path.is_empty())?;
            let mounted = |path: &str| {
                self.steps.iter().any(|(step, _)| {
                    matches!(step, Step::Inside { tree, path: other, kind: "tmpfs", .. } if tree == index && other == path)
                })
            };
            match step {
                Step::Devices { nodes, at, directories, .. } => {
                    let is_new = !path.contains('/')
                        && !directories.iter().any(|other| other == path)
                        && !nodes.iter().any(|node| first(below(&node.path, at).unwrap_or_default()) == path);
                    is_new.then(|| (*index, path.to_owned(), false))
                }
                Step::Kernel { what: Fresh::Sysfs, .. } | Step::Tree { .. } => match path {
                    CGROUPS if !mounted(path) => Some((*index, path.to_owned(), false)),
                    _ => {
                        let name = below(path, CGROUPS).filter(|name| !name.is_empty() && !name.contains('/'))?;
                        (mounted(CGROUPS) && !name.starts_with('.')).then(|| (*index, path.to_owned(), true))
                    }
                },
                _ => None,
            }
        })
    }

    /// The trees of ours that are the kernel's proc and sysfs.
    pub(super) fn of_the_kernel(&self) -> impl Iterator<Item = (usize, &Step<'a>)> {
        self.ours.iter().filter_map(|index| {
            let (step, _) = self.steps.get(*index)?;
            matches!(step, Step::Kernel { .. } | Step::Tree { .. }).then_some((*index, step))
        })
    }

    /// The one of those that a path is in, and the rest of it. Not below the links that processes have
    /// in proc, and nothing with dots.
    pub(super) fn inside(&self, path: &str) -> Option<(usize, String)> {
        if path.split('/').any(|part| part == "..") {
            return None;
        }
        let path = clean(path);
        self.of_the_kernel().find_map(|(index, step)| {
            let rest = below(&path, step.at()).filter(|rest| !rest.is_empty())?;
            let name = first(rest);
            let of_processes = matches!(name, "self" | "thread-self") || name.starts_with(|c: char| c.is_ascii_digit());
            (!of_processes || !matches!(step, Step::Kernel { what: Fresh::Proc, .. })).then(|| (index, rest.to_owned()))
        })
    }
}

/// Of a sysfs, where the cgroups are.
const CGROUPS: &str = "fs/cgroup";

fn first(path: &str) -> &str {
    path.split('/').next().unwrap_or_default()
}

/// The part of `path` below `prefix`, without a slash in front; empty for `prefix` itself.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(prefix.trim_end_matches('/'))?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

fn clean(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    format!("/{}", parts.join("/"))
}
