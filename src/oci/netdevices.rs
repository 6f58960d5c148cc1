//! `linux.netDevices`: network devices of the host that become the container's, as rtnetlink(7) has it.
//!
//! A device takes along its permanent addresses of global scope, and is up when the container begins. What
//! becomes of it later is the container's affair, and the kernel's when its namespace ends.

use super::OciError;
use super::config::{Invalid, NetDevice};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Refuses what can't be a device's name, or of more than one.
pub(super) fn check(devices: &BTreeMap<String, NetDevice>) -> Result<(), Invalid> {
    let mut taken = BTreeSet::new();
    for (name, device) in devices {
        let invalid = |what: String| Err(Invalid::new(format!("linux.netDevices[{name:?}]"), what));
        let inside = device.inside(name);
        for word in [name, inside] {
            // The kernel's own rule; `%` stands for a number there.
            let odd = |c: char| c == '/' || c == ':' || c == '%' || c == '\0' || c.is_whitespace();
            if word.is_empty() || word.len() > 15 || word == "." || word == ".." || word.contains(odd) {
                return invalid(format!("{word:?} is not the name of a device"));
            }
        }
        if !taken.insert(inside) {
            return invalid(format!("another one is {inside} inside, too"));
        }
    }
    Ok(())
}

/// Before anything is made: whether they are all there.
pub(super) fn find(devices: &BTreeMap<String, NetDevice>) -> Result<(), OciError> {
    if devices.is_empty() {
        return Ok(());
    }
    let mut route = Route::open().map_err(failed("asking for network devices"))?;
    for name in devices.keys() {
        route.index(name).map_err(failed(&format!("linux.netDevices[{name:?}]: finding the device")))?;
    }
    Ok(())
}

/// Moves them from our network namespace to that of the process `pid`, which waits.
pub(super) fn hand_over(devices: &BTreeMap<String, NetDevice>, pid: Pid) -> Result<(), OciError> {
    if devices.is_empty() {
        return Ok(());
    }
    let what = "entering the container's network namespace";
    let theirs = namespace(&format!("/proc/{pid}/ns/net")).map_err(failed(what))?;
    let ours = namespace("/proc/thread-self/ns/net").map_err(failed(what))?;
    let mut here = Route::open().map_err(failed("moving network devices"))?;
    enter(theirs.as_fd()).map_err(failed(what))?;
    // It stays the namespace's it was made in.
    let there = Route::open();
    enter(ours.as_fd()).map_err(failed("returning from the container's network namespace"))?;
    let mut there = there.map_err(failed(what))?;
    for (name, device) in devices {
        let inside = device.inside(name);
        let moved = one(&mut here, &mut there, theirs.as_fd(), (name, inside));
        moved.map_err(failed(&format!("linux.netDevices[{name:?}]: moving it into the container as {inside}")))?;
    }
    Ok(())
}

fn one(here: &mut Route, there: &mut Route, namespace: BorrowedFd<'_>, names: (&str, &str)) -> Result<(), Errno> {
    let (name, inside) = names;
    let index = here.index(name)?;
    let addresses = here.addresses(index)?;
    let mut body = link(index, 0, 0);
    attribute(&mut body, IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
    attribute(&mut body, IFLA_IFNAME, &text(inside));
    here.ask(RTM_SETLINK, 0, &body)?;
    let index = there.index(inside)?;
    for address in addresses {
        there.ask(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &address.body(index))?;
    }
    there.ask(RTM_SETLINK, 0, &link(index, IFF_UP, IFF_UP)).map(drop)
}

fn failed(what: &str) -> impl FnOnce(Errno) -> OciError {
    let what = what.to_owned();
    move |errno| OciError::Io { what, source: errno.into() }
}

fn namespace(path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn enter(namespace: BorrowedFd<'_>) -> Result<(), Errno> {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
}

/// A socket of rtnetlink(7), of the network namespace that it was opened in.
struct Route {
    socket: OwnedFd,
    sequence: u32,
}

impl Route {
    fn open() -> Result<Self, Errno> {
        // No protocol is that of routing (netlink(7)).
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        Ok(Self { socket, sequence: 0 })
    }

    fn index(&mut self, name: &str) -> Result<u32, Errno> {
        let mut body = link(0, 0, 0);
        attribute(&mut body, IFLA_IFNAME, &text(name));
        let answers = self.ask(RTM_GETLINK, 0, &body)?;
        answers.iter().find_map(|answer| number(answer, 4)).ok_or(Errno::NODEV)
    }

    fn addresses(&mut self, index: u32) -> Result<Vec<Address>, Errno> {
        let answers = self.ask(RTM_GETADDR, NLM_F_DUMP, &[0; 8])?;
        Ok(answers.iter().filter_map(|answer| Address::lasting(answer, index)).collect())
    }

    /// The bodies of all answers.
    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> Result<Vec<Vec<u8>>, Errno> {
        self.sequence += 1;
        let length = u32::try_from(HEADER + body.len()).map_err(|_| Errno::MSGSIZE)?;
        let mut message = Vec::new();
        message.extend_from_slice(&length.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(body);
        rustix::net::sendto(&self.socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; 65536];
        loop {
            let (length, _) = rustix::net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty())?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some((kind, sequence, body, next)) = first(rest) {
                rest = next;
                match kind {
                    _ if sequence != self.sequence => {}
                    NLMSG_DONE => return Ok(answers),
                    // With the number 0 it is the acknowledgement.
                    NLMSG_ERROR => match number(body, 0).map(u32::cast_signed) {
                        Some(0) => return Ok(answers),
                        Some(errno) => return Err(Errno::from_raw_os_error(-errno)),
                        None => return Err(Errno::BADMSG),
                    },
                    _ => answers.push(body.to_vec()),
                }
            }
        }
    }
}

/// An address of a device, as it goes along.
struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    /// Attributes, with their numbers.
    parts: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// One that somebody has given to the device for good and for the world.
    fn lasting(answer: &[u8], index: u32) -> Option<Self> {
        let [family, prefix, low_flags, scope] = *answer.first_chunk()?;
        let mut flags = u32::from(low_flags);
        let mut parts = Vec::new();
        let mut rest = answer.get(8..)?;
        while let Some((kind, value, next)) = first_attribute(rest) {
            rest = next;
            match kind {
                IFA_FLAGS => flags = number(value, 0)?,
                IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST => parts.push((kind, value.to_vec())),
                _ => {}
            }
        }
        let lasts = number(answer, 4)? == index && flags & IFA_F_PERMANENT != 0 && scope == RT_SCOPE_UNIVERSE;
        lasts.then_some(Self { family, prefix, flags: flags & IFA_F_KEPT, parts })
    }

    fn body(&self, index: u32) -> Vec<u8> {
        let mut body = vec![self.family, self.prefix, 0, RT_SCOPE_UNIVERSE];
        body.extend_from_slice(&index.to_ne_bytes());
        attribute(&mut body, IFA_FLAGS, &self.flags.to_ne_bytes());
        self.parts.iter().for_each(|(kind, value)| attribute(&mut body, *kind, value));
        body
    }
}

/// `ifinfomsg`.
fn link(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [0, index, flags, change].into_iter().flat_map(u32::to_ne_bytes).collect()
}

fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // None of ours is longer than a few dozen bytes.
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend_from_slice(&length.to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

/// Kind, sequence number and body of the first message, and what comes after it.
fn first(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let length = usize::try_from(number(bytes, 0)?).ok()?;
    let kind = bytes.get(4..)?.first_chunk().copied().map(u16::from_ne_bytes)?;
    let sequence = number(bytes, 8)?;
    let body = bytes.get(HEADER..length)?;
    Some((kind, sequence, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn first_attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
    let kind = bytes.get(2..)?.first_chunk().copied().map(u16::from_ne_bytes)?;
    let value = bytes.get(4..length)?;
    Some((kind, value, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// Of a message's header.
const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_PERMANENT: u32 = 0x80;
/// No detection of duplicates, a home address, temporary ones made from it, no route of its prefix.
const IFA_F_KEPT: u32 = 0x02 | 0x10 | 0x100 | 0x200;
const RT_SCOPE_UNIVERSE: u8 = 0;
